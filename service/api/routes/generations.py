"""The route that generates images from seeds."""

from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from service.api.endpoint import GENERATIONS, LINKS
from service.api.openapi import json_body, route
from service.api.parsing.accept import ResponseType, resolve_response
from service.api.parsing.json_body import read_json
from service.api.responses import image_response
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, find_model
from service.api.schemas.generations import GenerationResponse
from service.errors import BadRequest
from service.generation.generations import (
    GenerationPlan,
    generation_jobs,
    metadata_of,
    plan_images,
    single_requests,
)
from service.generation.output import ImageEncoder
from service.generation.requests import GenerationRequest
from service.model_store.pool import LoadedModel
from service.rendering.presentation import check_transparency

_LINKS: Final = LINKS.path.partition("{")[0]


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/generations."""

    @route(app, GENERATIONS, images=GenerationResponse, openapi_extra=json_body(GenerationRequest))
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 images of a category or a mixture, or, by default, of all in turn."""
        requested = await read_json(request, GenerationRequest, runtime.workers)
        creation = Creation(
            endpoint=GENERATIONS,
            request=request,
            body=requested,
            images=requested.count,
            queue=runtime.queues["generations"],
        )
        return await run_once(
            creation,
            runtime,
            partial(generate_images, request.headers.get("accept"), requested, runtime),
        )


async def generate_images(
    accept: str | None, requested: GenerationRequest, runtime: Runtime
) -> Created:
    """Generate a request's images, or link to them, in the kind of response that is accepted.

    Raises:
        BadRequest: The model doesn't have what is requested, or headers and fields contradict.
        Busy: No worker was free in time.
        NotFound: There is no such model.
        NotReady: No model is loaded, or images can't be signed.
    """
    kind, output_format = resolve_response(accept, requested.output_format, requested.count)
    check_transparency(requested.background, output_format)
    model = await find_model(runtime, requested.model)
    model_id, session = model.registered.model_id, model.session
    plan = plan_images(requested, session.manifest, runtime.settings.round_sizes)
    encoder = ImageEncoder.of_model(
        runtime.marker,
        model_id,
        session,
        plan.presentation,
        output_format,
        requested.output_compression,
    )
    metadata = {**encoder.metadata(), "truncation_psi": plan.specs[0].truncation_psi}
    if requested.response_format == "url":
        _check_links(kind, runtime)
        data = _links(requested, plan, model, runtime)
        return Created(response=JSONResponse({**metadata, "data": data}), model_id=model_id)
    batches = await runtime.gpu_threads.run(generation_jobs(session, plan, encoder))
    images = [image for batch in batches for image in batch]
    response = await image_response(kind, output_format, images, metadata)
    return Created(response=response, images=images, model_id=model_id)


def _links(
    requested: GenerationRequest, plan: GenerationPlan, model: LoadedModel, runtime: Runtime
) -> list[dict[str, Any]]:
    """A link to each image, which is generated when it is followed."""
    manifest = model.session.manifest
    singles = single_requests(requested, plan, model.registered.model_id, manifest)
    return [
        {"url": runtime.links.sign(_LINKS, single), **metadata_of(spec, plan.mixing, manifest)}
        for spec, single in zip(plan.specs, singles, strict=True)
    ]


def _check_links(kind: ResponseType, runtime: Runtime) -> None:
    if not runtime.links.enabled:
        raise BadRequest(
            "response_format url is not served here: send b64_json, or leave it out; the operator "
            "can set CATALOGAN_PUBLIC_URL and CATALOGAN_LINK_KEY",
            param="response_format",
        )
    if kind != "application/json":
        raise BadRequest(
            f"response_format is url, but only {kind} is accepted: accept application/json",
            param="response_format",
        )
