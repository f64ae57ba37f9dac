"""The watermark's contract: payload, embedding and search, around the networks.

No torch here: the service runs the same code that training measures. An image carries 48 bits
that identify the model that generated it. To look for a model's mark, the bits that the decoder
reads are compared with that model's. So few errors are allowed that chance, which gets every
second bit right, finds a mark in at most one unmarked image of a million, counting all positions
that a crop may have had in its image.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAYLOAD_BITS: Final = 48
PATTERN_PX: Final = 32  # side of the encoder's input and of its pattern
FRAME_PX: Final = 64  # side of the decoder's input
MIN_SIDE_PX: Final = 128
# The shorter side at which an image is searched, at least.
SEARCHED_PX: Final = 256
# Before rounding to 8 bits, which costs 0.06 dB.
PSNR_DB: Final = 40.4
FALSE_POSITIVES: Final = 1e-6
_PLACES_AT_A_TIME: Final = 10
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], np.float32)

ENCODER_NAMES: Final = ("pictures", "bits")
PATTERN_NAME: Final = "patterns"
DECODER_NAMES: Final = ("frames",)
LOGIT_NAME: Final = "logits"


@dataclass(frozen=True)
class Place:
    """Position and size of a crop within its whole image.

    Attributes:
        side: The crop's side as a fraction of the whole's.
        x: The crop's centre; the whole spans from -1 to 1.
        y: As x, downwards.
    """

    side: float
    x: float
    y: float


def _places() -> Iterator[Place]:
    for side, steps in ((1.0, 1), (0.95, 3), (0.9, 4), (0.85, 6), (0.8, 7)):
        # Training shifts crops by up to 0.035, so steps of twice that leave no gap.
        centres = np.linspace(-(1 - side), 1 - side, steps) if steps > 1 else [0.0]
        for y, x in product(centres, centres):
            yield Place(side, float(x), float(y))


PLACES: Final = tuple(_places())


def payload(model_hash: str) -> NDArray[np.bool_]:
    """Return a model's 48 bits, the first bits of a hash of its hash."""
    digest = hashlib.sha256(b"catalogan watermark 1\n" + model_hash.encode()).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8))[:PAYLOAD_BITS].astype(np.bool_)


def allowed_errors(payloads: int) -> int:
    """How many wrong bits a mark may have when so many payloads are compared; -1 = no mark counts.

    Whatever the decoder reads from an unmarked image, payloads are hashes: each of them agrees
    with those bits by chance only.
    """
    tries = payloads * len(PLACES)
    tail, errors = 0, -1
    while errors < PAYLOAD_BITS:
        tail += math.comb(PAYLOAD_BITS, errors + 1)
        if tries * tail / 2**PAYLOAD_BITS > FALSE_POSITIVES:
            break
        errors += 1
    return errors


def thumbnail(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Scale an image's colours down to a small frame.

    Args:
        pixels: uint8 [H, W, channels]; channels 1, 3 or 4, alpha is blended over white.
        width: Width of the frame.
        height: Height of the frame.

    Returns:
        float32 [3, height, width] in [-1, 1].
    """
    colours: NDArray[np.float32] = pixels[..., :3].astype(np.float32)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / np.float32(255)
        colours = colours * alpha + 255 * (1 - alpha)
    planes = [colours[..., min(i, colours.shape[2] - 1)] for i in range(3)]
    return np.stack([_resized(plane, width, height) for plane in planes]) / 127.5 - 1


def lay_over(pixels: NDArray[np.uint8], pattern: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Add a pattern to an image, scaled to the energy that all patterns have.

    Args:
        pixels: uint8 [H, W, channels]; alpha stays as it is.
        pattern: float32 [3, PATTERN_PX, PATTERN_PX], of any energy.

    Returns:
        uint8 [H, W, channels].
    """
    height, width, channels = pixels.shape
    planes = np.stack([_resized(plane, width, height) for plane in pattern], axis=-1)
    rms = 255 * 10 ** (-PSNR_DB / 20)
    planes *= rms / max(float(np.sqrt(np.mean(np.square(planes)))), 1e-9)
    if channels == 1:
        planes = (planes @ _LUMINANCE)[..., None]
    colours = min(channels, 3)
    marked = pixels.copy()
    marked[..., :colours] = np.clip(np.rint(pixels[..., :colours] + planes), 0, 255)
    return marked


def frames(pixels: NDArray[np.uint8], places: Sequence[Place]) -> NDArray[np.float32]:
    """Build the decoder's inputs for an image that may be a crop from these positions.

    Args:
        pixels: uint8 [H, W, channels].
        places: Possible positions; the area around the crop is grey.

    Returns:
        float32 [N, 3, FRAME_PX, FRAME_PX] in [-1, 1].
    """
    wholes = np.zeros((len(places), 3, FRAME_PX, FRAME_PX), np.float32)
    parts: dict[int, NDArray[np.float32]] = {}
    for whole, place in zip(wholes, places, strict=True):
        side = round(FRAME_PX * place.side)
        if side not in parts:
            parts[side] = thumbnail(pixels, side, side)
        left, top = (
            min(max(round((1 + centre) * FRAME_PX / 2 - side / 2), 0), FRAME_PX - side)
            for centre in (place.x, place.y)
        )
        whole[:, top : top + side, left : left + side] = parts[side]
    return wholes


@dataclass(frozen=True)
class Found:
    """A mark that was found.

    Attributes:
        index: Index of its payload among those searched for.
        errors: Bits that were read wrong, of PAYLOAD_BITS.
        place: Position of this image within the marked one.
    """

    index: int
    errors: int
    place: Place


def find(
    pixels: NDArray[np.uint8],
    read: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    payloads: Sequence[NDArray[np.bool_]],
) -> Found | None:
    """Search an image for marks, first as a whole image, then as a crop of one.

    Args:
        pixels: uint8 [H, W, channels].
        read: The decoder: frames [N, 3, FRAME_PX, FRAME_PX] -> logits [N, PAYLOAD_BITS].
        payloads: Payloads to search for, each bool [PAYLOAD_BITS].

    Returns:
        The best match in the first batch of positions that has one; None if there is none.
    """
    pixels = _reduced(pixels)
    allowed = allowed_errors(len(payloads))
    wanted = np.stack(payloads) if payloads else np.zeros((0, PAYLOAD_BITS), np.bool_)
    starts = [0, *range(1, len(PLACES), _PLACES_AT_A_TIME)]
    for start, end in zip(starts, [*starts[1:], len(PLACES)], strict=True):
        places = PLACES[start:end]
        bits = read(frames(pixels, places)) > 0
        errors = (bits[:, None] != wanted[None]).sum(axis=2)  # [places, payloads]
        if errors.size and errors.min() <= allowed:
            where, whose = np.unravel_index(errors.argmin(), errors.shape)
            return Found(int(whose), int(errors.min()), places[where])
    return None


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce a large image once by a whole factor: every frame is far smaller anyway."""
    factor = min(pixels.shape[:2]) // SEARCHED_PX
    if factor < 2:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    small = np.asarray(image.reduce(factor))
    return small.reshape(*small.shape[:2], -1)


def _resized(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
