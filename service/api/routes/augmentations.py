"""POST /v1/images/augmentations: variants of uploaded photos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.endpoint import AUGMENTATIONS
from service.api.openapi import form_body, route
from service.api.parsing.accept import resolve_response
from service.api.parsing.form_fields import typed_fields
from service.api.parsing.multipart import read_files
from service.api.responses import image_response
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, keep_manifest
from service.api.schemas.augmentations import AugmentationResponse
from service.augmentation.budget import Budget
from service.augmentation.jobs import (
    Sent,
    Task,
    augmentation_jobs,
    check_output,
    check_sizes,
    common_metadata,
    open_photo,
    plan,
    sort_out,
)
from service.augmentation.pipeline import Photo
from service.augmentation.requests import MAX_PHOTOS, AugmentationRequest
from service.decoding.uploads import File
from service.errors import BadRequest
from service.fields import validate
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import Encoding

FILES: Final = {"image": MAX_PHOTOS, "mask": MAX_PHOTOS}
MAX_ANNOTATION_BYTES: Final = 1_000_000
MAX_DECODED_PHOTOS: Final = 4


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/augmentations."""
    settings = runtime.settings

    @route(
        app,
        AUGMENTATIONS,
        images=AugmentationResponse,
        openapi_extra=form_body(
            AugmentationRequest, "operations", "canvas", "replay", "annotations", files=FILES
        ),
    )
    async def augment(request: Request) -> Response:
        """Create 1 to 10 variants of each of up to 16 photos, and list what was done to each.

        Masks, boxes, polygons and keypoints go the way of the pixels.
        """
        runtime.queues["uploads"].check()
        form = await read_files(request, settings.max_upload_bytes, FILES, MAX_ANNOTATION_BYTES)
        async with runtime.queues["uploads"].slot():
            # A megabyte of annotations would hold the event loop up.
            parse = partial(parse_fields, form.fields, len(form.files["image"]))
            (requested,) = await runtime.workers.run([parse])
            photos, masks = form.files["image"], form.files.get("mask", [])
            sent, tasks = sort_out(requested, photos, masks), plan(requested, len(photos))
            work = partial(_augment, request, photos, sent, tasks, requested, runtime)
            creation = Creation(
                endpoint=AUGMENTATIONS,
                request=request,
                body=requested,
                files=form.files,
                images=len(tasks),
            )
            return await run_once(creation, runtime, work)


async def _augment(
    request: Request,
    photos: Sequence[File],
    sent: Sequence[Sent],
    tasks: Sequence[Task],
    requested: AugmentationRequest,
    runtime: Runtime,
) -> Created:
    accept = request.headers.get("accept")
    kind, output_format = resolve_response(accept, requested.output_format, len(tasks))
    check_output(tasks, output_format)
    encoding = Encoding(runtime.marker, output_format, requested.output_compression)
    assert AUGMENTATIONS.work is not None
    budget = Budget(AUGMENTATIONS.work)
    await runtime.decoder.run(partial(check_sizes, tasks, sent, photos, budget))
    images: dict[int, EncodedImage] = {}
    # A few photos are held decoded at a time, however many there are.
    step = min(runtime.settings.workers, MAX_DECODED_PHOTOS)
    for start in range(0, len(photos), step):
        positions: list[int] = []
        jobs: list[Callable[[], EncodedImage]] = []
        for index in range(start, min(start + step, len(photos))):
            own = [position for position, task in enumerate(tasks) if task.photo == index]
            if own:
                photo = await _open(photos[index], sent[index], runtime)
                mine = [tasks[position] for position in own]
                plans = partial(
                    augmentation_jobs, photo, mine, requested.min_visible, encoding, budget
                )
                (planned,) = await runtime.workers.run([plans])
                jobs += planned
                positions += own
        images |= zip(positions, await runtime.workers.run(jobs), strict=True)
    in_order = [images[position] for position in range(len(tasks))]
    metadata = common_metadata(in_order, output_format)
    response = await image_response(kind, output_format, in_order, metadata)
    return Created(response=response, images=in_order)


async def _open(photo: File, sent: Sent, runtime: Runtime) -> Photo:
    """Decode a photo, and take its own manifest along."""
    opened = await runtime.decoder.run(partial(open_photo, sent, photo.data))
    kept = await keep_manifest(runtime, photo.data, generated=False)
    return replace(opened, manifest=kept)


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
            raise BadRequest(
                f"names photo {entry.photo}, counted from 0, but there are {photos}",
                param=f"replay.{index}.photo",
            )
    return request
