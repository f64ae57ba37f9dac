"""An augmentation request -> pictures, their annotations and exactly what was done to each."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from models.images import ImageLimits
from service.augmentation.annotations import Annotation, carry, check_annotation
from service.augmentation.augmentation import (
    Photo,
    compose,
    draw_operations,
    may_be_transparent,
    render,
)
from service.augmentation.geometry import MAX_SIDE_PX, Canvas, GeometricOperation
from service.augmentation.operation import Size, SubjectKind
from service.augmentation.policies import (
    DEFAULT_POLICY,
    POLICIES,
    AnyOperation,
    PolicyName,
    with_canvas,
)
from service.augmentation.warping import View, warp_labels
from service.errors import BadRequest
from service.images.imaging import Encoding, OutputFormat, encode_image
from service.images.presentation import check_transparency
from service.inference.generation import consecutive_seeds
from service.marks.marking import ENHANCED, Mark
from service.messages.answers import Finished
from service.messages.forms import typed_fields
from service.messages.schemas import Compression, Count, Seed, Strict, refuse_both, validate
from service.messages.uploads import File, match_masks, measure_upload, open_mask, open_upload

MAX_PHOTOS: Final = 16
MAX_OPERATIONS: Final = 24
# Of all pictures of an answer together: ten of the largest size.
MAX_ANSWER_PIXELS: Final = 10 * MAX_SIDE_PX**2

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Replay(Strict):
    """What an answer says of a picture, to make it again."""

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

    n: Annotated[Count | None, Field(description="Pictures of each photo; 1 by default.")] = None
    seed: Annotated[
        Seed | None,
        Field(description="Of the first picture; the next has seed + 1, photo after photo."),
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
            "operations as an answer's data has them give the same pixels again.",
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
                        "a replay draws nothing, but this is not one exact value",
                        param=f"replay.{index}.operations.{place}.{field}",
                    )
        return self

    @property
    def asked(self) -> Sequence[AnyOperation]:
        """The operations to draw from."""
        operations = self.operations or POLICIES[self.policy or DEFAULT_POLICY]
        return operations if self.canvas is None else with_canvas(operations, self.canvas)


class CarriedAnnotation(BaseModel):
    """An annotation in the pixels of a picture; the fields are those of the request."""

    label: str | int | None
    format: Literal["coco", "xyxy"]
    boxes: list[list[float]]
    labels: Annotated[list[str | int] | None, Field(description="Left out where none came.")] = None
    visible: Annotated[list[float], Field(description="The share of each box that is seen.")]
    polygons: list[list[float]]
    keypoints: list[list[list[float]]]
    dropped: Annotated[
        dict[Literal["boxes", "polygons"], list[int]],
        Field(description="Indexes of those of which too little is seen."),
    ]


class AugmentedPicture(BaseModel):
    """One picture of a JSON answer."""

    b64_json: str
    mask_b64_json: Annotated[str | None, Field(description="PNG, where a mask came.")] = None
    photo: Annotated[int, Field(description="Index of the photo, from 0.")]
    photo_sha256: str
    mask_sha256: str | None = None
    seed: Seed
    size: Annotated[str, Field(description='"WIDTHxHEIGHT"')]
    matrix: Annotated[
        list[list[float]], Field(description="3 x 3, from photo pixels to picture pixels.")
    ]
    subject: Annotated[
        SubjectKind | None, Field(description="How it was known, where it was asked for.")
    ] = None
    operations: list[dict[str, Any]]
    annotations: CarriedAnnotation | None = None


class AugmentationResponse(BaseModel):
    """JSON answer of POST /v1/images/augmentations."""

    created: int
    data: list[AugmentedPicture]
    output_format: OutputFormat
    size: Annotated[str | None, Field(description="Left out where sizes differ.")] = None


@dataclass(frozen=True)
class Task:
    """One picture to make: of which photo, with which seed, and what is done.

    `exact` operations are done as they are; others are drawn from.
    """

    photo: int
    seed: int
    operations: Sequence[AnyOperation]
    exact: bool = False
    photo_sha256: str | None = None
    mask_sha256: str | None = None


def parse_fields(fields: Mapping[str, str], photos: int) -> AugmentationRequest:
    """Turn a form's text fields into a checked request about so many photos.

    Raises:
        BadRequest: Names the field at fault.
    """
    values = typed_fields(
        fields,
        integers=("n", "seed", "output_compression"),
        numbers=("min_visible",),
        json=("operations", "canvas", "replay", "annotations"),
    )
    request = validate(AugmentationRequest, values)
    if request.annotations is not None and len(request.annotations) != photos:
        raise BadRequest(
            f"{len(request.annotations)} annotations for {photos} photos: send one for each, "
            "null where there is none",
            param="annotations",
        )
    for index, entry in enumerate(request.replay or ()):
        if entry.photo >= photos:
            raise BadRequest(f"there are only {photos} photos", param=f"replay.{index}.photo")
    return request


def plan(request: AugmentationRequest, photos: int) -> list[Task]:
    """List the pictures to make, in the answer's order."""
    if request.replay is not None:
        return [
            Task(e.photo, e.seed, e.operations, True, e.photo_sha256, e.mask_sha256)
            for e in request.replay
        ]
    each = request.n or 1
    seeds = consecutive_seeds(request.seed, photos * each)
    return [Task(index // each, seed, request.asked) for index, seed in enumerate(seeds)]


def check_output(tasks: Sequence[Task], output_format: OutputFormat) -> None:
    """Refuse transparency in a format that has none.

    Raises:
        BadRequest: It was asked for.
    """
    if any(may_be_transparent(task.operations) for task in tasks):
        check_transparency("transparent", output_format)


@dataclass(frozen=True)
class Sent:
    """What came with a photo, and how errors name it: with an index where it is one of several."""

    param: str
    mask_param: str
    annotation_param: str
    mask: File | None
    annotation: Annotation | None


def sort_out(
    request: AugmentationRequest, photos: Sequence[File], masks: Sequence[File]
) -> list[Sent]:
    """Say what belongs to each photo.

    Raises:
        BadRequest: The masks can't be matched.
    """
    annotations = request.annotations or [None] * len(photos)
    names = [f".{index}" if len(photos) > 1 else "" for index in range(len(photos))]
    return [
        Sent(f"image{name}", f"mask{name}", f"annotations.{index}", mask, annotation)
        for index, (name, mask, annotation) in enumerate(
            zip(names, match_masks(photos, masks), annotations, strict=True)
        )
    ]


def open_photo(sent: Sent, data: bytes, limits: ImageLimits) -> Photo:
    """Decode a photo with its mask, and scale it down to the largest size that is served.

    Raises:
        ApiError: They can't be used, alone or together.
    """
    image = open_upload(data, limits, sent.param)
    size, mask = image.size, sent.mask
    labels = None if mask is None else open_mask(mask.data, size, sent.mask_param)
    if sent.annotation is not None:
        check_annotation(sent.annotation, size, sent.annotation_param)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return Photo(
        sent.param,
        size,
        hashlib.sha256(data).hexdigest(),
        np.asarray(image.convert("RGB")),
        alpha,
        labels,
        None if mask is None else hashlib.sha256(mask.data).hexdigest(),
        sent.annotation,
    )


def check_sizes(
    tasks: Sequence[Task], sent: Sequence[Sent], photos: Sequence[File], limits: ImageLimits
) -> None:
    """Refuse photos that can't be used, as far as their headers tell, and too large an answer.

    Raises:
        ApiError: Names the photo, or n.
    """
    frames = [
        _frame(measure_upload(photo.data, limits, known.param))
        for photo, known in zip(photos, sent, strict=True)
    ]
    if sum(_area(task.operations, frames[task.photo]) for task in tasks) > MAX_ANSWER_PIXELS:
        raise BadRequest(
            f"all pictures of an answer may have {MAX_ANSWER_PIXELS} pixels together: ask for "
            "fewer, send fewer photos, or set a smaller canvas",
            param="n",
            code="too_many_pixels",
        )


def _frame(size: Size) -> Size:
    """The size at which a photo is worked on."""
    shrink = min(1.0, MAX_SIDE_PX / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def _area(operations: Sequence[AnyOperation], stored: Size) -> int:
    """Pixels of a picture, the larger number where it isn't known yet which way is up."""
    areas = []
    for size in (stored, stored[::-1]):
        for operation in operations:
            if isinstance(operation, GeometricOperation):
                size = operation.frame(size)
        areas.append(size[0] * size[1])
    return max(areas)


def augmentation_jobs(
    photo: Photo, tasks: Sequence[Task], min_visible: float, encoding: Encoding
) -> list[Callable[[], Finished]]:
    """One job for each picture; it depends on photo, operations and its own seed alone.

    Raises:
        BadRequest: A replay was of another photo or mask.
    """
    for task in tasks:
        for kind, wanted, found in (
            ("photo", task.photo_sha256, photo.sha256),
            ("mask", task.mask_sha256, photo.mask_sha256),
        ):
            if wanted not in (None, found):
                raise BadRequest(
                    f"this is not the {kind} of the replay: its SHA-256 is {found or 'missing'}",
                    param=photo.param,
                    code="another_photo",
                )
    return [partial(_augment, photo, task, min_visible, encoding) for task in tasks]


def common_facts(pictures: Sequence[Finished], output_format: OutputFormat) -> dict[str, Any]:
    """What holds for all pictures of an answer."""
    sizes = {picture.facts["size"] for picture in pictures}
    same = {"size": sizes.pop()} if len(sizes) == 1 else {}
    return {"created": int(time.time()), "output_format": output_format, **same}


def _augment(photo: Photo, task: Task, min_visible: float, encoding: Encoding) -> Finished:
    drawn = task.operations if task.exact else draw_operations(task.operations, task.seed, photo)
    view = compose(drawn, photo)
    pixels = render(photo, drawn, view)
    facts = _facts(photo, task, drawn, view)
    recipe = {name: facts[name] for name in ("photo_sha256", "operations")}
    mark = Mark(ENHANCED, task.seed, recipe=json.dumps(recipe, separators=(",", ":")))
    data = encode_image(pixels, encoding.output_format, mark, encoding.quality)
    if photo.annotation is not None:
        facts["annotations"] = carry(photo.annotation, view, photo.size, min_visible)
    return Finished(data, facts, _warped_mask(photo, view))


def _facts(photo: Photo, task: Task, drawn: Sequence[AnyOperation], view: View) -> dict[str, Any]:
    facts: dict[str, Any] = {"photo": task.photo, "photo_sha256": photo.sha256}
    if photo.mask_sha256 is not None:
        facts["mask_sha256"] = photo.mask_sha256
    facts |= {
        "seed": task.seed,
        "size": f"{view.size[0]}x{view.size[1]}",
        "matrix": (view.matrix / view.matrix[2, 2]).tolist(),
        "operations": [operation.model_dump(mode="json", exclude_none=True) for operation in drawn],
    }
    if any(operation.needs_subject() for operation in drawn):
        facts["subject"] = photo.require_subject().kind
    return facts


def _warped_mask(photo: Photo, view: View) -> bytes | None:
    if photo.mask is None:
        return None
    buffer = io.BytesIO()
    warp_labels(photo.mask, view).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
