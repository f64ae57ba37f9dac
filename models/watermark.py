"""The watermark's contract: its code, and what is done to pictures beside the networks.

No torch here: training measures with this code what the service then does with it. A picture
carries 48 bits, which stand for the model that made it. Whoever looks for a model's mark
compares the bits that the decoder reads with that model's, and allows so few errors that
chance, which gets each bit right every other time, finds a mark in one unmarked picture of a
million at most, all places that a crop may have had in its picture taken together.
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
PATTERN_PX: Final = 32  # side of the frame that the encoder sees and paints
FRAME_PX: Final = 64  # side of the frame that the decoder sees
MIN_SIDE_PX: Final = 128
# The shorter side at which a picture is searched, at least.
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
    """Which part of its whole picture a cropped one may be.

    Attributes:
        side: Of the part, over the whole's.
        x: Of the part's centre; the whole reaches from -1 to 1.
        y: As x, downwards.
    """

    side: float
    x: float
    y: float


def _places() -> Iterator[Place]:
    for side, steps in ((1.0, 1), (0.95, 3), (0.9, 4), (0.85, 6), (0.8, 7)):
        # Training moves crops by up to 0.035 from where they belong: steps of twice that.
        centres = np.linspace(-(1 - side), 1 - side, steps) if steps > 1 else [0.0]
        for y, x in product(centres, centres):
            yield Place(side, float(x), float(y))


PLACES: Final = tuple(_places())


def payload(model_hash: str) -> NDArray[np.bool_]:
    """A model's 48 bits: the beginning of a hash of its hash."""
    digest = hashlib.sha256(b"catalogan watermark 1\n" + model_hash.encode()).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8))[:PAYLOAD_BITS].astype(np.bool_)


def allowed_errors(payloads: int) -> int:
    """Wrong bits with which a mark still counts, where so many payloads are compared; -1 = none.

    Decoded bits of an unmarked picture are what they are, but payloads are hashes: each agrees
    with them by chance, whatever the decoder is like.
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
    """A picture's colours in a small frame.

    Args:
        pixels: uint8 [H, W, channels]; channels 1, 3 or 4, alpha is laid over white.
        width: Of the frame.
        height: Of the frame.

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
    """Lay a pattern over a picture, at the energy that all have.

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
    """What the decoder sees of a picture that may have had these places in a whole one.

    Args:
        pixels: uint8 [H, W, channels].
        places: Grey is around them.

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
        index: Whose: into the payloads that were looked for.
        errors: Bits that were read wrong, of PAYLOAD_BITS.
        place: Which part of the marked picture this one is.
    """

    index: int
    errors: int
    place: Place


def find(
    pixels: NDArray[np.uint8],
    read: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    payloads: Sequence[NDArray[np.bool_]],
) -> Found | None:
    """Look for marks, in the whole picture first, then as if it were a part of one.

    Args:
        pixels: uint8 [H, W, channels].
        read: The decoder: frames [N, 3, FRAME_PX, FRAME_PX] -> logits [N, PAYLOAD_BITS].
        payloads: Bits that may be in it, each bool [PAYLOAD_BITS].

    Returns:
        The nearest of the first places with a payload near enough; None if there is none.
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
    """A large picture made small by whole factors, once: all that follow are far smaller."""
    factor = min(pixels.shape[:2]) // SEARCHED_PX
    if factor < 2:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    small = np.asarray(image.reduce(factor))
    return small.reshape(*small.shape[:2], -1)


def _resized(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
