"""Bytes of an image -> checked, upright sRGB array. No torch, no files.

Every image that enters Catalogan, a catalogue photo or an upload, is decoded by
`decode_image` or `open_image`: byte and pixel limits are checked before anything is decoded.
"""

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageColor

# Our own limits decide, not Pillow's advice. For the whole process: warnings.catch_warnings changes
# it for all threads, and threads that overlap leave it changed for good.
warnings.filterwarnings("ignore", module=r"PIL\.")

Reason = Literal["too_many_bytes", "too_many_pixels", "too_small", "not_an_image", "undecodable"]
Channels = Literal[1, 3, 4]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF")
# Pillow refuses larger images whatever the limits (twice Image.MAX_IMAGE_PIXELS).
MAX_PIXELS: Final = 178_000_000
# Photos are decoded at a reduced size as long as their shorter side keeps this many pixels.
REDUCE_TO_PX: Final = 1024

# EXIF orientation -> the transposition that makes the stored pixels upright (EXIF 2.32, 0x0112).
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def decode_image(
    data: bytes,
    *,
    limits: ImageLimits | None = None,
    channels: Channels = 3,
    background: str = "white",
) -> NDArray[np.uint8]:
    """Decode one image: upright, in sRGB, 8 bits, transparency over `background`.

    Args:
        data: An encoded image in one of ACCEPTED_FORMATS; of an animation, the first frame.
        limits: Limits on bytes, pixels and the shorter side.
        channels: 1 = grey, 3 = RGB, 4 = RGB and straight alpha.
        background: CSS colour under transparent parts, where channels < 4.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ImageError: With `reason` set; never another exception for bad bytes.
    """
    image = flatten(open_image(data, limits=limits), channels, background)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels)


def open_image(
    data: bytes, *, limits: ImageLimits | None = None, reduce_to_px: int | None = None
) -> Image.Image:
    """Decode one image: upright, in sRGB, 8 bits, with its transparency.

    Args:
        data: An encoded image in one of ACCEPTED_FORMATS; of an animation, the first frame.
        limits: Limits on bytes, pixels and the shorter side.
        reduce_to_px: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its
            shorter side keeps this many pixels; None = at full size.

    Returns:
        A Pillow image of mode L, LA, RGB or RGBA, fully loaded.

    Raises:
        ImageError: With `reason` set; never another exception for bad bytes.
    """
    limits = limits or ImageLimits()
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    image = _open_header(data)
    _check_size(image.size, limits)
    try:
        if reduce_to_px is not None and image.format in ("JPEG", "MPO"):
            _reduce(image, reduce_to_px)
        image.load()
        return _upright(_to_srgb(_to_8_bits(image)), _orientation(image))
    except Exception as error:
        raise ImageError("undecodable", f"damaged {image.format}: {error}") from error


def measure_image(data: bytes, *, limits: ImageLimits | None = None) -> tuple[int, int]:
    """Read the stored width and height without decoding.

    Raises:
        ImageError: The image can't be used, judging by its header.
    """
    limits = limits or ImageLimits()
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    size = _open_header(data).size
    _check_size(size, limits)
    return size


def flatten(image: Image.Image, channels: Channels, background: str) -> Image.Image:
    """Convert an image from `open_image` to `channels`, transparency over `background`.

    Args:
        image: Mode L, LA, RGB or RGBA.
        channels: 1 = grey, 3 = RGB, 4 = RGB and straight alpha.
        background: CSS colour under transparent parts, where channels < 4.

    Returns:
        A Pillow image of mode L, RGB or RGBA.
    """
    if channels == 4:
        return _as_mode(image, "RGBA")
    if image.mode in ("LA", "RGBA"):
        flat = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        flat.alpha_composite(_as_mode(image, "RGBA"))
        image = flat
    return _as_mode(image, "RGB" if channels == 3 else "L")


