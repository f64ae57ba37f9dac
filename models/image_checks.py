"""What is refused before pixels are decoded, or because of what they turn out to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from models.av1_sizes import has_grid, stream_sizes
from models.image_files import MAX_SCANS, Pixels
from models.image_formats import RAW_ADVICE

Reason = Literal[
    "too_many_bytes", "too_many_pixels", "too_small", "not_an_image", "undecodable", "too_costly"
]
# A tile or stream of so many pixels costs little, however small its image.
_SMALL_TILE: Final = 4_000_000


class ImageError(ValueError):
    """An image that can't be used; `reason` says why in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Final[Reason] = reason


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """How large an image may be, checked before it is decoded."""

    max_bytes: int = 50_000_000
    max_pixels: int = 50_000_000
    min_side_px: int = 16


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse an image that is too large or too small."""
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too_many_pixels", f"{width} x {height} pixels, over {limits.max_pixels} in all"
        )
    if min(width, height) < limits.min_side_px:
        raise ImageError("too_small", f"{width} x {height}, under {limits.min_side_px} px")


def check_file(image: Image.Image, file: Pixels) -> None:
    """Refuse what would cost far more than the image's size tells, and raw files' previews."""
    if file.scans > MAX_SCANS:
        raise ImageError(
            "too_costly", f"a JPEG of more than {MAX_SCANS} scans; save it again as a plain one"
        )
    if image.format == "TIFF":
        _check_tiff(image)
    elif image.format == "AVIF":
        _check_avif(image.size, file.data)


def _check_tiff(image: Image.Image) -> None:
    tags = tiff_tags(image)
    is_preview = bool(tags.get(ExifTags.Base.NewSubfileType, 0) & 1)
    if is_preview or ExifTags.Base.DNGVersion in tags:
        raise ImageError("not_an_image", RAW_ADVICE)
    tile = tags.get(ExifTags.Base.TileWidth, 1) * tags.get(ExifTags.Base.TileLength, 1)
    if tile > max(4 * image.width * image.height, _SMALL_TILE):
        raise ImageError("too_costly", f"a TIFF with tiles of {tile} pixels, far over the image's")


def _check_avif(size: tuple[int, int], data: bytes) -> None:
    """Refuse an AVIF whose streams have another size than it states."""
    widths, heights = zip(*stream_sizes(data), strict=True)
    largest = max(widths), max(heights)
    if has_grid(data):
        if largest[0] * largest[1] > max(4 * size[0] * size[1], _SMALL_TILE):
            raise ImageError("too_costly", "an AVIF with tiles that are far larger than the image")
    elif largest != size:
        raise ImageError(
            "undecodable",
            f"an AVIF that states {size[0]} x {size[1]} pixels and has {largest[0]} x {largest[1]}",
        )


def tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """Tags of a TIFF by their number; none for other formats."""
    return image.tag_v2 if isinstance(image, TiffImageFile) else {}


def check_depth(image: Image.Image, data: bytes) -> None:
    """Refuse colours of 16 bits that use 12 or fewer: decoded to 8 they are next to black."""
    if image.mode not in ("LA", "RGB", "RGBA"):
        return
    if image.format == "PNG":
        bits = data[24]
    else:
        bits = min(tiff_tags(image).get(ExifTags.Base.BitsPerSample, (8,)))
    if bits != 16:
        return
    colours = range(len(image.getbands()) - image.mode.endswith("A"))
    counts = np.reshape(image.histogram(), (-1, 256))[list(colours)].sum(axis=0)
    if counts[1:16].any() and not counts[16:].any():
        raise ImageError(
            "undecodable",
            "its samples of 16 bits use 12 or fewer; save it with samples over the whole range",
        )
