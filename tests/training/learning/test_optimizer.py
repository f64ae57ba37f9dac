"""Adam learns as torch's reference does, whatever the memory's order."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.learning.optimizer import Adam

BETAS = (0.1, 0.99)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def parameters(layout: torch.memory_format) -> list[nn.Parameter]:
    """A kernel, one of a single pixel, a matrix and a number."""
    random = torch.Generator().manual_seed(0)
    shapes = ((8, 4, 3, 3), (8, 4, 1, 1), (8, 4), ())
    tensors = [torch.randn(shape, generator=random) for shape in shapes]
    return [nn.Parameter(t.contiguous(memory_format=layout) if t.ndim == 4 else t) for t in tensors]


def learn(
    optimizer: torch.optim.Optimizer, layout: torch.memory_format, steps: range
) -> list[Tensor]:
    """Take steps on gradients that depend on the step alone; gives the parameters."""
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    for step in steps:
        random = torch.Generator().manual_seed(100 + step)
        for parameter in learning:
            gradient = torch.randn(parameter.shape, generator=random)
            if gradient.ndim == 4:
                gradient = gradient.contiguous(memory_format=layout)
            parameter.grad = gradient
        optimizer.step()
    return [p.detach().contiguous() for p in learning]


def groups(learning: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Two learning rates."""
    return [{"params": learning[:1], "lr": 0.01}, {"params": learning[1:], "lr": 0.1}]


def reference(layout: torch.memory_format) -> torch.optim.Adam:
    """torch's own, in the form that loops over the parameters in Python."""
    return torch.optim.Adam(groups(parameters(layout)), betas=BETAS, foreach=False)


@pytest.mark.parametrize("of_gradients", LAYOUTS)
@pytest.mark.parametrize("of_parameters", LAYOUTS)
def test_it_learns_as_the_reference_does(
    of_parameters: torch.memory_format, of_gradients: torch.memory_format
) -> None:
    expected = learn(reference(of_parameters), of_gradients, range(4))
    learned = learn(Adam(groups(parameters(of_parameters)), BETAS), of_gradients, range(4))
    for one, other in zip(learned, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("saved_at", [0, 3])
@pytest.mark.parametrize("saved_by", ["ours", "torch"])
def test_a_saved_state_goes_on_as_if_uninterrupted(saved_by: str, saved_at: int) -> None:
    layout = torch.channels_last

    def ours() -> Adam:
        return Adam(groups(parameters(layout)), BETAS)

    expected = learn(ours(), layout, range(6))

    first = ours() if saved_by == "ours" else reference(layout)
    learned = learn(first, layout, range(saved_at))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = ours()
    learn(second, layout, range(2))  # which what is loaded replaces
    second.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for parameter, value in zip(
            (p for group in second.param_groups for p in group["params"]), learned, strict=True
        ):
            parameter.copy_(value)
    learned = learn(second, layout, range(saved_at, 6))
    for one, other in zip(learned, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_parameter_without_a_gradient_stays() -> None:
    learning = parameters(torch.contiguous_format)
    before = [p.detach().clone() for p in learning]
    optimizer = Adam(groups(learning), BETAS)
    learning[1].grad = torch.ones_like(learning[1])
    optimizer.step()
    assert [torch.equal(p, b) for p, b in zip(learning, before, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
