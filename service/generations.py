"""A generation request -> pictures; the same for HTTP and the command line."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from models.manifest import GeneratorManifest, category_index
from service.answers import Finished
from service.errors import BadRequest
from service.generation import SEED_LIMIT, GeneratorSession, PictureSpec
from service.imaging import OutputFormat, encode_image
from service.marking import GENERATED, Mark
from service.prompts import category_of_prompt, listing
from service.schemas import GenerationRequest


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: their format and, for JPEG and WebP, quality 0 to 100."""

    output_format: OutputFormat = "png"
    quality: int | None = None


def picture_specs(request: GenerationRequest, manifest: GeneratorManifest) -> list[PictureSpec]:
    """Settle seed, category and truncation of each picture.

    Raises:
        BadRequest: Unknown category, or a size or background that the model doesn't have.
    """
    _check_size(request.size, manifest)
    if request.background == "transparent" and manifest.channels != 4:
        raise BadRequest("this model's pictures have no transparency", param="background")
    seed = secrets.randbelow(SEED_LIMIT) if request.seed is None else request.seed
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    chosen = _category(request, manifest)
    specs = []
    for index in range(request.n or 1):
        own_seed = (seed + index) % SEED_LIMIT
        # Where nobody chose, a picture's own seed does: consecutive ones go round.
        category = own_seed % len(manifest.categories) if chosen is None else chosen
        specs.append(PictureSpec(own_seed, category, psi))
    return specs


def generation_jobs(
    session: GeneratorSession, model_id: str, specs: list[PictureSpec], encoding: Encoding
) -> list[Callable[[], list[Finished]]]:
    """Split pictures into jobs of the largest batch that pays on the session's device."""
    size = session.batch_sizes[-1]
    return [
        partial(_generate, session, model_id, specs[start : start + size], encoding)
        for start in range(0, len(specs), size)
    ]


def _generate(
    session: GeneratorSession, model_id: str, specs: list[PictureSpec], encoding: Encoding
) -> list[Finished]:
    manifest = session.manifest
    finished = []
    for spec, pixels in zip(specs, session.render(specs), strict=True):
        category = manifest.categories[spec.category]
        mark = Mark(GENERATED, spec.seed, model_id, manifest.model_hash, category)
        data = encode_image(pixels, encoding.output_format, mark, encoding.quality)
        finished.append(Finished(data, {"seed": spec.seed, "category": category}))
    return finished


def _category(request: GenerationRequest, manifest: GeneratorManifest) -> int | None:
    if request.category is not None:
        index = category_index(request.category, manifest.categories)
        if index is None:
            raise BadRequest(
                f"unknown category; known are {listing(manifest.categories)}",
                param="category",
                code="unknown_category",
            )
        return index
    if request.prompt is not None and request.prompt.strip():
        return category_of_prompt(request.prompt, manifest.categories)
    return None


def _check_size(size: str | None, manifest: GeneratorManifest) -> None:
    native = f"{manifest.width}x{manifest.height}"
    if size not in (None, "auto", native):
        raise BadRequest(f'this model\'s pictures are "{native}"; or send "auto"', param="size")
