"""Options of `catalogan prepare`, checked before anything is read."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from PIL import ImageColor
from pydantic import Field, PositiveFloat, field_serializer, field_validator

from models.images import MAX_PIXELS, Channels, ImageLimits
from models.pyramid import Pyramid
from training.photos.scan import PrepareError, shown
from training.records import Record

Side = Annotated[int, Field(ge=8, le=1024)]


class PrepareOptions(Record):
    """How photos become a dataset.

    `manifest` and `validation` are read besides the folder of photos; all other options limit
    or shape each photo.
    """

    width: Side = 64
    height: Side = 64
    channels: Channels = 3
    fit: Literal["crop", "pad"] = "crop"
    background: str = "white"
    manifest: Path | None = None
    path_column: str = "path"
    category_column: str = "category"
    sku_column: str = "sku"
    validation: Path | None = None
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    min_photos: Annotated[int, Field(ge=1)] = 10  # fewest usable photos in all
    max_bytes: Annotated[int, Field(ge=1)] = 100_000_000  # largest file
    max_pixels: Annotated[int, Field(ge=64, le=MAX_PIXELS)] = 50_000_000
    min_side_px: Annotated[int, Field(ge=1)] = 16
    cpu_limit_sec: PositiveFloat = 30.0  # CPU time per photo
    wall_limit_sec: PositiveFloat = 600.0  # wall time per photo

    @field_validator("background")
    @classmethod
    def _is_colour(cls, background: str) -> str:
        try:
            ImageColor.getrgb(background)
        except ValueError as error:
            raise ValueError("must be a CSS colour, such as white or #f4f4f0") from error
        return background

    @field_serializer("manifest", "validation")
    def _storable(self, path: Path | None) -> str | None:
        return None if path is None else shown(os.fsencode(path))

    @property
    def limits(self) -> ImageLimits:
        """Limits of a photo's size."""
        return ImageLimits(
            max_bytes=self.max_bytes, max_pixels=self.max_pixels, min_side_px=self.min_side_px
        )

    @property
    def fraction_to_split(self) -> float | None:
        """Fraction of the photos to split off; None = photos are given for validation."""
        return self.validation_share if self.validation is None else None


def check_size(width: int, height: int) -> None:
    """Refuse a size that no network can be built for.

    Raises:
        PrepareError: The message names the nearest sizes that work.
    """
    try:
        Pyramid.of(height, width)
    except ValueError as error:
        raise PrepareError(f"--{error}") from error


def parse_size(text: str) -> tuple[int, int]:
    """Parse "64" or "192x256" as width and height in pixels.

    Raises:
        PrepareError: It is neither.
    """
    match = re.fullmatch(r"(\d{1,6})(?:[x×](\d{1,6}))?", text.strip().lower(), re.ASCII)
    if match is None:
        raise PrepareError(f"--size {text!r}: write 64, or WIDTHxHEIGHT such as 192x256")
    width = int(match[1])
    return width, int(match[2] or width)
