"""What is known of a photo, carried through the same matrix as its pixels.

Coordinates are those of `matrices`, in pixels of the upright photo.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from service.augmentation.matrices import HORIZON, homogeneous, mirrors
from service.augmentation.operations.base import Matrix, Size
from service.augmentation.resampling import View
from service.errors import BadRequest
from service.fields import Strict

MAX_SHAPES: Final = 1000
MAX_POINTS: Final = 20_000
# Other tools round, or count pixels from their corners.
TOLERANCE_PX: Final = 1.0
_PLACES: Final = 3

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Label = Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=-(2**53), le=2**53)]
Box = Annotated[tuple[Coordinate, Coordinate, Coordinate, Coordinate], Field(strict=False)]
Polygon = Annotated[
    list[Coordinate], Field(min_length=6, max_length=4000, description="[x1, y1, x2, y2, ...]")
]
Keypoint = Annotated[
    tuple[Coordinate, Coordinate, Annotated[int, Field(ge=0, le=2)]],
    Field(strict=False, description="x, y and COCO's visibility: 0 = unknown, 1 = hidden."),
]
Pair = Annotated[tuple[int, int], Field(strict=False)]


class Annotation(Strict):
    """What is known of one photo."""

    label: Annotated[Label | None, Field(description="Of the photo.")] = None
    format: Annotated[
        Literal["coco", "xyxy"],
        Field(description="Of boxes: [left, top, width, height] or [left, top, right, bottom]."),
    ] = "coco"
    boxes: Annotated[list[Box], Field(max_length=MAX_SHAPES)] = []  # noqa: RUF012
    labels: Annotated[
        list[Label] | None, Field(max_length=MAX_SHAPES, description="One for each box.")
    ] = None
    polygons: Annotated[list[Polygon], Field(max_length=MAX_SHAPES)] = []  # noqa: RUF012
    keypoints: Annotated[
        list[Annotated[list[Keypoint], Field(min_length=1, max_length=500)]],
        Field(max_length=MAX_SHAPES, description="A list for each instance."),
    ] = []  # noqa: RUF012
    flip_pairs: Annotated[
        list[Pair],
        Field(max_length=250, description="Keypoints, from 0, that a mirror exchanges."),
    ] = []  # noqa: RUF012

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.labels is not None and len(self.labels) != len(self.boxes):
            raise ValueError(f"{len(self.labels)} labels for {len(self.boxes)} boxes")
        points = sum(map(len, self.polygons)) / 2 + sum(map(len, self.keypoints))
        if points > MAX_POINTS:
            raise ValueError(f"more than {MAX_POINTS} points")
        named = [index for pair in self.flip_pairs for index in pair]
        if len(set(named)) != len(named):
            raise ValueError("flip_pairs names a keypoint twice")
        shortest = min(map(len, self.keypoints), default=0)
        if named and not (min(named) >= 0 and max(named) < shortest):
            raise ValueError("flip_pairs names a keypoint that an instance doesn't have")
        return self

    def corners(self) -> NDArray[np.float64]:
        """The boxes' edges, [N, 4]: left, top, right, bottom."""
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        if self.format == "coco":
            boxes[:, 2:] += boxes[:, :2]
        return boxes


def check_annotation(annotation: Annotation, size: Size, param: str) -> None:
    """Refuse what lies beyond the photo: most often another format, or another resolution.

    Args:
        annotation: Of a photo.
        size: The photo's, upright.
        param: Names the annotation in errors.

    Raises:
        BadRequest: Names the shape at fault.
    """
    shapes: dict[str, Sequence[NDArray[np.float64]]] = {
        "boxes": list(annotation.corners().reshape(-1, 2, 2)),
        "polygons": [np.array(flat).reshape(-1, 2) for flat in _even(annotation, param)],
        "keypoints": [
            np.array([point[:2] for point in instance if point[2]]).reshape(-1, 2)
            for instance in annotation.keypoints
        ],
    }
    for kind, members in shapes.items():
        for index, points in enumerate(members):
            where = f"{param}.{kind}.{index}"
            beyond = (points < -TOLERANCE_PX) | (points > np.array(size) + TOLERANCE_PX)
            if kind == "boxes" and not (points[1] > points[0]).all():
                raise BadRequest(
                    f"has no area as {annotation.format}: is its format the other one?",
                    param=where,
                )
            if beyond.any():
                raise BadRequest(
                    f"lies beyond the photo, which has {size[0]}x{size[1]} pixels when upright; "
                    f"boxes are read as {annotation.format}",
                    param=where,
                )


def _even(annotation: Annotation, param: str) -> list[list[float]]:
    for index, flat in enumerate(annotation.polygons):
        if len(flat) % 2:
            where = f"{param}.polygons.{index}"
            raise BadRequest("must hold pairs of x and y: its length is odd", param=where)
    return annotation.polygons


