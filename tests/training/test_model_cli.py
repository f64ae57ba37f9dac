"""train, evaluate and export as a person runs them."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from training.evaluation import options as evaluation_options
from training.evaluation.options import EvaluationOptions
from training.evaluation.record import Memorisation
from training.learning.checkpoint import load_newest
from training.model_cli import app, check_memorised
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions

from ..processes import started, wait_for

CATALOGAN = Path(sys.executable).with_name("catalogan")
TINY = ["--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
TINY += ["--discriminator", "convolutional"]
for _setting in ("model.channel_base=128", "model.channel_max=16", "tick_kimg=0.04"):
    TINY += ["--set", _setting]


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-kimg", "1", "--preset", "huge"], "--preset huge: choose one of cpu-demo"),
        ([], "give max_kimg or max_minutes"),
        (["--max-kimg", "0"], "max_kimg 0.0: must be above 0"),
        (["--max-kimg", "1", "--set", "masking.ratio=2"], "masking.ratio"),
        (["--max-kimg", "1", "--set", "masking"], "write it as name=value"),
        (["--max-kimg", "1", "--set", "masking.colour=red"], "masking.colour"),
        (["--max-kimg", "1", "--discriminator", "mine"], "'convolutional', 'both'"),
        (["--max-kimg", "1", "--set", "optimizer.ema_lengths=1,0"], "optimizer.ema_lengths.1"),
        (["--max-kimg", "1", "--from", "nowhere"], "--from nowhere: neither a run"),
        (["--resume"], "is no training run"),
    ],
)
def test_a_bad_option_is_named(
    tmp_path: Path, tiny_dataset: Path, arguments: list[str], message: str
) -> None:
    code, output = invoke(
        "train", tiny_dataset, "--out", tmp_path / "run", "--device", "cpu", *arguments
    )
    assert code == 2, output
    assert message in output
    assert not list(tmp_path.rglob("checkpoint*"))


def test_an_unreadable_dataset_is_named(tmp_path: Path) -> None:
    code, output = invoke("train", tmp_path / "none", "--out", tmp_path / "r", "--max-kimg", "1")
    assert code == 2
    assert "run `catalogan prepare` again" in output
    assert not (tmp_path / "r").exists()


def test_a_run_is_not_overwritten_and_another_dataset_not_resumed(
    tmp_path: Path, tiny_dataset: Path, tiny_run: Path
) -> None:
    code, output = invoke("train", tiny_dataset, "--out", tiny_run, "--max-kimg", "1")
    assert (code, "holds a run: continue it" in output) == (2, True)
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_dataset.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    info = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**info, "hash": "0" * 64}))
    code, output = invoke("train", other, "--out", tiny_run, "--resume")
    assert (code, "was trained on another dataset" in output) == (2, True)


def test_export_says_what_it_did_and_refuses_nonsense(tmp_path: Path, tiny_run: Path) -> None:
    code, output = invoke("export", tiny_run, "--out", tmp_path / "shop")
    assert code == 0, output
    assert "exported shop" in output
    for run, out, message in (
        (tiny_run, "shop", "exists"),
        (tmp_path, "other", "is no training run"),
    ):
        code, output = invoke("export", run, "--out", tmp_path / out)
        assert (code, message in output) == (2, True), output
    code, output = invoke("export", tiny_run, "--out", tmp_path / "x", "--name", "Not A Name")
    assert code == 2, output
    assert "name" in output
    assert not (tmp_path / "x").exists()


def refusal(*arguments: str | Path) -> str:
    """The one line on stderr with which a command ends in exit code 2."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_export_checks_the_name_before_all_else(tmp_path: Path) -> None:
    out = tmp_path / "My Export"
    assert refusal("export", tmp_path / "no-run", "--out", out).startswith(
        "Error: --name 'my export': give a name of"
    )


def test_evaluate_names_a_bad_option_in_one_line(tmp_path: Path) -> None:
    for option, value, more in (
        ("--samples", "0", ()),
        ("--truncation-psi", "2.0", ()),
        ("--seed", "-1", ()),
        ("--few-photos", "0", ("--usefulness",)),
        ("--repetitions", "1", ("--usefulness",)),
    ):
        line = refusal("evaluate", tmp_path, "--data", tmp_path, option, value, *more)
        assert line.startswith(f"Error: {option} {value}: must be"), line


