"""uint8 arrays -> marked PNG, JPEG or WebP bytes."""

import io
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from service.marks.marking import Mark, xmp_packet

OutputFormat = Literal["png", "jpeg", "webp"]

MEDIA_TYPES: Final[dict[OutputFormat, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
DEFAULT_QUALITY: Final = 90


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: their format and, for JPEG and WebP, quality 0 to 100."""

    output_format: OutputFormat = "png"
    quality: int | None = None


def encode_image(
    pixels: NDArray[np.uint8],
    output_format: OutputFormat,
    mark: Mark,
    quality: int | None = None,
) -> bytes:
    """Encode one picture with its mark.

    Args:
        pixels: uint8 [height, width, channels]; channels 1, 3 or 4.
        output_format: What to encode to; JPEG shows transparency over white.
        mark: Goes into the file as XMP.
        quality: 0 to 100 for JPEG and WebP, of which 100 is lossless; PNG always is.

    Returns:
        The file's bytes; equal arguments give equal bytes.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    packet = xmp_packet(mark)
    options: dict[str, Any]
    if output_format == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        # Level 1 takes a fifth of the default's time for a sixth more bytes.
        options = {"compress_level": 1, "pnginfo": info}
    elif output_format == "webp":
        lossless = quality == 100
        # For lossless pictures Pillow's quality means effort, not fidelity.
        options = {
            "xmp": packet,
            "lossless": lossless,
            "quality": 20 if lossless else DEFAULT_QUALITY if quality is None else quality,
            "method": 0 if lossless else 2,
            "exact": lossless,
        }
    else:
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white.convert("RGB")
        wanted = DEFAULT_QUALITY if quality is None else quality
        # Above 95 bytes grow and fidelity does not; halved chroma would show on red lettering.
        options = {
            "xmp": packet,
            "quality": min(wanted, 95),
            "subsampling": "4:4:4" if wanted >= DEFAULT_QUALITY else "4:2:0",
        }
    buffer = io.BytesIO()
    image.save(buffer, output_format, **options)
    return buffer.getvalue()
