"""What an augmentation request may say, and what its JSON response does."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from service.augmentation.annotations import Annotation
from service.augmentation.operations.geometry import Canvas
from service.augmentation.policies import (
    DEFAULT_POLICY,
    POLICIES,
    AnyOperation,
    PolicyName,
    with_canvas,
)
from service.errors import BadRequest
from service.fields import Compression, Count, Seed, Strict, in_words, refuse_both
from service.rendering.encoding import OutputFormat

MAX_PHOTOS: Final = 16
MAX_OPERATIONS: Final = 24

Digest = Annotated[
    str,
    Field(pattern="^[0-9a-f]{64}$"),
    in_words("must be a SHA-256 in 64 hexadecimal digits, 0-9 and a-f"),
]


class Replay(Strict):
    """What a response says of an image, to create it again."""

    photo: Annotated[int, Field(ge=0, lt=MAX_PHOTOS)] = 0
    photo_sha256: Annotated[
        Digest | None, Field(description="If given, another photo is refused.")
    ] = None
    mask_sha256: Annotated[Digest | None, Field(description="The same of its mask.")] = None
    seed: Annotated[Seed, Field(description="Comes back; nothing is drawn.")] = 0
    # A canvas may have been added.
    operations: Annotated[Sequence[AnyOperation], Field(max_length=MAX_OPERATIONS + 1)]


class AugmentationRequest(Strict):
    """Fields of POST /v1/images/augmentations beside the files; user changes nothing."""

    n: Annotated[Count | None, Field(description="Images of each photo; 1 by default.")] = None
    seed: Annotated[
        Seed | None,
        Field(description="Of the first image; the next has seed + 1, photo after photo."),
    ] = None
    policy: Annotated[
        PolicyName | None, Field(description="A named list of operations; light by default.")
    ] = None
    operations: Annotated[
        Sequence[AnyOperation] | None,
        Field(
            min_length=1,
            max_length=MAX_OPERATIONS,
            description="JSON, in place of policy. Geometry comes first and is resampled once; "
            "the others follow in their order. Ranges are [low, high], or one number.",
        ),
    ] = None
    canvas: Annotated[
        Canvas | None, Field(description="JSON: what to change of the operations' canvas.")
    ] = None
    replay: Annotated[
        Sequence[Replay] | None,
        Field(
            min_length=1,
            max_length=MAX_PHOTOS * 10,
            description="JSON, in place of all above: photo, photo_sha256, mask_sha256, seed and "
            "operations as a response's data has them result in the same pixels.",
        ),
    ] = None
    annotations: Annotated[
        Sequence[Annotation | None] | None,
        Field(min_length=1, max_length=MAX_PHOTOS, description="JSON: one for each photo."),
    ] = None
    min_visible: Annotated[
        float,
        Field(ge=0, le=1, description="Boxes and polygons of which less is seen are dropped."),
    ] = 0.1
    output_format: OutputFormat | None = None
    output_compression: Compression | None = None
    response_format: Literal["b64_json"] = "b64_json"
    user: Annotated[str | None, Field(max_length=512)] = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        refuse_both(self, "operations", "policy")
        for other in ("operations", "policy", "canvas", "n", "seed"):
            refuse_both(self, "replay", other)
        for index, entry in enumerate(self.replay or ()):
            for place, operation in enumerate(entry.operations):
                field = operation.inexact()
                if field is not None:
                    raise BadRequest(
                        "a replay draws nothing, but this is not one exact value: send the "
                        "operations as a response's data lists them, or draw with operations",
                        param=f"replay.{index}.operations.{place}.{field}",
                    )
        return self

    @property
    def operations_to_draw(self) -> Sequence[AnyOperation]:
        """The operations to draw from."""
        operations = self.operations or POLICIES[self.policy or DEFAULT_POLICY]
        return operations if self.canvas is None else with_canvas(operations, self.canvas)