def test_what_is_wrong_in_a_file_is_said_in_one_line(
    tmp_path: Path, tiny_run: Path, tiny_dataset: Path
) -> None:
    run, data, shop = tmp_path / "run", tmp_path / "data", tmp_path / "shop"
    shutil.copytree(tiny_run, run)
    shutil.copytree(tiny_dataset, data)
    for folder in (run / "encoder", shop, tmp_path / "mark"):
        folder.mkdir()
    evaluate = ("evaluate", run, "--data", data)
    export = ("export", run, "--out", tmp_path / "out")
    train = ("train", data, "--out", tmp_path / "new", "--max-kimg", "1", "--from", shop)
    for file, command, said in (
        (shop / "manifest.json", ("evaluate", shop, "--data", data), "export: name: is missing"),
        (shop / "manifest.json", train, f"--from {shop}: name: is missing"),
        (tmp_path / "mark/watermark.json", (*export, "--watermark", tmp_path / "mark"), "again by"),
        (run / "encoder/encoder.json", export, "can't be read (settings: is missing)"),
        (data / "dataset.json", evaluate, "dataset (hash: is missing): run"),
        (run / "config.json", evaluate, "give max_kimg or max_minutes"),
        (run / "config.json", export, "give max_kimg or max_minutes"),
    ):
        file.write_text("{}")
        line = refusal(*command)
        assert said in line, file
        assert "validation error" not in line, file


def test_the_discriminator_is_chosen_once(tmp_path: Path, tiny_dataset: Path) -> None:
    run = tmp_path / "run"
    chosen = ("--discriminator", "both", "--set", "projected.weight=0.5")
    code, output = invoke(
        "train", tiny_dataset, "--out", run, "--max-kimg", "0.008", *TINY, *chosen
    )
    assert code == 0, output
    saved = json.loads((run / "config.json").read_text())
    assert (saved["discriminator"], saved["projected"]["weight"]) == ("both", 0.5)
    heads = [name for name in load_newest(run)["discriminator"] if "heads." in name]
    assert heads
    resume = ("train", tiny_dataset, "--out", run, "--resume", "--max-kimg", "0.016")
    code, output = invoke(*resume, "--discriminator", "convolutional", "--device", "cpu")
    assert code == 2
    assert "discriminator: is fixed when a run starts: use --from" in output
    code, output = invoke(*resume, "--device", "cpu")
    assert (code, load_newest(run)["nimg"]) == (0, 16), output


def test_export_takes_synonyms(tmp_path: Path, tiny_run: Path) -> None:
    file = tmp_path / "synonyms.json"
    arguments = ("export", tiny_run, "--out", tmp_path / "shop", "--synonyms", file)
    for text, message in (
        (None, "can't be read"),
        ("{", "synonyms.json: is not valid JSON"),
        ('["cups"]', "write {"),
        ('{"cups": "mug"}', "cups 'mug': must be a list"),
        ('{"spoons": ["ladle"]}', "'spoons', which is no category; known are cups, hats, mats"),
        ('{"cups": ["Hat"]}', "'Hat', a synonym of 'cups', is the category 'hats', too"),
    ):
        if text is not None:
            file.write_text(text)
        code, output = invoke(*arguments)
        assert (code, message in output) == (2, True), output
        assert not (tmp_path / "shop").exists()
    file.write_text('{"cups": ["mug", "beaker"], "hats": []}')
    code, output = invoke(*arguments)
    assert code == 0, output
    manifest = json.loads((tmp_path / "shop" / "manifest.json").read_text())
    assert manifest["synonyms"] == {"cups": ["mug", "beaker"], "hats": []}
    assert "| cups is called | mug, beaker, too |" in (tmp_path / "shop" / "README.md").read_text()


def test_evaluate_refuses_what_is_no_model(tmp_path: Path, tiny_dataset: Path) -> None:
    code, output = invoke("evaluate", tmp_path / "none", "--data", tiny_dataset)
    assert code == 2
    assert "neither a run nor an export" in output


