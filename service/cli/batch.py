"""`catalogan generate`: images into a directory, without HTTP."""

import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from models.manifest import GENERATOR_FILE, UPSCALER_FILE, WATERMARK_ENCODER_FILE
from service.errors import RegistryError
from service.fields import MAX_IMAGES, validate
from service.generation.generations import GenerationPlan, generation_jobs, plan_images
from service.generation.output import ImageEncoder
from service.generation.requests import GenerationRequest
from service.inference.generation import SEED_LIMIT, GeneratorSession
from service.inference.graphs import Device
from service.model_store.exports import export_version, read_export
from service.model_store.registry import Registry
from service.provenance.marker import open_marker
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import OutputFormat
from service.rendering.recording import record_of
from service.settings import Settings, load_settings
from service.storage.state import State


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What to generate; None leaves the choice to the model, as in an HTTP request."""

    count: int
    category: str | None = None
    seed: int | None = None
    truncation_psi: float | None = None
    size: str | None = None
    output_format: OutputFormat = "png"


def write_images(
    batch: Batch,
    out: Path,
    *,
    model_id: str | None = None,
    export: Path | None = None,
    device: Device | None = None,
) -> None:
    """Generate `batch` into `out`, as CATEGORY-SEED.FORMAT.

    Args:
        batch: What to generate.
        out: Directory, made if missing; files of the same names are replaced.
        model_id: "name" or "name:version"; None = the service's default.
        export: An export directory to use instead of a registered model.
        device: Overrides CATALOGAN_DEVICE.

    Raises:
        OperatorError: Model, export or directory can't be used.
        BadRequest: The batch asks for what the model doesn't have.
    """
    settings = load_settings(model=model_id, device=device)
    session, shown_id = open_session(settings.model, export, settings)
    first = secrets.randbelow(SEED_LIMIT) if batch.seed is None else batch.seed
    # Refuses what the model can't give before anything is written.
    presentation = _plan(batch, first, 0, session).presentation
    encoder = ImageEncoder.of_model(
        open_marker(settings), shown_id, session, presentation, batch.output_format
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(settings.workers) as threads, closing(State(settings)) as state:
            for start in range(0, batch.count, MAX_IMAGES):
                plan = _plan(batch, first, start, session)
                jobs = generation_jobs(session, plan, encoder)
                for images in threads.map(lambda job: job(), jobs):
                    now = int(time.time())
                    state.records.add([record_of(one, "generation", now) for one in images])
                    for image in images:
                        _write(out, image, batch.output_format)
    except OSError as error:
        raise RegistryError(f"{out} can't be written to: {error.strerror or error}") from error


def _plan(batch: Batch, first_seed: int, start: int, session: GeneratorSession) -> GenerationPlan:
    """What the HTTP request that gives the same images comes to."""
    requested = {
        "n": min(MAX_IMAGES, batch.count - start),
        "category": batch.category,
        # Wraps within a batch, as seeds do within a request.
        "seed": (first_seed + start) % SEED_LIMIT if start else first_seed,
        "truncation_psi": batch.truncation_psi,
        "size": batch.size,
    }
    return plan_images(validate(GenerationRequest, requested), session.manifest)


def open_session(
    model_id: str | None, export: Path | None, settings: Settings
) -> tuple[GeneratorSession, str]:
    """Load an export or a registered model; give its id, too.

    Raises:
        OperatorError: It can't be used.
    """
    if export is not None:
        manifest, files = read_export(export)
        generator, shown_id = files[GENERATOR_FILE], f"{manifest.name}:{export_version(files)}"
        used = (UPSCALER_FILE, WATERMARK_ENCODER_FILE)
        others = {file: files[file] for file in used if file in files}
    else:
        registry = Registry()
        wanted = model_id or next(iter(registry.promoted()), None)
        if wanted is None:
            raise RegistryError("no model is registered: `catalogan register EXPORT`")
        model = registry.get(wanted)
        manifest, generator, shown_id = model.manifest, model.read_generator(), model.model_id
        others = model.read_others()
    session = GeneratorSession(
        generator,
        manifest,
        others=others,
        device=settings.device,
        intra_op_threads=settings.intra_op_threads,
    )
    return session, shown_id


def _write(out: Path, image: EncodedImage, output_format: OutputFormat) -> None:
    """Write aside, then rename: an image is there whole or not at all."""
    slug = re.sub(r"[^\w-]+", "-", image.metadata["category"])[:60].strip("-") or "picture"
    path = out / f"{slug}-{image.metadata['seed']}.{output_format}"
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(image.data)
    aside.replace(path)
