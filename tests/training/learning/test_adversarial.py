"""A step on a batch in parts is a step on the whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.dataset import PreparedDataset
from training.learning.adversarial import AdversarialPair, StepStatistics
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.loader import Batch, BatchLoader
from training.learning.run import build_networks

BATCH = 16


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wherever the code says float32: sums of another order then differ by next to nothing."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def steps(dataset: PreparedDataset, settings: dict[str, Any], count: int) -> dict[str, Any]:
    """Take steps, the first with R1: start, end, their statistics, and images at a time."""
    config = resolve({**settings, "batch_size": BATCH, "max_kimg": 1})
    generator, discriminator = build_networks(config, dataset.info)
    pair = AdversarialPair(generator, discriminator, config, torch.get_default_dtype())
    seen: list[int] = []
    for module in (generator, discriminator):
        module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[1])))
    loader = BatchLoader(dataset, BATCH, 0, torch.device("cpu"), 4)
    start = weights(pair)
    statistics: list[StepStatistics] = []
    for i, batch in zip(range(count), loader.batches(0, Ranks()), strict=False):
        exact = Batch(batch.images.double(), batch.category.double())
        statistics.append(pair.step(exact, BATCH * i, 0.5, Ranks()))
    return {"start": start, "end": weights(pair), "statistics": statistics, "seen": max(seen)}


def weights(pair: AdversarialPair) -> torch.Tensor:
    """Parameters and buffers, as spectral norms' estimates, of both."""
    states = (pair.generator.state_dict(), pair.discriminator.state_dict())
    return torch.cat([w.detach().flatten() for state in states for w in state.values()])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["convolutional", "both"])
def test_parts_of_a_batch_teach_what_the_whole_teaches(
    tiny_dataset: Path, tiny_settings: dict[str, Any], kind: str
) -> None:
    data = PreparedDataset(tiny_dataset)
    settings = {**tiny_settings, "discriminator": kind}
    whole = steps(data, settings, 3)
    parts = steps(data, {**settings, "batch_gpu": 4}, 3)
    assert torch.equal(whole["start"], parts["start"])
    moved = whole["end"] - whole["start"]
    assert moved.norm() > 0.05
    assert (parts["end"] - whole["end"]).norm() < 1e-9 * moved.norm()
    for a, b in zip(whole["statistics"], parts["statistics"], strict=True):
        torch.testing.assert_close(vars(a), vars(b), rtol=1e-9, atol=1e-12)
    assert whole["statistics"][0].gradient_norm is not None
    assert parts["seen"] <= 8 < whole["seen"]  # photos and as many generated images
