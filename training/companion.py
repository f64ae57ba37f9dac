"""Companions: small networks trained for a generator, such as its encoder, and their files.

A companion is stored in a folder as NAME.safetensors, its weights, and NAME.json, its card:
settings, how long it was trained, and on which dataset.
"""

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.manifest import Sha256
from training.faults import first_fault
from training.files import replace_file
from training.records import LearningRate, Record, Seed


class CompanionError(ValueError):
    """A companion that can't be trained or used; the message says what to do."""


class CompanionSettings(Record):
    """Training settings of a companion."""

    seed: Seed = 0
    max_kimg: PositiveFloat | None = None
    max_minutes: PositiveFloat | None = None
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 16  # photos per step
    learning_rate: LearningRate = 0.001


class CompanionCard(Record):
    """Metadata of a trained companion."""

    settings: CompanionSettings
    nimg: NonNegativeInt  # photos shown to it
    dataset_hash: Sha256
    weights_sha256: Sha256


Card = TypeVar("Card", bound=CompanionCard)


def write_companion(
    folder: Path, name: str, network: nn.Module, card_type: type[Card], metadata: Mapping[str, Any]
) -> Card:
    """Write weights and card into `folder`; the card comes last and has the weights' hash.

    Args:
        folder: An existing folder.
        name: Name of both files, without suffix.
        network: The trained network.
        card_type: The card's model.
        metadata: The card's fields, except the weights' hash.

    Raises:
        OSError: A file can't be written.
    """
    tensors = network.state_dict().items()
    weights = save({key: t.detach().cpu().contiguous() for key, t in tensors})
    card = card_type(weights_sha256=hashlib.sha256(weights).hexdigest(), **metadata)
    replace_file(folder / f"{name}.safetensors", weights)
    write_card(folder, name, card)
    return card


def write_card(folder: Path, name: str, card: CompanionCard) -> None:
    """Write a card, or replace it; raises OSError."""
    replace_file(folder / f"{name}.json", f"{card.model_dump_json(indent=2)}\n".encode())


def read_card(folder: Path, name: str, card_type: type[Card], remedy: str) -> Card:
    """Read the card in `folder`, and check that the weights have the card's hash.

    Args:
        folder: The companion's folder.
        name: Name of its files.
        card_type: The card's model.
        remedy: What to do if this fails, for the message.

    Raises:
        CompanionError: A file is missing or damaged.
    """
    weights = folder / f"{name}.safetensors"
    try:
        card = card_type.model_validate_json((folder / f"{name}.json").read_bytes())
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise CompanionError(f"{folder} can't be read ({first_fault(error)}): {remedy}") from error
    if digest != card.weights_sha256:
        raise CompanionError(f"{weights} is damaged (SHA-256 differs): {remedy}")
    return card


def load_weights(folder: Path, name: str, network: nn.Module, remedy: str) -> None:
    """Load the weights in `folder` into a network, and freeze it for use.

    Raises:
        CompanionError: They are another network's; the message ends with `remedy`.
    """
    path = folder / f"{name}.safetensors"
    try:
        network.load_state_dict(load(path.read_bytes()))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CompanionError(f"{path} does not fit the network: {remedy}") from error
    network.eval().requires_grad_(False)


@dataclass(frozen=True)
class CompanionTick:
    """Progress of a training; the values are means over the steps since the previous tick."""

    nimg: int
    means: dict[str, float]


class CompanionTrainer(ABC):
    """The training of one companion: the loop around its steps."""

    tick_steps: ClassVar[int]
    not_finite: ClassVar[str]  # what to do if a loss is not finite, for the message

    def __init__(self, network: nn.Module, settings: CompanionSettings) -> None:
        self.network, self.settings = network, settings
        self.device = next(network.parameters()).device
        self.steps = 0

    @property
    def nimg(self) -> int:
        """Photos shown."""
        return self.steps * self.settings.batch_size

    @abstractmethod
    def step(self, done: float) -> dict[str, Tensor]:
        """Train one step; returns values to average, without gradients.

        Args:
            done: Fraction of the training that is over, 0 to 1.
        """

    def train(
        self, on_tick: Callable[[CompanionTick], None], should_stop: Callable[[], bool]
    ) -> None:
        """Train until the configured end, or until should_stop.

        Raises:
            CompanionError: A loss is not finite.
        """
        started = time.monotonic()
        sums: dict[str, Tensor] = {}
        while not should_stop():
            done = self._done(time.monotonic() - started)
            if done >= 1:
                break
            for name, value in self.step(done).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            self.steps += 1
            if self.steps % self.tick_steps == 0:
                means = {name: float(total) / self.tick_steps for name, total in sums.items()}
                if not all(map(math.isfinite, means.values())):
                    raise CompanionError(
                        f"the loss is not finite before {self.nimg} photos: {self.not_finite}"
                    )
                on_tick(CompanionTick(self.nimg, means))
                sums.clear()
        self.network.eval().requires_grad_(False)

    def _done(self, elapsed_sec: float) -> float:
        """Fraction of the training that is over, 0 to 1."""
        kimg, minutes = self.settings.max_kimg, self.settings.max_minutes
        by_images = 0.0 if kimg is None else self.nimg / (kimg * 1000)
        by_time = 0.0 if minutes is None else elapsed_sec / (minutes * 60)
        return max(by_images, by_time)
