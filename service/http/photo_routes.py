"""Routes that make pictures of an uploaded photo."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.augmentation.augmentations import (
    Sent,
    Task,
    augmentation_jobs,
    check_output,
    check_sizes,
    common_facts,
    open_photo,
    plan,
    sort_out,
)
from service.augmentation.requests import (
    MAX_PHOTOS,
    AugmentationRequest,
    AugmentationResponse,
    parse_fields,
)
from service.http.decoding import Decoder
from service.http.making import form_parts, make
from service.http.openapi import form_body, responses
from service.http.recording import record
from service.http.runtime import COMMON, Runtime, find_model
from service.http.workers import time_limit
from service.images.imaging import Encoding
from service.images.presentation import choose_presentation
from service.messages.answers import Finished, answer, settle_answer
from service.messages.uploads import File, read_files
from service.pictures.finishing import Finishing
from service.pictures.variations import (
    VariationRequest,
    VariationResponse,
    candidate_categories,
    error_facts,
    fit_photo,
    inversion_jobs,
    nearest,
    parse_variation_fields,
    variation_jobs,
)

FILES: Final = {"image": MAX_PHOTOS, "mask": MAX_PHOTOS}
MAX_ANNOTATION_BYTES: Final = 1_000_000
MAX_DECODED_PHOTOS: Final = 4


def add_augmentations(app: FastAPI, runtime: Runtime, decoder: Decoder) -> None:
    """Add POST /v1/images/augmentations."""
    settings = runtime.settings

    @app.post(
        "/v1/images/augmentations",
        summary="Augment photos",
        responses=responses(AugmentationResponse, *COMMON, 415, 422),
        openapi_extra=form_body(
            AugmentationRequest, "operations", "canvas", "replay", "annotations", files=FILES
        ),
        response_class=Response,
    )
    async def augment(request: Request) -> Response:
        """Make 1 to 10 variants of each of up to 16 photos, and list what was done to each.

        Masks, boxes, polygons and keypoints go the way of the pixels.
        """
        async with time_limit(settings.request_timeout_sec), runtime.uploads.place():
            limit = settings.max_upload_bytes
            form = await read_files(request, limit, FILES, MAX_ANNOTATION_BYTES)
            # A megabyte of annotations would hold the event loop up.
            parse = partial(parse_fields, form.fields, len(form.files["image"]))
            (asked,) = await runtime.workers.run([parse])
            photos, masks = form.files["image"], form.files.get("mask", [])
            sent, tasks = sort_out(asked, photos, masks), plan(asked, len(photos))
            work = partial(_augment, request, photos, sent, tasks, asked, runtime, decoder)
            return await make(request, runtime.state, form_parts(form), len(tasks), work)


async def _augment(
    request: Request,
    photos: Sequence[File],
    sent: Sequence[Sent],
    tasks: Sequence[Task],
    asked: AugmentationRequest,
    runtime: Runtime,
    decoder: Decoder,
) -> Response:
    accept = request.headers.get("accept")
    kind, output_format = settle_answer(accept, asked.output_format, len(tasks))
    check_output(tasks, output_format)
    encoding = Encoding(runtime.marker, output_format, asked.output_compression)
    await runtime.workers.run([lambda: check_sizes(tasks, sent, photos, decoder.limits)])
    pictures: dict[int, Finished] = {}
    # A few photos are held decoded at a time, however many there are.
    step = min(runtime.settings.workers, MAX_DECODED_PHOTOS)
    for start in range(0, len(photos), step):
        places: list[int] = []
        jobs: list[Callable[[], Finished]] = []
        for index in range(start, min(start + step, len(photos))):
            own = [place for place, task in enumerate(tasks) if task.photo == index]
            if own:
                photo = await decoder.decode(partial(open_photo, sent[index]), photos[index].data)
                mine = [tasks[place] for place in own]
                jobs += augmentation_jobs(photo, mine, asked.min_visible, encoding)
                places += own
        pictures |= zip(places, await runtime.workers.run(jobs), strict=True)
    runtime.metrics.pictures.labels("augmentation", "").inc(len(pictures))
    in_order = [pictures[place] for place in range(len(tasks))]
    record(runtime.state.records, "augmentation", in_order)
    return answer(kind, output_format, in_order, common_facts(in_order, output_format))


def add_variations(app: FastAPI, runtime: Runtime, decoder: Decoder) -> None:
    """Add POST /v1/images/variations."""
    settings = runtime.settings

    @app.post(
        "/v1/images/variations",
        summary="Vary a photo",
        responses=responses(VariationResponse, *COMMON, 404, 415, 422),
        openapi_extra=form_body(VariationRequest, "seeds"),
        response_class=Response,
    )
    async def vary(request: Request) -> Response:
        """Generate 1 to 10 pictures like a photo, and say how well the model knows it."""
        async with time_limit(settings.request_timeout_sec), runtime.uploads.place():
            form = await read_files(request, settings.max_upload_bytes, {"image": 1})
            asked, (photo,) = parse_variation_fields(form.fields), form.files["image"]
            work = partial(_vary, request, photo.data, asked, runtime, decoder)
            return await make(request, runtime.state, form_parts(form), asked.count, work)


async def _vary(
    request: Request, data: bytes, asked: VariationRequest, runtime: Runtime, decoder: Decoder
) -> Response:
    accept = request.headers.get("accept")
    kind, output_format = settle_answer(accept, asked.output_format, asked.count)
    model = await find_model(runtime, asked.model)
    session, manifest = model.session, model.registered.manifest
    categories = candidate_categories(asked.category, manifest)
    finishing = Finishing(
        model.registered.model_id,
        manifest,
        Encoding(runtime.marker, output_format, asked.output_compression),
        choose_presentation(asked.size, None, manifest),
        runtime.marker.watermark_of(session),
    )
    photo = await decoder.decode(lambda file, limits: fit_photo(file, limits, manifest), data)
    inverted = nearest(await runtime.painters.run(inversion_jobs(session, photo, categories)))
    made = await runtime.painters.run(variation_jobs(session, inverted, asked, finishing, photo))
    pictures = [picture for job in made for picture in job]
    record(runtime.state.records, "variation", pictures)
    runtime.metrics.pictures.labels("variation", finishing.model_id).inc(len(pictures))
    facts = {**finishing.facts(), **error_facts(inverted, manifest)}
    return answer(kind, output_format, pictures, facts)
