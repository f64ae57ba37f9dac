"""Compiled steps: the same learning, compiled once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.dataset import PreparedDataset
from training.learning import passes
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.passes import Passes
from training.learning.run import build_networks
from training.learning.trainer import Trainer

# torch's own, as it looks at what it traces; nobody but pytest sees it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def _compiled_once() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


@pytest.fixture
def uncompiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as for compiling, with gradients as compiled code has them, but write no C++."""
    compile_ = torch.compile
    monkeypatch.setattr(
        passes.torch,
        "compile",
        lambda work, **options: compile_(work, backend="aot_eager", **options),
    )


# Adam's own epsilon magnifies what rounds differently, up to 1 % in 20 steps: it takes a gradient
# of nearly zero for its sign. With this one steps are in proportion to gradients.
EPSILON = 0.1


def trained(run: Path, dataset: Path, settings: dict[str, Any], kimg: float) -> Trainer:
    run.mkdir()
    config = resolve({**settings, "max_kimg": kimg})
    trainer = Trainer(run, PreparedDataset(dataset), config, torch.device("cpu"), Ranks())
    for group in (g for optimizer in trainer.pair.optimizers for g in optimizer.param_groups):
        group["eps"] = EPSILON
    trainer.train(lambda _: None, lambda: False)
    return trainer


def learned(trainer: Trainer) -> torch.Tensor:
    networks = (trainer.generator, trainer.discriminator)
    return torch.cat([p.detach().flatten() for net in networks for p in net.parameters()])


MASKED_IN_TURN = {"mode": "periodic", "period_kimg": 0.016}


@pytest.mark.usefixtures("uncompiled_code")
@pytest.mark.parametrize(
    ("objective", "granularity"), [("logistic", "both"), ("relativistic", "channel")]
)
def test_compiled_steps_learn_what_eager_ones_do(
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
    objective: str,
    granularity: str,
) -> None:
    """With masks coming and going, augmentation rising and R1 in between."""
    settings = tiny_settings | {
        "objective": objective,
        "masking": {**MASKED_IN_TURN, "granularity": granularity},
        "augment": {"strength": 0.3},
        "tick_kimg": 0.016,
    }
    start = trained(tmp_path / "start", tiny_dataset, settings, 0.001)
    eager = trained(tmp_path / "eager", tiny_dataset, settings, 0.16)
    compiled = trained(tmp_path / "compiled", tiny_dataset, settings | {"compile": True}, 0.16)
    moved = learned(eager) - learned(start)
    difference = (learned(compiled) - learned(eager)).norm() / moved.norm()
    assert difference < 1e-3, float(difference)


def judging(
    dataset: Path, settings: dict[str, Any], compiled: bool = True
) -> tuple[Passes, torch.Tensor, torch.Tensor]:
    """Passes of new networks; pictures and categories to judge."""
    config = resolve({**settings, "compile": compiled, "max_kimg": 1})
    torch.manual_seed(0)
    generator, discriminator = build_networks(config, PreparedDataset(dataset).info)
    categories = discriminator.shape.categories
    fakes = torch.randn(8, discriminator.shape.channels, 16, 16, requires_grad=True)
    category = torch.eye(categories)[torch.arange(8) % categories]
    return Passes(generator, discriminator, config, torch.float32), fakes, category


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_code_compiled_for_the_processor_gives_the_eager_loss_and_gradient(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    found = []
    for compiled in (False, True):
        judge, fakes, category = judging(tiny_dataset, tiny_settings, compiled)
        loss = judge.generator_loss(fakes, fakes.detach(), category)
        found.append((loss, *torch.autograd.grad(loss, fakes)))
    (loss, gradient), (compiled_loss, compiled_gradient) = found
    torch.testing.assert_close(compiled_loss, loss)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("uncompiled_code")
@pytest.mark.parametrize("sees_mask", [True, False])
def test_the_generator_is_judged_with_the_mask_only_where_it_is_to_see_it(
    tiny_dataset: Path, tiny_settings: dict[str, Any], sees_mask: bool
) -> None:
    masking = {"mode": "static", "generator_sees_mask": sees_mask}
    judge, fakes, category = judging(tiny_dataset, tiny_settings | {"masking": masking})
    before = judge.generator_loss(fakes, fakes, category)
    mask = judge.discriminator.mask
    hidden = torch.zeros(1, *judge.discriminator.mask_shape)
    mask.hold(hidden)
    after = judge.generator_loss(fakes, fakes, category)
    assert mask.held is hidden
    assert torch.equal(before, after) is not sees_mask
