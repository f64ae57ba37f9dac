"""Operations that leave traces of camera, light and file: blur, grain, shadow, JPEG, holes."""

import io
import math
from dataclasses import replace
from typing import Annotated, Final, Literal, Self

import numpy as np
from PIL import Image, ImageColor, ImageEnhance, ImageFilter
from pydantic import Field

from service.augmentation.operations.base import (
    Colour,
    Degrees,
    Fraction,
    Layers,
    Operation,
    Pixels,
    Plane,
    Range,
    Rng,
    Scene,
    Size,
    exact,
)
from service.augmentation.operations.tones import ImageOperation

_PLACES: Final = 6
_STRIP_ROWS: Final = 64
# Shadows are soft: they are made at this size and enlarged.
_SHADOW_SIDE_PX: Final = 256


class Blur(ImageOperation):
    """Blur, as out of focus."""

    name: Literal["blur"]
    radius_px: Annotated[
        Range[Annotated[float, Field(ge=0, le=20)]],
        Field(description="Standard deviation of the Gaussian, in pixels of the response."),
    ] = (0.0, 2.0)

    def change(self, image: Image.Image) -> Image.Image:
        """Blur with a Gaussian."""
        return image.filter(ImageFilter.GaussianBlur(exact(self.radius_px)))


class Sharpen(ImageOperation):
    """Sharpen; below 1 soften."""

    name: Literal["sharpen"]
    factor: Annotated[
        Range[Annotated[float, Field(ge=0, le=4)]], Field(description="1 = as it is.")
    ] = (1.0, 2.0)

    def change(self, image: Image.Image) -> Image.Image:
        """Move away from a smoothed copy."""
        return ImageEnhance.Sharpness(image).enhance(exact(self.factor))


