"""Bytes of a picture -> checked, upright sRGB array. No torch, no files.

Every picture that enters Catalogan, a catalogue photo or an upload, comes through
`decode_image`: byte and pixel caps are checked before anything is decoded.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, ImageOps

Reason = Literal[
    "too_many_bytes", "too_many_pixels", "too_small", "not_an_image", "undecodable"
]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF")


class ImageError(ValueError):
    """A picture that can't be used; `reason` says why in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What a picture may cost, checked before it is decoded."""

    max_bytes: int = 50_000_000
    max_pixels: int = 50_000_000
    min_side_px: int = 16


def decode_image(
    data: bytes,
    *,
    limits: ImageLimits | None = None,
    channels: Literal[1, 3, 4] = 3,
    background: str = "white",
) -> NDArray[np.uint8]:
    """Decode one picture: upright, in sRGB, 8 bits, transparency over `background`.

    Args:
        data: An encoded picture of one of ACCEPTED_FORMATS; of an animation, frame one.
        limits: Caps on bytes, pixels and the shorter side.
        channels: 1 = grey, 3 = RGB, 4 = RGB and straight alpha.
        background: CSS colour under transparent parts, where channels < 4.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ImageError: With `reason` set; never another exception for bad bytes.
    """
    limits = limits or ImageLimits()
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    image = _open(data)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too_many_pixels", f"{width} x {height} pixels, over {limits.max_pixels} in all"
        )
    if min(width, height) < limits.min_side_px:
        raise ImageError("too_small", f"{width} x {height}, under {limits.min_side_px} px")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            upright = ImageOps.exif_transpose(image)
            rgba = _to_srgb(upright).convert("RGBA")
    except Exception as error:
        raise ImageError("undecodable", f"damaged {image.format}: {error}") from error
    if channels == 4:
        return np.asarray(rgba)
    flat = Image.new("RGBA", rgba.size, ImageColor.getrgb(background))
    flat.alpha_composite(rgba)
    pixels = np.asarray(flat.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own pixel cap decides, not Pillow's
            return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except Exception as error:
        raise ImageError(
            "not_an_image", f"not one of {', '.join(ACCEPTED_FORMATS)}"
        ) from error


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply the embedded ICC profile; scale 16-bit grey to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        samples = np.asarray(image, dtype=np.float32)
        return Image.fromarray(np.clip(samples / 257.0, 0, 255).astype(np.uint8))
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L", "LAB"):
        return image
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode=mode
    )
    return converted if converted is not None else image
