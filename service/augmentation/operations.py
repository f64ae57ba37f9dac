"""The operations of augmentation: the ranges that a client sets, and what they do.

Drawing parameters and applying them are apart, so that an answer can list what was done.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import AfterValidator, Field

from service.messages.schemas import Strict

Rng = np.random.Generator
Parameters = Mapping[str, Any]


Value = TypeVar("Value", float, int)


def _ordered(bounds: tuple[Value, Value]) -> tuple[Value, Value]:
    if bounds[0] > bounds[1]:
        raise ValueError("the lower bound is above the upper one")
    return bounds


# JSON has arrays, not tuples; what stands in them is as strict as all else.
Range = Annotated[tuple[Value, Value], Field(strict=False), AfterValidator(_ordered)]

Fraction = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=-180, le=180)]
Factor = Annotated[float, Field(ge=0, le=3)]
Scale = Annotated[float, Field(ge=0.1, le=1)]
Strength = Annotated[float, Field(ge=0, le=0.4)]
Radius = Annotated[float, Field(ge=0, le=20)]
Sigma = Annotated[float, Field(ge=0, le=0.5)]
Quality = Annotated[int, Field(ge=1, le=95)]


class Operation(Strict, ABC):
    """One kind of change; each of its ranges is drawn from uniformly."""

    probability: Fraction = 1.0

    @abstractmethod
    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw this operation's parameters for a picture of `size` (width, height)."""

    @staticmethod
    @abstractmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Do what `parameters` say; keeps the size."""


class Flip(Operation):
    """Mirror the picture."""

    name: Literal["flip"]
    probability: Fraction = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Nothing is left to chance but whether it happens."""
        return {"axis": self.axis}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Mirror along one axis."""
        horizontal = parameters["axis"] == "horizontal"
        return image.transpose(
            Image.Transpose.FLIP_LEFT_RIGHT if horizontal else Image.Transpose.FLIP_TOP_BOTTOM
        )


class Rotate(Operation):
    """Turn about the centre; new corners take the backdrop's colour."""

    name: Literal["rotate"]
    degrees: Range[Degrees] = (-10.0, 10.0)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw the angle, counter-clockwise."""
        return {"degrees": _uniform(rng, self.degrees)}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Turn with bicubic interpolation."""
        return image.rotate(
            parameters["degrees"], Image.Resampling.BICUBIC, fillcolor=backdrop_colour(image)
        )


class Crop(Operation):
    """Cut a window of the picture's own shape and scale it back up."""

    name: Literal["crop"]
    scale: Annotated[
        Range[Scale], Field(description="Side of the window as a part of the picture's.")
    ] = (0.8, 1.0)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw a window in pixels."""
        scale = _uniform(rng, self.scale)
        width, height = (max(1, round(side * scale)) for side in size)
        left = int(rng.integers(0, size[0] - width + 1))
        top = int(rng.integers(0, size[1] - height + 1))
        return {"left": left, "top": top, "width": width, "height": height}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Resample the window to the whole size."""
        left, top = parameters["left"], parameters["top"]
        box = (left, top, left + parameters["width"], top + parameters["height"])
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


class Perspective(Operation):
    """Move the corners inwards, as if seen from a little aside."""

    name: Literal["perspective"]
    strength: Annotated[
        Range[Strength], Field(description="Farthest a corner moves, as a part of each side.")
    ] = (0.0, 0.1)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw where the four corners go, in pixels, clockwise from the top left."""
        reach = _uniform(rng, self.strength)
        shifts = rng.uniform(0, reach, (4, 2)) * size
        right, bottom = size
        corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=np.float64)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        return {"corners": np.round(corners + inwards * shifts, 3).tolist()}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Project the picture onto its new corners."""
        width, height = image.size
        target = np.asarray(parameters["corners"], dtype=np.float64)
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        return image.transform(
            image.size,
            Image.Transform.PERSPECTIVE,
            _homography(target, source),
            Image.Resampling.BICUBIC,
            fillcolor=backdrop_colour(image),
        )


