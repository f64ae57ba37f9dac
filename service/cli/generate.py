"""`catalogan generate`: images into a directory, the same as the service returns for them."""

import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from models.progress import progress
from service.cli.console import errors_console, operator_errors, say
from service.cli.options import (
    DeviceOption,
    ExportOption,
    FormatOption,
    ModelOption,
    SizeOption,
    TruncationOption,
)
from service.errors import RegistryError
from service.fields import MAX_IMAGES, validate
from service.generation.generations import GenerationPlan, generation_jobs, plan_images
from service.generation.output import ImageEncoder
from service.generation.requests import GenerationRequest
from service.inference.generation import SEED_LIMIT, GeneratorSession
from service.inference.graphs import Device
from service.model_store.sessions import open_session
from service.provenance.marker import open_marker
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import OutputFormat
from service.rendering.recording import record_of
from service.settings import load_settings
from service.storage.state import State

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What to generate; None leaves the choice to the model, as in an HTTP request."""

    count: int
    category: str | None = None
    seed: int | None = None
    truncation_psi: float | None = None
    size: str | None = None
    output_format: OutputFormat = "png"


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Directory for the images.")],
    count: Annotated[int, typer.Option(min=1, max=100_000)] = 1,
    category: Annotated[str | None, typer.Option(help="Else all in turn.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first image.")] = None,
    model: ModelOption = None,
    export: ExportOption = None,
    output_format: FormatOption = "png",
    truncation_psi: TruncationOption = None,
    size: SizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Write images, the same as the service returns for these seeds."""
    with operator_errors():
        batch = Batch(
            count=count,
            category=category,
            seed=seed,
            truncation_psi=truncation_psi,
            size=size,
            output_format=output_format,
        )
        with progress(errors_console, "Generating", "images") as update:
            write_images(
                batch, out, model_id=model, export=export, device=device, on_progress=update
            )
    say(f"wrote {count} images to {out}")


def write_images(
    batch: Batch,
    out: Path,
    *,
    model_id: str | None = None,
    export: Path | None = None,
    device: Device | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Generate `batch` into `out`, as CATEGORY-SEED.FORMAT.

    Args:
        batch: What to generate.
        out: Directory, created if missing; files of the same names are replaced.
        model_id: "name" or "name:version"; None = the service's default.
        export: An export directory to use instead of a registered model.
        device: Overrides CATALOGAN_DEVICE.
        on_progress: Is notified of how many images of how many are written.

    Raises:
        OperatorError: Model, export or directory can't be used.
        BadRequest: The model doesn't have what is requested.
    """
    settings = load_settings(model=model_id, device=device)
    session, shown_id = open_session(settings.model, export, settings)
    first = secrets.randbelow(SEED_LIMIT) if batch.seed is None else batch.seed
    # Refuses what the model doesn't have before anything is written.
    presentation = _plan(batch, first, 0, session).presentation
    encoder = ImageEncoder.of_model(
        open_marker(settings), shown_id, session, presentation, batch.output_format
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(settings.workers) as threads, closing(State(settings)) as state:
            done = 0
            for start in range(0, batch.count, MAX_IMAGES):
                plan = _plan(batch, first, start, session)
                jobs = generation_jobs(session, plan, encoder)
                for images in threads.map(lambda job: job(), jobs):
                    now = int(time.time())
                    state.records.add([record_of(one, "generation", now) for one in images])
                    for image in images:
                        _write(out, image, batch.output_format)
                    done += len(images)
                    on_progress(done, batch.count)
    except OSError as error:
        raise RegistryError(f"{out} can't be written to: {error.strerror or error}") from error


def _plan(batch: Batch, first_seed: int, start: int, session: GeneratorSession) -> GenerationPlan:
    """The plan of the HTTP request for the same images."""
    requested = {
        "n": min(MAX_IMAGES, batch.count - start),
        "category": batch.category,
        # Wraps within a batch, as seeds do within a request.
        "seed": (first_seed + start) % SEED_LIMIT if start else first_seed,
        "truncation_psi": batch.truncation_psi,
        "size": batch.size,
    }
    return plan_images(validate(GenerationRequest, requested), session.manifest)


def _write(out: Path, image: EncodedImage, output_format: OutputFormat) -> None:
    """Write aside, then rename: an image is there whole or not at all."""
    slug = re.sub(r"[^\w-]+", "-", image.metadata["category"])[:60].strip("-") or "image"
    path = out / f"{slug}-{image.metadata['seed']}.{output_format}"
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(image.data)
    aside.replace(path)
