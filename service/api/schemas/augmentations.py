"""Responses of POST /v1/images/augmentations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.augmentation.operations.base import SubjectKind
from service.fields import Seed
from service.rendering.encoding import OutputFormat


class CarriedAnnotation(BaseModel):
    """An annotation in the pixels of an image; the fields are those of the request."""

    label: str | int | None
    format: Literal["coco", "xyxy"]
    boxes: list[list[float]]
    labels: Annotated[list[str | int] | None, Field(description="Left out if not sent.")] = None
    visible: Annotated[list[float], Field(description="The fraction of each box that is seen.")]
    polygons: list[list[float]]
    keypoints: list[list[list[float]]]
    dropped: Annotated[
        dict[Literal["boxes", "polygons"], list[int]],
        Field(description="Indexes of those of which too little is seen."),
    ]


class AugmentedImage(BaseModel):
    """One image of a JSON response."""

    b64_json: str
    mask_b64_json: Annotated[str | None, Field(description="PNG, where a mask was sent.")] = None
    photo: Annotated[int, Field(description="Index of the photo, from 0.")]
    photo_sha256: str
    mask_sha256: str | None = None
    seed: Seed
    size: Annotated[str, Field(description='"WIDTHxHEIGHT"')]
    matrix: Annotated[
        list[list[float]], Field(description="3 x 3, from photo pixels to image pixels.")
    ]
    subject: Annotated[
        SubjectKind | None, Field(description="How it was found, where it was needed.")
    ] = None
    operations: list[dict[str, Any]]
    annotations: CarriedAnnotation | None = None


class AugmentationResponse(BaseModel):
    """JSON response of POST /v1/images/augmentations."""

    created: int
    data: list[AugmentedImage]
    output_format: OutputFormat
    size: Annotated[str | None, Field(description="Left out where sizes differ.")] = None
