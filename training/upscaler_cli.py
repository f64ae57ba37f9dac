"""Command line of the training room: train-upscaler."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from training.cli import SNAPSHOT_HELP, configure_logging, fail, invalid, shown_training
from training.learning.config import Device, Snapshot

DEFAULT_KIMG = 30.0

app = typer.Typer(no_args_is_help=True, add_completion=False)

_out = Console(highlight=False)


@app.callback()
def _room() -> None:
    """Keeps the one command a command of its group."""


@app.command("train-upscaler")
def train_upscaler(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    photos: Annotated[Path, typer.Option(help="Folder; its first level is the category.")],
    validation: Annotated[
        Path | None, typer.Option(help="Such a folder to judge by; else a tenth of the photos.")
    ] = None,
    factor: Annotated[int, typer.Option(help="How much larger: 2 or 4.")] = 4,
    max_kimg: Annotated[
        float | None,
        typer.Option(help=f"Stop after so many thousand crops shown; {DEFAULT_KIMG:g} if no end."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    snapshot: Annotated[Snapshot, typer.Option(help=SNAPSHOT_HELP)] = "last",
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
) -> None:
    """Train an upscaler: images 2 or 4 times as large, with the detail of your own photos."""
    from training.learning.checkpoint import CheckpointError
    from training.learning.device import pick_device
    from training.upscaling.upscaler_run import UPSCALER_FOLDER, UpscalerSettings
    from training.upscaling.upscaling import Photos
    from training.upscaling.upscaling import train_upscaler as run_training

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = DEFAULT_KIMG
    try:
        settings = UpscalerSettings.model_validate(
            {
                "factor": factor,
                "seed": seed,
                "snapshot": snapshot,
                "max_kimg": max_kimg,
                "max_minutes": max_minutes,
            }
        )
        given = Photos(photos, validation)
        with shown_training("upscaler", max_kimg, max_minutes) as shown:
            card = run_training(run, given, settings, pick_device(device), *shown)
    except ValidationError as error:
        invalid(error)
    except (ValueError, CheckpointError) as error:
        fail(str(error))
    table = Table("kernel distance to photos", "upscaler", "Lanczos")
    for name, distances in (("of photos made small", card.photos), ("generated", card.generated)):
        table.add_row(name, f"{distances.upscaler:.4f}", f"{distances.lanczos:.4f}")
    _out.print(table)
    _out.print(
        f"{card.nimg / 1000:.1f} kimg, judged on {card.judged} photos; look at "
        f"{run / UPSCALER_FOLDER / 'enlarged.png'}",
        markup=False,
        soft_wrap=True,
    )
