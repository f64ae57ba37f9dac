"""A checked augmentation request -> images, annotations and exactly what was done to each."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from service.augmentation.annotations import Annotation, check_annotation
from service.augmentation.budget import Budget
from service.augmentation.instances import find_instances
from service.augmentation.masks import match_masks
from service.augmentation.operations.base import Size
from service.augmentation.operations.geometry import MAX_SIDE_PX, GeometricOperation
from service.augmentation.pipeline import (
    Photo,
    compose,
    draw_operations,
    may_be_transparent,
    render,
    work_pixels,
)
from service.augmentation.policies import AnyOperation
from service.augmentation.projection import Annotated, carry
from service.augmentation.requests import AugmentationRequest
from service.augmentation.resampling import View, warp_labels
from service.decoding.processes import DecodingProcesses
from service.decoding.uploads import File, measure_upload, open_mask, open_upload
from service.errors import BadRequest
from service.inference.generation import consecutive_seeds
from service.provenance.origin import edited_source_type
from service.provenance.xmp import Mark
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import Encoding, OutputFormat, encode_image
from service.rendering.presentation import check_transparency
from service.telemetry.observation import stage

# Of all images of a response together: ten of the largest size.
MAX_RESPONSE_PIXELS: Final = 10 * MAX_SIDE_PX**2


@dataclass(frozen=True)
class Task:
    """One image to create: of which photo, with which seed, and what is done.

    `exact` operations are done as they are; others are drawn from.
    """

    photo: int
    seed: int
    operations: Sequence[AnyOperation]
    exact: bool = False
    photo_sha256: str | None = None
    mask_sha256: str | None = None


def plan(request: AugmentationRequest, photos: int) -> list[Task]:
    """List the images to create, in the response's order."""
    if request.replay is not None:
        return [
            Task(e.photo, e.seed, e.operations, True, e.photo_sha256, e.mask_sha256)
            for e in request.replay
        ]
    each = request.n or 1
    seeds = consecutive_seeds(request.seed, photos * each)
    return [
        Task(index // each, seed, request.operations_to_draw) for index, seed in enumerate(seeds)
    ]


def check_output(tasks: Sequence[Task], output_format: OutputFormat) -> None:
    """Refuse transparency in a format that has none.

    Raises:
        BadRequest: It was requested.
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


def open_photo(sent: Sent, data: bytes, decoding: DecodingProcesses) -> Photo:
    """Decode a photo with its mask, and scale it down to the largest size that is served.

    Raises:
        ApiError: They can't be used, alone or together.
    """
    opened, mask = open_upload(data, decoding, MAX_SIDE_PX, sent.param), sent.mask
    labels = None if mask is None else open_mask(mask.data, opened.size, decoding, sent.mask_param)
    known = None
    if sent.annotation is not None:
        check_annotation(sent.annotation, opened.size, sent.annotation_param)
        instances = find_instances(sent.annotation, opened.size, labels)
        known = Annotated(sent.annotation, opened.size, instances)
    return Photo(
        sent.param,
        opened.size,
        hashlib.sha256(data).hexdigest(),
        opened.pixels,
        opened.alpha,
        labels,
        None if mask is None else hashlib.sha256(mask.data).hexdigest(),
        known,
        edited_source_type(data),
    )


def check_sizes(
    tasks: Sequence[Task],
    sent: Sequence[Sent],
    photos: Sequence[File],
    budget: Budget,
    decoding: DecodingProcesses,
) -> None:
    """Refuse photos that can't be used, as far as their headers tell, and too large a response.

    Raises:
        ApiError: Names the photo, n or annotations.
    """
    annotations = (sent[task.photo].annotation for task in tasks)
    budget.check_points(sum(known.points for known in annotations if known is not None))
    frames = [
        _frame(measure_upload(photo.data, decoding, known.param))
        for photo, known in zip(photos, sent, strict=True)
    ]
    if sum(_area(task.operations, frames[task.photo]) for task in tasks) > MAX_RESPONSE_PIXELS:
        raise BadRequest(
            f"all images of a response may have {MAX_RESPONSE_PIXELS} pixels together: request "
            "fewer, send fewer photos, or set a smaller canvas",
            param="n",
            code="too_many_pixels",
        )


def _frame(size: Size) -> Size:
    """The size at which a photo is worked on."""
    shrink = min(1.0, MAX_SIDE_PX / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def _area(operations: Sequence[AnyOperation], stored: Size) -> int:
    """Pixels of an image, the larger number where it isn't known yet which way is up."""
    areas = []
    for size in (stored, stored[::-1]):
        for operation in operations:
            if isinstance(operation, GeometricOperation):
                size = operation.frame(size)
        areas.append(size[0] * size[1])
    return max(areas)


def augmentation_jobs(
    photo: Photo, tasks: Sequence[Task], min_visible: float, encoding: Encoding, budget: Budget
) -> list[Callable[[], EncodedImage]]:
    """One job for each image; it depends on photo, operations and its own seed alone.

    What replays cost is known, and taken from the budget before anything is created.

    Raises:
        BadRequest: A replay was of another photo or mask, or the budget is used up.
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
        if task.exact:
            _take_pixels(photo, task, task.operations, budget)
    return [partial(_augment, photo, task, min_visible, encoding, budget) for task in tasks]


def _take_pixels(photo: Photo, task: Task, drawn: Sequence[AnyOperation], budget: Budget) -> None:
    pixels = work_pixels(photo, drawn, compose(drawn, photo))
    budget.take_pixels(pixels, "replay" if task.exact else "n")


def common_metadata(images: Sequence[EncodedImage], output_format: OutputFormat) -> dict[str, Any]:
    """What holds for all images of a response."""
    sizes = {image.metadata["size"] for image in images}
    same = {"size": sizes.pop()} if len(sizes) == 1 else {}
    return {"created": int(time.time()), "output_format": output_format, **same}


def _augment(
    photo: Photo, task: Task, min_visible: float, encoding: Encoding, budget: Budget
) -> EncodedImage:
    drawn = task.operations if task.exact else draw_operations(task.operations, task.seed, photo)
    if not task.exact:
        _take_pixels(photo, task, drawn, budget)
    view = compose(drawn, photo)
    pixels = render(photo, drawn, view)
    metadata = _metadata(photo, task, drawn, view)
    parameters = {name: metadata[name] for name in ("photo_sha256", "operations")}
    mark = Mark(
        photo.source_type,
        task.seed,
        parameters=json.dumps(parameters, separators=(",", ":")),
        photos=(photo.sha256,),
        manifest=photo.manifest,
    )
    with stage("encode"):
        data = encode_image(pixels, encoding, mark)
    if photo.known is not None:
        carried = carry(photo.known, view, min_visible)
        budget.take_annotation_bytes(len(json.dumps(carried, ensure_ascii=False).encode()))
        metadata["annotations"] = carried
    return EncodedImage.of(data, metadata, mark, _warped_mask(photo, view))


def _metadata(
    photo: Photo, task: Task, drawn: Sequence[AnyOperation], view: View
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"photo": task.photo, "photo_sha256": photo.sha256}
    if photo.mask_sha256 is not None:
        metadata["mask_sha256"] = photo.mask_sha256
    metadata |= {
        "seed": task.seed,
        "size": f"{view.size[0]}x{view.size[1]}",
        "matrix": (view.matrix / view.matrix[2, 2]).tolist(),
        "operations": [operation.model_dump(mode="json", exclude_none=True) for operation in drawn],
    }
    if any(operation.needs_subject() for operation in drawn):
        metadata["subject"] = photo.require_subject().kind
    return metadata


def _warped_mask(photo: Photo, view: View) -> bytes | None:
    if photo.mask is None:
        return None
    buffer = io.BytesIO()
    warp_labels(photo.mask, view).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
