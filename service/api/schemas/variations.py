"""Responses of POST /v1/images/variations."""

from typing import Annotated

from pydantic import BaseModel, Field

from service.fields import Seed
from service.rendering.encoding import OutputFormat
from service.rendering.presentation import Enlargement


class VariedImage(BaseModel):
    """One image of a JSON response."""

    b64_json: str
    seed: Seed
    category: str
    strength: float
    photo_sha256: Annotated[str, Field(description="Of the file that was sent.")]


class ValidationErrors(BaseModel):
    """Mean pixel errors that the export reports of photos that were not trained on."""

    photos: Annotated[int, Field(description="How many.")]
    reconstruction: Annotated[float, Field(description="Encoded and generated again.")]
    nearest_photo: Annotated[float, Field(description="Of the nearest training photo instead.")]
    mean_photo: Annotated[float, Field(description="Of the mean training photo instead.")]


class VariationResponse(BaseModel):
    """JSON response of POST /v1/images/variations."""

    created: int
    data: list[VariedImage]
    model: Annotated[str, Field(description='"name:version"')]
    model_hash: str
    output_format: OutputFormat
    size: str
    enlargement: Annotated[
        Enlargement, Field(description="How a size above the model's own was reached.")
    ] = "none"
    reconstruction_error: Annotated[
        float,
        Field(
            description="Mean squared error, pixels in [-1, 1], between the photo as fitted to "
            "the model and its reconstruction. Far above validation_errors: the model doesn't "
            "know such photos, and the variations won't be like it."
        ),
    ]
    validation_errors: ValidationErrors
