"""What POST /v1/images/augmentations answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.augmentation.operations.base import SubjectKind
from service.fields import Seed
from service.rendering.encoding import OutputFormat


class CarriedAnnotation(BaseModel):
    """An annotation in the pixels of a picture; the fields are those of the request."""

    label: str | int | None
    format: Literal["coco", "xyxy"]
    boxes: list[list[float]]
    labels: Annotated[list[str | int] | None, Field(description="Left out where none came.")] = None
    visible: Annotated[list[float], Field(description="The share of each box that is seen.")]
    polygons: list[list[float]]
    keypoints: list[list[list[float]]]
    dropped: Annotated[
        dict[Literal["boxes", "polygons"], list[int]],
        Field(description="Indexes of those of which too little is seen."),
    ]


class AugmentedPicture(BaseModel):
    """One picture of a JSON answer."""

    b64_json: str
    mask_b64_json: Annotated[str | None, Field(description="PNG, where a mask came.")] = None
    photo: Annotated[int, Field(description="Index of the photo, from 0.")]
    photo_sha256: str
    mask_sha256: str | None = None
    seed: Seed
    size: Annotated[str, Field(description='"WIDTHxHEIGHT"')]
    matrix: Annotated[
        list[list[float]], Field(description="3 x 3, from photo pixels to picture pixels.")
    ]
    subject: Annotated[
        SubjectKind | None, Field(description="How it was known, where it was asked for.")
    ] = None
    operations: list[dict[str, Any]]
    annotations: CarriedAnnotation | None = None


class AugmentationResponse(BaseModel):
    """JSON answer of POST /v1/images/augmentations."""

    created: int
    data: list[AugmentedPicture]
    output_format: OutputFormat
    size: Annotated[str | None, Field(description="Left out where sizes differ.")] = None
