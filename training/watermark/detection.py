"""Measures a watermark's robustness to JPEG, resizing and cropping, as done by Pillow."""

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.manifest import ALL_TREATMENTS, WatermarkDetection
from models.watermark import (
    FRAME_PX,
    MIN_SIDE_PX,
    PATTERN_PX,
    PAYLOAD_BITS,
    PLACES,
    Place,
    allowed_errors,
    find,
    frames,
    lay_over,
    thumbnail,
)
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.companion import CompanionError
from training.dataset import PreparedDataset

Pixels = NDArray[np.uint8]
CROP: Final = 0.8
JPEG_QUALITY: Final = 70
PAYLOADS: Final = 100_000
_BATCH: Final = 64


@dataclass(frozen=True)
class Watermark:
    """Both networks as functions of arrays, as in the service."""

    encoder: WatermarkEncoder
    decoder: WatermarkDecoder

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def mark(self, pixels: Pixels, bits: NDArray[np.bool_]) -> Pixels:
        """Mark an image, uint8 [H, W, channels]."""
        small = torch.from_numpy(thumbnail(pixels, PATTERN_PX, PATTERN_PX))[None]
        payload = torch.from_numpy(bits.astype(np.float32))[None]
        pattern = self.encoder(small.to(self.device), payload.to(self.device))[0]
        return lay_over(pixels, pattern.cpu().numpy())

    @torch.no_grad()
    def read(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames [N, 3, FRAME_PX, FRAME_PX] -> logits [N, PAYLOAD_BITS]."""
        logits: NDArray[np.float32] = (
            self.decoder(torch.from_numpy(frames).to(self.device)).cpu().numpy()
        )
        return logits


def untouched(image: Image.Image, rng: random.Random) -> tuple[Image.Image, Place]:
    """Return the image unchanged."""
    return image, PLACES[0]


def compressed(image: Image.Image, rng: random.Random) -> tuple[Image.Image, Place]:
    """Compress as JPEG of quality 70."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file), PLACES[0]


def halved(image: Image.Image, rng: random.Random) -> tuple[Image.Image, Place]:
    """Resize to half the width and height."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), PLACES[0]


def cropped(image: Image.Image, rng: random.Random) -> tuple[Image.Image, Place]:
    """Crop to four fifths of width and height, at a random position."""
    width, height = round(image.width * CROP), round(image.height * CROP)
    left, top = rng.randrange(image.width - width + 1), rng.randrange(image.height - height + 1)
    centre = ((2 * left + width) / image.width - 1, (2 * top + height) / image.height - 1)
    return image.crop((left, top, left + width, top + height)), Place(CROP, *centre)


def all_of_it(image: Image.Image, rng: random.Random) -> tuple[Image.Image, Place]:
    """Crop, halve and then compress."""
    part, where = cropped(image, rng)
    return compressed(halved(part, rng)[0], rng)[0], where


Treatment = Callable[[Image.Image, random.Random], tuple[Image.Image, Place]]
TREATMENTS: Final[dict[str, Treatment]] = {
    "as marked": untouched,
    "JPEG 70": compressed,
    "half the size": halved,
    "crop to 80 %": cropped,
    ALL_TREATMENTS: all_of_it,
}


def evaluation_images(dataset: PreparedDataset, count: int) -> Iterator[Pixels]:
    """Yield `count` validation photos in RGB, repeatedly; every second one is partly white.

    Raises:
        CompanionError: There are none, or they are too small.
    """
    rows = dataset.indices("validation")
    info = dataset.info
    if not len(rows):
        raise CompanionError(f"{dataset.path} has no validation photos to evaluate with")
    if min(info.width, info.height) < MIN_SIDE_PX:
        raise CompanionError(
            f"{dataset.path} has photos of {info.width}x{info.height}: prepare them with --size "
            f"{MIN_SIDE_PX} or more"
        )
    random_state = np.random.default_rng(0)
    for i in range(count):
        pixels = _rgb(dataset.images[rows[i % len(rows)]])
        yield _whitened(pixels, random_state) if i % 2 else pixels


def measure_detection(
    watermark: Watermark, dataset: PreparedDataset, count: int, on_done: Callable[[int], None]
) -> tuple[float, tuple[WatermarkDetection, ...]]:
    """Mark `count` images with random bits, treat and read them; `on_done` receives the number.

    Returns:
        The lowest peak signal-to-noise ratio in dB, and the detection after each treatment.
    """
    random_state, rng = np.random.default_rng(1), random.Random(1)  # noqa: S311
    found = dict.fromkeys(TREATMENTS, 0)
    right = dict.fromkeys(TREATMENTS, 0)
    lowest = np.inf
    for done, pixels in enumerate(evaluation_images(dataset, count), start=1):
        bits = random_state.random(PAYLOAD_BITS) < 0.5
        marked = watermark.mark(pixels, bits)
        noise = np.mean(np.square(marked.astype(np.float64) - pixels))
        lowest = min(lowest, 10 * np.log10(255**2 / noise))
        for name, treat in TREATMENTS.items():
            treated, where = treat(Image.fromarray(marked), rng)
            received = np.asarray(treated)
            found[name] += find(received, watermark.read, [bits]) is not None
            logits = watermark.read(frames(received, [where]))[0]
            right[name] += int(((logits > 0) == bits).sum())
        on_done(done)
    return float(lowest), tuple(
        WatermarkDetection(
            treatment=name,
            pictures=count,
            found=found[name] / count,
            bits_right=right[name] / count / PAYLOAD_BITS,
        )
        for name in TREATMENTS
    )


def measure_false_positives(
    watermark: Watermark, dataset: PreparedDataset, readings: int, on_done: Callable[[int], None]
) -> float:
    """Read unmarked images at random positions and compare the bits with random payloads.

    A payload is a hash, so false marks depend on chance in payloads as much as in images: each
    reading is compared with PAYLOADS of them.

    Returns:
        False marks per image, scaled to all positions.
    """
    random_state, rng = np.random.default_rng(2), random.Random(2)  # noqa: S311
    rows = np.arange(len(dataset.images))
    payloads = random_state.random((PAYLOADS, PAYLOAD_BITS)) < 0.5
    # Products of signs count agreements faster than comparisons do.
    signs = payloads.astype(np.float32) * 2 - 1
    allowed, false = allowed_errors(1), 0
    for start in range(0, readings, _BATCH):
        batch = np.zeros((min(_BATCH, readings - start), 3, FRAME_PX, FRAME_PX), np.float32)
        for i in range(len(batch)):
            pixels = _rgb(dataset.images[rng.choice(rows)])
            pixels = _whitened(pixels, random_state) if rng.random() < 0.5 else pixels
            treat = rng.choice(tuple(TREATMENTS.values()))
            treated = np.asarray(treat(Image.fromarray(pixels), rng)[0])
            batch[i] = frames(treated, [rng.choice(PLACES)])[0]
        read = np.where(watermark.read(batch) > 0, 1, -1).astype(np.float32)
        errors = (PAYLOAD_BITS - read @ signs.T) / 2
        false += int((errors <= allowed).sum())
        on_done(start + len(batch))
    return false / (readings * PAYLOADS) * len(PLACES)


def _rgb(pixels: Pixels) -> Pixels:
    side = pixels.shape[:2]
    colours = (thumbnail(pixels, side[1], side[0]) + 1) * 127.5
    whole: Pixels = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return whole.transpose(1, 2, 0)


def _whitened(pixels: Pixels, random_state: np.random.Generator) -> Pixels:
    """Whiten an image where a coarse random field is high, like a product on a white background."""
    coarse = Image.fromarray(random_state.normal(size=(4, 4)).astype(np.float32))
    field = coarse.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BICUBIC)
    return np.where(np.asarray(field)[..., None] > 0, np.uint8(255), pixels)
