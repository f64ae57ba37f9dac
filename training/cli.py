"""Command line of the training package: prepare, sample-catalogue, bases, and shared helpers."""

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from models.progress import progress as shown_progress
from models.terminal import printable
from models.validation import problems
from training.learning.config import Device, Snapshot

# Options of more than one command.
DeviceOption = Annotated[Device, typer.Option(help="Where torch runs.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Stop after this time.")]
SnapshotOption = Annotated[
    Snapshot,
    typer.Option(
        help="Of a run: its newest checkpoint, or its best moment on the validation photos."
    ),
]

# Options whose name is not that of their field.
_OPTIONS = {
    "width": "size",
    "height": "size",
    "photos_per_category": "few-photos",
    "seeds": "repetitions",
}

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")

_err = Console(stderr=True)
_out = Console(highlight=False)


class _Line(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def configure_logging() -> None:
    """Log messages of all packages to stderr, below the progress bar."""
    handler = RichHandler(console=_err, show_path=False, show_time=False)
    handler.setFormatter(_Line("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def fail(message: str) -> NoReturn:
    """End with one clear line on stderr and exit code 2."""
    message = " ".join(line.strip() for line in message.splitlines())  # torch's have several
    shown = escape(printable(message))
    _err.print(f"[bold red]Error:[/] {shown}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


@contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """Exit with a one-line message on a ValueError or on one of `errors`.

    If several options fail validation, the message names the first.
    """
    refused: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        field = "_".join(str(part) for part in first["loc"])
        option = _OPTIONS.get(field, field.replace("_", "-"))
        fail(f"--{option} {first['input']!r}: {problems(error)[0].message}")
    except refused as error:
        fail(str(error))


def say(text: str) -> None:
    """Print a line on stdout, without markup or wrapping."""
    _out.print(printable(text), markup=False, soft_wrap=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout."""
    table = Table(*header)
    for row in rows:
        table.add_row(*(escape(printable(str(cell))) for cell in row))
    _out.print(table)


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar, or lines, on stderr; as of `models.progress`."""
    with shown_progress(_err, title, unit) as update:
        yield update


@contextmanager
def training_progress(
    what: str, max_kimg: float | None, max_minutes: float | None
) -> Iterator[tuple[Callable[[Any], None], Callable[[], bool]]]:
    """Show a progress bar for a training that stops early on a signal.

    Yields:
        A function that receives its ticks, and one that returns whether to stop.
    """
    from training.launch import stop_on_signals

    total = None if max_kimg is None or max_minutes is not None else int(max_kimg * 1000)
    with stop_on_signals() as should_stop, progress(f"Training the {what}", "photos") as update:
        yield lambda tick: update(tick.nimg, total), should_stop


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that it cleans up, too."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def prepare(
    photos: Annotated[Path, typer.Argument(help="Folder; its first level is the category.")],
    out: Annotated[Path, typer.Option(help="Where the dataset goes.")],
    size: Annotated[str, typer.Option(help="Pixels: 64, or WIDTHxHEIGHT as 192x256.")] = "64",
    fit: Annotated[
        Literal["crop", "pad"],
        typer.Option(help="Cut what sticks out, or add background around the whole photo."),
    ] = "crop",
    background: Annotated[str, typer.Option(help="CSS colour under transparency.")] = "white",
    channels: Annotated[int, typer.Option(help="1 = grey, 3 = RGB, 4 = RGBA.")] = 3,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: path, category, sku, more.")
    ] = None,
    path_column: Annotated[str, typer.Option(help="The manifest's column of paths.")] = "path",
    category_column: Annotated[str, typer.Option(help="Its column of categories.")] = "category",
    sku_column: Annotated[str, typer.Option(help="Its column of article numbers.")] = "sku",
    validation: Annotated[
        Path | None, typer.Option(help="Folder of photos to validate on, by category.")
    ] = None,
    validation_share: Annotated[
        float, typer.Option(help="Fraction split off where no --validation is given.")
    ] = 0.1,
    min_photos: Annotated[int, typer.Option(help="Fewest usable photos.")] = 10,
    max_pixels: Annotated[int, typer.Option(help="Largest photo, in pixels.")] = 50_000_000,
    min_side_px: Annotated[int, typer.Option(help="Smallest photo's shorter side.")] = 16,
    overwrite: Annotated[bool, typer.Option(help="Replace the dataset at --out.")] = False,
) -> None:
    """Prepare a dataset from product photos."""
    from training.photos.catalogue import prepare_dataset
    from training.photos.options import PrepareOptions, parse_size

    configure_logging()
    with refusals():
        width, height = parse_size(size)
        options = PrepareOptions.model_validate(
            {
                "width": width,
                "height": height,
                "channels": channels,
                "fit": fit,
                "background": background,
                "manifest": manifest,
                "path_column": path_column,
                "category_column": category_column,
                "sku_column": sku_column,
                "validation": validation,
                "validation_share": validation_share,
                "min_photos": min_photos,
                "max_pixels": max_pixels,
                "min_side_px": min_side_px,
            }
        )
        with terminated_as_interrupt(), progress("Preparing", "photos") as update:
            report = prepare_dataset(photos, out, options, overwrite=overwrite, on_progress=update)
    _print_report(report, out)


def _print_report(report: Any, out: Path) -> None:
    """Print what is in the dataset, and what was left out."""
    validation = report.counts["validation"]
    print_table(
        ("category", "train", "validation"),
        ((name, count, validation[name]) for name, count in report.counts["train"].items()),
    )
    similar = sum(len(group) for group in report.near_duplicates)
    say(f"{report.used} of {report.found} photos used, {similar} of them look like another")
    if report.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items())
        say(f"Left out: {reasons} (see {out / 'report.json'})")
    say(f"Dataset {report.dataset_hash[:16]} in {out}")


@app.command("sample-catalogue")
def sample_catalogue(
    out: Annotated[Path, typer.Option(help="Where the photos go: a new or an empty folder.")],
    part: Annotated[
        Literal["first", "second"] | None,
        typer.Option(help="Only the first six categories, or the other two.", show_default="all"),
    ] = None,
) -> None:
    """Unpack the 1,000 rendered product photos that ship with Catalogan."""
    from training.sample_catalogue import LICENCE, unpack_sample_catalogue

    configure_logging()
    with refusals(), terminated_as_interrupt():
        counts = unpack_sample_catalogue(out, part)
    print_table(("category", "photos"), counts.items())
    say(f"{sum(counts.values())} photos ({LICENCE}) in {out}")


@app.command("bases")
def list_bases() -> None:
    """List the trained models that ship with Catalogan: to fine-tune, or to serve as they are."""
    from models.manifest import MANIFEST_FILE, GeneratorManifest
    from training.bases import base_names, base_path

    for name in base_names():
        folder = base_path(name)
        manifest = GeneratorManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        say(
            f"base:{name}  {manifest.width} x {manifest.height} px, {manifest.licence}, "
            f"{', '.join(manifest.categories)}"
        )
        say(f"  {folder}")


if __name__ == "__main__":
    sys.exit("run `catalogan` instead")
