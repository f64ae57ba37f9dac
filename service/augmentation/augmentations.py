"""An augmentation request -> pictures and exactly what was done to each."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, Field

from models.images import ImageLimits
from service.augmentation.augmentation import (
    DEFAULT_OPERATIONS,
    MAX_OPERATIONS,
    apply_parameters,
    bounded,
    draw_parameters,
)
from service.augmentation.operations import AnyOperation
from service.images.imaging import Encoding, OutputFormat, encode_image
from service.inference.generation import consecutive_seeds
from service.marks.marking import Mark
from service.marks.reading import edited_source_type
from service.messages.answers import Finished, finish
from service.messages.forms import typed_fields
from service.messages.schemas import Compression, Count, Seed, Strict, validate
from service.messages.uploads import decode_upload
from service.observation import stage


class AugmentationRequest(Strict):
    """Fields of POST /v1/images/augmentations beside the file `image`."""

    n: Count = 1
    seed: Annotated[Seed | None, Field(description="Of the first picture; the next: + 1.")] = None
    operations: Annotated[
        Sequence[AnyOperation],
        Field(min_length=1, max_length=MAX_OPERATIONS, description="JSON; applied in order."),
    ] = DEFAULT_OPERATIONS
    output_format: OutputFormat | None = None
    output_compression: Compression | None = None
    response_format: Literal["b64_json"] = "b64_json"
    user: Annotated[str | None, Field(max_length=512)] = None


@dataclass(frozen=True)
class Photo:
    """An upload to be augmented.

    Attributes:
        image: RGB.
        sha256: Of the file, hex.
        source_type: What its edited pictures are.
    """

    image: Image.Image
    sha256: str
    source_type: str


class AugmentedPicture(BaseModel):
    """One picture of a JSON answer."""

    b64_json: str
    seed: Seed
    operations: list[dict[str, Any]]


class AugmentationResponse(BaseModel):
    """JSON answer of POST /v1/images/augmentations."""

    created: int
    data: list[AugmentedPicture]
    output_format: OutputFormat
    size: str


def parse_fields(fields: Mapping[str, str]) -> AugmentationRequest:
    """Turn a form's text fields into a checked request.

    Raises:
        BadRequest: Names the field at fault.
    """
    values = typed_fields(
        fields, integers=("n", "seed", "output_compression"), json=("operations",)
    )
    return validate(AugmentationRequest, values)


def open_photo(data: bytes, limits: ImageLimits) -> Photo:
    """Decode an upload and scale it down to the largest size that is served."""
    image = bounded(decode_upload(data, limits))
    return Photo(image, hashlib.sha256(data).hexdigest(), edited_source_type(data))


def augmentation_jobs(
    photo: Photo, request: AugmentationRequest, encoding: Encoding
) -> list[Callable[[], Finished]]:
    """One job for each picture; a picture depends on photo, operations and its own seed alone."""
    return [
        partial(_augment, photo, request.operations, seed, encoding)
        for seed in consecutive_seeds(request.seed, request.n)
    ]


def _augment(
    photo: Photo, operations: Sequence[AnyOperation], seed: int, encoding: Encoding
) -> Finished:
    steps = draw_parameters(operations, seed, photo.image.size)
    mark = Mark(photo.source_type, seed, photo_sha256=photo.sha256)
    augmented = apply_parameters(photo.image, steps)
    with stage("encode"):
        data = encode_image(augmented, encoding, mark)
    return finish(data, {"seed": seed, "operations": steps}, mark)
