"""A run: interrupted equals uninterrupted, and what goes wrong is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.generator import Generator
from training.checkpoint import list_checkpoints, load_newest
from training.config import ConfigError, resolve
from training.dataset import PreparedDataset
from training.distributed import Ranks
from training.recorder import Tick
from training.run import RunError, load_generator, locked, write_run
from training.trainer import Outcome, Trainer, TrainingDiverged


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


@pytest.mark.parametrize("stop_at", [56, 104])
def test_interrupted_equals_uninterrupted(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any], stop_at: int
) -> None:
    """Stopped between ticks, with a mask held and the augmentation on its way."""
    settings = {**tiny_settings, "max_kimg": 0.2}
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


def test_a_run_leaves_figures_grids_and_checkpoints(tiny_run: Path) -> None:
    lines = [json.loads(line) for line in (tiny_run / "stats.jsonl").read_text().splitlines()]
    ticks = [line for line in lines if line["kind"] == "tick"]
    assert [t["nimg"] for t in ticks] == [40, 80, 120, 160, 200]
    assert all(t["images_per_sec"] > 0 and t["memory_mb"] > 0 for t in ticks)
    assert any(t["r1_penalty"] is not None for t in ticks)
    measures = [line for line in lines if line["kind"] == "measure"]
    assert measures
    assert all(m["generator_change"] > 0 for m in measures)
    assert len(list((tiny_run / "grids").glob("*.png"))) == 2
    assert list((tiny_run / "tensorboard").glob("events*"))
    assert [int(p.stem.split("-")[1]) for p in list_checkpoints(tiny_run)] == [200, 104]


def test_the_averaged_generator_lags_behind_the_trained_one(tiny_run: Path) -> None:
    state = load_newest(tiny_run)
    ema, raw = state["ema"], state["generator"]
    assert not torch.equal(ema["synthesis.constant"], raw["synthesis.constant"])
    generator, _, info, nimg = load_generator(tiny_run)
    assert isinstance(generator, Generator)
    assert nimg == 200
    assert info.categories == ("cups", "hats", "mats")
    assert generator.mapping.w_avg.abs().sum() > 0


def test_losses_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    trainer = start(tmp_path / "run", tiny_dataset, {**tiny_settings, "max_kimg": 0.4})

    def poison() -> bool:
        if trainer.nimg == 104:
            with torch.no_grad():
                trainer.discriminator.logit.weight.fill_(float("nan"))
        return False

    with pytest.raises(TrainingDiverged, match="not finite before 120 images"):
        trainer.train(lambda _: None, poison)
    (kept,) = list_checkpoints(tmp_path / "run")
    state = load_newest(tmp_path / "run")
    assert state["nimg"] == 104
    assert all(torch.isfinite(v).all() for v in state["ema"].values())
    assert kept.name.endswith("104.pt")


def test_a_resumed_run_takes_a_new_learning_rate_and_masking_off(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = {**tiny_settings, "max_kimg": 0.1}
    settings["masking"] = {**tiny_settings["masking"], "mode": "static"}
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
    assert second.discriminator.mask.held is not None
    train(second)
    assert second.discriminator.mask.held is None


def test_fine_tuning_matches_categories_by_name(
    tmp_path: Path,
    tiny_run: Path,
    tiny_settings: dict[str, Any],
    fill: Any,
) -> None:
    from training.catalogue import prepare_dataset
    from training.prepare_options import PrepareOptions

    for i, category in enumerate(("bags", "mats", "cups")):
        fill(tmp_path / "photos" / category, range(5000 + 100 * i, 5012 + 100 * i))
    options = PrepareOptions.model_validate({"width": 16, "height": 16})
    prepare_dataset(tmp_path / "photos", tmp_path / "dataset", options)
    trainer = start(tmp_path / "run", tmp_path / "dataset", {**tiny_settings, "max_kimg": 0.03})
    trainer.start_from(tiny_run)
    source = load_newest(tiny_run)
    mine, theirs = trainer.generator.state_dict(), source["ema"]
    assert torch.equal(mine["synthesis.constant"], theirs["synthesis.constant"])
    # bags, cups, mats against cups, hats, mats
    table, known = mine["mapping.embed.weight"], theirs["mapping.embed.weight"]
    assert torch.equal(table[:, 1], known[:, 0])
    assert torch.equal(table[:, 2], known[:, 2])
    torch.testing.assert_close(table[:, 0], known.mean(dim=1))
    assert torch.equal(trainer.discriminator.embed[1], source["discriminator"]["embed"][0])
    assert train(trainer).reason == "finished"


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