def crop_to(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize by Lanczos to cover `size` (width, height) and cut the excess off equally."""
    if image.mode == "RGBA":  # straight alpha would bleed hidden colours into the edges
        return crop_to(image.convert("RGBa"), size).convert("RGBA")
    scale = max(size[0] / image.width, size[1] / image.height)
    cut_x = max(0.0, (image.width - size[0] / scale) / 2)  # rounding may go below 0
    cut_y = max(0.0, (image.height - size[1] / scale) / 2)
    box = (cut_x, cut_y, image.width - cut_x, image.height - cut_y)
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert, without the copy that Pillow makes of an image already in that mode."""
    return image if image.mode == mode else image.convert(mode)


def sniff_format(data: bytes) -> str | None:
    """Which of ACCEPTED_FORMATS the first bytes indicate; None = none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and (data[8:12] in (b"avif", b"avis") or b"avif" in data[12:64]):
        return "AVIF"  # also where "avif" is only among the compatible brands
    signatures = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"II+\0": "TIFF",
        b"MM\0+": "TIFF",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
    }
    return next((name for start, name in signatures.items() if data.startswith(start)), None)


def _open_header(data: bytes) -> Image.Image:
    """Read the header only; the format follows from the bytes, not from a name or declared type."""
    promised = sniff_format(data)
    if promised is None:
        detail = "an empty file" if not data else f"none of {', '.join(ACCEPTED_FORMATS)}"
        raise ImageError("not_an_image", detail)
    try:
        return Image.open(io.BytesIO(data), formats=(promised,))
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except Exception as error:
        raise ImageError("undecodable", f"damaged {promised}: its header is unreadable") from error


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse an image that is too large or too small."""
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too_many_pixels", f"{width} x {height} pixels, over {limits.max_pixels} in all"
        )
    if min(width, height) < limits.min_side_px:
        raise ImageError("too_small", f"{width} x {height}, under {limits.min_side_px} px")


def _reduce(image: Image.Image, side_px: int) -> None:
    """Let the JPEG decoder skip detail that is not needed (scaled inverse DCT)."""
    scale = side_px / min(image.size)
    if scale < 1:
        # draft() keeps both sides at or above the size requested.
        image.draft(None, (round(image.width * scale), round(image.height * scale)))


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert any mode to L, LA, RGB, RGBA, CMYK or LAB of 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey_to_8_bits(image)
    if image.mode in ("CMYK", "LAB"):
        return image
    if image.has_transparency_data:
        mode = "LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else _keep_info(image, image.convert(mode))


def _deep_grey_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float grey -> L; the range is judged by the brightest sample."""
    samples = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:  # no white is fixed for these: the smallest customary one that fits
        peak = float(samples.max(initial=0.0))
        customary = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((w for w in customary if peak <= w), peak)
    grey = np.clip(np.rint(samples * (255.0 / white)), 0, 255).astype(np.uint8)
    return _keep_info(image, Image.fromarray(grey))


def _keep_info(source: Image.Image, converted: Image.Image) -> Image.Image:
    """Copy the ICC profile to the converted image."""
    if "icc_profile" in source.info:
        converted.info["icc_profile"] = source.info["icc_profile"]
    return converted


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply the embedded profile; a broken or unsuitable one is ignored."""
    profile = image.info.get("icc_profile")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colour = image.convert(image.mode[:-1]) if alpha is not None else image
    if colour.mode == "LAB":
        colour = _transform(None, "LAB").apply(colour)  # type: ignore[union-attr]
    elif isinstance(profile, bytes) and profile:
        try:
            transform = _transform(profile, colour.mode)
            colour = colour if transform is None else transform.apply(colour)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a photo with unconverted colours is better than none
    if colour.mode == "CMYK":
        colour = colour.convert("RGB")
    if alpha is None:
        return colour
    if colour.mode not in ("L", "RGB"):
        colour = colour.convert("RGB")
    colour.putalpha(alpha)
    return colour


@lru_cache(maxsize=32)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None where the profile is sRGB itself, as most are."""
    srgb = ImageCms.createProfile("sRGB")
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(srgb), mode, "RGB")
    if mode == "RGB" and _is_identity(transform):
        return None
    return transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether no colour of a 9 x 9 x 9 grid moves by more than rounding."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(transform.apply(Image.fromarray(grid)), dtype=np.int16)
    return bool(np.abs(moved - grid).max() <= 2)


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1 where there is none or it can't be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to lose the photo
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undo the camera's rotation."""
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)
