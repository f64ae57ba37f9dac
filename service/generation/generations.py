"""A generation request -> images; the same for HTTP and the command line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from models.manifest import GeneratorManifest
from service.generation.categories import (
    category_name,
    find_category,
    find_mixture,
    mixture_metadata,
)
from service.generation.output import ImageEncoder
from service.generation.prompts import category_of_prompt
from service.generation.requests import GenerationRequest
from service.generation.style_mixing import Mixing, choose_mixing, mix_styles
from service.inference.generation import GeneratorSession, ImageSpec, Mixture, consecutive_seeds
from service.rendering.encoded_image import EncodedImage
from service.rendering.presentation import Presentation, choose_presentation

# Fields that are an image's own in a request of several, and those that no image shows: a link
# holds all others.
_SINGLE: Final = {
    *("n", "seed", "seeds", "style_mixing", "prompt", "category", "categories"),
    *("truncation_psi", "model", "size", "response_format"),
}
_WITHOUT_EFFECT: Final = {
    *("quality", "style", "moderation", "complexity", "stream", "partial_images"),
    *("user", "safety_identifier"),
}


@dataclass(frozen=True)
class GenerationPlan:
    """A request, resolved for one model.

    Attributes:
        specs: One for each image; without offsets, which are for a worker to compute.
        presentation: Size and background of all.
        mixing: Another style for some layers of all.
    """

    specs: list[ImageSpec]
    presentation: Presentation
    mixing: Mixing | None = None


def plan_images(
    request: GenerationRequest, manifest: GeneratorManifest, round_size: bool = False
) -> GenerationPlan:
    """Resolve seed, category and truncation of each image, and what all share.

    Args:
        request: What is requested.
        manifest: The model's.
        round_size: Whether another size becomes the nearest that the model gives.

    Raises:
        BadRequest: Something is requested that the model doesn't have.
    """
    presentation = choose_presentation(request.size, request.background, manifest, round_size)
    mixing = choose_mixing(request.style_mixing, manifest) if request.style_mixing else None
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    chosen = _category(request, manifest)
    specs = []
    first = request.style_mixing.coarse if request.style_mixing else request.seed
    for seed in request.seeds or consecutive_seeds(first, request.count):
        # Where nobody chose, an image's own seed does: consecutive ones go round.
        category = seed % len(manifest.categories) if chosen is None else chosen
        specs.append(ImageSpec(seed, category, psi))
    return GenerationPlan(specs, presentation, mixing)


def metadata_of(
    spec: ImageSpec, mixing: Mixing | None, manifest: GeneratorManifest
) -> dict[str, Any]:
    """What is said beside an image, and requests it again."""
    return {
        "seed": spec.seed,
        "category": category_name(spec.category, manifest.categories),
        **mixture_metadata(spec.category, manifest.categories),
        **(mixing.parameters(spec.seed) if mixing else {}),
    }


def single_requests(
    request: GenerationRequest, plan: GenerationPlan, model_id: str, manifest: GeneratorManifest
) -> list[dict[str, Any]]:
    """A request for each image of a plan, with all that is the same each time it is generated."""
    shared = request.model_dump(exclude=_SINGLE | _WITHOUT_EFFECT, exclude_none=True)
    shared |= {"model": model_id, "size": plan.presentation.size}
    requests = []
    for spec in plan.specs:
        metadata = metadata_of(spec, plan.mixing, manifest)
        metadata.pop("category" if "categories" in metadata else "categories", None)
        metadata.pop("seed" if "style_mixing" in metadata else "style_mixing", None)
        requests.append({**shared, "truncation_psi": spec.truncation_psi, **metadata})
    return requests


def generation_jobs(
    session: GeneratorSession, plan: GenerationPlan, encoder: ImageEncoder
) -> list[Callable[[], list[EncodedImage]]]:
    """Split images into jobs of the largest batch that pays on the session's device."""
    return [
        partial(_generate, session, specs, plan.mixing, encoder)
        for specs in session.batches(plan.specs)
    ]


def _generate(
    session: GeneratorSession,
    specs: Sequence[ImageSpec],
    mixing: Mixing | None,
    encoder: ImageEncoder,
) -> list[EncodedImage]:
    if mixing is not None:
        specs = [mix_styles(session, spec, mixing) for spec in specs]
    return [
        encoder.encode(pixels, spec, mixing.parameters(spec.seed) if mixing else None)
        for spec, pixels in zip(
            specs, session.render(specs, encoder.presentation.upscaled), strict=True
        )
    ]


def _category(request: GenerationRequest, manifest: GeneratorManifest) -> int | Mixture | None:
    if request.categories is not None:
        return find_mixture(request.categories, manifest.categories)
    if request.category is not None:
        return find_category(request.category, manifest.categories)
    if request.prompt is not None and request.prompt.strip():
        return category_of_prompt(request.prompt, manifest.categories, manifest.synonyms)
    return None
