"""Responses of GET /v1/models."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Marks(BaseModel):
    """What says in images that they are synthetic, as the operator wants it."""

    xmp: Annotated[bool, Field(description="IPTC's DigitalSourceType.")]
    signed_by: Annotated[
        Literal["operator", "development", "none"],
        Field(description="Whose key signs C2PA manifests; a development key is nobody's proof."),
    ]
    watermark: Annotated[bool, Field(description="In its images of 128 px or more.")]


class ModelInfo(BaseModel):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="Unix time of the export.")]
    owned_by: str
    version: str
    model_hash: str
    default: bool
    categories: list[str]
    synonyms: Annotated[
        dict[str, list[str]], Field(description="Other names that a prompt may use, by category.")
    ]
    size: str
    max_size: Annotated[
        str, Field(description="The largest that may be requested: an upscaler allows more.")
    ]
    channels: int
    truncation_psi: float
    style_layers: Annotated[
        int | None, Field(description="For style_mixing; null where styles can't be reached.")
    ]
    encoder: Annotated[bool, Field(description="Whether photos can be varied.")]
    licence: str
    marks: Marks


class ModelList(BaseModel):
    """Response of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
