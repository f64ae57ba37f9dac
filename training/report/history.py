"""stats.jsonl -> the history of a run, for its report."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# Kinds of lines that stay in the report even if training went back to an earlier point.
_EVENTS: Final = ("alarm", "rollback")
# Kinds of lines about the images before their count; other kinds are about those after it.
_LOOKS_BACK: Final = ("tick", "validation")


@dataclass(frozen=True)
class Event:
    """An alarm or a rollback."""

    kind: str  # "alarm" or "rollback"
    nimg: int
    name: str
    message: str


@dataclass(frozen=True)
class Series:
    """One measured quantity over images shown."""

    nimg: tuple[int, ...]
    values: tuple[float, ...]


@dataclass
class History:
    """The history of a run, from its stats.jsonl.

    If training went back to an earlier point, by a resume or a rollback, the lines after that
    point are no longer part of the run and are left out; alarms and rollbacks stay.

    Attributes:
        lines: Ticks, measurements and mask events in order, each with "kind" and "nimg".
        events: Alarms and rollbacks in order.
        seconds: Training time over all resumes, including the parts that were left out.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def nimg(self) -> int:
        """Images shown at the last line."""
        return int(self.lines[-1]["nimg"]) if self.lines else 0

    def series(self, kind: str, name: str) -> Series:
        """Extract a quantity from the lines of one kind, except where it isn't a finite number."""
        found = [
            (int(line["nimg"]), float(line[name]))
            for line in self.lines
            if line["kind"] == kind and _is_number(line.get(name))
        ]
        return Series(tuple(n for n, _ in found), tuple(v for _, v in found))

    def mask_periods(self) -> list[tuple[int, int]]:
        """Image counts at which each mask was set and released; the last may end with the run."""
        periods: list[tuple[int, int]] = []
        start: int | None = None
        for line in self.lines:
            if line["kind"] == "mask" and start is None:
                start = line["nimg"]
            elif line["kind"] == "unmask" and start is not None:
                periods.append((start, line["nimg"]))
                start = None
        if start is not None and start < self.nimg:
            periods.append((start, self.nimg))
        return periods


def read_history(path: Path) -> History:
    """Read stats.jsonl; the history is empty if there is none.

    Truncated and invalid lines are skipped, so that a run that was killed has a report, too.

    Raises:
        OSError: The file exists but can't be read.
    """
    history = History()
    elapsed = 0.0
    for line in _records(path):
        if history.lines and _moment(line) < _moment(history.lines[-1]):
            history.lines = [old for old in history.lines if _moment(old) < _moment(line)]
        if line["kind"] in _EVENTS:
            texts = (str(line.get(key, "")) for key in ("name", "message"))
            history.events.append(Event(line["kind"], line["nimg"], *texts))
            continue
        if line["kind"] == "resume":
            elapsed = 0.0  # the clock restarts
            continue
        history.lines.append(line)
        if line["kind"] == "tick" and _is_number(line.get("elapsed_sec")):
            history.seconds += line["elapsed_sec"] - elapsed
            elapsed = line["elapsed_sec"]
    return history


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that are objects with a kind and an image count."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                record = json.loads(text)
            except ValueError:
                continue
            if (
                isinstance(record, dict)
                and isinstance(record.get("kind"), str)
                and type(record.get("nimg")) is int
            ):
                yield record


def _moment(line: dict[str, Any]) -> tuple[int, bool]:
    """Sort key of a line: at a checkpoint's count, lines that look back come before it.

    A rollback and a resume have the count of their checkpoint.
    """
    return line["nimg"], line["kind"] not in _LOOKS_BACK


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
