"""`catalogan models`: show, promote and roll back registered models."""

from typing import Annotated

import typer
from rich.table import Table

from service.cli.console import cell, console, operator_errors, say, say_json
from service.cli.options import JsonOption
from service.model_store.registry import RegisteredModel, Registry

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Show and promote registered models."
)


@app.command("list")
def list_models(
    as_json: JsonOption = False,
) -> None:
    """List registered models; a star marks the version that is served."""
    with operator_errors():
        found = Registry().list()
    if as_json:
        say_json([_metadata(model) for model in found])
        return
    table = Table("", "model", "size", "categories", "kimg", "exported")
    for model in found:
        manifest = model.manifest
        table.add_row(
            "*" if model.promoted else "",
            cell(model.model_id),
            f"{manifest.width}x{manifest.height}",
            str(len(manifest.categories)),
            f"{manifest.nimg / 1000:.0f}",
            f"{manifest.created:%Y-%m-%d %H:%M}",
        )
    console.print(table)


@app.command()
def show(model_id: Annotated[str, typer.Argument(metavar="NAME[:VERSION]")]) -> None:
    """Print a model's metadata and manifest as JSON."""
    with operator_errors():
        model = Registry().get(model_id)
    metadata = _metadata(model) | {"manifest": model.manifest.model_dump(mode="json")}
    say_json(metadata)


@app.command()
def promote(model_id: Annotated[str, typer.Argument(metavar="NAME:VERSION")]) -> None:
    """Serve this version under its name; a running service loads it by itself."""
    with operator_errors():
        model = Registry().promote(model_id)
    say(f"{model.name} now serves {model.model_id}")


@app.command()
def rollback(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Serve again what was served before the last promotion."""
    with operator_errors():
        model = Registry().rollback(name)
    say(f"{model.name} now serves {model.model_id}")


def _metadata(model: RegisteredModel) -> dict[str, object]:
    manifest = model.manifest
    return {
        "id": model.model_id,
        "promoted": model.promoted,
        "model_hash": manifest.model_hash,
        "size": f"{manifest.width}x{manifest.height}",
        "categories": list(manifest.categories),
        "nimg": manifest.nimg,
        "created": manifest.created.isoformat(),
        "folder": str(model.folder),
    }
