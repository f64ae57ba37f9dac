"""What clients send, and its bounds; anything else is a 400."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from models.validation import Problem, first_problem
from service.errors import BadRequest
from service.inference.generation import SEED_LIMIT

MAX_IMAGES: Final = 10
MAX_CATEGORIES: Final = 16
MAX_SHOWN_CHARS: Final = 40
_WITHOUT_VALUE: Final = ("missing", "extra_forbidden")
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


def in_words(message: str) -> WrapValidator:
    """Say of any value that doesn't fit that it `message`, such as "must be ..."."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(message) from None

    return WrapValidator(check)


Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
Count = Annotated[int, Field(ge=1, le=MAX_IMAGES)]
Compression = Annotated[int, Field(ge=0, le=100)]
Weights = Annotated[
    dict[
        Annotated[str, Field(max_length=200)],
        Annotated[float, Field(gt=0, le=1_000_000, description="Scaled so that all sum to 1.")],
    ],
    Field(min_length=1, max_length=MAX_CATEGORIES),
]
ImageSize = Annotated[
    str,
    Field(
        max_length=11,
        description='"auto", or "WIDTHxHEIGHT" in the model\'s proportions, up to its max_size.',
    ),
]
Background = Annotated[
    str,
    ColourOr(("auto", "opaque", "transparent", "white")),
    Field(description="Under images with transparency; opaque is white, auto leaves them so."),
]

Parsed = TypeVar("Parsed", bound=BaseModel)


class Strict(BaseModel):
    """Base of all requests: exact types, no unknown fields, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Seeded(Strict):
    """A request for several images, each with a seed."""

    n: Count | None = None
    seed: Annotated[
        Seed | None, Field(description="Of the first image; the next has seed + 1 (extension).")
    ] = None
    seeds: Annotated[
        list[Seed] | None,
        Field(min_length=1, max_length=MAX_IMAGES, description="One for each image (extension)."),
    ] = None

    @model_validator(mode="after")
    def _refuse_two_ways_to_count(self) -> Self:
        refuse_both(self, "seeds", "seed")
        if self.seeds is not None and self.n not in (None, len(self.seeds)):
            raise BadRequest(
                f"{len(self.seeds)} seeds stand for as many images: leave n out", param="n"
            )
        return self

    @property
    def count(self) -> int:
        """Number of images."""
        return self.n or (len(self.seeds) if self.seeds else 1)


def validate(kind: type[Parsed], value: Any) -> Parsed:
    """Check `value` against a request's schema.

    Raises:
        BadRequest: Names the first field at fault, with its value where that is short.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first, value = first_problem(error)
        if first.kind == "extra_forbidden":
            known = ", ".join(_fields_beside(first.place, kind))
            raise BadRequest(
                f"unknown field; known are {known}" if known else first.message,
                param=first.place,
                code="unknown_field" if first.depth == 1 else None,
            ) from None
        raise BadRequest(_with_value(first, value), param=first.place or None) from None


def _with_value(problem: Problem, value: Any) -> str:
    """The message, the field and its value: many clients show nobody else what `param` says."""
    if not problem.place:
        return problem.message
    if problem.kind in _WITHOUT_VALUE or not isinstance(value, str | int | float):
        return f"{problem.message} ({problem.place})"
    # Escapes whatever could trick a terminal.
    shown = repr(value) if isinstance(value, str) else json.dumps(value)
    if len(shown) > MAX_SHOWN_CHARS:
        return f"{problem.message} ({problem.place})"
    return f"{problem.message}; {problem.place} is {shown}"


def _fields_beside(place: str, kind: type[BaseModel]) -> list[str]:
    """The fields that there are where an unknown one was sent; none where that isn't clear."""
    models = [kind]
    for name in place.split(".")[:-1]:
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        if fields:
            models = [found for field in fields for found in _models_in(field.annotation)]
        elif not name.isdigit():  # of several models, the one with this name
            models = [
                model
                for model in models
                if "name" in model.model_fields
                and name in get_args(model.model_fields["name"].annotation)
            ]
    if len(models) != 1:
        return []
    return [field.alias or name for name, field in models[0].model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def refuse_both(request: BaseModel, one: str, other: str) -> None:
    """Refuse a request that has both fields.

    Raises:
        BadRequest: It has.
    """
    if getattr(request, one) is not None and getattr(request, other) is not None:
        raise BadRequest(f"send {one} or {other}, not both", param=one)
