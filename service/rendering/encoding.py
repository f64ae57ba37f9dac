"""uint8 arrays -> marked PNG, JPEG or WebP bytes."""

import io
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from models.images import flatten
from service.provenance.marker import Marker
from service.provenance.xmp import Mark

OutputFormat = Literal["png", "jpeg", "webp"]

MEDIA_TYPES: Final[dict[OutputFormat, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
DEFAULT_QUALITY: Final = 90


@dataclass(frozen=True)
class Encoding:
    """How images are written.

    Attributes:
        marker: Marks them.
        output_format: JPEG shows transparency over white.
        quality: 0 to 100 for JPEG and WebP, of which 100 is lossless; PNG always is.
    """

    marker: Marker
    output_format: OutputFormat = "png"
    quality: int | None = None


def encode_image(pixels: NDArray[np.uint8], encoding: Encoding, mark: Mark) -> bytes:
    """Encode one image and mark it.

    Args:
        pixels: uint8 [height, width, channels]; channels 1, 3 or 4.
        encoding: How.
        mark: Goes into the file as XMP and as a signed manifest, as the operator wants it.

    Returns:
        The file's bytes. Equal arguments give equal bytes but for the signed manifest, which
        holds the time and a number of its own.

    Raises:
        NotReady: It can't be signed now.
    """
    output_format, quality, marker = encoding.output_format, encoding.quality, encoding.marker
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    packet = marker.packet(mark)
    xmp = {} if packet is None else {"xmp": packet}
    options: dict[str, Any]
    if output_format == "png":
        info = PngImagePlugin.PngInfo()
        if packet is not None:
            info.add_itxt("XML:com.adobe.xmp", packet.decode())
        # Level 1 takes a fifth of the default's time for a sixth more bytes.
        options = {"compress_level": 1, "pnginfo": info}
    elif output_format == "webp":
        lossless = quality == 100
        # For lossless images Pillow's quality means effort, not fidelity.
        options = {
            **xmp,
            "lossless": lossless,
            "quality": 20 if lossless else DEFAULT_QUALITY if quality is None else quality,
            "method": 0 if lossless else 2,
            "exact": lossless,
        }
    else:
        if image.mode == "RGBA":
            image = flatten(image, 3, "white")
        wanted = DEFAULT_QUALITY if quality is None else quality
        # Above 95 bytes grow and fidelity does not; halved chroma would show on red lettering.
        options = {
            **xmp,
            "quality": min(wanted, 95),
            "subsampling": "4:4:4" if wanted >= DEFAULT_QUALITY else "4:2:0",
        }
    buffer = io.BytesIO()
    image.save(buffer, output_format, **options)
    return marker.sign(buffer.getvalue(), MEDIA_TYPES[output_format], mark)
