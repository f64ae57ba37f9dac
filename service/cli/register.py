"""`catalogan register`: an export into the Model Store."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import operator_errors, say
from service.model_store.registry import Registry

app = typer.Typer(add_completion=False)


@app.command()
def register(
    export: Annotated[Path, typer.Argument(help="What `catalogan export` wrote.")],
    name: Annotated[str | None, typer.Option(help="Name to register under.")] = None,
) -> None:
    """Check an export and put it into the Model Store; the first of a name is promoted."""
    with operator_errors():
        model = Registry().register(export, name)
    state = (
        "promoted"
        if model.promoted
        else f"serve it with: catalogan models promote {model.model_id}"
    )
    say(f"registered {model.model_id} ({state})")
