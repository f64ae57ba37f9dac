"""What all operations of augmentation have in common.

An operation's ranges are what a client requests. Drawn, each range is one value, and the drawn
operation is itself a valid operation: responses list it, and sent back it is done again.
"""

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from service.fields import ColourOr, Strict

Rng = np.random.Generator
Size = tuple[int, int]  # width, height in pixels
Matrix = NDArray[np.float64]  # [3, 3], acts on columns (x, y, 1)
Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]  # [height, width]
Value = TypeVar("Value", float, int)

SubjectKind = Literal["mask", "alpha", "backdrop"]


class _OneOrTwo:
    """Lets a bare number stand for the range from it to itself, in and out."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self._bounds,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda bounds: bounds[0] if bounds[0] == bounds[1] else list(bounds)
            ),
        )

    @staticmethod
    def _bounds(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value, value
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("must be one number, or a range as [low, high]")
        return value

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        pair = handler(schema["schema"])
        return {"anyOf": [pair["prefixItems"][0], pair]}


def _ordered(bounds: tuple[Value, Value]) -> tuple[Value, Value]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"the lower bound, {bounds[0]:g}, is above the upper one, {bounds[1]:g}: send "
            "[low, high]"
        )
    return bounds


# JSON has arrays, not tuples; what stands in them is as strict as all else.
Range = Annotated[tuple[Value, Value], Field(strict=False), AfterValidator(_ordered), _OneOrTwo()]
Fraction = Annotated[float, Field(ge=0, le=1)]
Degrees = Annotated[float, Field(ge=-180, le=180)]
Colour = Annotated[str, ColourOr(("white", "black"))]


@dataclass(frozen=True)
class Scene:
    """What drawing may look at.

    Attributes:
        size: The frame's, as the geometry before this operation left it.
        matrix: From the photo to the frame.
        outline: Returns points on the subject's outline, [N, 2] in photo pixels.
    """

    size: Size
    matrix: Matrix
    outline: Callable[[], NDArray[np.float64]]


@dataclass
class Layers:
    """The layers of an image on its way through the operations that are no geometry.

    Attributes:
        image: RGB.
        alpha: Its opacity, uint8 [height, width]; None = opaque.
        matte: How much of each pixel the subject is, uint8; None = not needed.
    """

    image: Image.Image
    alpha: Pixels | None = None
    matte: Pixels | None = None


class Operation(Strict, ABC):
    """One kind of change; each of its ranges is drawn from uniformly."""

    name: str
    probability: Fraction = 1.0

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """A copy whose ranges are one value each, drawn in the order of the fields."""
        one = {name: draw(rng, getattr(self, name)) for name in self._ranges()}
        return self.model_copy(update={"probability": 1.0, **one})

    def inexact(self) -> str | None:
        """The first field that leaves something to chance; None = there is none."""
        if self.probability != 1:
            return "probability"
        wide = (name for name in self._ranges() if len(set(getattr(self, name))) > 1)
        return next(wide, None)

    def needs_subject(self) -> bool:
        """Whether it must know which pixels are the subject's."""
        return False

    @classmethod
    def _ranges(cls) -> list[str]:
        return [
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(part, _OneOrTwo) for part in field.metadata)
        ]


def draw(rng: Rng, bounds: tuple[Value, Value]) -> tuple[Value, Value]:
    """Draw one value, as a range of its own; whole numbers stay whole."""
    low, high = bounds
    if isinstance(low, int) and isinstance(high, int):
        value: Any = int(rng.integers(low, high, endpoint=True))
    else:  # rounded, so that what JSON says is what was applied
        value = min(max(round(float(rng.uniform(low, high)), 6), low), high)
    return value, value


def exact(bounds: tuple[Value, Value]) -> Value:
    """The one value of a drawn range."""
    assert bounds[0] == bounds[1], "applied before it was drawn"
    return bounds[0]
