"""How all commands write: lines for people, and expected failures as one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from service.errors import ApiError, OperatorError

console = Console(highlight=False)
errors_console = Console(stderr=True, highlight=False)


@contextmanager
def operator_errors() -> Iterator[None]:
    """Turn expected failures into one line and exit status 2."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    try:
        yield
    except (OperatorError, ApiError) as error:
        line = " ".join(str(error).split())
        errors_console.print(f"error: {line}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
