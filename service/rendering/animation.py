"""uint8 frames -> one marked, animated WebP or GIF file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.provenance.marker import Marker
from service.provenance.xmp import Mark
from service.rendering.encoding import DEFAULT_QUALITY
from service.telemetry.observation import stage

AnimationFormat = Literal["webp", "gif"]

# XMP Specification Part 3, 1.1.2: a reader that takes the packet for GIF sub-blocks, each
# led by its length, lands in this trailer wherever it jumps to, and is led to its end.
_GIF_XMP_TRAILER: Final = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"


@dataclass(frozen=True)
class Timing:
    """How an animation is played.

    Attributes:
        frame_duration_ms: Of each frame; GIF holds it to 10 ms.
        loop: For ever; else once.
    """

    frame_duration_ms: int
    loop: bool


def encode_animation(
    frames: Sequence[NDArray[np.uint8]],
    animation_format: AnimationFormat,
    timing: Timing,
    mark: Mark,
    marker: Marker,
) -> bytes:
    """Encode frames as one file.

    Args:
        frames: At least two, uint8 [height, width, channels]; channels 1, 3 or, for WebP, 4.
        animation_format: GIF has 256 colours a frame; WebP is lossy.
        timing: How it is played.
        mark: Goes into the file as XMP and as a signed manifest; in GIF as a comment, too.
        marker: Marks it, as the operator wants it.

    Returns:
        The file's bytes; equal but for the manifest, as of `encode_image`.

    Raises:
        NotReady: It can't be signed now.
    """
    first, *others = (
        Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames
    )
    packet = marker.packet(mark)
    options: dict[str, Any] = {"save_all": True, "append_images": others}
    if animation_format == "webp":
        options |= {"quality": DEFAULT_QUALITY, "method": 2}
        options |= {} if packet is None else {"xmp": packet}
        options |= {"duration": timing.frame_duration_ms, "loop": 0 if timing.loop else 1}
    else:
        options |= {"duration": 10 * round(timing.frame_duration_ms / 10)}
        options |= {"loop": 0} if timing.loop else {}
        options |= {} if packet is None else {"comment": _comment(mark)}
    buffer = io.BytesIO()
    with stage("encode"):
        first.save(buffer, animation_format, **options)
        data = buffer.getvalue()
        if animation_format == "gif" and packet is not None:
            data = _with_xmp(data, packet)
        return marker.sign(data, f"image/{animation_format}", mark)


def _comment(mark: Mark) -> bytes:
    """The mark for people, and for readers that don't know XMP in GIF."""
    return f"Generated with Catalogan, model {mark.model}; {mark.source_type}".encode()


def _with_xmp(gif: bytes, packet: bytes) -> bytes:
    """Put an application extension with the packet before the file's last byte, its end mark."""
    return gif[:-1] + b"!\xff\x0bXMP DataXMP" + packet + _GIF_XMP_TRAILER + gif[-1:]
