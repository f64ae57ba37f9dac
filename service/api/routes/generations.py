"""The route that generates images from seeds."""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.endpoint import GENERATIONS
from service.api.openapi import json_body, route
from service.api.parsing.accept import resolve_response
from service.api.parsing.json_body import read_json
from service.api.responses import image_response
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, find_model
from service.api.schemas.generations import GenerationResponse
from service.generation.generations import generation_jobs, plan_images
from service.generation.output import ImageEncoder
from service.generation.requests import GenerationRequest
from service.rendering.presentation import check_transparency


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/generations."""

    @route(app, GENERATIONS, images=GenerationResponse, openapi_extra=json_body(GenerationRequest))
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 images of a category or a mixture, or, by default, of all in turn."""
        requested = await read_json(request, GenerationRequest)
        creation = Creation(
            endpoint=GENERATIONS,
            request=request,
            body=requested,
            images=requested.count,
            queue=runtime.queues["generations"],
        )
        return await run_once(creation, runtime, partial(_generate, request, requested, runtime))


async def _generate(request: Request, requested: GenerationRequest, runtime: Runtime) -> Created:
    kind, output_format = resolve_response(
        request.headers.get("accept"), requested.output_format, requested.count
    )
    check_transparency(requested.background, output_format)
    model = await find_model(runtime, requested.model)
    model_id, session = model.registered.model_id, model.session
    plan = plan_images(requested, session.manifest)
    encoder = ImageEncoder.of_model(
        runtime.marker,
        model_id,
        session,
        plan.presentation,
        output_format,
        requested.output_compression,
    )
    batches = await runtime.gpu_threads.run(generation_jobs(session, plan, encoder))
    images = [image for batch in batches for image in batch]
    metadata = {**encoder.metadata(), "truncation_psi": plan.specs[0].truncation_psi}
    response = await image_response(kind, output_format, images, metadata)
    return Created(response=response, images=images, model_id=model_id)
