"""Progress of long commands: a bar on a terminal, a line a minute anywhere else."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES: Final = 60


class PlainLines:
    """Progress where there is no terminal (a container's log, cron, a file): a line a minute."""

    def __init__(
        self, console: Console, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Print an update a minute, and the last."""
        self._console, self._title, self._clock = console, title, clock
        self._started: tuple[float, float] | None = None  # seconds, and what was done by then
        self._printed = 0.0
        self._pending: str | None = None

    def update(self, done: float, total: float | None, figures: str, unit: str = "") -> None:
        """Take what is known now.

        Args:
            done: So much, in any unit.
            total: Of so much; None where nobody knows.
            figures: What to say of it.
            unit: Of `done`, where the figures lack the speed.
        """
        now = self._clock()
        if self._started is None:
            self._started, self._printed = (now, done), now
        seconds, progressed = now - self._started[0], done - self._started[1]
        more = ""
        if unit and progressed > 0 and seconds > 0:
            more += f", {progressed / seconds:.3g} {unit}/s"
        if total and progressed > 0:
            minutes = math.ceil(max(total - done, 0) / progressed * seconds / 60)
            more += f", {minutes} min left"
        self._pending = f"{self._title}: {figures}{more}"
        if now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self.print_pending()

    def print_pending(self) -> None:
        """Print what was not printed yet."""
        if self._pending is not None:
            self._console.print(self._pending, markup=False, highlight=False, soft_wrap=True)
        self._pending = None


@contextmanager
def progress(
    console: Console, title: str, unit: str
) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar, or lines; yields its update function of (done, total)."""
    if not console.is_terminal:
        lines = PlainLines(console, title)

        def line(done: int, total: int | None) -> None:
            of_all = f"{done} of {total}" if total else f"{done}"
            lines.update(done, total, f"{of_all} {unit}", unit)

        yield line
        lines.print_pending()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} · {{task.fields[rate]}}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, rate="–")

        def update(done: int, total: int | None) -> None:
            speed = bar.tasks[task].speed
            rate = "–" if speed is None else f"{speed:.0f}"
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


@contextmanager
def progress_of_parts(
    console: Console, title: str, unit: str
) -> Iterator[Callable[[str, int, int | None], None]]:
    """As `progress`, for work of several parts: update functions take a part's name first."""
    with ExitStack() as shown:
        part: str | None = None
        update: Callable[[int, int | None], None]

        def show(now: str, done: int, total: int | None) -> None:
            nonlocal part, update
            if now != part:
                shown.close()  # the last of the part before
                part, update = now, shown.enter_context(progress(console, f"{title} {now}", unit))
            update(done, total)

        yield show
