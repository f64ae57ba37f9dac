"""One photo file -> pixels of the dataset's size, and what identifies duplicates of it.

This is what each decoding process runs. Files are opened for reading only and without
following a link or waiting for a pipe.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from models.image_formats import format_name
from models.images import REDUCE_TO_PX, ImageError, crop_to, flatten, open_image
from training.photos.options import PrepareOptions
from training.photos.product_view import ProductView, product_view


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedPhoto:
    """Format, hashes and product view of a usable photo.

    Attributes:
        format: Name of the file's format.
        sha256: Hash of the file's bytes, hex.
        pixel_hash: Hash of the upright sRGB image before resizing, over the background.
        view: Small view of its product.
    """

    format: str
    sha256: str
    pixel_hash: bytes
    view: ProductView


class UnusablePhoto(Exception):
    """A photo that is left out; `reason` is one word, the message says more.

    `format` names the file's, as far as it was read.
    """

    def __init__(self, reason: str, message: str, image_format: str = "unknown") -> None:
        super().__init__(reason, message, image_format)  # all, or no other process can get it
        self.reason: Final = reason
        self.message: Final = message
        self.format: Final = image_format

    def __str__(self) -> str:
        return self.message


def decode_photo(file: str, options: PrepareOptions) -> tuple[DecodedPhoto, NDArray[np.uint8]]:
    """Read, decode and resize one photo.

    Args:
        file: Path of a regular file.
        options: Size and shape of the result.

    Returns:
        Its hashes and product view, and uint8 pixels [height, width, channels].

    Raises:
        UnusablePhoto: It can't be used.
    """
    data = _read(file, options.limits.max_bytes)
    image_format = format_name(data)
    try:
        # The same for all dataset sizes, so that duplicates do not depend on --size.
        image = open_image(data, limits=options.limits, reduce_to_px=REDUCE_TO_PX)
    except ImageError as error:
        raise UnusablePhoto(error.reason, str(error), image_format) from error
    rgb = flatten(image, 3, options.background)
    size = f"{rgb.width}x{rgb.height}:".encode()
    photo = DecodedPhoto(
        format=image_format,
        sha256=hashlib.sha256(data).hexdigest(),
        pixel_hash=hashlib.sha256(size + rgb.tobytes()).digest(),
        view=product_view(rgb),
    )
    source = image if options.channels == 4 else rgb
    fitted = fit_image(flatten(source, options.channels, options.background), options)
    pixels = np.asarray(fitted).reshape(options.height, options.width, options.channels)
    return photo, pixels


def fit_image(image: Image.Image, options: PrepareOptions) -> Image.Image:
    """Resize by Lanczos to exactly the requested size, keeping proportions.

    Args:
        image: Mode L, RGB or RGBA, of any size.
        options: crop cuts the overlapping sides equally; pad centres the whole image on
            the background, which is transparent in RGBA.

    Returns:
        An image of that size and the same mode.
    """
    if image.mode == "RGBA":  # straight alpha would bleed hidden colours into the edges
        return _fit(image.convert("RGBa"), options).convert("RGBA")
    return _fit(image, options)


def _fit(image: Image.Image, options: PrepareOptions) -> Image.Image:
    size = (options.width, options.height)
    if options.fit == "crop":
        return crop_to(image, size)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    is_alpha = image.mode == "RGBa"
    padding = (0, 0, 0, 0) if is_alpha else ImageColor.getcolor(options.background, image.mode)
    canvas = Image.new(image.mode, size, padding)
    resized = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _read(file: str, max_bytes: int) -> bytes:
    """Read the file, at most one byte more than `max_bytes`; never blocks on a pipe."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnusablePhoto("not_a_file", "no longer a regular file")
            return stream.read(max_bytes + 1)
    except OSError as error:
        raise UnusablePhoto("unreadable", error.strerror or str(error)) from error
