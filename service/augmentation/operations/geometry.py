"""Operations that move pixels: each returns a matrix, and all matrices become one."""

import re
from abc import abstractmethod
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from service.augmentation.matrices import (
    about_centre,
    homography,
    project,
    rotation,
    scaling,
    shearing,
    translation,
)
from service.augmentation.operations.base import (
    Degrees,
    Fraction,
    Matrix,
    Operation,
    Range,
    Rng,
    Scene,
    Size,
    exact,
)
from service.fields import ColourOr

MIN_SIDE_PX: Final = 1
MAX_SIDE_PX: Final = 2048
_PAIR: Final = re.compile(r"([1-9][0-9]{0,4})[x:]([1-9][0-9]{0,4})")
_PLACES: Final = 6
_FAR_PX: Final = 1e6


class GeometricOperation(Operation):
    """Moves pixels; applied before all others, together with its like."""

    @abstractmethod
    def matrix(self, size: Size) -> Matrix:
        """From a frame of `size` to the frame after it."""

    def frame(self, size: Size) -> Size:
        """The size of the frame after it."""
        return size


class Flip(GeometricOperation):
    """Mirror the image."""

    name: Literal["flip"]
    probability: Fraction = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"

    def matrix(self, size: Size) -> Matrix:
        """Mirror about the frame's middle."""
        return about_centre(scaling(*((-1, 1) if self.axis == "horizontal" else (1, -1))), size)


class Rotate(GeometricOperation):
    """Turn about the centre, counter-clockwise."""

    name: Literal["rotate"]
    degrees: Range[Degrees] = (-10.0, 10.0)

    def matrix(self, size: Size) -> Matrix:
        """Turn."""
        return about_centre(rotation(exact(self.degrees)), size)


class Scale(GeometricOperation):
    """Scale what is seen about the centre; the frame stays."""

    name: Literal["scale"]
    factor: Range[Annotated[float, Field(ge=0.2, le=4)]] = (0.8, 1.2)

    def matrix(self, size: Size) -> Matrix:
        """Scale."""
        factor = exact(self.factor)
        return about_centre(scaling(factor, factor), size)


class Translate(GeometricOperation):
    """Move to the right and down, in parts of the frame's width and height."""

    name: Literal["translate"]
    x: Range[Annotated[float, Field(ge=-1, le=1)]] = (-0.1, 0.1)
    y: Range[Annotated[float, Field(ge=-1, le=1)]] = (-0.1, 0.1)

    def matrix(self, size: Size) -> Matrix:
        """Move."""
        return translation(exact(self.x) * size[0], exact(self.y) * size[1])


class Shear(GeometricOperation):
    """Slant about the centre."""

    name: Literal["shear"]
    x_degrees: Range[Annotated[float, Field(ge=-45, le=45)]] = (-8.0, 8.0)
    y_degrees: Range[Annotated[float, Field(ge=-45, le=45)]] = (0.0, 0.0)

    @model_validator(mode="after")
    def _refuse_what_flattens(self) -> Self:
        # tan(x) tan(y) = 1 would make a line of the image.
        x, y = (max(map(abs, bounds)) for bounds in (self.x_degrees, self.y_degrees))
        if x + y > 80:
            raise ValueError(
                f"x_degrees and y_degrees may reach 80 together, and reach {x + y:g}: narrow one"
            )
        return self

    def matrix(self, size: Size) -> Matrix:
        """Slant."""
        return about_centre(shearing(exact(self.x_degrees), exact(self.y_degrees)), size)


class Crop(GeometricOperation):
    """Cut a window of the frame's own shape and scale it to the whole frame."""

    name: Literal["crop"]
    scale: Annotated[
        Range[Annotated[float, Field(ge=0.1, le=1)]],
        Field(description="Side of the window as a part of the frame's."),
    ] = (0.8, 1.0)
    x: Annotated[
        Range[Fraction], Field(description="Where it is: 0 = at the left, 1 = at the right.")
    ] = (0.0, 1.0)
    y: Annotated[
        Range[Fraction], Field(description="Where it is: 0 = at the top, 1 = at the bottom.")
    ] = (0.0, 1.0)

    def matrix(self, size: Size) -> Matrix:
        """Scale the window up."""
        side = exact(self.scale)
        left, top = ((1 - side) * exact(at) for at in (self.x, self.y))
        return scaling(1 / side, 1 / side) @ translation(-left * size[0], -top * size[1])


Inset = Annotated[float, Field(ge=0, le=0.3)]
Insets = Annotated[tuple[Inset, Inset], Field(strict=False)]


class Perspective(GeometricOperation):
    """Move the corners inwards, as if seen from a little aside."""

    name: Literal["perspective"]
    # Up to 0.3 any four corners make a convex shape.
    strength: Annotated[
        Range[Inset], Field(description="Farthest a corner moves, as a part of each side.")
    ] = (0.0, 0.1)
    insets: Annotated[
        tuple[Insets, Insets, Insets, Insets] | None,
        Field(
            strict=False,
            description="How far the corners move in x and y, clockwise from the top left; "
            "drawn where left out.",
        ),
    ] = None

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """Draw how far the four corners go."""
        drawn = super().drawn(rng, scene)
        if self.insets is not None:
            return drawn
        reach = np.round(rng.uniform(0, exact(drawn.strength), (4, 2)), _PLACES)
        return drawn.model_copy(update={"insets": tuple(map(tuple, reach.tolist()))})

    def inexact(self) -> str | None:
        """Also the corners."""
        return super().inexact() or ("insets" if self.insets is None else None)

    def matrix(self, size: Size) -> Matrix:
        """Project the frame onto its new corners."""
        assert self.insets is not None, "applied before it was drawn"
        width, height = size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * size
        return homography(corners.tolist(), (corners + inwards * self.insets).tolist())


