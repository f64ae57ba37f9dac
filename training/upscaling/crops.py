"""Crops of photos to train an upscaler on, large, and small and as faulty as generated images."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.images import crop_to
from training.learning.loader import to_float
from training.learning.randomness import Purpose, seed_for
from training.sheets import to_pillow
from training.upscaling.degradation import GeneratorBlur, weave

# Exponents of the blur and strengths of the weave are drawn evenly between these; below 0 is as 0.
_EXPONENTS: Final = (-0.2, 1.2)
_STRENGTHS: Final = (-0.5, 1.2)

_OFFSETS: Final = 8  # the stride of the second of the feature maps

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """One step's crops, float32 [N, C, height, width] in [-1, 1].

    Attributes:
        small: Of photos that were made small, blurred and woven.
        large: Of the same photos, at the same places.
        offset: Rows and columns of the large crops that features and critic do not see. Strided
            layers judge pixels by their phase: at one that never changed, what is repeated every
            few pixels, as rings along outlines are, escapes them.
    """

    small: Tensor
    large: Tensor
    offset: tuple[int, int]


@dataclass(frozen=True)
class _Place:
    """Where a crop of a small image begins, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


class CropSampler:
    """Draws crops at random places."""

    def __init__(
        self, photos: Images, generated: Images, factor: int, crop_px: int, mirror: bool
    ) -> None:
        """Make all photos small, and measure how the generator blurs.

        Args:
            photos: Large photos, uint8 [N, factor * height, factor * width, C].
            generated: A generator's images, uint8 [M, height, width, C].
            factor: How much larger the photos are.
            crop_px: Of large crops, each side; less where a photo is smaller.
            mirror: Whether every other crop is mirrored.
        """
        self.photos, self.factor, self.mirror = photos, factor, mirror
        height, width = generated.shape[1:3]
        self.generated = torch.from_numpy(generated)
        self.small = torch.from_numpy(resize(photos, (width, height)))
        even = crop_px // factor // 2 * 2  # the upscaler halves them
        self.crop = (min(even, height), min(even, width))
        self.blur = GeneratorBlur(to_float(self.small), to_float(self.generated))

    def draw(self, count: int, seed: int, position: int) -> Crops:
        """Draw `count` crops.

        Args:
            count: How many.
            seed: The training's.
            position: Crops drawn before: with the seed it fixes these.
        """
        random = np.random.default_rng(seed_for(seed, Purpose.UPSCALER, position))
        rows = random.integers(len(self.photos), size=count)
        exponents, strengths = (
            torch.from_numpy(np.maximum(random.uniform(*between, count), 0).astype(np.float32))
            for between in (_EXPONENTS, _STRENGTHS)
        )
        generated = to_float(self.generated[random.integers(len(self.generated), size=count)])
        small = self.blur(to_float(self.small[rows]), exponents)
        woven = small + strengths[:, None, None, None] * weave(generated)
        small = woven.clamp(-1, 1)
        places = [self._place(random) for _ in range(count)]
        return Crops(
            small=torch.stack(list(map(self._cut, small, places))),
            large=torch.stack(list(map(self._cut_photo, rows, places))),
            offset=(int(random.integers(_OFFSETS)), int(random.integers(_OFFSETS))),
        )

    def _place(self, random: np.random.Generator) -> _Place:
        height, width = self.small.shape[1:3]
        top = int(random.integers(height - self.crop[0] + 1))
        left = int(random.integers(width - self.crop[1] + 1))
        return _Place(top, left, self.mirror and bool(random.random() < 0.5))

    def _cut(self, image: Tensor, place: _Place) -> Tensor:
        rows = slice(place.top, place.top + self.crop[0])
        columns = slice(place.left, place.left + self.crop[1])
        part = image[:, rows, columns]
        return part.flip(2) if place.mirrored else part

    def _cut_photo(self, row: int, place: _Place) -> Tensor:
        """The crop of a large photo, of which no more than that is read."""
        rows, columns = (
            slice(self.factor * start, self.factor * (start + side))
            for start, side in zip((place.top, place.left), self.crop, strict=True)
        )
        part = to_float(torch.from_numpy(np.array(self.photos[row, rows, columns]))[None])[0]
        return part.flip(2) if place.mirrored else part


def resize(images: Images, size: tuple[int, int]) -> Images:
    """Resize by Lanczos, as `catalogan prepare` makes photos small, and a service images large.

    Args:
        images: uint8 [N, H, W, 1 | 3 | 4].
        size: Width and height, of the same proportions.

    Returns:
        uint8 [N, height, width, channels].
    """
    resized = [crop_to(to_pillow(image), size) for image in images]
    return np.stack([np.asarray(one) for one in resized]).reshape(len(images), *size[::-1], -1)
