"""What `catalogan train` settles before the loop begins."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from training.bases import base_names, base_path
from training.cli import app
from training.dataset import PreparedDataset
from training.launch import FINE_TUNING, Launch, LaunchError, check_batch_size, launch
from training.learning.config import ConfigError, resolve
from training.learning.distributed import Ranks
from training.learning.run import read_run, write_run
from training.learning.sources import open_source
from training.learning.trainer import Outcome
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions

SHORT = {
    "max_kimg": 0.016,
    "batch_size": 8,
    "precision": "fp32",
    "discriminator": "convolutional",
}


def test_a_run_from_another_takes_its_widths_and_is_eased_in(
    tmp_path: Path, tiny_dataset: Path, tiny_run: Path, silent: Any
) -> None:
    wanted = Launch(
        dataset=tiny_dataset,
        run=tmp_path / "run",
        overrides=SHORT | {"optimizer": {"warmup_kimg": 0.5}},
        source=str(tiny_run),
        device="cpu",
    )
    assert launch(wanted, silent) is not None
    (config, _), (theirs, _) = read_run(tmp_path / "run"), read_run(tiny_run)
    assert config.model == theirs.model
    assert config.optimizer.ema_rampup == FINE_TUNING["optimizer"]["ema_rampup"]
    assert config.optimizer.warmup_kimg == 0.5  # an explicit setting wins
    assert config.fine_tuning.source == str(tiny_run)


@pytest.fixture
def run(tmp_path: Path, tiny_run: Path) -> Path:
    """A finished run of 200 images, to resume."""
    return Path(shutil.copytree(tiny_run, tmp_path / "copied"))


def resume(run: Path, dataset: Path, silent: Any, **wanted: Any) -> Outcome | None:
    return launch(Launch(dataset=dataset, run=run, resume=True, device="cpu", **wanted), silent)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"overrides": {"model": {"w_dim": "32"}}}, "model: is fixed when a run starts"),
        ({"overrides": {"masking": {"level": "0"}}}, "masking.level: is fixed when a run starts"),
        ({"overrides": {"fine_tuning": {"freeze_blocks": "1"}}}, "fine_tuning: is fixed"),
        ({"overrides": {"preset": "gpu-512"}}, "preset: is fixed when a run starts"),
        ({"overrides": {"tick_kimg": {"x": "1"}}}, "tick_kimg: "),
        ({"overrides": {"batch_size": 6}}, "--batch-size 6: .*multiple of 4"),
        ({"preset": "gpu-512"}, "--preset is for a new run"),
        ({"source": "base:clothing"}, "--from is for a new run"),
    ],
)
def test_what_can_not_be_changed_on_resume_is_refused_and_the_run_stays(
    run: Path, tiny_dataset: Path, silent: Any, wanted: dict[str, Any], message: str
) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    with pytest.raises(LaunchError, match=message):
        resume(run, tiny_dataset, silent, **wanted)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_a_configuration_that_fails_or_can_not_be_written_is_not_kept(
    run: Path, tiny_dataset: Path, silent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "config.json").read_bytes()
    for newest in run.glob("checkpoint-*.pt"):
        newest.write_bytes(b"damaged")
    with pytest.raises(LaunchError, match="none of its checkpoints is intact"):
        resume(run, tiny_dataset, silent, overrides={"max_kimg": 0.3})
    assert (run / "config.json").read_bytes() == before
    config, _ = read_run(run)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_run(run, config, PreparedDataset(tiny_dataset))
    assert (run / "config.json").read_bytes() == before
    assert not list(run.glob("*.partial")) + list(run.glob(".*.partial"))


def test_a_new_end_takes_the_place_of_the_old_one(
    run: Path, tiny_dataset: Path, silent: Any
) -> None:
    outcome = resume(run, tiny_dataset, silent, overrides={"max_minutes": 1e-9})
    assert outcome is not None
    assert (outcome.reason, outcome.nimg) == ("finished", 208)
    assert read_run(run)[0].max_kimg is None
    outcome = resume(run, tiny_dataset, silent, overrides={"max_kimg": 0.24})
    assert outcome is not None
    assert outcome.nimg == 240
    assert read_run(run)[0].max_minutes is None


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        ({"preset": "gpu-512"}, "use --preset"),
        ({"fine_tuning": {"source": "x"}}, "use --from"),
        ({"batch_size": 10}, "multiple of 4"),
    ],
)
def test_settings_that_have_an_option_of_their_own_say_so(
    tmp_path: Path, tiny_dataset: Path, silent: Any, overrides: dict[str, Any], option: str
) -> None:
    wanted = Launch(
        dataset=tiny_dataset, run=tmp_path / "new", overrides=SHORT | overrides, device="cpu"
    )
    with pytest.raises(LaunchError, match=option):
        launch(wanted, silent)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [(8, 8), (14, 10), (12, 16)])
def test_the_smallest_images_are_trained_on(
    tmp_path: Path,
    catalogue: Path,
    tiny_settings: dict[str, Any],
    silent: Any,
    size: tuple[int, int],
) -> None:
    options = PrepareOptions(width=size[0], height=size[1])
    prepare_dataset(catalogue, tmp_path / "dataset", options)

    def train(run: str, **masking: int) -> int:
        settings = {key: value for key, value in tiny_settings.items() if key != "preset"} | SHORT
        settings["masking"] = tiny_settings["masking"] | masking
        dataset, path = tmp_path / "dataset", tmp_path / run
        launch(Launch(dataset=dataset, run=path, overrides=settings, device="cpu"), silent)
        return read_run(path)[0].masking.level

    highest = 1 if size == (12, 16) else 0
    assert train("run") == highest
    message = f"masking.level {highest + 1}: .* allow at most {highest}"
    with pytest.raises(LaunchError, match=message):
        train("other", level=highest + 1)


def test_processes_share_whole_groups() -> None:
    config = resolve({"max_kimg": 1, "batch_size": 16})
    check_batch_size(config, Ranks(0, 4))
    with pytest.raises(ConfigError, match="groups of 4, so give a multiple of 32"):
        check_batch_size(config, Ranks(0, 8))


@pytest.mark.parametrize(("part", "fits"), [(4, True), (8, True), (6, False), (12, False)])
def test_parts_of_a_batch_are_whole_groups_and_make_up_a_shard(part: int, fits: bool) -> None:
    config = resolve({"max_kimg": 1, "batch_size": 16, "batch_gpu": part})
    if fits:
        check_batch_size(config, Ranks(0, 2))
        return
    with pytest.raises(ConfigError, match="multiple of 4 that divides the 8 images of a process"):
        check_batch_size(config, Ranks(0, 2))


def test_the_bases_of_the_readme_ship() -> None:
    assert base_names() == ["clothing", "clothing-128"]
    result = CliRunner().invoke(app, ["bases"])
    assert result.exit_code == 0
    assert "base:clothing  64 x 64 px, CC0-1.0" in result.output
    assert "base:clothing-128  128 x 128 px, CC0-1.0" in result.output
    assert str(base_path("clothing")) in result.output


@pytest.mark.parametrize("name", base_names())
def test_a_shipped_base_can_be_started_from(name: str) -> None:
    source = open_source(f"base:{name}")
    assert source.build_generator().shape.categories == len(source.categories) > 0
    embed = source.discriminator["convolutional.embed"]
    assert embed.shape[0] == len(source.categories)


def test_the_bases_do_not_make_the_package_heavy() -> None:
    files = (file for name in base_names() for file in base_path(name).iterdir())
    assert sum(file.stat().st_size for file in files) < 60_000_000
