"""Command line of the serving room: register, models, serve, generate, synthesize."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from service.model_store.registry import RegisteredModel
from service.cli.console import console, errors_console, operator_errors

app = typer.Typer(no_args_is_help=True, help="Serve trained models.")
models_app = typer.Typer(no_args_is_help=True, help="Show and promote registered models.")
app.add_typer(models_app, name="models")


@app.command()
def register(
    export: Annotated[Path, typer.Argument(help="What `catalogan export` wrote.")],
    name: Annotated[str | None, typer.Option(help="Name to register under.")] = None,
) -> None:
    """Check an export and put it into the Model Store; the first of a name is promoted."""
    with operator_errors():
        from service.model_store.registry import Registry

        model = Registry().register(export, name)
    state = (
        "promoted"
        if model.promoted
        else f"serve it with: catalogan models promote {model.model_id}"
    )
    console.print(f"registered {model.model_id} ({state})", markup=False, soft_wrap=True)


@models_app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List registered models; a star marks the version that is served."""
    with operator_errors():
        from service.model_store.registry import Registry

        found = Registry().list()
    if as_json:
        typer.echo(json.dumps([_metadata(model) for model in found], indent=2))
        return
    from rich.table import Table

    table = Table("", "model", "size", "categories", "kimg", "exported")
    for model in found:
        manifest = model.manifest
        table.add_row(
            "*" if model.promoted else "",
            model.model_id,
            f"{manifest.width}x{manifest.height}",
            str(len(manifest.categories)),
            f"{manifest.nimg / 1000:.0f}",
            f"{manifest.created:%Y-%m-%d %H:%M}",
        )
    console.print(table)


@models_app.command()
def show(model_id: Annotated[str, typer.Argument(metavar="NAME[:VERSION]")]) -> None:
    """Print a model's facts and manifest as JSON."""
    with operator_errors():
        from service.model_store.registry import Registry

        model = Registry().get(model_id)
    metadata = _metadata(model) | {"manifest": model.manifest.model_dump(mode="json")}
    typer.echo(json.dumps(metadata, indent=2, ensure_ascii=False))


@models_app.command()
def promote(model_id: Annotated[str, typer.Argument(metavar="NAME:VERSION")]) -> None:
    """Serve this version under its name; a running service takes it over by itself."""
    with operator_errors():
        from service.model_store.registry import Registry

        model = Registry().promote(model_id)
    console.print(f"{model.name} now serves {model.model_id}", markup=False)


@models_app.command()
def rollback(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Serve again what was served before the last promotion."""
    with operator_errors():
        from service.model_store.registry import Registry

        model = Registry().rollback(name)
    console.print(f"{model.name} now serves {model.model_id}", markup=False)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Others than this machine need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 3000,
    model: Annotated[str | None, typer.Option(help="Default model, NAME or NAME:VERSION.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option()] = None,
) -> None:
    """Serve the promoted model over HTTP, until Ctrl-C or SIGTERM."""
    with operator_errors():
        from service.settings import load_settings
        from service.telemetry.logs import configure_logging

        settings = load_settings(model=model, device=device)
        # The service reads its settings itself, however it is started.
        for variable, value in (("CATALOGAN_MODEL", model), ("CATALOGAN_DEVICE", device)):
            if value is not None:
                os.environ[variable] = value
        configure_logging(settings.log_format)
        key = "an API key is asked for" if settings.has_keys else "no API key: this machine only"

        def announce(bound: int) -> None:
            shown = f"[{host}]" if ":" in host else host
            line = f"listening on http://{shown}:{bound} ({key})"
            if settings.log_format == "json":
                logging.getLogger(__name__).info(line)
            else:
                console.print(line, markup=False)

        from service.server.runner import serve as run

        run(settings, host, port, announce)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Directory for the pictures.")],
    count: Annotated[int, typer.Option(min=1, max=100_000)] = 1,
    category: Annotated[str | None, typer.Option(help="Else all in turn.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first picture.")] = None,
    model: Annotated[str | None, typer.Option(help="NAME or NAME:VERSION.")] = None,
    export: Annotated[Path | None, typer.Option(help="Use an export unregistered.")] = None,
    output_format: Annotated[Literal["png", "jpeg", "webp"], typer.Option("--format")] = "png",
    truncation_psi: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT, up to the model's max_size.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option()] = None,
) -> None:
    """Write pictures, the same as the service gives for these seeds."""
    with operator_errors():
        from service.cli.batch import Batch, write_images

        batch = Batch(
            count=count,
            category=category,
            seed=seed,
            truncation_psi=truncation_psi,
            size=size,
            output_format=output_format,
        )
        write_images(batch, out, model_id=model, export=export, device=device)
    console.print(f"wrote {count} pictures to {out}", markup=False, soft_wrap=True)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="A directory, or FILE.zip or FILE.tar; not there yet.")],
    count: Annotated[int | None, typer.Option(min=1, help="Pictures of each category.")] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(help="NAME, or NAME=COUNT; several times. Else all.", metavar="NAME[=COUNT]"),
    ] = None,
    layout: Annotated[Literal["folder", "coco", "webdataset"], typer.Option()] = "folder",
    shard: Annotated[
        str, typer.Option(help="I/N: the I-th of N parts, which together are the set.")
    ] = "1/1",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the set; needed for shards.")] = None,
    model: Annotated[str | None, typer.Option(help="NAME or NAME:VERSION.")] = None,
    export: Annotated[Path | None, typer.Option(help="Use an export unregistered.")] = None,
    output_format: Annotated[Literal["png", "jpeg", "webp"], typer.Option("--format")] = "png",
    truncation_psi: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT, up to the model's max_size.")
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="white, transparent or #rrggbb, where the model has alpha.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option()] = None,
) -> None:
    """Make a labelled synthetic set, the same as POST /v1/datasets gives."""
    with operator_errors():
        from rich.progress import Progress

        from service.cli.synthesis import ask, write_set

        request = ask(
            count=count,
            categories=category or [],
            shard=shard,
            seed=seed,
            layout=layout,
            output_format=output_format,
            truncation_psi=truncation_psi,
            size=size,
            background=background,
        )
        with Progress(console=errors_console, disable=not errors_console.is_terminal) as progress:
            task = progress.add_task("Pictures", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            plan = write_set(
                request, out, model_id=model, export=export, device=device, on_progress=show
            )
    told = f"wrote {len(plan.numbers)} of {plan.total} pictures to {out}, seed {plan.seed}"
    console.print(told, markup=False, soft_wrap=True)


def _metadata(model: "RegisteredModel") -> dict[str, object]:
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