class Noise(ImageOperation):
    """Add grain, as of a sensor."""

    name: Literal["noise"]
    sigma: Annotated[
        Range[Annotated[float, Field(ge=0, le=0.5)]],
        Field(description="Standard deviation, where white is 1."),
    ] = (0.0, 0.03)
    seed: Annotated[
        Annotated[int, Field(ge=0, lt=2**32)] | None,
        Field(description="Of the grain; drawn where left out."),
    ] = None

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """Also a seed that fixes the grain."""
        drawn = super().drawn(rng, scene)
        if self.seed is not None:
            return drawn
        return drawn.model_copy(update={"seed": int(rng.integers(2**32))})

    def inexact(self) -> str | None:
        """Also the grain's seed."""
        return super().inexact() or ("seed" if self.seed is None else None)

    def change(self, image: Image.Image) -> Image.Image:
        """Add independent normal noise to each sample."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        pixels, strength = np.array(image), np.float32(255 * exact(self.sigma))
        for top in range(0, len(pixels), _STRIP_ROWS):  # bounds the memory
            strip = pixels[top : top + _STRIP_ROWS]
            grain = rng.standard_normal(strip.shape, dtype=np.float32)
            strip[:] = np.clip(np.rint(strip + grain * strength), 0, 255)
        return Image.fromarray(pixels)


class Jpeg(ImageOperation):
    """Leave the traces of JPEG compression."""

    name: Literal["jpeg"]
    quality: Range[Annotated[int, Field(ge=1, le=95)]] = (50, 95)

    def change(self, image: Image.Image) -> Image.Image:
        """Encode and decode."""
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=exact(self.quality))
        return Image.open(buffer).convert("RGB")


Rectangle = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Field(strict=False)]


class Cutout(ImageOperation):
    """Cover rectangles with one colour; annotations stay as they are."""

    name: Literal["cutout"]
    count: Range[Annotated[int, Field(ge=1, le=16)]] = (1, 3)
    side: Annotated[
        Range[Annotated[float, Field(ge=0.01, le=0.5)]],
        Field(description="Of a rectangle, as a part of the image's."),
    ] = (0.08, 0.2)
    colour: Colour = "#808080"
    rectangles: Annotated[
        list[Rectangle] | None,
        Field(
            max_length=16,
            description="[left, top, width, height] in parts of the image; drawn if left out.",
        ),
    ] = None

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """Draw the rectangles; each lies within the image."""
        if self.rectangles is not None:
            return self.model_copy(update={"probability": 1.0})
        count = int(rng.integers(*self.count, endpoint=True))
        sides = rng.uniform(*self.side, (count, 2))
        corners = rng.uniform(0, 1, (count, 2)) * (1 - sides)
        rectangles = [tuple(r) for r in np.round(np.hstack([corners, sides]), _PLACES).tolist()]
        update = {"probability": 1.0, "rectangles": rectangles, "count": (count, count)}
        return self.model_copy(update=update)

    def inexact(self) -> str | None:
        """The rectangles, whatever the ranges that they were drawn from."""
        if self.rectangles is None:
            return "rectangles"
        return "probability" if self.probability != 1 else None

    def change(self, image: Image.Image) -> Image.Image:
        """Cover them."""
        covered = image.copy()
        for left, top, width, height in self.rectangles or ():
            box = np.array([left, top, left + width, top + height]) * (image.size * 2)
            covered.paste(ImageColor.getrgb(self.colour), tuple(np.rint(box).astype(int).tolist()))
        return covered


class Shadow(Operation):
    """Darken: `cast` one side of the image, `product` a soft shadow that the subject throws."""

    name: Literal["shadow"]
    kind: Literal["cast", "product"] = "cast"
    strength: Annotated[
        Range[Fraction], Field(description="How much of the light is lost where it is darkest.")
    ] = (0.2, 0.5)
    angle_degrees: Annotated[
        Range[Degrees],
        Field(description="Where the shadow lies: 0 = to the right, 90 = up, -90 = down."),
    ] = (-180.0, 180.0)
    position: Annotated[
        Range[Fraction],
        Field(
            description="Of cast: how far from the shadow's side its edge is, as a part of the "
            "image. Of product: how far the shadow is thrown, as a tenth of it."
        ),
    ] = (0.2, 0.6)
    softness: Annotated[
        Range[Fraction],
        Field(
            description="Of its edge, as that part of the image (cast) or a tenth of it (product)."
        ),
    ] = (0.1, 0.5)

    def needs_subject(self) -> bool:
        """Whose shadow it is."""
        return self.kind == "product"

    def apply(self, layers: Layers) -> Layers:
        """Multiply the light by what is left of it; the subject throws no shadow on itself."""
        pixels = np.asarray(layers.image)
        if self.kind == "product":
            assert layers.matte is not None, "product shadows need the subject"
            lost, spared = self._thrown(layers.matte), layers.matte
        else:
            lost, spared = self._cast(layers.image.size), np.zeros((), dtype=np.uint8)
        light = 255 - np.rint(lost * (255 * exact(self.strength)))
        veil = Image.fromarray(light.astype(np.uint8)).resize(
            layers.image.size, Image.Resampling.BICUBIC
        )
        left = np.asarray(veil).astype(np.uint16)
        left = left + ((255 - left) * spared + 127) // 255
        shaded = ((pixels * left[..., None] + 127) // 255).astype(np.uint8)
        return replace(layers, image=Image.fromarray(shaded))

    def _direction(self) -> tuple[float, float]:
        angle = math.radians(exact(self.angle_degrees))
        return math.cos(angle), -math.sin(angle)

    def _cast(self, size: Size) -> Plane:
        """Light lost, 0 to 1, on a coarse grid."""
        width, height = _coarse(size)
        along, down = self._direction()
        x, y = (np.arange(width) + 0.5) / width - 0.5, (np.arange(height) + 0.5) / height - 0.5
        reach = (abs(along) + abs(down)) / 2
        # 0 at the shadow's side, 1 at the other.
        depth = 0.5 - (x[None, :] * along + y[:, None] * down) / (2 * reach)
        soft = max(exact(self.softness), 1e-3)
        inside = np.clip((exact(self.position) - depth) / soft + 0.5, 0, 1)
        return np.asarray(inside * inside * (3 - 2 * inside))

    def _thrown(self, matte: Pixels) -> Plane:
        """The subject's matte, moved and blurred, 0 to 1, on a coarse grid."""
        height, width = matte.shape
        small = Image.fromarray(matte).resize(_coarse((width, height)), Image.Resampling.BOX)
        side = max(small.size)
        along, down = self._direction()
        far = exact(self.position) * side / 10
        shift = (1, 0, -along * far, 0, 1, -down * far)
        moved = small.transform(
            small.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR
        )
        soft = moved.filter(ImageFilter.GaussianBlur(exact(self.softness) * side / 20))
        return np.asarray(soft) / 255


def _coarse(size: Size) -> Size:
    shrink = min(1.0, _SHADOW_SIDE_PX / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
