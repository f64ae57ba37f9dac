"""POST /v1/images/variations: images like an uploaded photo."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.endpoint import VARIATIONS
from service.api.openapi import form_body, route
from service.api.parsing.accept import resolve_response
from service.api.parsing.form_fields import typed_fields
from service.api.parsing.multipart import read_files
from service.api.responses import image_response
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, find_model, keep_manifest
from service.api.schemas.variations import VariationResponse
from service.fields import validate
from service.generation.output import ImageEncoder
from service.generation.requests import VariationRequest
from service.generation.variations import (
    candidate_categories,
    error_metadata,
    fit_photo,
    inversion_jobs,
    nearest,
    variation_jobs,
)
from service.rendering.presentation import choose_presentation


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/variations."""
    settings = runtime.settings

    @route(
        app,
        VARIATIONS,
        images=VariationResponse,
        openapi_extra=form_body(VariationRequest, "seeds"),
    )
    async def vary(request: Request) -> Response:
        """Generate 1 to 10 images like a photo, and say how well the model knows it."""
        runtime.queues["uploads"].check()
        form = await read_files(request, settings.max_upload_bytes, {"image": 1})
        async with runtime.queues["uploads"].slot():
            requested, (photo,) = parse_variation_fields(form.fields), form.files["image"]
            work = partial(_vary, request, photo.data, requested, runtime)
            creation = Creation(
                endpoint=VARIATIONS,
                request=request,
                body=requested,
                files=form.files,
                images=requested.count,
            )
            return await run_once(creation, runtime, work)


async def _vary(
    request: Request, data: bytes, requested: VariationRequest, runtime: Runtime
) -> Created:
    accept = request.headers.get("accept")
    kind, output_format = resolve_response(accept, requested.output_format, requested.count)
    model = await find_model(runtime, requested.model)
    session, manifest = model.session, model.registered.manifest
    categories = candidate_categories(requested.category, manifest)
    encoder = ImageEncoder.of_model(
        runtime.marker,
        model.registered.model_id,
        session,
        choose_presentation(requested.size, None, manifest, runtime.settings.round_sizes),
        output_format,
        requested.output_compression,
    )
    photo = await runtime.decoder.run(partial(fit_photo, data, manifest, "image"))
    kept = await keep_manifest(runtime, data, generated=True)
    encoder = replace(encoder, photo_manifest=kept)
    inverted = nearest(await runtime.gpu_threads.run(inversion_jobs(session, photo, categories)))
    batches = await runtime.gpu_threads.run(
        variation_jobs(session, inverted, requested, encoder, photo)
    )
    images = [image for batch in batches for image in batch]
    metadata = {**encoder.metadata(), **error_metadata(inverted, manifest)}
    response = await image_response(kind, output_format, images, metadata)
    return Created(response=response, images=images, model_id=encoder.model_id)


def parse_variation_fields(fields: Mapping[str, str]) -> VariationRequest:
    """Turn a form's text fields into a checked request.

    Raises:
        BadRequest: Names the field at fault.
    """
    integers = ("n", "seed", "output_compression")
    values = typed_fields(fields, integers=integers, numbers=("strength",), json=("seeds",))
    return validate(VariationRequest, values)