def carry(annotation: Annotation, view: View, photo: Size, min_visible: float) -> dict[str, Any]:
    """Take an annotation to where its photo's pixels go.

    Args:
        annotation: In the photo's pixels.
        view: Where the photo goes.
        photo: The photo's size.
        min_visible: Boxes and polygons of which less is seen are dropped.

    Returns:
        The same fields as JSON, with the share of each box that is seen, and the indexes of
        what was dropped.
    """
    carried: dict[str, Any] = {"label": annotation.label, "format": annotation.format}
    boxes = np.clip(annotation.corners(), 0, [*photo, *photo])
    outlines = [np.array([[x, y], [r, y], [r, b], [x, b]]) for x, y, r, b in boxes]
    shown = [_clip(outline, view) for outline in outlines]
    kept = [i for i, (_, share) in enumerate(shown) if share > 0 and share >= min_visible]
    carried["boxes"] = [_box(shown[i][0], annotation.format) for i in kept]
    if annotation.labels is not None:
        carried["labels"] = [annotation.labels[i] for i in kept]
    carried["visible"] = [round(shown[i][1], _PLACES) for i in kept]
    parts = [_clip(np.array(flat).reshape(-1, 2), view) for flat in annotation.polygons]
    seen = [i for i, (_, share) in enumerate(parts) if share > 0 and share >= min_visible]
    carried["polygons"] = [np.round(parts[i][0], _PLACES).ravel().tolist() for i in seen]
    carried["keypoints"] = [
        _carry_keypoints(instance, annotation.flip_pairs, view) for instance in annotation.keypoints
    ]
    carried["dropped"] = {
        "boxes": sorted(set(range(len(shown))) - set(kept)),
        "polygons": sorted(set(range(len(parts))) - set(seen)),
    }
    return carried


def _clip(outline: NDArray[np.float64], view: View) -> tuple[NDArray[np.float64], float]:
    """Project a polygon [N, 2] and cut it off at the image's edges.

    Returns:
        What is seen of it, [M, 2], and its share of the area, 0 to 1.
    """
    moved = _cut(homogeneous(outline, view.matrix), np.array([0, 0, 1, -HORIZON]))
    whole = _area(moved[:, :2] / moved[:, 2:])
    width, height = view.size
    for edge in ([1, 0, 0, 0], [0, 1, 0, 0], [-1, 0, width, 0], [0, -1, height, 0]):
        moved = _cut(moved, np.array(edge))
    seen = moved[:, :2] / moved[:, 2:]
    return seen, min(_area(seen) / whole, 1.0) if whole > 0 else 0.0


def _cut(points: NDArray[np.float64], plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """One step of Sutherland and Hodgman's clipping, in homogeneous coordinates.

    Args:
        points: A polygon, [N, 3].
        plane: Its first three numbers times a point, plus the fourth, is 0 or more inside.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, CACM 17 (1974).
    """
    inside = points @ plane[:3] + plane[3]
    before, previous = np.roll(inside, 1), np.roll(points, 1, axis=0)
    crosses = (before < 0) != (inside < 0)
    share = np.divide(before, before - inside, where=crosses, out=np.zeros_like(inside))
    crossings = previous + share[:, None] * (points - previous)
    # For each corner: where its side enters or leaves, then the corner itself.
    both = np.stack([crossings, points], axis=1)
    cut: NDArray[np.float64] = both[np.stack([crosses, inside >= 0], axis=1)]
    return cut


def _area(points: NDArray[np.float64]) -> float:
    """The shoelace formula."""
    if len(points) < 3:
        return 0.0
    (x, y), (u, v) = points.T, np.roll(points, -1, axis=0).T
    return abs(float(np.sum(x * v - u * y))) / 2


def _box(outline: NDArray[np.float64], box_format: str) -> list[float]:
    low, high = outline.min(axis=0), outline.max(axis=0)
    far = high - low if box_format == "coco" else high
    numbers: list[float] = np.round(np.concatenate([low, far]), _PLACES).tolist()
    return numbers


def _carry_keypoints(
    instance: Sequence[tuple[float, float, int]], pairs: Sequence[tuple[int, int]], view: View
) -> list[list[float]]:
    """Project keypoints; those that are no longer seen become [0, 0, 0], as in COCO."""
    points = np.array([point[:2] for point in instance], dtype=np.float64)
    carried = [
        _keypoint(moved, known, view.size)
        for moved, (_, _, known) in zip(homogeneous(points, view.matrix), instance, strict=True)
    ]
    if mirrors(view.matrix):
        for left, right in pairs:
            carried[left], carried[right] = carried[right], carried[left]
    return carried


def _keypoint(moved: Matrix, known: int, size: Size) -> list[float]:
    if not known or moved[2] <= HORIZON:
        return [0, 0, 0]
    x, y = np.round(moved[:2] / moved[2], _PLACES).tolist()
    inside = 0 <= x <= size[0] and 0 <= y <= size[1]
    return [x, y, known] if inside else [0, 0, 0]
