"""A generation request -> pictures; the same for HTTP and the command line."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from models.manifest import GeneratorManifest
from service.answers import Finished
from service.categories import find_category, find_mixture
from service.finishing import Finishing
from service.generation import SEED_LIMIT, GeneratorSession, Mixture, PictureSpec
from service.presentation import Presentation, choose_presentation
from service.prompts import category_of_prompt
from service.schemas import GenerationRequest
from service.style_mixing import Mixing, choose_mixing, mix_styles


@dataclass(frozen=True)
class Plan:
    """A request, settled for one model.

    Attributes:
        specs: One for each picture; without offsets, which are for a worker to compute.
        presentation: Size and background of all.
        mixing: Another style for some layers of all.
    """

    specs: list[PictureSpec]
    presentation: Presentation
    mixing: Mixing | None = None


def plan_pictures(request: GenerationRequest, manifest: GeneratorManifest) -> Plan:
    """Settle seed, category and truncation of each picture, and what all share.

    Raises:
        BadRequest: Something is asked for that the model doesn't have.
    """
    presentation = choose_presentation(request.size, request.background, manifest)
    mixing = choose_mixing(request.style_mixing, manifest) if request.style_mixing else None
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    chosen = _category(request, manifest)
    specs = []
    for seed in _seeds(request):
        # Where nobody chose, a picture's own seed does: consecutive ones go round.
        category = seed % len(manifest.categories) if chosen is None else chosen
        specs.append(PictureSpec(seed, category, psi))
    return Plan(specs, presentation, mixing)


def generation_jobs(
    session: GeneratorSession, plan: Plan, finishing: Finishing
) -> list[Callable[[], list[Finished]]]:
    """Split pictures into jobs of the largest batch that pays on the session's device."""
    size = session.batch_sizes[-1]
    return [
        partial(_generate, session, plan.specs[start : start + size], plan.mixing, finishing)
        for start in range(0, len(plan.specs), size)
    ]


def _generate(
    session: GeneratorSession,
    specs: list[PictureSpec],
    mixing: Mixing | None,
    finishing: Finishing,
) -> list[Finished]:
    if mixing is not None:
        specs = [mix_styles(session, spec, mixing) for spec in specs]
    return [
        finishing.finish(pixels, spec, mixing.recipe(spec.seed) if mixing else None)
        for spec, pixels in zip(specs, session.render(specs), strict=True)
    ]


def _seeds(request: GenerationRequest) -> list[int]:
    if request.seeds is not None:
        return list(request.seeds)
    first = request.style_mixing.coarse if request.style_mixing else request.seed
    return consecutive_seeds(first, request.n or 1)


def consecutive_seeds(first: int | None, count: int) -> list[int]:
    """The seeds of `count` pictures; from a random one on where `first` is None."""
    start = secrets.randbelow(SEED_LIMIT) if first is None else first
    return [(start + index) % SEED_LIMIT for index in range(count)]


def _category(request: GenerationRequest, manifest: GeneratorManifest) -> int | Mixture | None:
    if request.categories is not None:
        return find_mixture(request.categories, manifest.categories)
    if request.category is not None:
        return find_category(request.category, manifest.categories)
    if request.prompt is not None and request.prompt.strip():
        return category_of_prompt(request.prompt, manifest.categories)
    return None
