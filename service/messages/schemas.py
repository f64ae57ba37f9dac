"""What clients send, and its bounds; anything else is a 400."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from service.errors import BadRequest
from service.images.imaging import OutputFormat
from service.inference.generation import SEED_LIMIT

MAX_PICTURES: Final = 10
MAX_CATEGORIES: Final = 16
_COLOUR: Final = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class ColourOr:
    """Of a string: one of `names`, or a colour as #rrggbb; the error says it in words."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({'|'.join(self.names)}|#[0-9a-fA-F]{{6}})$"}

    def _check(self, value: str) -> str:
        if value not in self.names and not _COLOUR.fullmatch(value):
            raise ValueError(f"must be {', '.join(self.names)} or a colour as #rrggbb")
        return value


Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Count = Annotated[int, Field(ge=1, le=MAX_PICTURES)]
Compression = Annotated[int, Field(ge=0, le=100)]
Weights = Annotated[
    dict[
        Annotated[str, Field(max_length=200)],
        Annotated[float, Field(gt=0, le=1_000_000, description="Scaled so that all sum to 1.")],
    ],
    Field(min_length=1, max_length=MAX_CATEGORIES),
]
Size = Annotated[
    str,
    Field(
        max_length=11,
        description='"auto", or "WIDTHxHEIGHT" in the model\'s proportions, up to its max_size.',
    ),
]
Background = Annotated[
    str,
    ColourOr(("auto", "opaque", "transparent", "white")),
    Field(description="Under pictures with transparency; opaque is white, auto leaves them so."),
]

Parsed = TypeVar("Parsed", bound=BaseModel)


class Strict(BaseModel):
    """Base of all requests: exact types, no unknown fields, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Seeded(Strict):
    """A request for several pictures, each with a seed."""

    n: Count | None = None
    seed: Annotated[
        Seed | None, Field(description="Of the first picture; the next has seed + 1 (ours).")
    ] = None
    seeds: Annotated[
        list[Seed] | None,
        Field(min_length=1, max_length=MAX_PICTURES, description="One for each picture (ours)."),
    ] = None

    @model_validator(mode="after")
    def _refuse_two_ways_to_count(self) -> Self:
        refuse_both(self, "seeds", "seed")
        if self.seeds is not None and self.n not in (None, len(self.seeds)):
            raise BadRequest(
                f"{len(self.seeds)} seeds give as many pictures: leave n out", param="n"
            )
        return self

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self.n or (len(self.seeds) if self.seeds else 1)


class StyleMixing(Strict):
    """Layers below `crossover` take the style of the seed `coarse`, the others that of `fine`."""

    coarse: Annotated[Seed, Field(description="Of the first picture; the next has coarse + 1.")]
    fine: Seed
    crossover: Annotated[
        int | None, Field(ge=0, le=100, description="By default half of the model's layers.")
    ] = None


class GenerationRequest(Seeded):
    """Body of POST /v1/images/generations: the OpenAI Images API's, and fields of ours.

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
        str | None, Field(max_length=200, description="Wins over the prompt (ours).")
    ] = None
    categories: Annotated[
        Weights | None, Field(description="A mixture, in place of `category` (ours).")
    ] = None
    style_mixing: Annotated[
        StyleMixing | None, Field(description="In place of `seed`; needs mapping.onnx (ours).")
    ] = None
    truncation_psi: Annotated[
        float | None,
        Field(ge=0, le=1, description="0 = the mean picture, 1 = full variety (ours)."),
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    size: Size | None = None
    output_format: OutputFormat | None = None
    output_compression: Annotated[
        Compression | None, Field(description="Quality of JPEG and WebP; 100 is lossless WebP.")
    ] = None
    response_format: Annotated[
        Literal["b64_json"] | None, Field(description="There are no URLs; or ask for a bare image.")
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


class UsedStyleMixing(BaseModel):
    """The style mixing that gives a picture again."""

    coarse: Seed
    fine: Seed
    crossover: int


class Picture(BaseModel):
    """One picture of a JSON answer."""

    b64_json: Annotated[str, Field(description="The image file, Base64.")]
    seed: Annotated[Seed, Field(description="Of mixed styles, the coarse one's.")]
    category: Annotated[str, Field(description='Of a mixture, such as "70 % mugs + 30 % boxes".')]
    categories: Annotated[
        dict[str, float] | None, Field(description="A mixture's exact weights; else left out.")
    ] = None
    style_mixing: Annotated[
        UsedStyleMixing | None, Field(description="Left out where styles weren't mixed.")
    ] = None


class GenerationResponse(BaseModel):
    """JSON answer of POST /v1/images/generations."""

    created: Annotated[int, Field(description="Unix time.")]
    data: list[Picture]
    model: Annotated[str, Field(description='"name:version"')]
    model_hash: Annotated[str, Field(description="SHA-256; with a seed it fixes the pixels.")]
    output_format: OutputFormat
    size: Annotated[str, Field(description='"WIDTHxHEIGHT"')]
    truncation_psi: float


class Marks(BaseModel):
    """What says in pictures that they are synthetic, as the operator wants it."""

    xmp: Annotated[bool, Field(description="IPTC's DigitalSourceType.")]
    signed_by: Annotated[
        Literal["operator", "development", "none"],
        Field(description="Whose key signs C2PA manifests; a development key is nobody's proof."),
    ]
    watermark: Annotated[bool, Field(description="In its pictures of 128 px or more.")]


class ModelInfo(BaseModel):
    """A model that can be asked for."""

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
        str, Field(description="The largest that may be asked for: an upscaler allows more.")
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
    """Answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    param: str | None
    type: str


class ErrorResponse(BaseModel):
    """The shape of every answer that is not a success."""

    error: ErrorDetail


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; as strict as `parse_json_value`.

    Raises:
        BadRequest: Not that, or no object.
    """
    value = parse_json_value(data)
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return value


def parse_json_value(data: bytes) -> Any:
    """Parse JSON, more strictly than the standard library does.

    Raises:
        BadRequest: Not UTF-8, not JSON, a duplicate name, NaN, or too deep.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
        )
    except BadRequest:
        raise
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError:
        raise BadRequest("not UTF-8", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"not JSON: {error.msg} at character {error.pos}", code="invalid_json"
        ) from None


def validate(kind: type[Parsed], value: Any) -> Parsed:
    """Check `value` against a request's schema.

    Raises:
        BadRequest: Names the first field at fault; never repeats its content.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        param = ".".join(str(part)[:64] for part in first["loc"]) or None
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            known = ", ".join(field.alias or name for name, field in kind.model_fields.items())
            raise BadRequest(
                f"unknown field; known are {known}", param=param, code="unknown_field"
            ) from None
        raise BadRequest(first["msg"].removeprefix("Value error, "), param=param) from None


def refuse_both(request: BaseModel, one: str, other: str) -> None:
    """Refuse a request that has both fields.

    Raises:
        BadRequest: It has.
    """
    if getattr(request, one) is not None and getattr(request, other) is not None:
        raise BadRequest(f"send {one} or {other}, not both", param=one)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadRequest("a JSON name occurs twice in one object", code="invalid_json")
    return result


def _refuse_constant(name: str) -> None:
    raise BadRequest(f"{name} is no JSON number", code="invalid_json")


def _bounded_int(digits: str) -> int:
    """Python would refuse, or take quadratic time for, thousands of digits."""
    if len(digits) > 40:
        raise BadRequest("a number has too many digits", code="invalid_json")
    return int(digits)
