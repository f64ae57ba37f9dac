"""Command line of the training room: train-watermark, judge-watermark."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from training.cli import configure_logging, fail, invalid, progress, shown_training
from training.learning.config import Device

DEFAULT_KIMG = 400.0
_JUDGED_HELP = "Pictures to mark and treat, to judge by."
_UNMARKED_HELP = "Pictures without a mark to read."

app = typer.Typer(no_args_is_help=True, add_completion=False)

_out = Console(highlight=False)


@app.command("train-watermark")
def train_watermark(
    data: Annotated[Path, typer.Argument(help="A prepared dataset of 128 px or more.")],
    out: Annotated[Path, typer.Option(help="The watermark's folder; must not exist.")],
    max_kimg: Annotated[
        float | None,
        typer.Option(help=f"Stop after so many thousand photos shown; {DEFAULT_KIMG:g} if no end."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    judged: Annotated[int, typer.Option(help=_JUDGED_HELP)] = 1000,
    unmarked: Annotated[int, typer.Option(help=_UNMARKED_HELP)] = 100_000,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
) -> None:
    """Train an invisible mark on photos, and judge it; `catalogan export --watermark` takes it.

    It is kept as soon as it is trained: if judging is interrupted, judge-watermark goes on.
    """
    from training.dataset import PreparedDataset
    from training.learning.device import pick_device
    from training.watermark.watermark import train_watermark as run_training
    from training.watermark.watermark_folder import JudgingSettings, WatermarkSettings

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = DEFAULT_KIMG
    try:
        settings = WatermarkSettings(seed=seed, max_kimg=max_kimg, max_minutes=max_minutes)
        JudgingSettings(judged=judged, unmarked=unmarked)  # wrong ones are told of before
        with shown_training("watermark", max_kimg, max_minutes) as shown:
            run_training(PreparedDataset(data), out, settings, pick_device(device), *shown)
    except ValidationError as error:
        invalid(error)
    except ValueError as error:
        fail(str(error))
    judge_watermark(out, data, judged, unmarked, device)


@app.command("judge-watermark")
def judge_watermark(
    watermark: Annotated[Path, typer.Argument(help="A folder of `catalogan train-watermark`.")],
    data: Annotated[Path, typer.Option(help="The dataset that it was trained on.")],
    judged: Annotated[int, typer.Option(help=_JUDGED_HELP)] = 1000,
    unmarked: Annotated[int, typer.Option(help=_UNMARKED_HELP)] = 100_000,
    device: Annotated[Device, typer.Option(help="Where to run.")] = "auto",
) -> None:
    """Measure how often a trained mark is found; the figures go into exports that take it."""
    from training.dataset import PreparedDataset
    from training.learning.device import pick_device
    from training.watermark.watermark import judge_watermark as run_judging
    from training.watermark.watermark_folder import SHEET_FILE, JudgingSettings

    configure_logging()
    try:
        settings = JudgingSettings(judged=judged, unmarked=unmarked)
        with progress("Judging the watermark", "pictures") as update:
            judgement = run_judging(
                watermark, PreparedDataset(data), settings, pick_device(device), update
            )
    except ValidationError as error:
        invalid(error)
    except ValueError as error:
        fail(str(error))
    table = Table("treatment", "marks found", "bits right")
    for detection in judgement.detections:
        table.add_row(detection.treatment, f"{detection.found:.1%}", f"{detection.bits_right:.1%}")
    _out.print(table)
    _out.print(
        f"at {judgement.psnr_db:.1f} dB or better; false marks in "
        f"{judgement.false_positives:.1e} of pictures; look at {watermark / SHEET_FILE}",
        markup=False,
        soft_wrap=True,
    )