def test_report_writes_the_page_and_refuses_what_is_no_run(tmp_path: Path, tiny_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    code, output = invoke("report", run)
    assert (code, "report.html" in output) == (0, True), output
    assert (run / "report.html").stat().st_size > 10_000
    code, output = invoke("report", tmp_path / "none")
    assert (code, "is no training run" in output) == (2, True), output


def test_training_ends_with_a_report(tmp_path: Path, tiny_dataset: Path) -> None:
    run = tmp_path / "run"
    code, output = invoke("train", tiny_dataset, "--out", run, "--max-kimg", "0.08", *TINY)
    assert code == 0, output
    page = (run / "report.html").read_text()
    assert "Images over time" in page
    assert "after 0.08 thousand images" in page


@pytest.mark.slow
def test_an_export_carries_what_evaluate_measured(
    tmp_path: Path,
    fill: Callable[[Path, range], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # How well categories are distinguished is for other tests.
    sooner = partial(EvaluationOptions, classifier_steps=10)
    monkeypatch.setattr(evaluation_options, "EvaluationOptions", sooner)
    for i, category in enumerate(("cups", "hats", "mats")):
        fill(tmp_path / "photos" / category, range(1000 * i, 1000 * i + 24))
    for share in (0.5, 0.6):
        options = {"width": 16, "height": 16, "validation_share": share}
        out = tmp_path / f"data-{share}"
        prepare_dataset(tmp_path / "photos", out, PrepareOptions.model_validate(options))
    data, run = tmp_path / "data-0.5", tmp_path / "run"
    assert invoke("train", data, "--out", run, "--max-kimg", "0.08", *TINY)[0] == 0
    code, output = invoke(
        "evaluate", run, "--data", data, "--samples", "36", "--max-memorised", "1"
    )
    assert code == 0, output
    assert f"Evaluating {run} on {data}: samples 36, seed 0, truncation_psi 1.0" in output
    assert re.search(r"Evaluating, generated: (\d+) of \1 images", output)
    assert "How good are the images?" in (run / "report.html").read_text()
    with Image.open(run / "evaluation" / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 200

    assert invoke("export", run, "--out", tmp_path / "export")[0] == 0
    metrics = json.loads((tmp_path / "export" / "manifest.json").read_text())["metrics"]
    assert metrics["kernel_distance"] > metrics["kernel_distance_floor"]
    # 36 validation photos are too few for it: the table says so.
    assert "frechet_distance" not in metrics
    assert re.search(r"frechet_distance .*left out: \d+ photos, needs 100", output)
    assert 0 <= metrics["memorised_share"] <= 1

    # An export has no folder for what is found of it, which may lie in its run's.
    direct = ("evaluate", tmp_path / "export", "--out", run / "evaluation", "--samples", "36")
    for share, carried in ((0.5, True), (0.6, False)):
        code, output = invoke(*direct, "--data", tmp_path / f"data-{share}")
        assert code == 0, output
        out = tmp_path / f"export-{share}"
        assert invoke("export", run, "--out", out)[0] == 0
        assert bool(json.loads((out / "manifest.json").read_text())["metrics"]) == carried
        assert (r"kernel\_distance" in (out / "README.md").read_text()) == carried


def test_too_much_memorised_is_an_exit_code_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Memorisation(
        train_count=60,
        validation_count=30,
        generated_count=90,
        threshold=2.5,
        share=0.25,
        expected_share=1 / 31,
        chance_share=0.1,
        nearest=(),
    )
    check_memorised(found, 0.25)
    with pytest.raises(typer.Exit) as ended:
        check_memorised(found, 0.2)
    assert ended.value.exit_code == 3
    message = " ".join(capsys.readouterr().err.split())
    assert "25.0% of 90 generated images are too near" in message
    assert "more than --max-memorised 0.2" in message
    assert "3.2%, by chance up to 10.0% with 30 validation photos" in message


def run_command(*arguments: Any) -> AbstractContextManager["subprocess.Popen[str]"]:
    command = [str(CATALOGAN), *map(str, arguments)]
    return started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_cleanly_and_resume_goes_on(
    tmp_path: Path, tiny_dataset: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    endless = ("--max-kimg", 1e6, *TINY)
    with run_command("train", tiny_dataset, "--out", run, *endless) as process:
        wait_for((run / "stats.jsonl").exists, process)
        process.send_signal(number)
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "continue with --resume" in output
    stopped = load_newest(run)["nimg"]
    assert stopped > 0
    target = (stopped + 80) / 1000
    with run_command(
        "train", tiny_dataset, "--out", run, "--resume", "--max-kimg", target, "--device", "cpu"
    ) as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "finished" in output
    assert load_newest(run)["nimg"] == stopped + 80


@pytest.mark.slow
def test_two_processes_train_as_torchrun_starts_them(tmp_path: Path, tiny_dataset: Path) -> None:
    run = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("torchrun")),
        "--nproc-per-node=2",
        "--standalone",
        str(CATALOGAN),
        *("train", str(tiny_dataset), "--out", str(run), "--max-kimg", "0.08", *TINY),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_newest(run)["nimg"] == 80
