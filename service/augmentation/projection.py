"""Annotations, taken through the same matrix as the pixels of their photo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.augmentation.annotations import Annotation
from service.augmentation.instances import Instance
from service.augmentation.matrices import HORIZON, homogeneous, keeps_upright, mirrors
from service.augmentation.operations.base import Matrix, Size
from service.augmentation.resampling import View

_PLACES: Final = 3


@dataclass(frozen=True)
class Annotated:
    """A photo's annotation, with what follows from it for all of its images.

    Attributes:
        annotation: In the photo's pixels.
        photo: The photo's size.
        instances: What each box holds.
    """

    annotation: Annotation
    photo: Size
    instances: Sequence[Instance]


@dataclass(frozen=True)
class _Seen:
    """What is seen of a polygon: its points in the image, [N, 2], their area and the whole's."""

    points: NDArray[np.float64]
    area: float
    whole: float

    @property
    def share(self) -> float:
        """How much of the area is seen, 0 to 1."""
        return min(self.area / self.whole, 1.0) if self.whole > 0 else 0.0


def carry(known: Annotated, view: View, min_visible: float) -> dict[str, Any]:
    """Take an annotation to where its photo's pixels go.

    Args:
        known: Of the photo.
        view: Where the photo goes.
        min_visible: Boxes and polygons of which less is seen are dropped.

    Returns:
        The same fields as JSON, with the share of each box that is seen, and the indexes of
        what was dropped.
    """
    annotation = known.annotation
    carried: dict[str, Any] = {"label": annotation.label, "format": annotation.format}
    parts = [_clip(outline, view) for outline in annotation.outlines(known.photo)]
    shown = [_see(instance, parts, view) for instance in known.instances]
    kept, seen = (
        [i for i, one in enumerate(ones) if one.share > 0 and one.share >= min_visible]
        for ones in (shown, parts)
    )
    carried["boxes"] = [_box(shown[i].points, annotation.format) for i in kept]
    if annotation.labels is not None:
        carried["labels"] = [annotation.labels[i] for i in kept]
    carried["visible"] = [round(shown[i].share, _PLACES) for i in kept]
    carried["polygons"] = [np.round(parts[i].points, _PLACES).ravel().tolist() for i in seen]
    carried["keypoints"] = [
        _carry_keypoints(instance, annotation.flip_pairs, view, known.photo)
        for instance in annotation.keypoints
    ]
    carried["dropped"] = {
        "boxes": sorted(set(range(len(shown))) - set(kept)),
        "polygons": sorted(set(range(len(parts))) - set(seen)),
    }
    return carried


def _see(instance: Instance, parts: Sequence[_Seen], view: View) -> _Seen:
    """What is seen of an instance: of its box where that stays upright, else of what is known."""
    if not keeps_upright(view.matrix):
        if instance.polygons:
            return _join([parts[index] for index in instance.polygons])
        if instance.hull is not None:
            return _clip(instance.hull, view)
    return _clip(instance.corners, view)


def _join(parts: Sequence[_Seen]) -> _Seen:
    """Several polygons of one instance."""
    points = np.concatenate([part.points for part in parts])
    return _Seen(points, sum(part.area for part in parts), sum(part.whole for part in parts))


def _clip(outline: NDArray[np.float64], view: View) -> _Seen:
    """Project a polygon [N, 2] and cut it off at the image's edges."""
    moved = homogeneous(outline, view.matrix)
    if moved[:, 2].min(initial=1) < HORIZON:
        moved = _cut(moved, np.array([0, 0, 1, -HORIZON]))
    whole = _area(moved[:, :2] / moved[:, 2:])
    width, height = view.size
    edges = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, width], [0, -1, height]])
    # Most shapes cross no edge, or one.
    for edge in edges[(moved @ edges.T < 0).any(axis=0)]:
        moved = _cut(moved, np.append(edge, 0))
    seen = moved[:, :2] / moved[:, 2:]
    return _Seen(seen, _area(seen), whole)


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
    instance: Sequence[tuple[float, float, int]],
    pairs: Sequence[tuple[int, int]],
    view: View,
    photo: Size,
) -> list[list[float]]:
    """Project keypoints; those that are no longer seen become [0, 0, 0], as in COCO."""
    points = np.clip([point[:2] for point in instance], 0, photo)
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
    x, y = (np.round(moved[:2] / moved[2], _PLACES) + 0.0).tolist()  # 0, not -0
    inside = 0 <= x <= size[0] and 0 <= y <= size[1]
    return [x, y, known] if inside else [0, 0, 0]
