"""Uploaded files -> arrays of pixels, or an error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images import ImageError
from models.manifest import GeneratorManifest
from service.decoding.processes import DecodingProcesses
from service.errors import ApiError, BadRequest, TooLarge, UndecodableImage, UnsupportedImage
from service.telemetry.observation import note_rejection

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class File:
    """An uploaded file: the name that its sender chose, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class OpenedUpload:
    """A decoded photo: upright, in sRGB.

    Attributes:
        size: Width and height of the file, upright.
        pixels: RGB, perhaps smaller than `size`.
        alpha: Their opacity; None = all are opaque.
    """

    size: tuple[int, int]
    pixels: Pixels
    alpha: Pixels | None


def measure_upload(
    data: bytes, decoding: DecodingProcesses, param: str = "image"
) -> tuple[int, int]:
    """Width and height of an uploaded photo as they are stored, without decoding.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `open_upload`.
    """
    with image_errors(param):
        about, _ = decoding.run("measure", data)
    width, height = about["size"]
    return width, height


def open_upload(
    data: bytes, decoding: DecodingProcesses, max_side_px: int, param: str = "image"
) -> OpenedUpload:
    """Decode an uploaded photo, and scale it down to `max_side_px` where it is larger.

    Args:
        data: The file's bytes.
        decoding: Decodes it, within its limits.
        max_side_px: The longer side's largest length.
        param: Names the file in errors.

    Raises:
        TooLarge: Too many bytes or pixels; found out before decoding.
        UnsupportedImage: No image of an accepted type.
        UndecodableImage: One that is damaged, or takes too much to decode.
        BadRequest: One that is too small.
    """
    with image_errors(param):
        about, parts = decoding.run("open", data, max_side_px=max_side_px)
    size, (width, height) = tuple(about["size"]), about["frame"]
    pixels, *alpha = parts
    return OpenedUpload(
        size,
        pixels.reshape(height, width, 3),
        alpha[0].reshape(height, width) if alpha else None,
    )


def open_mask(
    data: bytes, size: tuple[int, int], decoding: DecodingProcesses, param: str
) -> Image.Image:
    """Decode a mask as the class indexes that it holds.

    Args:
        data: A PNG with one channel of up to 8 bits, or a palette.
        size: Width and height that it must have; decided before decoding.
        decoding: Decodes it.
        param: Names the file in errors.

    Returns:
        Mode L, or P with its palette.

    Raises:
        UnsupportedImage: No PNG.
        UndecodableImage: A damaged one.
        BadRequest: Of another size, or with more channels or bits.
    """
    with image_errors(param, "mask"):
        found, parts = decoding.run("mask", data, size=size)
    if found["format"] != "PNG":
        raise UnsupportedImage("a mask must be a PNG", param=param)
    if tuple(found["size"]) != size:
        width, height = found["size"]
        raise BadRequest(
            f"the mask has {width}x{height} pixels, its photo {size[0]}x{size[1]} when upright",
            param=param,
        )
    if not parts:
        raise BadRequest(
            "a mask must have one channel of up to 8 bits, or a palette, without transparency",
            param=param,
        )
    mask = Image.frombytes(found["mode"], size, parts[0])
    if "palette" in found:
        mask.putpalette(found["palette"])
    return mask


def fit_upload(
    data: bytes, decoding: DecodingProcesses, manifest: GeneratorManifest, param: str = "image"
) -> Pixels:
    """Decode an uploaded photo and fit it to a model, as `catalogan prepare` does by default.

    Args:
        data: The file's bytes.
        decoding: Decodes it, within its limits.
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
        _, (pixels,) = decoding.run("fit", data, width=width, height=height, channels=channels)
    return pixels.reshape(height, width, channels)


def decode_upload(data: bytes, decoding: DecodingProcesses) -> Pixels:
    """Decode an upload at full size: uint8 [height, width, 3], transparency over white.

    Raises:
        ImageError: It can't be used.
    """
    about, (pixels,) = decoding.run("decode", data)
    width, height = about["size"]
    return pixels.reshape(height, width, 3)


@contextmanager
def image_errors(param: str = "image", what: str = "image") -> Iterator[None]:
    """Turn what is wrong with an image into a response, and note it."""
    kinds: dict[str, type[ApiError]] = {
        "too_many_bytes": TooLarge,
        "too_many_pixels": TooLarge,
        "too_small": BadRequest,
        "not_an_image": UnsupportedImage,
        "undecodable": UndecodableImage,
        "too_costly": UndecodableImage,
    }
    try:
        yield
    except ImageError as error:
        note_rejection(error.reason)
        raise kinds[error.reason](f"the {what} can't be used: {error}", param=param) from None
