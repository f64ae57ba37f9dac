"""An augmentation request -> pictures and exactly what was done to each."""

from collections.abc import Callable, Mapping, Sequence
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
from service.marks.marking import ENHANCED, Mark
from service.messages.answers import Finished
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


def open_photo(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode an upload and scale it down to the largest size that is served."""
    return bounded(decode_upload(data, limits))


def augmentation_jobs(
    photo: Image.Image, request: AugmentationRequest, encoding: Encoding
) -> list[Callable[[], Finished]]:
    """One job for each picture; a picture depends on photo, operations and its own seed alone."""
    return [
        partial(_augment, photo, request.operations, seed, encoding)
        for seed in consecutive_seeds(request.seed, request.n)
    ]


def _augment(
    photo: Image.Image, operations: Sequence[AnyOperation], seed: int, encoding: Encoding
) -> Finished:
    steps = draw_parameters(operations, seed, photo.size)
    mark = Mark(ENHANCED, seed)
    augmented = apply_parameters(photo, steps)
    with stage("encode"):
        data = encode_image(augmented, encoding.output_format, mark, encoding.quality)
    return Finished(data, {"seed": seed, "operations": steps})