def _checked_size(text: str) -> str:
    sides = _pair(text)
    if "x" not in text or min(sides) < MIN_SIDE_PX or max(sides) > MAX_SIDE_PX:
        raise ValueError(f"must be WIDTHxHEIGHT, each from {MIN_SIDE_PX} to {MAX_SIDE_PX}")
    return text


def _checked_aspect(text: str) -> str:
    width, height = _pair(text)
    if ":" not in text or not 1 / 8 <= width / height <= 8:
        raise ValueError("must be WIDTH:HEIGHT, from 1:8 to 8:1")
    return text


def _pair(text: str) -> Size:
    match = _PAIR.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else (0, 1)


class Canvas(GeometricOperation):
    """Put the frame on a canvas of another size or shape."""

    name: Literal["canvas"] = "canvas"
    size: Annotated[
        Annotated[str, Field(max_length=11), AfterValidator(_checked_size)] | None,
        Field(description='"WIDTHxHEIGHT" in pixels, up to 2048 each.'),
    ] = None
    aspect: Annotated[
        Annotated[str, Field(max_length=11), AfterValidator(_checked_aspect)] | None,
        Field(description='"WIDTH:HEIGHT", in place of size.'),
    ] = None
    fit: Annotated[
        Literal["contain", "cover", "pad", "subject"],
        Field(
            description="contain: all of the frame is seen; cover: all of the canvas is covered; "
            "pad: as contain, but never enlarged; subject: the subject is centred."
        ),
    ] = "contain"
    fill: Annotated[
        Range[Annotated[float, Field(ge=0.1, le=1)]],
        Field(description="Of fit subject: how much of the canvas's tighter side it takes."),
    ] = (0.85, 0.85)
    background: Annotated[
        str,
        ColourOr(("backdrop", "transparent", "white", "black")),
        Field(description="What is seen beyond the photo; backdrop is the colour of its border."),
    ] = "backdrop"
    placement: Annotated[
        tuple[
            Annotated[float, Field(ge=0.001, le=1000)],
            Annotated[float, Field(ge=-_FAR_PX, le=_FAR_PX)],
            Annotated[float, Field(ge=-_FAR_PX, le=_FAR_PX)],
        ]
        | None,
        Field(strict=False, description="What fit resulted in: scale, left and top in pixels."),
    ] = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.size is not None and self.aspect is not None:
            raise ValueError("send size or aspect, not both")
        return self

    def drawn(self, rng: Rng, scene: Scene) -> Self:
        """Resolve size and placement."""
        drawn = super().drawn(rng, scene)
        canvas = self.frame(scene.size)
        placement = self.placement or self._place(scene, canvas, exact(drawn.fill))
        size = f"{canvas[0]}x{canvas[1]}"
        return drawn.model_copy(update={"size": size, "aspect": None, "placement": placement})

    def inexact(self) -> str | None:
        """Also where the frame goes."""
        unplaced = self.placement is None or self.size is None
        return super().inexact() or ("placement" if unplaced else None)

    def needs_subject(self) -> bool:
        """To centre it, unless that is done already."""
        return self.fit == "subject" and self.placement is None

    def frame(self, size: Size) -> Size:
        """The canvas's size."""
        if self.size is not None:
            return _pair(self.size)
        if self.aspect is None:
            return size
        width, height = _pair(self.aspect)
        ratio = width / height
        wider = size[0] / size[1] > ratio
        if wider == (self.fit != "cover"):
            sides: tuple[float, float] = (size[0], size[0] / ratio)
        else:
            sides = (size[1] * ratio, size[1])
        shrink = min(1.0, MAX_SIDE_PX / max(sides))
        return max(1, round(sides[0] * shrink)), max(1, round(sides[1] * shrink))

    def matrix(self, size: Size) -> Matrix:
        """Scale and move the frame to its place."""
        assert self.placement is not None, "applied before it was drawn"
        scale, left, top = self.placement
        return translation(left, top) @ scaling(scale, scale)

    def _place(self, scene: Scene, canvas: Size, fill: float) -> tuple[float, float, float]:
        """Find scale, left and top of what `fit` requires."""
        box = np.array([0, 0, *scene.size], dtype=np.float64)
        scale = self._scale(scene.size, canvas)
        if self.fit == "subject":
            outline = project(scene.outline(), scene.matrix)
            seen = outline[np.isfinite(outline).all(axis=1)]
            if len(seen):  # not behind the viewer
                box = np.concatenate([seen.min(axis=0), seen.max(axis=0)])
            width, height = np.maximum(box[2:] - box[:2], 1e-3).tolist()
            scale = fill * min(canvas[0] / width, canvas[1] / height)
        scale = round(min(max(scale, 0.001), 1000.0), _PLACES)
        # Whole pixels: where nothing is scaled, pixels are copied as they are.
        corner = np.round(np.array(canvas) / 2 - scale * (box[:2] + box[2:]) / 2)
        left, top = np.clip(corner, -_FAR_PX, _FAR_PX).tolist()
        return scale, left, top

    def _scale(self, frame: Size, canvas: Size) -> float:
        ratios = canvas[0] / frame[0], canvas[1] / frame[1]
        if self.fit == "cover":
            return max(ratios)
        return min(*ratios, 1.0) if self.fit == "pad" else min(ratios)
