"""A run: interrupted equals uninterrupted, and what goes wrong is said."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.generator import Generator
from training.dataset import PreparedDataset
from training.learning import adversarial, meter
from training.learning.augment import DRAWS, amounts_of
from training.learning.checkpoint import list_checkpoints, load_newest
from training.learning.config import ConfigError, resolve
from training.learning.distributed import Ranks
from training.learning.guardrails import TrainingDiverged
from training.learning.objective import gradient_penalty
from training.learning.randomness import Purpose, generator_for
from training.learning.recorder import Tick
from training.learning.run import RunError, load_generator, locked, write_run
from training.learning.trainer import Outcome, Trainer
from training.report.history import read_history


def start(run: Path, dataset: Path, settings: dict[str, Any]) -> Trainer:
    run.mkdir(exist_ok=True)
    data, config = PreparedDataset(dataset), resolve(settings)
    write_run(run, config, data)
    return Trainer(run, data, config, torch.device("cpu"), Ranks())


def train(trainer: Trainer, stop_at: int | None = None) -> Outcome:
    ticks: list[Tick] = []
    return trainer.train(ticks.append, lambda: stop_at is not None and trainer.nimg >= stop_at)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal bit by bit, however deep."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def test_real_and_generated_pictures_are_augmented_by_draws_of_their_own(
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of three sets is for photos, the others for what each network is shown."""
    trainer = start(tmp_path / "run", tiny_dataset, {**tiny_settings, "max_kimg": 0.2})
    batch = next(trainer.loader.batches(0, trainer.ranks))
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def spy(images: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
        calls.append((images.detach(), amounts))
        return images

    monkeypatch.setattr(adversarial, "augment", spy)
    trainer.pair.step(batch, 0, 0.5, trainer.ranks)
    random = generator_for(trainer.config.seed, Purpose.AUGMENT, 0, trainer.device)
    photos, shown, generated = torch.rand(3, DRAWS, 8, generator=random)
    (both, first), (fakes, second) = calls
    assert torch.equal(both, torch.cat([batch.images, fakes]))
    assert torch.equal(first, amounts_of(torch.cat([photos, shown], dim=1), 0.5))
    assert torch.equal(second, amounts_of(generated, 0.5))


@pytest.mark.parametrize(
    ("stop_at", "discriminator"),
    [(56, "convolutional"), (104, "convolutional"), (104, "both")],
)
def test_interrupted_equals_uninterrupted(
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
    stop_at: int,
    discriminator: str,
) -> None:
    """Stopped between ticks, with a mask held, the augmentation and the rates on their way."""
    settings = {**tiny_settings, "max_kimg": 0.2, "discriminator": discriminator}
    settings["optimizer"] = {**tiny_settings["optimizer"], "decay": 0.6}
    whole = start(tmp_path / "whole", tiny_dataset, settings)
    assert train(whole).reason == "finished"

    first = start(tmp_path / "parts", tiny_dataset, settings)
    assert train(first, stop_at).reason == "stopped"
    second = start(tmp_path / "parts", tiny_dataset, settings)
    second.resume()
    assert second.nimg == stop_at
    train(second)

    assert_same(load_newest(tmp_path / "whole"), load_newest(tmp_path / "parts"))
    kinds = [
        json.loads(line)["kind"]
        for line in (tmp_path / "whole/stats.jsonl").read_text().splitlines()
    ]
    assert "mask" in kinds  # else the test would say nothing of the mask


def test_the_seed_decides_and_another_seed_differs(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    states = []
    for i, seed in enumerate((1, 1, 2)):
        trainer = start(
            tmp_path / str(i), tiny_dataset, {**tiny_settings, "max_kimg": 0.03, "seed": seed}
        )
        train(trainer)
        states.append(load_newest(tmp_path / str(i))["ema"])
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["synthesis.constant"], states[2]["synthesis.constant"])


def test_the_penalty_is_that_of_the_photos(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 1, "augment": {"mode": "off"}}
    trainer = start(tmp_path / "run", tiny_dataset, settings)
    batch = next(iter(trainer.loader.batches(0, Ranks())))
    images = batch.images.clone().requires_grad_(True)
    logits = trainer.discriminator(images, batch.category)
    expected = gradient_penalty(images, logits).mean().item()
    statistics = trainer.pair.step(batch, 0, 0.0, Ranks())
    assert statistics.r1_penalty is not None
    assert statistics.r1_penalty.item() == pytest.approx(expected, rel=1e-4)


def test_a_run_leaves_figures_grids_and_checkpoints(tiny_run: Path) -> None:
    lines = [json.loads(line) for line in (tiny_run / "stats.jsonl").read_text().splitlines()]
    ticks = [line for line in lines if line["kind"] == "tick"]
    assert [t["nimg"] for t in ticks] == [40, 80, 120, 160, 200]
    assert all(t["images_per_sec"] > 0 and t["memory_mb"] > 0 for t in ticks)
    assert any(t["r1_penalty"] is not None for t in ticks)
    measures = [line for line in lines if line["kind"] == "measure"]
    assert measures
    assert any(m["lag"] != 0 for m in measures)
    assert len(list((tiny_run / "grids").glob("*.png"))) == 2
    assert [int(p.stem.split("-")[1]) for p in list_checkpoints(tiny_run)] == [200, 104, 0]


def test_the_averaged_generator_lags_behind_the_trained_one(tiny_run: Path) -> None:
    state = load_newest(tiny_run)
    ema, raw = state["ema"], state["generator"]
    assert not torch.equal(ema["synthesis.constant"], raw["synthesis.constant"])
    generator, _, info, nimg = load_generator(tiny_run)
    assert isinstance(generator, Generator)
    assert nimg == 200
    assert info.categories == ("cups", "hats", "mats")
    assert generator.mapping.w_avg.abs().sum() > 0


def break_at(trainer: Trainer, nimg: int, times: int) -> Callable[[], bool]:
    """Makes a weight nan at `nimg`, as often as asked; never stops the run."""
    left = [times]

    def poison() -> bool:
        if trainer.nimg == nimg and left[0]:
            left[0] -= 1
            with torch.no_grad():
                trainer.discriminator.logit.weight.fill_(float("nan"))
        return False

    return poison


def test_a_run_that_breaks_goes_back_and_finishes_with_smaller_steps(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.16, "checkpoint_kimg": 0.04}
    trainer = start(tmp_path / "run", tiny_dataset, settings)
    rate = trainer.pair.generator_optimizer.param_groups[0]["lr"]
    poison = break_at(trainer, 104, 1)

    def find_the_best_then_break() -> bool:
        if trainer.nimg == 96:  # after the checkpoint that it goes back to
            trainer.best_distance = 0.25
        return poison()

    outcome = trainer.train(lambda _: None, find_the_best_then_break)
    assert outcome.reason == "finished"
    assert trainer.best_distance == 0.25  # a worse snapshot must not replace the best one
    state = load_newest(tmp_path / "run")
    assert state["nimg"] == 160
    assert all(torch.isfinite(v).all() for v in state["ema"].values())
    assert trainer.pair.generator_optimizer.param_groups[0]["lr"] == rate / 2
    lines = [json.loads(x) for x in (tmp_path / "run/stats.jsonl").read_text().splitlines()]
    (rollback,) = [line for line in lines if line["kind"] == "rollback"]
    assert rollback["nimg"] == 80
    assert "not finite" in rollback["message"]
    resumed = start(tmp_path / "run", tiny_dataset, {**settings, "max_kimg": 0.2})
    resumed.resume()
    train(resumed)
    assert resumed.pair.generator_optimizer.param_groups[0]["lr"] == rate / 2


def test_a_run_that_breaks_again_and_again_stops_and_keeps_the_checkpoint(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    """Broken just before a checkpoint is due: no broken weights may be saved."""
    trainer = start(tmp_path / "run", tiny_dataset, {**tiny_settings, "max_kimg": 0.4})
    with pytest.raises(TrainingDiverged, match="after 3 rollbacks"):
        trainer.train(lambda _: None, break_at(trainer, 104, 100))
    (kept,) = list_checkpoints(tmp_path / "run")
    assert kept.name.endswith("000.pt")
    state = load_newest(tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in state["discriminator"].values())


def rates_of(trainer: Trainer, after_step: Callable[[], Any] = lambda: None) -> list[float]:
    """The learning rate of each step of a run, relative."""
    groups = [o.param_groups[-1] for o in trainer.pair.optimizers]
    full = [group["lr"] for group in groups]
    rates = []

    def note() -> bool:
        both = {round(g["lr"] / rate, 6) for g, rate in zip(groups, full, strict=True)}
        assert len(both) == 1
        rates.append(both.pop())
        after_step()
        return False

    trainer.train(lambda _: None, note)
    return rates


def test_the_learning_rate_warms_up(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.1}
    settings["optimizer"] = {**tiny_settings["optimizer"], "warmup_kimg": 0.08}
    rates = rates_of(start(tmp_path / "run", tiny_dataset, settings))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])


