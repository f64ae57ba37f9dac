"""Command line of the training room: train-watermark."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from training.cli import configure_logging, fail, invalid, progress
from training.learning.config import Device

DEFAULT_KIMG = 400.0

app = typer.Typer(no_args_is_help=True, add_completion=False)

_out = Console(highlight=False)


@app.callback()
def _room() -> None:
    """Keeps the one command a command of its group."""


@app.command("train-watermark")
def train_watermark(
    data: Annotated[Path, typer.Argument(help="A prepared dataset of 128 px or more.")],
    out: Annotated[Path, typer.Option(help="The watermark's folder; must not exist.")],
    max_kimg: Annotated[
        float | None,
        typer.Option(help=f"Stop after so many thousand photos shown; {DEFAULT_KIMG:g} if no end."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    judged: Annotated[int, typer.Option(help="Pictures to mark and treat, to judge by.")] = 1000,
    unmarked: Annotated[int, typer.Option(help="Pictures without a mark to read.")] = 100_000,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
) -> None:
    """Train an invisible mark on photos; `catalogan export --watermark` takes it along."""
    from training.dataset import PreparedDataset
    from training.launch import stop_on_signals
    from training.learning.device import pick_device
    from training.watermark.watermark import train_watermark as run_training
    from training.watermark.watermark_folder import SHEET_FILE, WatermarkSettings

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = DEFAULT_KIMG
    total = None if max_kimg is None or max_minutes is not None else int(max_kimg * 1000)
    try:
        settings = WatermarkSettings(
            seed=seed,
            max_kimg=max_kimg,
            max_minutes=max_minutes,
            judged=judged,
            unmarked=unmarked,
        )
        with (
            stop_on_signals() as should_stop,
            progress("Training the watermark", "photos") as update,
        ):
            card = run_training(
                PreparedDataset(data),
                out,
                settings,
                pick_device(device),
                lambda tick: update(tick.nimg, total),
                should_stop,
            )
    except ValidationError as error:
        invalid(error)
    except ValueError as error:
        fail(str(error))
    table = Table("treatment", "marks found", "bits right")
    for detection in card.detections:
        table.add_row(detection.treatment, f"{detection.found:.1%}", f"{detection.bits_right:.1%}")
    _out.print(table)
    _out.print(
        f"{card.nimg / 1000:.1f} kimg; at {card.psnr_db:.1f} dB or better; false marks in "
        f"{card.false_positives:.1e} of pictures; look at {out / SHEET_FILE}",
        markup=False,
        soft_wrap=True,
    )
