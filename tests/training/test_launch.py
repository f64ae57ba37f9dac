"""What `catalogan train` settles before the loop begins."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from training.bases import base_names, base_path
from training.cli import app
from training.launch import FINE_TUNING, Launch, launch
from training.learning.fine_tuning import open_source
from training.learning.run import read_run

SHORT = {"max_kimg": 0.016, "batch_size": 8, "precision": "fp32"}


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
    assert config.optimizer.warmup_kimg == 0.5  # what is asked for wins
    assert config.fine_tuning.source == str(tiny_run)


def test_the_base_of_the_readme_ships() -> None:
    assert base_names() == ["clothing"]
    result = CliRunner().invoke(app, ["bases"])
    assert result.exit_code == 0
    assert "base:clothing  64 x 64 px, CC0-1.0" in result.output
    assert str(base_path("clothing")) in result.output


@pytest.mark.parametrize("name", base_names())
def test_a_shipped_base_can_be_started_from(name: str) -> None:
    source = open_source(f"base:{name}")
    assert source.build_generator().shape.categories == len(source.categories) > 0
    assert source.discriminator["embed"].shape[0] == len(source.categories)
    sizes = [file.stat().st_size for file in base_path(name).iterdir()]
    assert sum(sizes) < 20_000_000
