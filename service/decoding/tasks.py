"""What a decoding process does with an upload; imports Pillow and numpy, nothing of the service.

Each task takes the file's bytes and the limits, and returns what is to be said about its pixels,
and the pixels, in one or more parts.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PIL import Image

from models.image_files import strip
from models.images import (
    REDUCE_TO_PX,
    Channels,
    ImageError,
    ImageLimits,
    crop_to,
    decode_image,
    flatten,
    measure_image,
    open_image,
    sniff_format,
)

# Signature, and the first chunk with its length, type, 13 bytes and checksum.
_PNG_HEADER_BYTES: Final = 33

Result = tuple[Mapping[str, Any], Sequence[bytes]]


def perform(request: Mapping[str, Any], data: bytes) -> Result:
    """Do the task that a request names.

    Args:
        request: {"task": its name, "limits": fields of ImageLimits, and the task's own}.
        data: The file.

    Raises:
        ImageError: The image can't be used.
    """
    arguments = dict(request)
    limits = ImageLimits(**arguments.pop("limits"))
    try:
        return TASKS[arguments.pop("task")](data, limits, **arguments)
    except MemoryError as error:
        raise ImageError("too_costly", "it takes too much memory to decode") from error


def _measure(data: bytes, limits: ImageLimits) -> Result:
    return {"size": measure_image(data, limits=limits)}, ()


def _open(data: bytes, limits: ImageLimits, *, max_side_px: int) -> Result:
    """Upright and no larger than `max_side_px`: colours, then opacity where any pixel lacks it."""
    image = open_image(data, limits=limits)
    size = image.size
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    parts = [_bytes(image, "RGB")]
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] != 255:
            parts.append(alpha.tobytes())
    return {"size": size, "frame": image.size}, parts


def _fit(
    data: bytes, limits: ImageLimits, *, width: int, height: int, channels: Channels
) -> Result:
    """As `catalogan prepare` fits photos by default; transparency lies over white without alpha."""
    photo = open_image(data, limits=limits, reduce_to_px=max(REDUCE_TO_PX, height, width))
    if channels != 4:
        photo = flatten(photo, 3, "white")
    return {}, [crop_to(flatten(photo, channels, "white"), (width, height)).tobytes()]


def _decode(data: bytes, limits: ImageLimits) -> Result:
    pixels = decode_image(data, limits=limits)
    return {"size": pixels.shape[1::-1]}, [pixels.tobytes()]


def _mask(data: bytes, limits: ImageLimits, *, size: Sequence[int]) -> Result:
    """Class indexes; without pixels where it is no mask of `size`."""
    if sniff_format(data) != "PNG":
        return {"format": None}, ()
    stated = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if len(data) > _PNG_HEADER_BYTES and stated != tuple(size):
        return {"format": "PNG", "size": stated}, ()
    try:
        mask = Image.open(io.BytesIO(strip(data, "PNG").data), formats=("PNG",))
        found = {"format": "PNG", "size": mask.size, "mode": mask.mode}
        if mask.mode not in ("1", "L", "P"):
            return found, ()
        mask.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("undecodable", "a damaged PNG file") from error
    if mask.mode == "P":
        return {**found, "palette": mask.getpalette()}, [mask.tobytes()]
    return {**found, "mode": "L"}, [_bytes(mask, "L")]  # 1-bit masks become 0 and 255


def _bytes(image: Image.Image, mode: str) -> bytes:
    return (image if image.mode == mode else image.convert(mode)).tobytes()


TASKS: Final[Mapping[str, Callable[..., Result]]] = {
    "measure": _measure,
    "open": _open,
    "fit": _fit,
    "decode": _decode,
    "mask": _mask,
}
