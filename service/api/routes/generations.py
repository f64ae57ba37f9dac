"""The route that paints pictures from seeds."""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.endpoint import GENERATIONS
from service.api.openapi import json_body, route
from service.api.parsing.accept import resolve_response
from service.api.parsing.json_body import parse_json, require_json
from service.api.queues import time_limit
from service.api.responses import answer
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, find_model
from service.api.schemas.generations import GenerationResponse
from service.fields import validate
from service.generation.generations import generation_jobs, plan_pictures
from service.generation.output import Finishing
from service.generation.requests import GenerationRequest
from service.rendering.presentation import check_transparency


def add_generations(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/generations."""

    @route(app, GENERATIONS, images=GenerationResponse, openapi_extra=json_body(GenerationRequest))
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 pictures of a category or a mixture, or, by default, of all in turn."""
        async with time_limit(runtime.settings.request_timeout_sec):
            require_json(request)
            asked = validate(GenerationRequest, parse_json(await request.body()))
            creation = Creation(
                endpoint=GENERATIONS,
                request=request,
                body=[await request.body()],
                images=asked.count,
                queue=runtime.queues["generations"],
            )
            return await run_once(creation, runtime, partial(_generate, request, asked, runtime))


async def _generate(request: Request, asked: GenerationRequest, runtime: Runtime) -> Created:
    kind, output_format = resolve_response(
        request.headers.get("accept"), asked.output_format, asked.count
    )
    check_transparency(asked.background, output_format)
    model = await find_model(runtime, asked.model)
    model_id, session = model.registered.model_id, model.session
    plan = plan_pictures(asked, session.manifest)
    finishing = Finishing.of_model(
        runtime.marker,
        model_id,
        session,
        plan.presentation,
        output_format,
        asked.output_compression,
    )
    made = await runtime.painters.run(generation_jobs(session, plan, finishing))
    pictures = [picture for job in made for picture in job]
    facts = {**finishing.facts(), "truncation_psi": plan.specs[0].truncation_psi}
    response = answer(kind, output_format, pictures, facts)
    return Created(response=response, images=pictures, model_id=model_id)
