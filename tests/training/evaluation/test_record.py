"""Which figures of an evaluation an export may carry."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.dataset import PreparedDataset
from training.evaluation.evaluation import evaluate
from training.evaluation.options import EvaluationOptions
from training.evaluation.record import read_headline
from training.learning.samplers import RunSampler


@pytest.fixture(scope="module")
def judged_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_dataset: Path
) -> Path:
    run = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(tiny_run, run)
    options = EvaluationOptions(samples=12, classifier_steps=10)
    evaluate(RunSampler(run), PreparedDataset(tiny_dataset), options, run / "evaluation")
    return run


def test_figures_are_of_the_run_itself(
    judged_run: Path, tiny_dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    figures = read_headline(judged_run, 200, PreparedDataset(tiny_dataset).info.hash)
    assert "label_agreement" in figures
    assert "memorised_share" in figures
    assert not caplog.records


def test_a_run_that_was_not_evaluated_has_none(tiny_run: Path) -> None:
    assert read_headline(tiny_run, 200, "0" * 64) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nimg": 100}, "is of another moment of the run"),
        ({"dataset_hash": "0" * 64}, "is on another dataset than the run's"),
        ({"truncation_psi": 0.3}, "is at truncation 0.3, not 1"),
        ({"nimg": "x"}, "can't be read (nimg 'x': must be a whole number)"),
    ],
)
def test_figures_of_anything_else_are_left_out_and_said(
    judged_run: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    said: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(judged_run, run)
    path = run / "evaluation" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_headline(run, 200, PreparedDataset(tiny_dataset).info.hash) == {}
    (message,) = caplog.messages
    assert message.startswith(f"{path} {said}")
    assert message.endswith(": exported without metrics")
