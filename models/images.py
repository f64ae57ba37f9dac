"""Bytes of an image -> checked, upright sRGB array. No torch, no files.

Every image that enters Catalogan, a catalogue photo or an upload, is decoded by
`decode_image` or `open_image`: limits on bytes and pixels, and what a file claims beside its
pixels, are checked before anything is decoded. Codecs are C code: what they cost is bounded by the
process that this runs in (`models.confinement`).
"""

import io
import warnings
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor

from models.image_checks import (
    ImageError,
    ImageLimits,
    check_depth,
    check_file,
    check_size,
    tiff_tags,
)
from models.image_colour import to_8_bits, to_srgb
from models.image_files import JPEG_END, JPEG_PADDING, Pixels, strip
from models.image_formats import describe_unaccepted, sniff_format, webp_size

__all__ = [
    "MAX_PIXELS",
    "REDUCE_TO_PX",
    "Channels",
    "ImageError",
    "ImageLimits",
    "crop_to",
    "decode_image",
    "flatten",
    "measure_image",
    "open_image",
    "sniff_format",
]

# Our own limits decide, not Pillow's advice. For the whole process: warnings.catch_warnings changes
# it for all threads, and threads that overlap leave it changed for good.
warnings.filterwarnings("ignore", module=r"PIL\.")

Channels = Literal[1, 3, 4]

# Pillow refuses larger images whatever the limits (twice Image.MAX_IMAGE_PIXELS).
MAX_PIXELS: Final = 178_000_000
# Photos are decoded at a reduced size as long as their shorter side keeps this many pixels.
REDUCE_TO_PX: Final = 1024
_STRIP_ROWS: Final = 256
_CUT_OFF: Final = "a JPEG file that is cut off"

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
    image, file = _open_header(data, limits or ImageLimits())
    try:
        check_file(image, file)
        _load(image, file, reduce_to_px)
        orientation, tags = _orientation(image), tiff_tags(image)
        inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
        unsigned = tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1
        # One after the other, so that a step's source is freed before the next.
        image = to_8_bits(image, inverted=inverted, unsigned=unsigned)
        image = to_srgb(image)
        return _upright(image, orientation)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("too_costly", "it takes too much memory to decode") from error
    except Exception as error:
        raise ImageError("undecodable", f"a damaged {image.format} file") from error


def measure_image(data: bytes, *, limits: ImageLimits | None = None) -> tuple[int, int]:
    """Read the stored width and height without decoding.

    Raises:
        ImageError: The image can't be used, judging by its header.
    """
    limits = limits or ImageLimits()
    if sniff_format(data) == "WEBP" and len(data) <= limits.max_bytes:
        return _check_webp(data, limits)
    return _open_header(data, limits)[0].size


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


def _open_header(data: bytes, limits: ImageLimits) -> tuple[Image.Image, Pixels]:
    """Read the header only; the format follows from the bytes, not from a name or declared type."""
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"{len(data)} bytes, over {limits.max_bytes}")
    promised = sniff_format(data)
    if promised is None:
        raise ImageError("not_an_image", describe_unaccepted(data))
    if promised == "WEBP":  # Pillow would allocate for its pixels before the size is known
        _check_webp(data, limits)
    file = strip(data, promised)
    try:
        image = _open(file.data + (b"" if file.ends else JPEG_END), promised)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", f"over {limits.max_pixels} pixels in all") from error
    except MemoryError as error:
        raise ImageError("too_costly", "it takes too much memory to decode") from error
    except Exception as error:
        raise ImageError(
            "undecodable", f"a damaged {promised} file: its header is unreadable"
        ) from error
    if file.icc_profile is not None:
        image.info["icc_profile"] = file.icc_profile
    check_size(image.size, limits)
    return image, file


def _check_webp(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    size = webp_size(data)
    if 0 in size:
        raise ImageError("undecodable", "a damaged WEBP file: its header is unreadable")
    check_size(size, limits)
    return size


def _open(data: bytes, image_format: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=(image_format,))


def _load(image: Image.Image, file: Pixels, reduce_to_px: int | None) -> None:
    """Decode the pixels, all of them, at the size that the header states or a fraction of it."""
    if reduce_to_px is not None and image.format == "JPEG":
        _reduce(image, reduce_to_px)
    size = image.size
    image.load()
    if image.size != size:
        raise ImageError("undecodable", "its pixels have another size than its header states")
    if not file.ends:
        _check_complete(image, file.data)
    check_depth(image, file.data)


def _check_complete(image: Image.Image, data: bytes) -> None:
    """Refuse a JPEG without an end marker, unless nothing but that is missing.

    What follows the file's last byte then makes no difference.
    """
    try:
        other = _open(data + JPEG_PADDING, "JPEG")
        other.draft(None, image.size)
        other.load()
    except OSError as error:
        raise ImageError("undecodable", _CUT_OFF) from error
    for top in range(0, image.height, _STRIP_ROWS):
        strip_box = (0, top, image.width, min(image.height, top + _STRIP_ROWS))
        if image.crop(strip_box) != other.crop(strip_box):
            raise ImageError("undecodable", _CUT_OFF)


def _reduce(image: Image.Image, side_px: int) -> None:
    """Let the JPEG decoder skip detail that is not needed (scaled inverse DCT)."""
    scale = side_px / min(image.size)
    if scale < 1:
        # draft() keeps both sides at or above the size requested.
        image.draft(None, (round(image.width * scale), round(image.height * scale)))


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
