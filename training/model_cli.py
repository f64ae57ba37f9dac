"""Command line of the training package: train, evaluate, report, export."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from models.manifest import SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI
from models.progress import PlainLines, progress_of_parts
from models.terminal import printable
from training.cli import (
    DeviceOption,
    MaxMinutes,
    SnapshotOption,
    configure_logging,
    fail,
    print_table,
    refusals,
    say,
)
from training.faults import first_fault
from training.features.names import FeaturesName
from training.learning.config import DiscriminatorKind, MaskingMode, TrainingConfig

if TYPE_CHECKING:
    from training.evaluation.record import Memorisation
    from training.learning.recorder import Tick

MEMORISED_EXIT_CODE = 3
_SYNONYMS_FORM = '{"mugs": ["cup", "beaker"]}'

app = typer.Typer(no_args_is_help=True, add_completion=False)

_err = Console(stderr=True, highlight=False)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="What `catalogan prepare` wrote.")],
    out: Annotated[Path, typer.Option(help="Where the run goes.")],
    preset: Annotated[
        str | None, typer.Option(help="Named settings; chosen by size and device if not given.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Fine-tune: a run, an export, model:version or base:name."),
    ] = None,
    masking: Annotated[
        MaskingMode | None, typer.Option(help="When the discriminator's features are hidden.")
    ] = None,
    discriminator: Annotated[
        DiscriminatorKind | None,
        typer.Option(help="projected looks through a pretrained network; both combines the two."),
    ] = None,
    max_kimg: Annotated[
        float | None, typer.Option(help="Stop after so many thousand images shown.")
    ] = None,
    max_minutes: MaxMinutes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run at --out.")] = False,
    device: DeviceOption = "auto",
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of both networks.")] = None,
    r1_gamma: Annotated[float | None, typer.Option(help="Weight of R1.")] = None,
    augment: Annotated[
        Literal["off", "fixed", "adaptive"] | None, typer.Option(help="Augmentation.")
    ] = None,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="No mirror keeps text readable.")
    ] = None,
    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, typer.Option()] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other: masking.ratio=0.3 and the like.")
    ] = None,
) -> None:
    """Train a generator with a dynamically masked discriminator."""
    from training.launch import Launch, LaunchError, launch

    configure_logging()
    overrides: dict[str, Any] = {
        "seed": seed,
        "max_kimg": max_kimg,
        "max_minutes": max_minutes,
        "batch_size": batch_size,
        "precision": precision,
        "discriminator": discriminator,
        "masking": {"mode": masking},
        "augment": {"mode": augment, "mirror": mirror},
        "optimizer": {"learning_rate": learning_rate, "r1_gamma": r1_gamma},
    }
    for setting in settings or []:
        _set(overrides, setting)
    with refusals(LaunchError):
        wanted = Launch(
            dataset=dataset,
            run=out,
            preset=preset,
            overrides=overrides,
            source=source,
            resume=resume,
            device=device,
        )
        outcome = launch(wanted, _training_display)
    if outcome is not None:
        end = "" if outcome.reason == "finished" else "; continue with --resume"
        say(f"{outcome.reason} at {outcome.nimg / 1000:.1f} kimg: {outcome.checkpoint}{end}")


def _set(overrides: dict[str, Any], setting: str) -> None:
    """Set `a.b=value` in a tree of settings."""
    path, equals, value = setting.partition("=")
    if not equals:
        fail(f"--set {setting}: write it as name=value, for example masking.ratio=0.3")
    *parents, last = path.split(".")
    for parent in parents:
        overrides = overrides.setdefault(parent, {})
        if not isinstance(overrides, dict):
            fail(f"--set {setting}: {parent} is a value, not a group of settings")
    overrides[last] = value


@contextmanager
def _training_display(
    config: TrainingConfig, device: str, nimg: int
) -> Iterator[Callable[["Tick"], None]]:
    """Show the configuration as a table, then a progress bar, or lines, with ticks' values."""
    table = Table(show_header=False, title=f"preset {config.preset} on {device}")
    for key, value in config.model_dump().items():
        group = value.items() if isinstance(value, dict) else None
        shown = str(value) if group is None else ", ".join(f"{k}={v}" for k, v in group)
        table.add_row(key, escape(shown))
    _err.print(table)
    by_images = config.max_minutes is None
    total = (config.max_kimg or 0) * 1000 if by_images else (config.max_minutes or 0) * 60
    start = nimg if by_images else 0

    def done_by(tick: "Tick") -> float:
        return tick.nimg if by_images else tick.elapsed_sec

    if not _err.is_terminal:
        lines = PlainLines(_err, "Training")
        yield lambda tick: lines.update(done_by(tick), total, _figures(tick))
        lines.print_pending()
        return
    columns = (
        TextColumn("Training"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err) as bar:
        task = bar.add_task("", total=total, completed=start, figures="starting")

        yield lambda tick: bar.update(task, completed=done_by(tick), figures=_figures(tick))


def _figures(tick: "Tick") -> str:
    mask = "mask" if tick.mask_active >= 0.5 else "open"
    return (
        f"{tick.nimg / 1000:.0f} kimg  {tick.images_per_sec:.0f} img/s  "
        f"G {tick.generator_loss:.2f}  D {tick.discriminator_loss:.2f}  "
        f"aug {tick.augment_strength:.2f}  {mask}"
    )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run or an export.")],
    data: Annotated[Path, typer.Option(help="The dataset with the real photos.")],
    out: Annotated[
        Path | None, typer.Option(help="For evaluation.json and the sheet; the run's own folder.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Generated images, at least.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    truncation_psi: Annotated[float, typer.Option(help="1 judges the whole variety.")] = 1.0,
    features: Annotated[
        FeaturesName,
        typer.Option(help="Which network compares; the last two where their weights are there."),
    ] = "efficientnet-lite2",
    feature_weights: Annotated[
        Path | None, typer.Option(help="File of Inception's or DINOv2's weights.")
    ] = None,
    snapshot: SnapshotOption = "last",
    device: DeviceOption = "auto",
    usefulness: Annotated[
        bool, typer.Option("--usefulness", help="Also: do the images help where photos are few?")
    ] = False,
    few_photos: Annotated[
        int, typer.Option(help="Real photos of each category for --usefulness.")
    ] = 10,
    repetitions: Annotated[int, typer.Option(help="Seeds for --usefulness.")] = 3,
    max_memorised: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Exit with 3 if a larger fraction is too near to training photos."
        ),
    ] = None,
) -> None:
    """Measure how near generated images are to the validation photos."""
    from training.dataset import PreparedDataset
    from training.evaluation.evaluation import evaluate as run_evaluation
    from training.evaluation.options import EvaluationOptions
    from training.evaluation.usefulness import UsefulnessOptions
    from training.learning.checkpoint import CheckpointError
    from training.learning.device import pick_device
    from training.learning.run import EVALUATION_FOLDER
    from training.learning.samplers import open_sampler
    from training.report.report import try_report

    configure_logging()
    with refusals(CheckpointError, OSError):
        where = pick_device(device)
        usefulness_options = (
            UsefulnessOptions(photos_per_category=few_photos, seeds=repetitions)
            if usefulness
            else None
        )
        options = EvaluationOptions(
            samples=samples,
            seed=seed,
            truncation_psi=truncation_psi,
            features=features,
            feature_weights=feature_weights,
            usefulness=usefulness_options,
            device=str(where),
        )
        sampler, dataset = open_sampler(model, where, snapshot), PreparedDataset(data)
        target = out or (model / EVALUATION_FOLDER if hasattr(sampler, "config") else None)
        chosen = options.model_dump(exclude_none=True).items()
        settings = ", ".join(f"{name} {value}" for name, value in chosen)
        line = printable(f"Evaluating {model} on {data}: {settings}")
        _err.print(line, markup=False, soft_wrap=True)
        with progress_of_parts(_err, "Evaluating,", "images") as update:
            report = run_evaluation(sampler, dataset, options, target, update)
    rows = [(name, f"{value:.4g}") for name, value in report.headline().items()]
    rows += [(name, f"left out: {reason}") for name, reason in report.overall.reasons.items()]
    print_table(("metric", "value"), rows)
    if target is not None:
        say(f"report and contact sheet in {target}")
    if target == model / EVALUATION_FOLDER:
        try_report(model)
    if max_memorised is not None:
        check_memorised(report.memorisation, max_memorised)


