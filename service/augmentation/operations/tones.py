"""Operations on colours: each pixel alone, wherever it is."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import Field

from service.augmentation.operations.base import Degrees, Layers, Operation, Range, exact

# Daylight of a monitor's white: the temperature that changes nothing.
NEUTRAL_KELVIN: Final = 6504.0
_LEVELS: Final = np.arange(256) / 255
# XYZ (D65) to linear sRGB, IEC 61966-2-1.
_XYZ_TO_RGB: Final = np.array(
    [
        [3.2406, -1.5372, -0.4986],
        [-0.9689, 1.8758, 0.0415],
        [0.0557, -0.2040, 1.0570],
    ]
)
_STRIP_PIXELS: Final = 2**16

Factor = Annotated[float, Field(ge=0, le=3)]


class ImageOperation(Operation):
    """Changes colours, not what is opaque or the subject; keeps the size."""

    @abstractmethod
    def change(self, image: Image.Image) -> Image.Image:
        """Do it to an RGB image."""

    def apply(self, layers: Layers) -> Layers:
        """Do it to an image."""
        return replace(layers, image=self.change(layers.image))


class Colours(ImageOperation):
    """Change brightness, contrast and saturation (1 = as it is), then shift the hue."""

    name: Literal["colour"]
    brightness: Range[Factor] = (0.9, 1.1)
    contrast: Range[Factor] = (0.9, 1.1)
    saturation: Range[Factor] = (0.9, 1.1)
    hue_degrees: Range[Degrees] = (0.0, 0.0)

    def change(self, image: Image.Image) -> Image.Image:
        """Change them in this order."""
        image = ImageEnhance.Brightness(image).enhance(exact(self.brightness))
        image = ImageEnhance.Contrast(image).enhance(exact(self.contrast))
        image = ImageEnhance.Color(image).enhance(exact(self.saturation))
        degrees = exact(self.hue_degrees)
        return Image.fromarray(shift_hue(np.asarray(image), degrees)) if degrees else image


class WhiteBalance(ImageOperation):
    """Light the scene by warmer (lower kelvin) or cooler light, greener or more magenta."""

    name: Literal["white_balance"]
    kelvin: Annotated[
        Range[Annotated[float, Field(ge=4000, le=12_000)]],
        Field(description="Colour temperature of the light; 6504 changes nothing."),
    ] = (5500.0, 7800.0)
    tint: Annotated[
        Range[Annotated[float, Field(ge=-0.5, le=0.5)]],
        Field(description="Part by which green is raised; below 0 magenta."),
    ] = (0.0, 0.0)

    def change(self, image: Image.Image) -> Image.Image:
        """Scale the channels of linear light, green as it was."""
        gains = daylight(exact(self.kelvin)) / daylight(NEUTRAL_KELVIN)
        gains = gains / gains[1] * [1, 1 + exact(self.tint), 1]
        linear = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4)
        lit = np.clip(np.outer(gains, linear), 0, 1)
        levels = np.where(lit <= 0.0031308, lit * 12.92, 1.055 * lit ** (1 / 2.4) - 0.055)
        return image.point(_table(levels))


class Gamma(ImageOperation):
    """Raise levels (0 to 1) to a power: above 1 shadows darken, below 1 they lighten."""

    name: Literal["gamma"]
    gamma: Range[Annotated[float, Field(ge=0.2, le=5)]] = (0.8, 1.25)

    def change(self, image: Image.Image) -> Image.Image:
        """Raise them."""
        return image.point(_table([_LEVELS ** exact(self.gamma)] * 3))


class Greyscale(ImageOperation):
    """Take the colours away."""

    name: Literal["greyscale"]

    def change(self, image: Image.Image) -> Image.Image:
        """Keep the luma (ITU-R 601)."""
        return image.convert("L").convert("RGB")


def daylight(kelvin: float) -> NDArray[np.float64]:
    """Linear sRGB of daylight of equal luminance, [3].

    Source: CIE 15, the daylight locus, 4000 to 25000 K.
    """
    k = 1000 / kelvin
    if kelvin <= 7000:
        x = -4.6070 * k**3 + 2.9678 * k**2 + 0.09911 * k + 0.244063
    else:
        x = -2.0064 * k**3 + 1.9018 * k**2 + 0.24748 * k + 0.237040
    y = -3 * x**2 + 2.870 * x - 0.275
    light: NDArray[np.float64] = _XYZ_TO_RGB @ np.array([x / y, 1, (1 - x - y) / y])
    return light


def shift_hue(pixels: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn the hue of HSV by `degrees`; saturation and value stay.

    A channel of HSV is V - C * clip(min(k, 4 - k), 0, 1), where V is the largest channel, C its
    distance from the smallest and k = (n + hue / 60) mod 6 with n = 5, 3, 1 for R, G, B.

    Args:
        pixels: uint8 [height, width, 3].
        degrees: Any angle; 120 turns red to green.
    """
    flat = pixels.reshape(-1, 3)
    turned = np.empty_like(flat)
    for start in range(0, len(flat), _STRIP_PIXELS):  # strips stay in the processor's cache
        part = slice(start, start + _STRIP_PIXELS)
        turned[part] = _shift_strip(flat[part].astype(np.float32), np.float32(degrees / 60))
    return turned.reshape(pixels.shape)


def _shift_strip(rgb: NDArray[np.float32], sixths: np.float32) -> NDArray[np.float32]:
    red, green, blue = rgb.T
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.where(chroma == 0, np.float32(1), chroma)
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = np.empty_like(rgb)
    for channel, n in enumerate((5, 3, 1)):
        k = (hue + (n + sixths)) % 6
        turned[:, channel] = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.rint(turned)


def _table(levels: NDArray[np.float64] | Sequence[NDArray[np.float64]]) -> list[int]:
    """Levels 0 to 1 of three channels, [3, 256], as a look-up table of Pillow."""
    table: list[int] = np.rint(np.concatenate(list(levels)) * 255).astype(int).tolist()
    return table
