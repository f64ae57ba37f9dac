"""What a report takes from stats.jsonl, however the run went."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.report.history import History, read_history


def history_of(tmp_path: Path, *lines: dict[str, Any] | str) -> History:
    path = tmp_path / "stats.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return read_history(path)


def tick(nimg: int, elapsed: float, loss: float = 1.0) -> dict[str, Any]:
    return {"kind": "tick", "nimg": nimg, "elapsed_sec": elapsed, "generator_loss": loss}


def event(kind: str, nimg: int, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "nimg": nimg, **values}


def test_no_file_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "stats.jsonl")
    assert (history.lines, history.nimg, history.seconds) == ([], 0, 0)


def test_a_real_run_is_read(tiny_run: Path) -> None:
    history = read_history(tiny_run / "stats.jsonl")
    assert history.nimg == 200
    assert history.series("tick", "generator_loss").nimg[-1] == 200
    assert history.series("measure", "lag").values
    assert history.mask_periods()
    assert history.seconds > 0


def test_what_is_cut_short_or_no_record_is_passed_over(tmp_path: Path) -> None:
    history = history_of(
        tmp_path,
        tick(100, 1),
        "[1, 2]",
        '"kind"',
        '{"kind": "tick", "nimg": "<b>"}',
        '{"kind": 5, "nimg": 7}',
        '{"kind": "tick", "nimg": true}',
        '{"kind": "tick", "nimg": 150, "generator_loss": NaN}',
        '{"kind": "tick", "nimg": 160, "generator_loss": null}',
        '{"kind": "tick", "nimg": 170, "generator_loss": "high"}',
        '{"kind": "tick", "nimg": 200, "gene',
    )
    assert history.series("tick", "generator_loss").nimg == (100,)
    assert history.nimg == 170


def test_masks_are_periods_and_one_still_held_ends_with_the_run(tmp_path: Path) -> None:
    lines = [event("mask", 100), event("unmask", 300), event("mask", 300), tick(500, 1)]
    assert history_of(tmp_path, *lines).mask_periods() == [(100, 300), (300, 500)]
    assert history_of(tmp_path, *lines[:2], tick(500, 1)).mask_periods() == [(100, 300)]


@pytest.mark.parametrize("back", ["resume", "rollback"])
def test_what_training_went_back_behind_is_left_out(tmp_path: Path, back: str) -> None:
    alarm = event("alarm", 300, name="collapse", message="all alike")
    went_back = event(back, 100, **({"message": "to 100"} if back == "rollback" else {}))
    history = history_of(
        tmp_path,
        tick(100, 10, 1.0),
        event("mask", 150),
        tick(200, 20, 2.0),
        tick(300, 30, 3.0),
        alarm,
        went_back,
        event("mask", 140),
        tick(200, 50 if back == "rollback" else 40, 4.0),  # a resume restarts the clock
    )
    assert history.series("tick", "generator_loss").values == (1.0, 4.0)
    assert history.mask_periods() == [(140, 200)]
    # What is left out took its time as well.
    assert history.seconds == (50 if back == "rollback" else 30 + 40)
    assert [event.kind for event in history.events] == ["alarm", "rollback"][
        : 1 + (back == "rollback")
    ]
    assert (history.events[0].name, history.events[0].message) == ("collapse", "all alike")


@pytest.mark.parametrize("back", ["resume", "rollback"])
def test_a_mask_of_the_discarded_interval_is_left_out(tmp_path: Path, back: str) -> None:
    """No line that comes after going back is as early as the abandoned mask."""
    history = history_of(
        tmp_path,
        tick(200, 10, 1.0),
        event("validation", 200, frechet_distance=3.0),
        event("measure", 200, lag=0.1),  # before the step after the checkpoint
        event("mask", 232),
        event(back, 200, message="to 200"),
        event("measure", 200, lag=0.2),
        tick(400, 20, 2.0),
    )
    assert history.mask_periods() == []
    assert history.series("tick", "generator_loss").values == (1.0, 2.0)
    assert history.series("validation", "frechet_distance").values == (3.0,)
    assert history.series("measure", "lag").values == (0.2,)


def test_a_resumed_run_keeps_what_led_to_its_checkpoint(tmp_path: Path) -> None:
    history = history_of(
        tmp_path,
        tick(200, 10, 1.0),
        event("mask", 200),
        tick(400, 20, 2.0),
        event("resume", 200),
        event("mask", 200),
        tick(400, 10, 3.0),
    )
    assert history.series("tick", "generator_loss").values == (1.0, 3.0)
    assert history.mask_periods() == [(200, 400)]
