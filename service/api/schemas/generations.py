"""Responses of POST /v1/images/generations."""

from typing import Annotated

from pydantic import BaseModel, Field

from service.fields import Seed
from service.rendering.encoding import OutputFormat
from service.rendering.presentation import Enlargement


class UsedStyleMixing(BaseModel):
    """The style mixing that reproduces an image."""

    coarse: Seed
    fine: Seed
    crossover: int


class GeneratedImage(BaseModel):
    """One image of a JSON response."""

    b64_json: Annotated[str, Field(description="The image file, Base64.")]
    seed: Annotated[Seed, Field(description="Of mixed styles, the coarse one's.")]
    category: Annotated[str, Field(description='Of a mixture, such as "70 % mugs + 30 % boxes".')]
    categories: Annotated[
        dict[str, float] | None, Field(description="A mixture's exact weights; else left out.")
    ] = None
    style_mixing: Annotated[
        UsedStyleMixing | None, Field(description="Left out where styles weren't mixed.")
    ] = None


class LinkedImage(BaseModel):
    """One image of a JSON response with links; its other fields are as of a GeneratedImage."""

    url: Annotated[str, Field(description="For an hour, without a key.")]
    seed: Seed
    category: str
    categories: dict[str, float] | None = None
    style_mixing: UsedStyleMixing | None = None


class GenerationResponse(BaseModel):
    """JSON response of POST /v1/images/generations."""

    created: Annotated[int, Field(description="Unix time.")]
    data: list[GeneratedImage | LinkedImage]
    model: Annotated[str, Field(description='"name:version"')]
    model_hash: Annotated[str, Field(description="SHA-256; with a seed it fixes the pixels.")]
    output_format: OutputFormat
    size: Annotated[str, Field(description='"WIDTHxHEIGHT"')]
    enlargement: Annotated[
        Enlargement, Field(description="How a size above the model's own was reached.")
    ] = "none"
    truncation_psi: float
