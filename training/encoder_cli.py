"""Command line of the training room: train-encoder."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from training.cli import SNAPSHOT_HELP, configure_logging, fail, invalid, shown_training
from training.learning.config import Device, Snapshot

DEFAULT_KIMG = 100.0

app = typer.Typer(no_args_is_help=True, add_completion=False)

_out = Console(highlight=False)


@app.callback()
def _room() -> None:
    """Keeps the one command a command of its group."""


@app.command("train-encoder")
def train_encoder(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    data: Annotated[Path, typer.Option(help="The dataset that it was trained on.")],
    max_kimg: Annotated[
        float | None,
        typer.Option(help=f"Stop after so many thousand photos shown; {DEFAULT_KIMG:g} if no end."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    snapshot: Annotated[Snapshot, typer.Option(help=SNAPSHOT_HELP)] = "last",
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
) -> None:
    """Train an encoder that finds a photo's place among what a run's generator paints."""
    from training.dataset import PreparedDataset
    from training.inversion.encoder_run import ENCODER_FOLDER, EncoderSettings
    from training.inversion.inversion import train_encoder as run_training
    from training.learning.checkpoint import CheckpointError
    from training.learning.device import pick_device

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = DEFAULT_KIMG
    try:
        settings = EncoderSettings(
            seed=seed, snapshot=snapshot, max_kimg=max_kimg, max_minutes=max_minutes
        )
        with shown_training("encoder", max_kimg, max_minutes) as shown:
            card = run_training(run, PreparedDataset(data), settings, pick_device(device), *shown)
    except ValidationError as error:
        invalid(error)
    except (ValueError, CheckpointError) as error:
        fail(str(error))
    table = Table("on validation photos", "pixel error", "feature distance")
    for name in ("reconstruction", "nearest_photo", "mean_photo"):
        errors = (card.errors.pixel_mse, card.errors.feature_distance)
        table.add_row(name.replace("_", " "), *(f"{getattr(e, name):.4f}" for e in errors))
    _out.print(table)
    _out.print(
        f"{card.nimg / 1000:.1f} kimg, judged on {card.errors.photos} photos; look at "
        f"{run / ENCODER_FOLDER / 'reconstructions.png'}",
        markup=False,
        soft_wrap=True,
    )
