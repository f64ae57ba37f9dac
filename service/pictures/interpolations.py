"""An interpolation request -> frames that lead from one seed's picture to another's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from models.manifest import GeneratorManifest
from service.errors import BadRequest
from service.images.presentation import (
    Presentation,
    check_transparency,
    choose_presentation,
    present,
)
from service.inference.generation import GeneratorSession, PictureSpec
from service.marks.marking import Mark
from service.messages.negotiation import best_liked
from service.messages.schemas import Background, Seed, Size, Strict, Weights, refuse_both
from service.pictures.categories import category_name, find_category, find_mixture, mixture_facts
from service.pictures.finishing import Finishing
from service.pictures.style_mixing import layers_of_styles

MAX_FRAMES: Final = 300
# All frames are in memory at once, and a GIF takes half a second a million pixels to encode:
# 300 of 256 x 256.
MAX_PIXELS: Final = 20_000_000

InterpolationFormat = Literal["zip", "webp", "gif"]
FILE_TYPES: Final[dict[InterpolationFormat, str]] = {
    "zip": "application/zip",
    "webp": "image/webp",
    "gif": "image/gif",
}
Styles = Mapping[int, NDArray[np.float32]]


class InterpolationRequest(Strict):
    """Body of POST /v1/images/interpolations; user changes nothing."""

    seeds: Annotated[
        list[Seed],
        Field(min_length=2, max_length=10, description="Waypoints; all have the first's noise."),
    ]
    frames: Annotated[
        int,
        Field(
            ge=2,
            le=60,
            description="From one seed to the next, both counted; a seed where two legs meet is "
            f"one frame. At most {MAX_FRAMES} in all.",
        ),
    ] = 12
    loop: Annotated[bool, Field(description="Lead back to the first seed, and play for ever.")] = (
        False
    )
    category: Annotated[
        str | None, Field(max_length=200, description="Else the first seed chooses.")
    ] = None
    categories: Annotated[
        Weights | None, Field(description="A mixture, in place of `category`.")
    ] = None
    truncation_psi: Annotated[
        float | None, Field(ge=0, le=1, description="0 = the mean picture, 1 = full variety.")
    ] = None
    frame_duration_ms: Annotated[
        int,
        Field(
            ge=20,
            le=1000,
            description="Of animations; GIF rounds it to 10 ms. Equal frames in a row become one "
            "that stays longer.",
        ),
    ] = 80
    size: Size | None = None
    background: Background | None = None
    output_format: Annotated[
        InterpolationFormat | None,
        Field(description="zip = PNG frames, the default; webp and gif are animated."),
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    user: Annotated[str | None, Field(max_length=512)] = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        refuse_both(self, "categories", "category")
        if self.frame_count > MAX_FRAMES:
            raise BadRequest(
                f"that makes {self.frame_count} frames: at most {MAX_FRAMES} are served",
                param="frames",
            )
        return self

    @property
    def legs(self) -> list[tuple[int, int]]:
        """Where each leg begins and ends."""
        return list(pairwise([*self.seeds, self.seeds[0]] if self.loop else self.seeds))

    @property
    def frame_count(self) -> int:
        """Number of frames in all."""
        return len(self.legs) * (self.frames - 1) + (0 if self.loop else 1)


@dataclass(frozen=True)
class Frame:
    """One frame: a share of the way from the spec's seed to another.

    Attributes:
        spec: Of the seed that the leg begins with; without offset.
        to: The seed that the leg ends with.
        share: 0 to 1.
    """

    spec: PictureSpec
    to: int
    share: float

    @property
    def recipe(self) -> dict[str, Any]:
        """What beside seed and category fixes the frame."""
        way = {"to": self.to, "share": self.share, "noise_seed": self.spec.noise_seed}
        return {"interpolation": way}


def settle_format(accept: str | None, asked: InterpolationFormat | None) -> InterpolationFormat:
    """Settle the answer's format from the Accept header and the body's output_format.

    Raises:
        BadRequest: They contradict each other, or nothing that is served is accepted.
    """
    liked = best_liked(accept, list(FILE_TYPES.values()))
    if asked is None:
        return next(name for name, media in FILE_TYPES.items() if media == liked[0])
    try:
        best_liked(accept, [FILE_TYPES[asked]])
    except BadRequest:
        raise BadRequest(
            f"output_format is {asked}, but {FILE_TYPES[asked]} is not accepted",
            param="output_format",
        ) from None
    return asked


def present_frames(
    request: InterpolationRequest, output_format: InterpolationFormat, manifest: GeneratorManifest
) -> Presentation:
    """Settle the frames' size and background.

    Raises:
        BadRequest: The model has no mapping, doesn't have what is asked for, or the frames
            would be too large together.
    """
    layers_of_styles(manifest, "model")
    check_transparency(request.background, output_format)
    wanted = choose_presentation(request.size, request.background, manifest)
    if output_format == "gif" and manifest.channels == 4 and wanted.background is None:
        wanted = replace(wanted, background=(255, 255, 255))  # as in JPEG
    if request.frame_count * wanted.width * wanted.height > MAX_PIXELS:
        raise BadRequest(
            f"{request.frame_count} frames of {wanted.size} have more than {MAX_PIXELS} pixels: "
            "send fewer frames, or a smaller size",
            param="frames",
        )
    return wanted


def plan_frames(request: InterpolationRequest, manifest: GeneratorManifest) -> list[Frame]:
    """Settle each frame's seed, category, truncation and place on its leg.

    Raises:
        BadRequest: A category is unknown.
    """
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    first = request.seeds[0]
    if request.categories is not None:
        category: Any = find_mixture(request.categories, manifest.categories)
    elif request.category is not None:
        category = find_category(request.category, manifest.categories)
    else:
        category = first % len(manifest.categories)
    steps = request.frames - 1
    frames = [
        Frame(PictureSpec(start, category, psi, noise_seed=first), end, step / steps)
        for start, end in request.legs
        for step in range(steps)
    ]
    if not request.loop:
        last = PictureSpec(request.seeds[-1], category, psi, noise_seed=first)
        frames.append(Frame(last, request.seeds[-1], 0.0))
    return frames


def style_jobs(session: GeneratorSession, frames: Sequence[Frame]) -> list[Callable[[], Styles]]:
    """One job that gives the style [w_dim] of each seed on the way."""
    return [partial(_styles, session, frames)]


def frame_jobs(
    session: GeneratorSession,
    frames: Sequence[Frame],
    styles: Styles,
    finish: Callable[[NDArray[np.uint8], Frame], Any],
) -> list[Callable[[], list[Any]]]:
    """Split frames into jobs of the largest batch that pays on the session's device.

    Args:
        session: The model.
        frames: Of the whole way, or a part of it.
        styles: What the `style_jobs` gave.
        finish: Makes of the painted pixels what a job gives for each frame.
    """
    size = session.batch_sizes[-1]
    return [
        partial(_paint, session, frames[start : start + size], styles, finish)
        for start in range(0, len(frames), size)
    ]


def finish_picture(finishing: Finishing, pixels: NDArray[np.uint8], frame: Frame) -> Any:
    """A frame as a picture of its own."""
    return finishing.finish(pixels, frame.spec, frame.recipe)


def show_frame(wanted: Presentation, pixels: NDArray[np.uint8], frame: Frame) -> Any:
    """A frame as pixels for an animation."""
    return present(pixels, wanted)


def way_facts(
    request: InterpolationRequest, frames: Sequence[Frame], manifest: GeneratorManifest
) -> dict[str, Any]:
    """What an answer says of all frames together."""
    spec = frames[0].spec
    return {
        "category": category_name(spec.category, manifest.categories),
        **mixture_facts(spec.category, manifest.categories),
        "truncation_psi": spec.truncation_psi,
        "seeds": request.seeds,
        "frame_count": len(frames),
        "loop": request.loop,
    }


def way_mark(finishing: Finishing, request: InterpolationRequest, frames: Sequence[Frame]) -> Mark:
    """The mark of an animation."""
    known, category = finishing.manifest.categories, frames[0].spec.category
    way = {"seeds": request.seeds, "frames": request.frames, "loop": request.loop}
    recipe = {**mixture_facts(category, known), "interpolation": way}
    return finishing.mark(frames[0].spec, category_name(category, known), recipe)


def _styles(session: GeneratorSession, frames: Sequence[Frame]) -> Styles:
    category, psi = frames[0].spec.category, frames[0].spec.truncation_psi
    seeds = {frame.spec.seed for frame in frames} | {frame.to for frame in frames}
    return {seed: session.style(PictureSpec(seed, category, psi)) for seed in seeds}


def _paint(
    session: GeneratorSession,
    frames: Sequence[Frame],
    styles: Styles,
    finish: Callable[[NDArray[np.uint8], Frame], Any],
) -> list[Any]:
    specs = []
    for frame in frames:
        way = styles[frame.to] - styles[frame.spec.seed]
        offset = np.tile(np.float32(frame.share) * way, (session.manifest.num_ws or 0, 1))
        specs.append(replace(frame.spec, style_offset=offset))
    return [
        finish(pixels, frame) for pixels, frame in zip(session.render(specs), frames, strict=True)
    ]