def check_memorised(found: "Memorisation", limit: float) -> None:
    """Exit with code 3 if a larger fraction than `limit` of the images is memorised."""
    if found.share <= limit:
        return
    _err.print(
        f"Memorised: {found.share:.1%} of {found.generated_count} generated images are too near "
        f"to a training photo, more than --max-memorised {limit:g}. Photos never trained on: "
        f"{found.expected_share:.1%}, by chance up to {found.chance_share:.1%} with "
        f"{found.validation_count} validation photos. Train for less long or on more photos",
        markup=False,
        soft_wrap=True,
    )
    raise typer.Exit(MEMORISED_EXIT_CODE)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A training run.")]) -> None:
    """Write a run's report.html again, from the run's current files."""
    from training.report.report import write_report

    configure_logging()
    with refusals(OSError):
        say(str(write_report(run)))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    out: Annotated[Path, typer.Option(help="Where the export goes.")],
    name: Annotated[str | None, typer.Option(help="Model name; the folder's by default.")] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="Of feature maps; int8 is fast on a CPU, and changes the images."),
    ] = "fp32",
    snapshot: SnapshotOption = "last",
    truncation_psi: Annotated[
        float, typer.Option(min=0, max=1, help="Default to serve.")
    ] = SERVED_TRUNCATION_PSI,
    noise_scale: Annotated[
        float, typer.Option(min=0, max=1, help="Default to serve: fine grain; 0 is clean.")
    ] = SERVED_NOISE_SCALE,
    licence: Annotated[str, typer.Option(help="Of the model.")] = "unspecified",
    author: Annotated[str, typer.Option(help="Whom to contact.")] = "unspecified",
    photos: Annotated[
        str, typer.Option(help="Where the photos are from, and their licence.")
    ] = "unspecified",
    synonyms: Annotated[
        Path | None, typer.Option(help=f"JSON with other names for prompts: {_SYNONYMS_FORM}.")
    ] = None,
    encoder: Annotated[bool, typer.Option(help="Include the run's encoder.")] = True,
    upscaler: Annotated[bool, typer.Option(help="Include the run's upscaler.")] = True,
    watermark: Annotated[
        Path | None, typer.Option(help="A folder of `catalogan train-watermark` to include.")
    ] = None,
) -> None:
    """Export a run's generator to ONNX, and check that it generates the same images."""
    from training.export.export import ExportOptions, export_run
    from training.export.graphs import ExportError
    from training.export.loss import describe
    from training.learning.checkpoint import CheckpointError

    configure_logging()
    for chatty in ("onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    options = ExportOptions(
        synonyms=_read_synonyms(synonyms) if synonyms else {},
        name=name or out.resolve().name.lower(),
        precision=precision,
        truncation_psi=truncation_psi,
        noise_scale=noise_scale,
        licence=licence,
        author=author,
        data=photos,
        snapshot=snapshot,
        encoder=encoder,
        upscaler=upscaler,
        watermark=watermark,
    )
    try:
        manifest = export_run(run, out, options)
    except (ExportError, ValueError, CheckpointError) as error:
        fail(first_fault(error))
    say(
        f"exported {manifest.name} ({manifest.model_hash[:12]}) to {out}; at most "
        f"{manifest.parity.max_abs_error:.1g} from torch"
    )
    for loss in manifest.losses:
        say(f"{manifest.precision} against fp32: {describe(loss)}")


def _read_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the file of `export --synonyms`; its names are checked against the categories later."""
    from models.manifest import Category, Synonyms

    try:
        return TypeAdapter(dict[Category, Synonyms]).validate_json(path.read_bytes())
    except OSError as error:
        fail(f"--synonyms: {path} can't be read: {error.strerror or error}")
    except ValidationError as error:
        fail(f"--synonyms: {path}: {first_fault(error)}; write {_SYNONYMS_FORM}")
