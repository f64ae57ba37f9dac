"""What is known of a photo: its boxes, polygons and keypoints, and whether they can be so.

Coordinates are those of `matrices`, in pixels of the upright photo.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from service.augmentation.operations.base import Size
from service.errors import BadRequest
from service.fields import Strict, in_words

MAX_SHAPES: Final = 1000
MAX_POINTS: Final = 20_000
# Other tools round, or count pixels from their corners.
TOLERANCE_PX: Final = 1.0
_BOXES: Final = {
    "coco": "[left, top, width, height]",
    "xyxy": "[left, top, right, bottom]",
}

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Label = Annotated[
    Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=-(2**53), le=2**53)],
    in_words("must be text of up to 200 characters, or a whole number of up to 53 bits"),
]


def _listed(length: int | None, message: str) -> BeforeValidator:
    """Refuse what is no list, or of another length, or of lists in place of numbers."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != (length or len(value)):
            raise ValueError(message)
        if value and isinstance(value[0], list | tuple | dict):
            raise ValueError(message)
        return value

    return BeforeValidator(check)


Box = Annotated[
    tuple[Coordinate, Coordinate, Coordinate, Coordinate],
    Field(strict=False),
    _listed(
        4,
        "must be four numbers: [left, top, width, height] as coco, [left, top, right, bottom] as "
        "xyxy",
    ),
]
Polygon = Annotated[
    list[Coordinate],
    Field(min_length=6, max_length=4000, description="[x1, y1, x2, y2, ...]"),
    _listed(
        None,
        "must be one flat list of numbers for each polygon, [x1, y1, x2, y2, ...]; send what is "
        "RLE as a mask",
    ),
]
Keypoint = Annotated[
    tuple[Coordinate, Coordinate, Annotated[int, Field(ge=0, le=2)]],
    Field(strict=False, description="x, y and COCO's visibility: 0 = unknown, 1 = hidden."),
    _listed(3, "must be [x, y, visibility]: cut COCO's flat list into threes"),
]
Pair = Annotated[
    tuple[int, int],
    Field(strict=False),
    in_words("must be two whole numbers: places of keypoints, counted from 0"),
]


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
            raise ValueError(
                f"labels must hold one for each box: there are {len(self.labels)} for "
                f"{len(self.boxes)}"
            )
        points = sum(map(len, self.polygons)) / 2 + sum(map(len, self.keypoints))
        if points > MAX_POINTS:
            raise ValueError(
                f"polygons and keypoints have more than {MAX_POINTS} points: send polygons with "
                "fewer"
            )
        named = [index for pair in self.flip_pairs for index in pair]
        if len(set(named)) != len(named):
            raise ValueError("flip_pairs names a keypoint twice: each has one partner at most")
        shortest = min(map(len, self.keypoints), default=0)
        if named and not (min(named) >= 0 and max(named) < shortest):
            raise ValueError(
                "flip_pairs may name the keypoints that every instance has, counted from 0: there "
                f"are {shortest}"
            )
        return self

    @property
    def points(self) -> int:
        """Of polygons and keypoints, and four of each box."""
        lists = (*self.keypoints, *self.boxes)
        return sum(map(len, self.polygons)) // 2 + sum(map(len, lists))

    def corners(self) -> NDArray[np.float64]:
        """The boxes' edges, [N, 4]: left, top, right, bottom."""
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        if self.format == "coco":
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def outlines(self, size: Size) -> list[NDArray[np.float64]]:
        """The polygons, [N, 2] each, cut off at the edges of a photo of `size`."""
        return [np.clip(np.array(flat).reshape(-1, 2), 0, size) for flat in self.polygons]


def check_annotation(annotation: Annotation, size: Size, param: str) -> None:
    """Refuse what lies beyond the photo: most often another format, or another resolution.

    Args:
        annotation: Of a photo.
        size: The photo's, upright.
        param: Names the annotation in errors.

    Raises:
        BadRequest: Names the shape at fault.
    """
    outlines = [np.array(flat).reshape(-1, 2) for flat in _even(annotation, param)]
    _refuse_parts_of_the_photo(annotation, size, outlines, param)
    shapes: dict[str, Sequence[NDArray[np.float64]]] = {
        "boxes": list(annotation.corners().reshape(-1, 2, 2)),
        "polygons": outlines,
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
                    f"has no area as {annotation.format}, {_BOXES[annotation.format]}: is its "
                    "format the other one?",
                    param=where,
                )
            if beyond.any():
                raise BadRequest(
                    f"lies beyond the photo, which has {size[0]}x{size[1]} pixels when upright: "
                    "send coordinates in these pixels, EXIF rotation applied"
                    + f"; boxes are read as {annotation.format}, {_BOXES[annotation.format]}"
                    * (kind == "boxes"),
                    param=where,
                )


def _refuse_parts_of_the_photo(
    annotation: Annotation, size: Size, outlines: Sequence[NDArray[np.float64]], param: str
) -> None:
    """Refuse coordinates from 0 to 1: in pixels, all would lie in the photo's first one."""
    points = [point[:2] for instance in annotation.keypoints for point in instance if point[2]]
    numbers = {
        "boxes": np.array(annotation.boxes),
        "polygons": np.concatenate([*outlines, np.empty((0, 2))]),
        # Whole ones may be corners.
        "keypoints": np.array(points) if (np.array(points) % 1).any() else np.empty(0),
    }
    for kind, values in numbers.items():
        if values.size and values.min() >= 0 and values.max() <= 1:
            turned = f", and YOLO's centre, width and height into {_BOXES[annotation.format]}"
            raise BadRequest(
                "all numbers are from 0 to 1, so these seem to be parts of the photo, as in YOLO's "
                f"and other normalised formats. Send pixels of the upright photo: multiply x by "
                f"{size[0]} and y by {size[1]}{turned if kind == 'boxes' else ''}",
                param=f"{param}.{kind}",
            )


def _even(annotation: Annotation, param: str) -> list[list[float]]:
    for index, flat in enumerate(annotation.polygons):
        if len(flat) % 2:
            where = f"{param}.polygons.{index}"
            raise BadRequest(
                "must hold pairs of x and y, but has an odd number of entries", param=where
            )
    return annotation.polygons
