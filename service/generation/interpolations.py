"""Waypoints -> the frames that lead from one's image to the next one's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.manifest import GeneratorManifest
from service.errors import BadRequest
from service.generation.categories import (
    category_name,
    find_category,
    find_mixture,
    mixture_metadata,
)
from service.generation.interpolation_requests import (
    InterpolationFormat,
    InterpolationRequest,
    PathRequest,
    RequestedPath,
    WaypointSource,
)
from service.generation.output import ImageEncoder
from service.generation.style_mixing import layers_of_styles
from service.generation.variations import FittedPhoto, Inverted, validation_errors
from service.inference.generation import GeneratorSession, ImageSpec
from service.provenance.xmp import Mark
from service.rendering.presentation import (
    Presentation,
    check_transparency,
    choose_presentation,
    present,
)

# All frames are in memory at once, and a GIF takes half a second a million pixels to encode:
# 300 of 256 x 256.
MAX_PIXELS: Final = 20_000_000


@dataclass(frozen=True)
class Waypoint:
    """An image that the path leads through.

    Attributes:
        spec: What generates it.
        photo_sha256: Of the photo that it reconstructs; None = it is a seed's.
        error: Mean squared error of that reconstruction, pixels in [-1, 1].
    """

    spec: ImageSpec
    photo_sha256: str | None = None
    error: float | None = None

    @property
    def name(self) -> int | str:
        """The seed, or the photo's hash."""
        return self.photo_sha256 or self.spec.seed


@dataclass(frozen=True)
class Frame:
    """One frame: a fraction, 0 to 1, of the path from a waypoint to another."""

    start: Waypoint
    end: Waypoint
    fraction: float

    @property
    def photos(self) -> tuple[str, ...]:
        """SHA-256 of the photos that it is generated of; the nearer one first."""
        fractions = {
            self.start.photo_sha256: 1 - self.fraction,
            self.end.photo_sha256: self.fraction,
        }
        if self.start.name == self.end.name:
            fractions = {self.start.photo_sha256: 1.0}
        near = sorted(fractions, key=lambda photo: -fractions[photo])
        return tuple(photo for photo in near if photo is not None and fractions[photo] > 0)

    def parameters(self, known: Sequence[str]) -> dict[str, Any]:
        """What beside the start's seed, category and truncation fixes the frame.

        Args:
            known: The model's categories.
        """
        start, end = self.start, self.end
        noise_seed = start.spec.seed if start.spec.noise_seed is None else start.spec.noise_seed
        path = {"to": end.name, "share": self.fraction, "noise_seed": noise_seed}
        if start.photo_sha256 is None and end.photo_sha256 is None:
            return {"interpolation": path}
        path["to_category"] = category_name(end.spec.category, known)
        path["to_truncation_psi"] = end.spec.truncation_psi
        if start.photo_sha256 is not None:
            path = {"from": start.photo_sha256, **path}
        return {"interpolation": path, **({"photo_sha256": self.photos[0]} if self.photos else {})}


# Absolute styles by waypoint's name, [1 or num_ws, w_dim].
Styles = Mapping[int | str, NDArray[np.float32]]


def present_frames(
    requested: RequestedPath,
    output_format: InterpolationFormat,
    manifest: GeneratorManifest,
) -> Presentation:
    """Resolve the frames' size and background.

    Raises:
        BadRequest: The model has no mapping, doesn't have what is requested, or the frames
            would be too large together.
    """
    layers_of_styles(manifest, "model")
    check_transparency(requested.path.background, output_format)
    wanted = choose_presentation(requested.path.size, requested.path.background, manifest)
    if output_format == "gif" and manifest.channels == 4 and wanted.background is None:
        wanted = replace(wanted, background=(255, 255, 255))  # as in JPEG
    if requested.frame_count * wanted.width * wanted.height > MAX_PIXELS:
        raise BadRequest(
            f"{requested.frame_count} frames of {wanted.size} have more than {MAX_PIXELS} pixels: "
            "send fewer frames, or a smaller size",
            param="frames",
        )
    return wanted


def photo_waypoint(photo: FittedPhoto, inverted: Inverted, noise: int) -> Waypoint:
    """The waypoint that reconstructs a photo."""
    spec = ImageSpec(noise, inverted.category, 0.0, inverted.style_offset)
    return Waypoint(spec, photo.sha256, inverted.error)


def plan_waypoints(
    requested: RequestedPath, photos: Mapping[WaypointSource, Waypoint], manifest: GeneratorManifest
) -> list[Waypoint]:
    """Resolve each waypoint's category and truncation.

    Args:
        requested: What is requested.
        photos: The photos' waypoints.
        manifest: The model's.

    Raises:
        BadRequest: A category is unknown.
    """
    request, sources, noise = requested.path, requested.sources, requested.noise_seed
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    if isinstance(request, InterpolationRequest) and request.categories is not None:
        category: Any = find_mixture(request.categories, manifest.categories)
    elif request.category is not None:
        category = find_category(request.category, manifest.categories)
    elif photos:
        category = next(photos[source] for source in sources if source in photos).spec.category
    else:
        category = noise % len(manifest.categories)
    return [
        Waypoint(ImageSpec(source, category, psi, noise_seed=noise))
        if isinstance(source, int)
        else photos[source]
        for source in sources
    ]


