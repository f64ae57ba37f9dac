"""Adam: rates of each kind of parameter, whatever the memory's order, and saved states."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.dataset import PreparedDataset
from training.learning.config import OptimizerConfig, resolve
from training.learning.optimizer import (
    DECAYED,
    adam,
    discriminator_groups,
    generator_groups,
    load_adam,
    rate_factor,
)
from training.learning.run import build_networks

BETAS = (0.1, 0.99)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class Parameters(nn.Module):
    """A kernel, one of a single pixel, a matrix and a number."""

    def __init__(self, layout: torch.memory_format) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        for name, shape in zip("abcd", ((8, 4, 3, 3), (8, 4, 1, 1), (8, 4), ()), strict=True):
            tensor = torch.randn(shape, generator=random)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=layout)
            self.register_parameter(name, nn.Parameter(tensor))


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, layout: Any, steps: range) -> None:
    """Take steps on gradients that depend on the step alone."""
    for step in steps:
        random = torch.Generator().manual_seed(100 + step)
        for parameter in module.parameters():
            gradient = torch.randn(parameter.shape, generator=random)
            if gradient.ndim == 4:
                gradient = gradient.contiguous(memory_format=layout)
            parameter.grad = gradient
        optimizer.step()


def ours(module: nn.Module, first: int = 1) -> torch.optim.Adam:
    """Two learning rates, of the first parameters and of the others."""
    named = list(module.named_parameters())
    parts = ((named[:first], 0.01), (named[first:], 0.1))
    return adam([{"params": p, "lr": lr, "betas": BETAS} for p, lr in parts])


@pytest.mark.parametrize("of_gradients", LAYOUTS)
@pytest.mark.parametrize("of_parameters", LAYOUTS)
def test_it_learns_as_the_reference_does(
    of_parameters: torch.memory_format, of_gradients: torch.memory_format
) -> None:
    expected, learned = Parameters(of_parameters), Parameters(of_parameters)
    a, *others = expected.parameters()
    groups: list[dict[str, Any]] = [{"params": [a], "lr": 0.01}, {"params": others, "lr": 0.1}]
    reference = torch.optim.Adam(groups, betas=BETAS, foreach=False)
    learn(expected, reference, of_gradients, range(4))
    learn(learned, ours(learned), of_gradients, range(4))
    for one, other in zip(learned.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_saved_state_is_taken_up_by_name_whatever_the_groups() -> None:
    """Rates stay as they are configured now."""
    layout = torch.channels_last
    first = Parameters(layout)
    saved_by = ours(first, first=1)
    learn(first, saved_by, layout, range(3))
    file = io.BytesIO()
    torch.save(saved_by.state_dict(), file)
    file.seek(0)
    second = Parameters(layout)
    optimizer = ours(second, first=3)
    load_adam(optimizer, torch.load(file, weights_only=True), second, OptimizerConfig())
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 1]
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        states: list[dict[str, Tensor]] = [saved_by.state[one], optimizer.state[other]]
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(states[0][name], states[1][name])


def rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    return {name: group["lr"] for group in groups for name, _ in group["params"]}


def test_the_embedding_learns_in_proportion_to_its_scale_not_to_its_shape(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    config = resolve({**tiny_settings, "max_kimg": 1, "optimizer": {"embedding_multiplier": 0.5}})
    generator, _ = build_networks(config, PreparedDataset(tiny_dataset).info)
    found = rates(generator_groups(generator, config.optimizer))
    assert found.keys() == dict(generator.named_parameters()).keys()
    assert found["mapping.embed.weight"] == 0.5 * config.optimizer.learning_rate
    assert found["mapping.layers.0.bias"] == 0.1 * config.optimizer.learning_rate
    assert generator.mapping.embed.weight.std().item() == pytest.approx(1, abs=0.3)


def test_heads_learn_at_their_own_rate_beside_the_convolutional_discriminator(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    config = resolve({**tiny_settings, "max_kimg": 1, "discriminator": "both"})
    _, discriminator = build_networks(config, PreparedDataset(tiny_dataset).info)
    groups = discriminator_groups(discriminator, config)
    found = rates(groups)
    assert found.keys() == dict(discriminator.named_parameters()).keys()
    of_heads = {rate for name, rate in found.items() if name.startswith("projected.")}
    assert of_heads == {config.projected.learning_rate}
    betas = {group["betas"] for group in groups}
    assert betas == {(0.0, 0.99), (0.0, 0.99 ** (4 / 5))}  # lazy R1 of each 4th step


def test_a_parameter_without_a_gradient_stays() -> None:
    module = Parameters(torch.contiguous_format)
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = ours(module)
    module.b.grad = torch.ones_like(module.b)
    optimizer.step()
    same = [torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True)]
    assert same == [True, False, True, True]


@pytest.mark.parametrize(
    ("shown", "progress", "factor"),
    [
        (500, 0.0, 0.5),
        (2000, 0.5, 1.0),
        (2000, 0.75, 1.0),
        (2000, 0.875, (1 + DECAYED) / 2),
        (2000, 1.0, DECAYED),
        (2000, 1.5, DECAYED),  # a step that began before the end of the time
        (500, 0.875, (1 + DECAYED) / 4),
    ],
)
def test_the_rate_rises_and_falls_in_straight_lines(
    shown: int, progress: float, factor: float
) -> None:
    settings = OptimizerConfig(warmup_kimg=1, decay=0.25)
    assert rate_factor(settings, shown, progress) == pytest.approx(factor)
    assert rate_factor(OptimizerConfig(), shown, progress) == 1
