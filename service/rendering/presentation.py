"""The size and the background that a caller gets, from what the generator returns."""

import math
import re
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from models.images import flatten
from models.manifest import GeneratorManifest
from service.errors import BadRequest
from service.rendering.encoding import OutputFormat

MIN_SIDE_PX: Final = 16
MAX_ENLARGEMENT: Final = 4
MAX_SIDE_PX: Final = 2_048  # of what is larger than the model's own images
_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")

# How an image came to be larger than the model generates it.
Enlargement = Literal["none", "upscaler", "lanczos"]


@dataclass(frozen=True)
class Presentation:
    """How a generated image is shown.

    Attributes:
        width: In pixels.
        height: In pixels.
        background: RGB under transparent parts; None = they stay as they are.
        enlargement: "upscaler" where the model's own enlarges it first; Lanczos does the rest.
    """

    width: int
    height: int
    background: tuple[int, int, int] | None = None
    enlargement: Enlargement = "none"

    @property
    def upscaled(self) -> bool:
        """Whether the model's upscaler enlarges it first."""
        return self.enlargement == "upscaler"

    @property
    def size(self) -> str:
        """The size as requests and responses write it."""
        return f"{self.width}x{self.height}"


def choose_presentation(
    size: str | None, background: str | None, manifest: GeneratorManifest, rounded: bool = False
) -> Presentation:
    """Resolve what a request's `size` and `background` mean for a model.

    Args:
        size: "WIDTHxHEIGHT", or "auto" or None for the model's own.
        background: A colour, or what stands for one.
        manifest: The model's.
        rounded: Whether another size becomes the nearest that the model gives.

    Raises:
        BadRequest: The model can't give it.
    """
    width, height = _choose_size(size, manifest, rounded)
    larger = (width, height) > (manifest.width, manifest.height)
    by: Enlargement = "upscaler" if manifest.upscaler else "lanczos"
    plain = Presentation(width, height, enlargement=by if larger else "none")
    if background in (None, "auto"):
        return plain
    if manifest.channels != 4:
        if background == "opaque":  # they all are
            return plain
        raise BadRequest(
            "this model's images have no transparency that a background could show through: "
            "leave it out, or send auto or opaque",
            param="background",
        )
    if background == "transparent":
        return plain
    colour = ImageColor.getrgb("white" if background == "opaque" else str(background))
    return replace(plain, background=colour[:3])


def largest_size(manifest: GeneratorManifest) -> tuple[int, int]:
    """Width and height of the largest images of a model."""
    return _scaled(manifest, math.inf)


def check_transparency(background: str | None, output_format: OutputFormat | str) -> None:
    """Refuse transparency in a format that has none, or only all or nothing.

    Raises:
        BadRequest: It was requested in so many words.
    """
    if background == "transparent" and output_format in ("jpeg", "gif"):
        raise BadRequest(
            f"{output_format} can't show soft transparency: request png or webp, or for another "
            "background",
            param="background",
        )


def present(pixels: NDArray[np.uint8], wanted: Presentation) -> NDArray[np.uint8]:
    """Lay a generated image over its background and resize it by Lanczos.

    Args:
        pixels: uint8 [height, width, channels]; channels 1, 3 or 4.
        wanted: Of the same proportions, to rounding.

    Returns:
        uint8 [height, width, channels] of the wanted size; RGB where a background was laid.
        The very same array where nothing is to be done.
    """
    height, width, channels = pixels.shape
    size = (wanted.width, wanted.height)
    cover = channels == 4 and wanted.background is not None
    if size == (width, height) and not cover:
        return pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    if cover and wanted.background is not None:
        image = flatten(image, 3, "#{:02x}{:02x}{:02x}".format(*wanted.background))
    if image.size != size:
        # Pillow weighs colours by their alpha here, so hidden ones don't bleed into edges.
        image = image.resize(size, Image.Resampling.LANCZOS)
    shown = np.asarray(image)
    return shown.reshape(wanted.height, wanted.width, -1)


def _choose_size(size: str | None, manifest: GeneratorManifest, rounded: bool) -> tuple[int, int]:
    native = (manifest.width, manifest.height)
    if size in (None, "auto", f"{native[0]}x{native[1]}"):
        return native
    match = _SIZE.fullmatch(size or "")
    if match is None:
        raise BadRequest(
            _refusal(manifest, f"write it as WIDTHxHEIGHT, not {size[:20]!r}"), param="size"
        )
    width, height = int(match[1]), int(match[2])
    nearest = _scaled(manifest, math.sqrt(width * height / math.prod(native)))
    largest = largest_size(manifest)
    # One side follows from the other by rounding to the nearest pixel.
    in_proportion = 2 * abs(width * native[1] - height * native[0]) <= max(native)
    fits = min(width, height) >= MIN_SIDE_PX and width <= largest[0] and height <= largest[1]
    if in_proportion and fits:
        return width, height
    if rounded:
        return nearest
    near = "{}x{}".format(*nearest)
    raise BadRequest(
        _refusal(manifest, f'the nearest to {width}x{height} is "{near}"'), param="size"
    )


def _scaled(manifest: GeneratorManifest, factor: float) -> tuple[int, int]:
    """The model's size times `factor`, or the nearest to it that may be requested."""
    sides = manifest.width, manifest.height
    most = max(1.0, min(MAX_ENLARGEMENT, MAX_SIDE_PX / max(sides)))
    least = min(1.0, MIN_SIDE_PX / min(sides))
    factor = max(least, min(most, factor))
    longer = round(factor * max(sides))
    shorter = round(longer * min(sides) / max(sides))
    return (longer, shorter) if sides[0] >= sides[1] else (shorter, longer)


def _refusal(manifest: GeneratorManifest, advice: str) -> str:
    """What sizes there are; a model has one proportion, as its images are not cut."""
    width, height = manifest.width, manifest.height
    common = math.gcd(width, height)
    smallest, largest = ("{}x{}".format(*_scaled(manifest, factor)) for factor in (0.0, math.inf))
    return (
        f"this model's images are {width}x{height}, and have the proportions "
        f'{width // common}:{height // common} at each size, from "{smallest}" to "{largest}": '
        f"{advice}"
    )
