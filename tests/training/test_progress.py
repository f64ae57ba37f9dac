"""What commands say of their progress where nobody looks at a terminal."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from models.progress import PlainLines, progress, progress_of_parts


def console() -> Console:
    return Console(stderr=True)


def test_a_line_a_minute_with_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = PlainLines(console(), "Training", clock=lambda: now[0])
    for done in range(13):  # one every twenty seconds
        now[0] = 20.0 * done
        lines.update(done, 24, f"{done} kimg")
    lines.print_pending()
    assert capsys.readouterr().err.splitlines() == [
        "Training: 3 kimg, 7 min left",
        "Training: 6 kimg, 6 min left",
        "Training: 9 kimg, 5 min left",
        "Training: 12 kimg, 4 min left",
    ]


def test_the_last_is_said_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainLines(console(), "Preparing")
    lines.update(1, 3, "1 of 3 photos")
    lines.update(2, 3, "2 of 3 photos")
    lines.update(3, 3, "3 of 3 photos")
    lines.print_pending()
    lines.print_pending()
    assert capsys.readouterr().err == "Preparing: 3 of 3 photos, 0 min left\n"


def test_a_line_says_how_fast_where_its_figures_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = PlainLines(console(), "Generating", clock=lambda: now[0])
    lines.update(0, 600, "0 of 600 images", "images")
    now[0] = 120.0
    lines.update(300, 600, "300 of 600 images", "images")
    line = "Generating: 300 of 600 images, 2.5 images/s, 2 min left"
    assert capsys.readouterr().err.splitlines() == [line]


def test_each_part_says_its_last(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of_parts(console(), "Evaluating,", "images") as update:
        for part in ("photos", "generated"):
            for done in range(4):
                update(part, done, 3)
    found = [line.partition(" images")[0] for line in capsys.readouterr().err.splitlines()]
    assert found == ["Evaluating, photos: 3 of 3", "Evaluating, generated: 3 of 3"]


def test_a_terminal_has_a_bar_and_no_lines() -> None:
    terminal = Console(force_terminal=True, file=io.StringIO())
    with progress(terminal, "Preparing", "photos") as update:
        update(1, 2)
    assert "━" in terminal.file.getvalue()
    assert "min left" not in terminal.file.getvalue()


def test_prepare_in_a_log_has_lines_and_no_bar(catalogue: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "catalogan", "prepare", str(catalogue)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--size", "8"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Preparing: 16 of 16 photos" in done.stderr
    assert "━" not in done.stderr
