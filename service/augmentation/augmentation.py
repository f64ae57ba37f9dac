"""Seeded augmentations of a real photo.

What is drawn, applied in order, gives the picture again: answers list it.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.augmentation.operations import (
    OPERATIONS,
    AnyOperation,
    Colour,
    Crop,
    Flip,
    Parameters,
    Rotate,
)

MAX_OUTPUT_SIDE_PX: Final = 2048
MAX_OPERATIONS: Final = 16
DEFAULT_OPERATIONS: Final[Sequence[AnyOperation]] = (
    Flip(name="flip"),
    Rotate(name="rotate"),
    Crop(name="crop"),
    Colour(name="colour"),
)


def bounded(pixels: NDArray[np.uint8]) -> Image.Image:
    """Scale a decoded photo [height, width, 3] down to MAX_OUTPUT_SIDE_PX, if it is larger."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_OUTPUT_SIDE_PX, MAX_OUTPUT_SIDE_PX), Image.Resampling.LANCZOS)
    return image


def draw_parameters(
    operations: Sequence[AnyOperation], seed: int, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Draw what happens to one picture of `size` (width, height); the seed fixes it.

    Returns:
        For each operation that takes place, its name and parameters.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return [
        {"name": operation.name, **operation.draw(rng, size)}
        for operation in operations
        if rng.random() < operation.probability
    ]


def apply_parameters(image: Image.Image, steps: Sequence[Parameters]) -> NDArray[np.uint8]:
    """Do what `draw_parameters` gave to an RGB picture; gives uint8 [height, width, 3]."""
    for step in steps:
        image = OPERATIONS[step["name"]].apply(image, step)
    return np.asarray(image)