class Colour(Operation):
    """Change brightness, contrast and saturation (1 = as it is) and shift the hue."""

    name: Literal["colour"]
    brightness: Range[Factor] = (0.9, 1.1)
    contrast: Range[Factor] = (0.9, 1.1)
    saturation: Range[Factor] = (0.9, 1.1)
    hue_degrees: Range[Degrees] = (0.0, 0.0)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw all four."""
        ranges = {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue_degrees": self.hue_degrees,
        }
        return {name: _uniform(rng, bounds) for name, bounds in ranges.items()}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Apply them in the order drawn."""
        image = ImageEnhance.Brightness(image).enhance(parameters["brightness"])
        image = ImageEnhance.Contrast(image).enhance(parameters["contrast"])
        image = ImageEnhance.Color(image).enhance(parameters["saturation"])
        shift = round(parameters["hue_degrees"] / 360 * 256) % 256
        if not shift:
            return image
        hue, saturation, value = image.convert("HSV").split()
        hue = hue.point([(level + shift) % 256 for level in range(256)])
        return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


class Blur(Operation):
    """Blur, as out of focus."""

    name: Literal["blur"]
    radius_px: Range[Radius] = (0.0, 2.0)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw the Gaussian's standard deviation in pixels."""
        return {"radius_px": _uniform(rng, self.radius_px)}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Blur with a Gaussian."""
        return image.filter(ImageFilter.GaussianBlur(parameters["radius_px"]))


class Noise(Operation):
    """Add grain, as of a sensor."""

    name: Literal["noise"]
    sigma: Annotated[Range[Sigma], Field(description="Standard deviation, where white is 1.")] = (
        0.0,
        0.03,
    )

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw the strength, and a seed that fixes the grain."""
        return {"sigma": _uniform(rng, self.sigma), "seed": int(rng.integers(2**32))}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Add independent normal noise to each sample."""
        rng = np.random.Generator(np.random.PCG64(parameters["seed"]))
        pixels = np.asarray(image, dtype=np.float32)
        grain = rng.standard_normal(pixels.shape, dtype=np.float32)
        noisy = pixels + grain * np.float32(255 * parameters["sigma"])
        return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


class Jpeg(Operation):
    """Leave the traces of JPEG compression."""

    name: Literal["jpeg"]
    quality: Range[Quality] = (50, 95)

    def draw(self, rng: Rng, size: tuple[int, int]) -> dict[str, Any]:
        """Draw the quality."""
        return {"quality": int(rng.integers(self.quality[0], self.quality[1], endpoint=True))}

    @staticmethod
    def apply(image: Image.Image, parameters: Parameters) -> Image.Image:
        """Encode and decode."""
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=parameters["quality"])
        return Image.open(buffer).convert("RGB")


AnyOperation = Annotated[
    Flip | Rotate | Crop | Perspective | Colour | Blur | Noise | Jpeg, Field(discriminator="name")
]
OPERATIONS: Final[dict[str, type[Operation]]] = {
    "flip": Flip,
    "rotate": Rotate,
    "crop": Crop,
    "perspective": Perspective,
    "colour": Colour,
    "blur": Blur,
    "noise": Noise,
    "jpeg": Jpeg,
}


def backdrop_colour(image: Image.Image) -> tuple[int, ...]:
    """Median colour of the border: in a product photo, the backdrop's."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(level) for level in np.median(border, axis=0))


def _homography(target: NDArray[np.float64], source: NDArray[np.float64]) -> tuple[float, ...]:
    """The eight coefficients with which Pillow maps target points to source points."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)).tolist())


def _uniform(rng: Rng, bounds: tuple[float, float]) -> float:
    """Rounded, so that what JSON says is what was applied."""
    return round(float(rng.uniform(*bounds)), 6)
