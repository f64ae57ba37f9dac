"""The monitor of a run: spread, overfitting and the best snapshot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.discriminator import Discriminator
from models.generator import Generator
from training.dataset import PreparedDataset, Split
from training.learning import validation
from training.learning.checkpoint import CheckpointError, load_best, load_newest
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.loader import to_float
from training.learning.run import build_networks, load_generator, write_run
from training.learning.trainer import Trainer
from training.learning.validation import BestMoment, ValidationMonitor
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions


@pytest.fixture(scope="module")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, fill: Callable[[Path, range], list[Path]]
) -> PreparedDataset:
    """Two categories of 40, about half of them held out."""
    root = tmp_path_factory.mktemp("watched")
    for i, category in enumerate(("cups", "hats")):
        fill(root / "photos" / category, range(1000 * i, 1000 * i + 40))
    options = PrepareOptions.model_validate({"width": 16, "height": 16, "validation_share": 0.5})
    prepare_dataset(root / "photos", root / "dataset", options)
    return PreparedDataset(root / "dataset")


@pytest.fixture
def pair(
    dataset: PreparedDataset, tiny_settings: dict[str, Any]
) -> tuple[Generator, Discriminator]:
    return build_networks(resolve({**tiny_settings, "max_kimg": 1}), dataset.info)


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is done with measurements, not of what they say."""
    monkeypatch.setattr(validation, "SAMPLES", 32)
    monkeypatch.setattr(validation, "COMPARED", 24)