def plan_frames(request: PathRequest, waypoints: Sequence[Waypoint]) -> list[Frame]:
    """Lay out the frames of all legs, in order."""
    steps = request.frames - 1
    legs = pairwise([*waypoints, waypoints[0]] if request.loop else waypoints)
    frames = [Frame(start, end, step / steps) for start, end in legs for step in range(steps)]
    last = waypoints[-1]
    return frames if request.loop else [*frames, Frame(last, last, 0.0)]


def style_jobs(
    session: GeneratorSession, waypoints: Sequence[Waypoint]
) -> list[Callable[[], Styles]]:
    """One job that returns the styles of all waypoints."""
    return [partial(_styles, session, waypoints)]


def frame_jobs(
    session: GeneratorSession,
    frames: Sequence[Frame],
    styles: Styles,
    render: Callable[[NDArray[np.uint8], Frame], Any],
    upscaled: bool,
) -> list[Callable[[], list[Any]]]:
    """Split frames into jobs of the largest batch that pays on the session's device.

    Args:
        session: The model.
        frames: Of the whole path, or a part of it.
        styles: What the `style_jobs` returned.
        render: Turns generated pixels into what a job returns for each frame.
        upscaled: Whether the model's upscaler enlarges them first.
    """
    size = session.batch_sizes[-1]
    return [
        partial(_generate_batch, session, frames[start : start + size], styles, render, upscaled)
        for start in range(0, len(frames), size)
    ]


def encode_frame(encoder: ImageEncoder, pixels: NDArray[np.uint8], frame: Frame) -> Any:
    """A frame as an image of its own."""
    parameters = frame.parameters(encoder.manifest.categories)
    return encoder.encode(pixels, frame.start.spec, parameters, frame.photos)


def present_frame(wanted: Presentation, pixels: NDArray[np.uint8], frame: Frame) -> Any:
    """A frame as pixels for an animation."""
    return present(pixels, wanted)


def path_metadata(
    requested: RequestedPath, waypoints: Sequence[Waypoint], manifest: GeneratorManifest
) -> dict[str, Any]:
    """What a response says of all frames together."""
    known, category = manifest.categories, waypoints[0].spec.category
    metadata = {
        "category": category_name(category, known),
        **mixture_metadata(category, known),
        "frame_count": requested.frame_count,
        "loop": requested.path.loop,
    }
    psi = _truncation_psi(waypoints)
    if psi is not None:
        metadata["truncation_psi"] = psi
    if isinstance(requested.path, InterpolationRequest):
        return {**metadata, "seeds": requested.path.seeds}
    found = {
        source: waypoint
        for source, waypoint in zip(requested.sources, waypoints, strict=True)
        if not isinstance(source, int)
    }
    photos = [
        {
            "photo": photo.name,
            "photo_sha256": waypoint.photo_sha256,
            "category": category_name(waypoint.spec.category, known),
        }
        for photo, waypoint in found.items()
    ]
    return {
        **metadata,
        "waypoints": [
            source if isinstance(source, int) else source.name for source in requested.sources
        ],
        "photos": photos,
        # Apart, as many photos are too long for the headers of an animation.
        "reconstruction_errors": [waypoint.error for waypoint in found.values()],
        "validation_errors": validation_errors(manifest),
    }


def path_mark(encoder: ImageEncoder, path: PathRequest, waypoints: Sequence[Waypoint]) -> Mark:
    """The mark of an animation; its category is that of the first waypoint."""
    known, psi = encoder.manifest.categories, _truncation_psi(waypoints)
    spec = replace(waypoints[0].spec, truncation_psi=0.0 if psi is None else psi)
    photos = tuple(dict.fromkeys(one.photo_sha256 for one in waypoints if one.photo_sha256))
    names = [waypoint.name for waypoint in waypoints]
    sources: dict[str, Any] = {"seeds": names}
    if photos:
        categories = [category_name(waypoint.spec.category, known) for waypoint in waypoints]
        sources = {"waypoints": names, "categories": categories}
    parameters = {
        **mixture_metadata(spec.category, known),
        "interpolation": {**sources, "frames": path.frames, "loop": path.loop},
    }
    return encoder.mark(spec, category_name(spec.category, known), parameters, photos)


def _truncation_psi(waypoints: Sequence[Waypoint]) -> float | None:
    """Of the seeds; None where all are photos, which have none."""
    seeds = [one.spec.truncation_psi for one in waypoints if one.photo_sha256 is None]
    return seeds[0] if seeds else None


def _styles(session: GeneratorSession, waypoints: Sequence[Waypoint]) -> Styles:
    return {waypoint.name: _style(session, waypoint.spec) for waypoint in waypoints}


def _style(session: GeneratorSession, spec: ImageSpec) -> NDArray[np.float32]:
    style = session.style(spec)[np.newaxis]
    return style if spec.style_offset is None else style + spec.style_offset


def _generate_batch(
    session: GeneratorSession,
    frames: Sequence[Frame],
    styles: Styles,
    render: Callable[[NDArray[np.uint8], Frame], Any],
    upscaled: bool,
) -> list[Any]:
    shape = session.manifest.num_ws or 0, session.manifest.w_dim or 0
    specs = []
    for frame in frames:
        spec = frame.start.spec
        path = np.float32(frame.fraction) * (styles[frame.end.name] - styles[frame.start.name])
        offset = path if spec.style_offset is None else spec.style_offset + path
        specs.append(replace(spec, style_offset=np.broadcast_to(offset, shape)))
    generated = session.render(specs, upscaled)
    return [render(pixels, frame) for pixels, frame in zip(generated, frames, strict=True)]
