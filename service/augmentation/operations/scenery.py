"""What stands behind the subject."""

import math
from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor
from pydantic import Field

from service.augmentation.operations.base import (
    Colour,
    Degrees,
    Layers,
    Operation,
    Plane,
    Range,
    Rng,
    Scene,
    Size,
    exact,
)
from service.fields import in_words

Fill = Annotated[
    Colour
    | Literal["transparent"]
    | Annotated[tuple[Colour, Colour], Field(strict=False, description="A gradient.")],
    in_words("must be transparent, white, black or a colour as #rrggbb, or a list of two colours"),
]


class Background(Operation):
    """Cut the subject out and put it on another background."""

    name: Literal["background"]
    fills: Annotated[
        list[Fill],
        Field(
            min_length=1,
            max_length=64,
            description="One is drawn: a colour, a gradient of two, or transparent.",
        ),
    ] = ["white"]  # noqa: RUF012 - requests are frozen
    angle_degrees: Annotated[
        Range[Degrees],
        Field(description="Where a gradient's second colour lies: 0 = right, 90 = up, -90 = down."),
    ] = (-90.0, -90.0)

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """Draw one of the fills."""
        drawn = super().drawn(rng, scene)
        fill = self.fills[int(rng.integers(len(self.fills)))]
        return drawn.model_copy(update={"fills": [fill]})

    def inexact(self) -> str | None:
        """Also the fill."""
        return super().inexact() or ("fills" if len(self.fills) > 1 else None)

    def needs_subject(self) -> bool:
        """It is what is cut out."""
        return True

    @property
    def transparent(self) -> bool:
        """Whether it may leave the image transparent."""
        return "transparent" in self.fills

    def apply(self, layers: Layers) -> Layers:
        """Lay the cut-out image over the fill."""
        (fill,) = self.fills
        if fill == "transparent" or layers.alpha is None:
            return layers
        ground = self._ground(fill, layers.image.size)
        # Rounded, not cut off: a white subject on white stays white.
        alpha = layers.alpha[..., None].astype(np.int32)
        mixed = ground + ((np.asarray(layers.image) - ground) * alpha + 127) // 255
        return replace(layers, image=Image.fromarray(mixed.astype(np.uint8)), alpha=None)

    def _ground(self, fill: str | tuple[str, str], size: Size) -> NDArray[np.int32]:
        if isinstance(fill, str):
            return np.array(ImageColor.getrgb(fill), dtype=np.int32)
        first, second = (np.array(ImageColor.getrgb(colour), dtype=np.float64) for colour in fill)
        share = _ramp(size, exact(self.angle_degrees))[..., None]
        return np.rint(first + share * (second - first)).astype(np.int32)


def _ramp(size: Size, degrees: float) -> Plane:
    """0 at one side of an image, 1 at the side that `degrees` points to."""
    along, down = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
    x = ((np.arange(size[0]) + 0.5) / size[0] - 0.5)[None, :]
    y = ((np.arange(size[1]) + 0.5) / size[1] - 0.5)[:, None]
    return np.asarray(0.5 + (x * along + y * down) / (abs(along) + abs(down)))
