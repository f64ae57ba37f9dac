"""What clients may request of the generator, and its bounds; anything else is a 400."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.fields import (
    Background,
    Compression,
    ImageSize,
    Seed,
    Seeded,
    Strict,
    Weights,
    refuse_both,
)
from service.rendering.encoding import OutputFormat


class StyleMixing(Strict):
    """Layers below `crossover` take the style of the seed `coarse`, the others that of `fine`."""

    coarse: Annotated[Seed, Field(description="Of the first image; the next has coarse + 1.")]
    fine: Seed
    crossover: Annotated[
        int | None, Field(ge=0, le=100, description="By default half of the model's layers.")
    ] = None


class GenerationRequest(Seeded):
    """Body of POST /v1/images/generations: the OpenAI Images API's, and Catalogan extensions.

    Of OpenAI's fields, quality, style, moderation, complexity, partial_images, user and
    safety_identifier change nothing.
    """

    prompt: Annotated[
        str | None,
        Field(
            max_length=32_000, description="Chooses the category that it names, by name or synonym."
        ),
    ] = None
    category: Annotated[
        str | None, Field(max_length=200, description="Wins over the prompt (extension).")
    ] = None
    categories: Annotated[
        Weights | None, Field(description="A mixture, in place of `category` (extension).")
    ] = None
    style_mixing: Annotated[
        StyleMixing | None, Field(description="In place of `seed`; needs mapping.onnx (extension).")
    ] = None
    truncation_psi: Annotated[
        float | None,
        Field(ge=0, le=1, description="0 = the mean image, 1 = full variety (extension)."),
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    size: ImageSize | None = None
    output_format: OutputFormat | None = None
    output_compression: Annotated[
        Compression | None, Field(description="Quality of JPEG and WebP; 100 is lossless WebP.")
    ] = None
    response_format: Annotated[
        Literal["b64_json", "url"] | None,
        Field(description="url: links for an hour, where the operator allows them."),
    ] = None
    background: Background | None = None
    quality: Annotated[str | None, Field(max_length=32)] = None
    style: Annotated[str | None, Field(max_length=32)] = None
    moderation: Annotated[str | None, Field(max_length=32)] = None
    complexity: Annotated[str | None, Field(max_length=32)] = None
    stream: Literal[False] | None = None
    partial_images: Annotated[int | None, Field(ge=0, le=3)] = None
    user: Annotated[str | None, Field(max_length=512)] = None
    safety_identifier: Annotated[str | None, Field(max_length=512)] = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        refuse_both(self, "categories", "category")
        refuse_both(self, "style_mixing", "seed")
        refuse_both(self, "style_mixing", "seeds")
        return self


class VariationRequest(Seeded):
    """Fields of POST /v1/images/variations beside the file `image`; user changes nothing."""

    model: Annotated[str | None, Field(max_length=128)] = None
    category: Annotated[
        str | None,
        Field(
            max_length=200, description="Of the photo; else the nearest of up to 32 (extension)."
        ),
    ] = None
    strength: Annotated[
        float,
        Field(ge=0, le=1, description="0 = the reconstruction; the truncation_psi (extension)."),
    ] = 0.5
    size: ImageSize | None = None
    output_format: OutputFormat | None = None
    output_compression: Compression | None = None
    response_format: Literal["b64_json"] = "b64_json"
    user: Annotated[str | None, Field(max_length=512)] = None
