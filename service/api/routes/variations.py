"""POST /v1/images/variations: pictures like an uploaded photo."""

from collections.abc import Mapping
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.openapi import form_body, responses
from service.api.parsing.accept import settle_answer
from service.api.parsing.form_fields import typed_fields
from service.api.parsing.multipart import form_parts, read_files
from service.api.queues import time_limit
from service.api.responses import answer
from service.api.run_once import make
from service.api.runtime import COMMON, Runtime, find_model
from service.api.schemas.variations import VariationResponse
from service.decoding.decoder import Decoder
from service.fields import validate
from service.generation.output import Finishing
from service.generation.requests import VariationRequest
from service.generation.variations import (
    candidate_categories,
    error_facts,
    fit_photo,
    inversion_jobs,
    nearest,
    variation_jobs,
)
from service.rendering.encoding import Encoding
from service.rendering.presentation import choose_presentation
from service.rendering.recording import record


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


def parse_variation_fields(fields: Mapping[str, str]) -> VariationRequest:
    """Turn a form's text fields into a checked request.

    Raises:
        BadRequest: Names the field at fault.
    """
    integers = ("n", "seed", "output_compression")
    values = typed_fields(fields, integers=integers, numbers=("strength",), json=("seeds",))
    return validate(VariationRequest, values)