def learn(
    discriminator: Discriminator,
    dataset: PreparedDataset,
    generator: Generator,
    real: list[Split],
) -> None:
    """Tell the photos of some splits from the others and from generated pictures."""
    by_label = np.argsort(dataset.labels, kind="stable")
    photos = to_float(torch.from_numpy(np.array(dataset.images[by_label])))
    category = torch.eye(2)[torch.from_numpy(dataset.labels[by_label])]
    is_real = torch.from_numpy(np.isin(np.array(dataset.splits)[by_label], real))
    noise = torch.randn(len(photos), generator.noise_dim)
    fakes = generator(torch.randn(len(photos), generator.z_dim), category, None, noise).detach()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for _ in range(60):
        logits, fake = discriminator(photos, category), discriminator(fakes, category)
        signed = torch.cat([torch.where(is_real, -logits, logits), fake])
        loss = torch.nn.functional.softplus(signed).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_discriminator_that_knows_all_photos_does_not_overfit_and_one_by_heart_does(
    dataset: PreparedDataset, pair: tuple[Generator, Discriminator], tiny_settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    generator, by_heart = pair
    _, honest = build_networks(resolve({**tiny_settings, "max_kimg": 1}), dataset.info)
    monitor = ValidationMonitor(dataset, 0, torch.device("cpu"))
    learn(by_heart, dataset, generator, ["train"])
    learn(honest, dataset, generator, ["train", "validation"])
    worse = monitor.measure(generator, by_heart, torch.float32)["overfitting"]
    better = monitor.measure(generator, honest, torch.float32)["overfitting"]
    assert abs(better) < 0.25
    assert worse > 0.5


def test_a_generator_that_paints_one_picture_has_no_diversity(
    dataset: PreparedDataset, pair: tuple[Generator, Discriminator]
) -> None:
    generator, discriminator = pair
    monitor = ValidationMonitor(dataset, 0, torch.device("cpu"))
    torch.nn.init.zeros_(generator.mapping.layers[0].weight)
    collapsed = monitor.measure(generator, discriminator, torch.float32)
    assert collapsed["diversity"] < 0.01
    assert collapsed["kernel_distance"] > 0


def test_one_lucky_measurement_is_not_the_best_moment() -> None:
    best = BestMoment()
    measured = [3.0, 3.0, 3.0, 9.0, 1.0, 9.0, 2.9, 2.9, 2.8]
    assert [best.is_now(m) for m in measured] == [True, *[False] * 7, True]
    resumed = BestMoment()
    resumed.load_state_dict(best.state_dict())
    assert not resumed.is_now(2.95)
    assert resumed.is_now(2.0)


@pytest.mark.usefixtures("few_samples")
def test_the_best_snapshot_is_kept_and_can_be_sampled(
    tmp_path: Path, dataset: PreparedDataset, tiny_settings: dict[str, Any]
) -> None:
    config = resolve({**tiny_settings, "max_kimg": 0.24, "grid_kimg": 0.04})
    write_run(tmp_path, config, dataset)
    trainer = Trainer(tmp_path, dataset, config, torch.device("cpu"), Ranks())
    trainer.train(lambda _: None, lambda: False)
    lines = [json.loads(x) for x in (tmp_path / "stats.jsonl").read_text().splitlines()]
    measured = [line for line in lines if line["kind"] == "validation"]
    assert len(measured) == 6
    distances = [float(m["kernel_distance"]) for m in measured]
    smoothed = [np.mean(distances[max(0, i - 2) : i + 1]) for i in range(6)]
    lowest = measured[int(np.argmin(smoothed))]
    best = load_best(tmp_path)
    assert best["nimg"] == lowest["nimg"]
    assert len(list(tmp_path.glob("best-*.pt"))) == 1
    kept = load_newest(tmp_path)["best"]
    assert kept["lowest"] == pytest.approx(min(smoothed))
    assert kept["recent"] == pytest.approx(distances[-3:])
    generator, *_, nimg = load_generator(tmp_path, "best")
    assert nimg == lowest["nimg"]
    assert torch.equal(generator.synthesis.constant, best["ema"]["synthesis.constant"])


@pytest.mark.usefixtures("few_samples")
def test_the_average_that_does_best_is_the_one_to_use(
    tmp_path: Path, dataset: PreparedDataset, tiny_settings: dict[str, Any]
) -> None:
    """Stopped and resumed between two looks."""
    settings = {**tiny_settings, "grid_kimg": 0.04}
    states = {}
    for name, ends in (("whole", (0.16,)), ("parts", (0.1, 0.16))):
        run = tmp_path / name
        run.mkdir()
        for i, end in enumerate(ends):
            config = resolve({**settings, "max_kimg": 0.16})
            write_run(run, config, dataset)
            trainer = Trainer(run, dataset, config, torch.device("cpu"), Ranks())
            if i:
                trainer.resume()
            trainer.train(lambda _: None, lambda: trainer.nimg >= end * 1000)  # noqa: B023
        states[name] = load_newest(run)
    monitor = trainer.monitor
    assert monitor is not None
    state = states["whole"]
    chosen = state["averages"]["chosen"]
    # Features differ by a rounding from one process's memory to the next.
    last_distances = monitor.distances(trainer.ema.generators, 160)
    np.testing.assert_allclose(state["averages"]["distances"][-1], last_distances, rtol=1e-3)
    means = np.mean(state["averages"]["distances"], axis=0)
    assert chosen == int(np.argmin(means))
    assert means.min() < means.max()
    for part in (state["averages"]["weights"][chosen], load_generator(run)[0].state_dict()):
        assert torch.equal(part["synthesis.constant"], state["ema"]["synthesis.constant"])
    resumed = states["parts"]["averages"]
    for ours, theirs in zip(resumed["weights"], state["averages"]["weights"], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    np.testing.assert_allclose(resumed["distances"], state["averages"]["distances"], rtol=1e-3)
    assert states["parts"]["averages"]["chosen"] == chosen
    lines = [json.loads(x) for x in (run / "stats.jsonl").read_text().splitlines()]
    (*_, last) = [line for line in lines if line["kind"] == "validation"]
    assert last["ema_length"] == trainer.config.optimizer.ema_lengths[chosen]


@pytest.mark.usefixtures("few_samples")
def test_a_worse_moment_does_not_replace_the_best(
    tmp_path: Path, dataset: PreparedDataset, tiny_settings: dict[str, Any]
) -> None:
    config = resolve({**tiny_settings, "max_kimg": 0.08, "grid_kimg": 0.04})
    trainer = Trainer(tmp_path, dataset, config, torch.device("cpu"), Ranks())
    trainer.best.lowest = -1.0
    trainer.train(lambda _: None, lambda: False)
    assert not list(tmp_path.glob("best-*.pt"))
    assert trainer.best.lowest == -1.0


@pytest.mark.usefixtures("few_samples")
def test_a_break_just_before_a_judgement_is_rolled_back_and_not_judged(
    tmp_path: Path, dataset: PreparedDataset, tiny_settings: dict[str, Any]
) -> None:
    times = {"tick_kimg": 1.0, "grid_kimg": 0.04, "checkpoint_kimg": 1.0, "max_kimg": 0.08}
    config = resolve({**tiny_settings, **times})
    trainer = Trainer(tmp_path, dataset, config, torch.device("cpu"), Ranks())

    def poison() -> bool:
        if trainer.nimg == 40 and trainer.guardrails.rollbacks == 0:
            torch.nn.init.constant_(trainer.generator.synthesis.constant, float("nan"))
            torch.nn.init.constant_(trainer.ema.generator.synthesis.constant, float("nan"))
        return False

    assert trainer.train(lambda _: None, poison).reason == "finished"
    assert trainer.guardrails.rollbacks == 1
    lines = [json.loads(x) for x in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [x["nimg"] for x in lines if x["kind"] == "validation"] == [40, 80]


def test_a_run_without_a_best_snapshot_says_so(tiny_run: Path) -> None:
    with pytest.raises(CheckpointError, match="no best snapshot"):
        load_generator(tiny_run, "best")
