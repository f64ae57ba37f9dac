"""Command line of the training package: train-encoder, train-upscaler, and the watermark's."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from training.cli import (
    DeviceOption,
    MaxMinutes,
    SnapshotOption,
    configure_logging,
    print_table,
    progress,
    refusals,
    say,
    training_progress,
)

_ENCODER_KIMG = 100.0
_UPSCALER_KIMG = 60.0
_WATERMARK_KIMG = 400.0
_MAX_KIMG_HELP = "Stop after so many thousand photos shown; {:g} if no end."

Data = Annotated[Path, typer.Option(help="The dataset that it was trained on.")]
Seed = Annotated[int, typer.Option(help="Of everything that is random.")]
Judged = Annotated[int, typer.Option(help="Images to mark, treat and read.")]
Unmarked = Annotated[int, typer.Option(help="Images without a mark to read.")]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("train-encoder")
def train_encoder(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    data: Data,
    max_kimg: Annotated[
        float | None, typer.Option(help=_MAX_KIMG_HELP.format(_ENCODER_KIMG))
    ] = None,
    max_minutes: MaxMinutes = None,
    snapshot: SnapshotOption = "last",
    device: DeviceOption = "auto",
    seed: Seed = 0,
) -> None:
    """Train an encoder that finds a photo's styles for a run's generator."""
    from training.dataset import PreparedDataset
    from training.inversion.encoder_run import ENCODER_FOLDER, SHEET_FILE, EncoderSettings
    from training.inversion.inversion import train_encoder as run_training
    from training.learning.checkpoint import CheckpointError
    from training.learning.device import pick_device

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = _ENCODER_KIMG
    with refusals(CheckpointError):
        settings = EncoderSettings(
            seed=seed, snapshot=snapshot, max_kimg=max_kimg, max_minutes=max_minutes
        )
        with training_progress("encoder", max_kimg, max_minutes) as shown:
            card = run_training(run, PreparedDataset(data), settings, pick_device(device), *shown)
    errors = (card.errors.pixel_mse, card.errors.feature_distance)
    print_table(
        ("on validation photos", "pixel error", "feature distance"),
        (
            (name.replace("_", " "), *(f"{getattr(e, name):.4f}" for e in errors))
            for name in ("reconstruction", "nearest_photo", "mean_photo")
        ),
    )
    say(
        f"{card.nimg / 1000:.1f} kimg, evaluated on {card.errors.photos} photos; look at "
        f"{run / ENCODER_FOLDER / SHEET_FILE}"
    )


@app.command("train-upscaler")
def train_upscaler(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    photos: Annotated[Path, typer.Option(help="Folder; its first level is the category.")],
    validation: Annotated[
        Path | None,
        typer.Option(help="Such a folder to evaluate with; by default a tenth of the photos."),
    ] = None,
    factor: Annotated[int, typer.Option(help="How much larger: 2 or 4.")] = 4,
    max_kimg: Annotated[
        float | None,
        typer.Option(
            help=f"Stop after so many thousand crops shown; {_UPSCALER_KIMG:g} if no end."
        ),
    ] = None,
    max_minutes: MaxMinutes = None,
    snapshot: SnapshotOption = "last",
    device: DeviceOption = "auto",
    seed: Seed = 0,
) -> None:
    """Train an upscaler: images 2 or 4 times as large, with the detail of your own photos."""
    from training.learning.checkpoint import CheckpointError
    from training.learning.device import pick_device
    from training.upscaling.upscaler_run import SHEET_FILE, UPSCALER_FOLDER, UpscalerSettings
    from training.upscaling.upscaling import Photos
    from training.upscaling.upscaling import train_upscaler as run_training

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = _UPSCALER_KIMG
    with refusals(CheckpointError):
        settings = UpscalerSettings.model_validate(
            {
                "factor": factor,
                "seed": seed,
                "snapshot": snapshot,
                "max_kimg": max_kimg,
                "max_minutes": max_minutes,
            }
        )
        with training_progress("upscaler", max_kimg, max_minutes) as shown:
            given = Photos(photos, validation)
            card = run_training(run, given, settings, pick_device(device), *shown)
    print_table(
        ("kernel distance to photos", "upscaler", "Lanczos"),
        (
            (name, f"{distances.upscaler:.4f}", f"{distances.lanczos:.4f}")
            for name, distances in (
                ("of photos made small", card.photos),
                ("generated", card.generated),
            )
        ),
    )
    say(
        f"{card.nimg / 1000:.1f} kimg, evaluated on {card.judged} photos; look at "
        f"{run / UPSCALER_FOLDER / SHEET_FILE}"
    )


@app.command("train-watermark")
def train_watermark(
    data: Annotated[Path, typer.Argument(help="A prepared dataset of 128 px or more.")],
    out: Annotated[Path, typer.Option(help="The watermark's folder; must not exist.")],
    max_kimg: Annotated[
        float | None, typer.Option(help=_MAX_KIMG_HELP.format(_WATERMARK_KIMG))
    ] = None,
    max_minutes: MaxMinutes = None,
    judged: Judged = 1000,
    unmarked: Unmarked = 100_000,
    device: DeviceOption = "auto",
    seed: Seed = 0,
) -> None:
    """Train an invisible mark on photos and evaluate it, for `catalogan export --watermark`.

    It is saved as soon as it is trained: if the evaluation is interrupted, run judge-watermark.
    """
    from training.companion import CompanionSettings
    from training.dataset import PreparedDataset
    from training.learning.device import pick_device
    from training.watermark.watermark import train_watermark as run_training
    from training.watermark.watermark_folder import JudgingSettings

    configure_logging()
    if max_kimg is None and max_minutes is None:
        max_kimg = _WATERMARK_KIMG
    with refusals():
        settings = CompanionSettings(seed=seed, max_kimg=max_kimg, max_minutes=max_minutes)
        JudgingSettings(judged=judged, unmarked=unmarked)  # validated before hours of training
        with training_progress("watermark", max_kimg, max_minutes) as shown:
            run_training(PreparedDataset(data), out, settings, pick_device(device), *shown)
    judge_watermark(out, data, judged, unmarked, device)


@app.command("judge-watermark")
def judge_watermark(
    watermark: Annotated[Path, typer.Argument(help="A folder of `catalogan train-watermark`.")],
    data: Data,
    judged: Judged = 1000,
    unmarked: Unmarked = 100_000,
    device: DeviceOption = "auto",
) -> None:
    """Measure how often a trained mark is found; exports with the mark contain the results."""
    from training.dataset import PreparedDataset
    from training.learning.device import pick_device
    from training.watermark.watermark import judge_watermark as run_judging
    from training.watermark.watermark_folder import SHEET_FILE, JudgingSettings

    configure_logging()
    with refusals(), progress("Evaluating the watermark", "images") as update:
        settings = JudgingSettings(judged=judged, unmarked=unmarked)
        judgement = run_judging(
            watermark, PreparedDataset(data), settings, pick_device(device), update
        )
    print_table(
        ("treatment", "marks found", "bits right"),
        ((d.treatment, f"{d.found:.1%}", f"{d.bits_right:.1%}") for d in judgement.detections),
    )
    say(
        f"at {judgement.psnr_db:.1f} dB or better; false marks in "
        f"{judgement.false_positives:.1e} of images; look at {watermark / SHEET_FILE}"
    )


@app.command("add-watermark")
def add_watermark(
    export: Annotated[Path, typer.Argument(help="An export.")],
    watermark: Annotated[Path, typer.Option(help="A folder of `catalogan train-watermark`.")],
    out: Annotated[Path, typer.Option(help="Where the export with the mark goes.")],
) -> None:
    """Add a trained mark to an export, for a model whose run is gone: its images stay the same."""
    from training.export.graphs import ExportError
    from training.export.watermarking import add_watermark as run_adding

    configure_logging()
    for chatty in ("onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with refusals(ExportError):
        manifest = run_adding(export, watermark, out)
    assert manifest.watermark is not None
    used = (
        "" if manifest.watermark.proven else "; by its figures a service leaves it off by default"
    )
    say(f"{manifest.name} with its watermark in {out}{used}")