def test_the_learning_rate_falls_in_the_last_part_of_a_run_by_its_images(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.08}
    settings["optimizer"] = {**tiny_settings["optimizer"], "decay": 0.4}
    rates = rates_of(start(tmp_path / "run", tiny_dataset, settings))
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.7625, 0.525, 0.2875])  # 0.05 for the last


def test_the_learning_rate_falls_in_the_last_part_of_a_run_by_its_time(
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that the test winds: 10 of 60 seconds a step."""
    now = [0.0]
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    settings = {**tiny_settings, "max_minutes": 1}
    settings["optimizer"] = {**tiny_settings["optimizer"], "decay": 0.5}

    def wind() -> None:
        now[0] += 10

    rates = rates_of(start(tmp_path / "run", tiny_dataset, settings), wind)
    # A step knows the time that was when the one before ended.
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.683333, 0.366667])


def test_a_resumed_run_takes_a_new_learning_rate_and_masking_off(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.1}
    settings["masking"] = {"mode": "scheduled", "schedule_kimg": [0.05], "period_kimg": 9}
    first = start(tmp_path / "run", tiny_dataset, settings)
    train(first)
    slower = {**settings, "max_kimg": 0.12, "masking": {"mode": "off"}}
    slower["optimizer"] = {**tiny_settings["optimizer"], "learning_rate": 0.001}
    second = start(tmp_path / "run", tiny_dataset, slower)
    second.resume()
    for a, b in zip(
        first.pair.generator_optimizer.param_groups,
        second.pair.generator_optimizer.param_groups,
        strict=True,
    ):
        assert b["lr"] == pytest.approx(a["lr"] * 0.001 / 0.0025)
    assert all(mask.held is not None for mask in second.discriminator.masks)
    train(second)
    assert all(mask.held is None for mask in second.discriminator.masks)
    assert read_history(tmp_path / "run/stats.jsonl").mask_periods()[-1][1] == first.nimg


def test_masks_may_begin_with_a_resume(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.1, "masking": {"mode": "off"}}
    train(start(tmp_path / "run", tiny_dataset, settings))
    scheduled = {"mode": "scheduled", "schedule_kimg": [0], "period_kimg": 9}
    masked = {**settings, "max_kimg": 0.12, "masking": scheduled}
    second = start(tmp_path / "run", tiny_dataset, masked)
    second.resume()
    begun = second.nimg
    train(second)
    lines = [json.loads(line) for line in (tmp_path / "run/stats.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines if line["kind"] == "resume"] == [begun]
    history = read_history(tmp_path / "run/stats.jsonl")
    assert history.mask_periods() == [(begun, second.nimg)]
    assert history.series("tick", "generator_loss").nimg[0] < begun  # what was before stays


@pytest.mark.parametrize(("mode", "p"), [("off", 0.0), ("fixed", 0.3), ("adaptive", 0.25)])
def test_a_resumed_run_takes_new_augmentation_and_betas(
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
    mode: str,
    p: float,
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.008}
    first = start(tmp_path / "run", tiny_dataset, settings)
    first.augmentation.p = 0.25
    train(first)
    settings["augment"] = {"mode": mode, "p": 0.3}
    settings["optimizer"] = {**tiny_settings["optimizer"], "beta1": 0.5, "beta2": 0.9}
    second = start(tmp_path / "run", tiny_dataset, settings)
    second.resume()
    assert second.augmentation.p == p
    for group in second.pair.generator_optimizer.param_groups:
        assert group["betas"] == (0.5, 0.9)


def test_two_trainers_never_share_a_run(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match="another process"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"masking": {"ratio": 1.5}, "max_kimg": 1}, "masking.ratio"),
        ({"optimizer": {"learning_rate": float("nan")}, "max_kimg": 1}, "learning_rate"),
        ({"batch_size": "many", "max_kimg": 1}, "batch_size"),
        ({"maskin": {}, "max_kimg": 1}, "maskin"),
        ({}, "max_kimg or max_minutes"),
    ],
)
def test_bad_settings_name_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        resolve(settings)
