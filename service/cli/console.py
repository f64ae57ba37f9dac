"""How all commands write: lines for people, JSON for programs, and expected failures as one line.

What comes from files, models and callers may hold what steers a terminal, or ends a line and fakes
the next: it is shown escaped.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from models.terminal import printable
from service.errors import ApiError, OperatorError

console = Console(highlight=False, emoji=False)
errors_console = Console(stderr=True, highlight=False, emoji=False)


def say(line: str, *, style: str | None = None) -> None:
    """Print one line."""
    console.print(printable(line), style=style, markup=False, soft_wrap=True)


def cell(text: str | None) -> Text:
    """A text in a table."""
    return Text(printable(text or ""))


def say_json(value: Any) -> None:
    """Print JSON, with text as it is where a terminal shows it so."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(
        "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    )


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def operator_errors() -> Iterator[None]:
    """Turn expected failures into one line and exit status 2."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    if logging.lastResort is not None:  # what writes where nobody has set logging up
        logging.lastResort.setFormatter(_Line())
    try:
        yield
    except (OperatorError, ApiError) as error:
        line = printable(" ".join(str(error).split()))
        errors_console.print(f"error: {line}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
