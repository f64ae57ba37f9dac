"""Uploaded files -> arrays of pixels, or an error that names the file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from models.images import (
    REDUCE_TO_PX,
    ImageError,
    ImageLimits,
    crop_to,
    flatten,
    measure_image,
    open_image,
    sniff_format,
)
from models.manifest import GeneratorManifest
from service.errors import ApiError, BadRequest, TooLarge, UndecodableImage, UnsupportedImage
from service.telemetry.observation import note_rejection


@dataclass(frozen=True)
class File:
    """An uploaded file: the name that its sender chose, and its bytes."""

    name: str
    data: bytes


def measure_upload(data: bytes, limits: ImageLimits, param: str = "image") -> tuple[int, int]:
    """Width and height of an uploaded photo as they are stored, without decoding.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `open_upload`.
    """
    with image_errors(param):
        return measure_image(data, limits=limits)


def open_upload(data: bytes, limits: ImageLimits, param: str = "image") -> Image.Image:
    """Decode an uploaded photo: upright, in sRGB, with its transparency.

    Args:
        data: The file's bytes.
        limits: What it may cost.
        param: Names the file in errors.

    Returns:
        Mode L, LA, RGB or RGBA.

    Raises:
        TooLarge: Too many bytes or pixels; found out before decoding.
        UnsupportedImage: No image of an accepted type.
        UndecodableImage: One that is damaged.
        BadRequest: One that is too small.
    """
    with image_errors(param):
        return open_image(data, limits=limits)


def open_mask(data: bytes, size: tuple[int, int], param: str) -> Image.Image:
    """Decode a mask as the class indexes that it holds.

    Args:
        data: A PNG with one channel of up to 8 bits, or a palette.
        size: Width and height that it must have; decided before decoding.
        param: Names the file in errors.

    Returns:
        Mode L, or P with its palette.

    Raises:
        UnsupportedImage: No PNG.
        UndecodableImage: A damaged one.
        BadRequest: Of another size, or with more channels or bits.
    """
    if sniff_format(data) != "PNG":
        raise UnsupportedImage("a mask must be a PNG", param=param)
    try:
        mask = Image.open(io.BytesIO(data), formats=("PNG",))
        found, mode = mask.size, mask.mode
    except Image.DecompressionBombError:
        raise BadRequest("the mask has far more pixels than a photo may", param=param) from None
    except Exception:
        raise UndecodableImage("the mask is a damaged PNG", param=param) from None
    if found != size:
        raise BadRequest(
            f"the mask has {found[0]}x{found[1]} pixels, its photo {size[0]}x{size[1]} when "
            "upright",
            param=param,
        )
    if mode not in ("1", "L", "P"):
        raise BadRequest(
            "a mask must have one channel of up to 8 bits, or a palette, without transparency",
            param=param,
        )
    try:
        mask.load()
        # 1-bit masks become 0 and 255.
        return mask.convert("L") if mode == "1" else mask
    except Exception:
        raise UndecodableImage("the mask is a damaged PNG", param=param) from None


def fit_upload(
    data: bytes, limits: ImageLimits, manifest: GeneratorManifest, param: str = "image"
) -> Any:
    """Decode an uploaded photo and fit it to a model, as `catalogan prepare` does by default.

    Args:
        data: The file's bytes.
        limits: What it may cost.
        manifest: The model's.
        param: Names the file in errors.

    Returns:
        uint8 [height, width, channels], upright sRGB, cut to the model's proportions;
        transparency lies over white where the model has none.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `open_upload`.
    """
    height, width, channels = manifest.height, manifest.width, manifest.channels
    with image_errors(param):
        photo = open_image(data, limits=limits, reduce_to_px=max(REDUCE_TO_PX, height, width))
    if channels != 4:
        photo = flatten(photo, 3, "white")
    fitted = crop_to(flatten(photo, channels, "white"), (width, height))
    return np.asarray(fitted).reshape(height, width, channels)


@contextmanager
def image_errors(param: str = "image") -> Iterator[None]:
    """Turn what is wrong with an image into a response, and note it."""
    kinds: dict[str, type[ApiError]] = {
        "too_many_bytes": TooLarge,
        "too_many_pixels": TooLarge,
        "too_small": BadRequest,
        "not_an_image": UnsupportedImage,
        "undecodable": UndecodableImage,
    }
    try:
        yield
    except ImageError as error:
        note_rejection(error.reason)
        raise kinds[error.reason](f"the image can't be used: {error}", param=param) from None
