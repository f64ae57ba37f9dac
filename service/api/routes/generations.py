"""The route that paints pictures from seeds."""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.openapi import json_body, responses
from service.api.parsing.accept import settle_answer
from service.api.parsing.json_body import parse_json, require_json
from service.api.queues import time_limit
from service.api.responses import answer
from service.api.run_once import make
from service.api.runtime import COMMON, Runtime, find_model
from service.api.schemas.generations import GenerationResponse
from service.fields import validate
from service.generation.generations import generation_jobs, plan_pictures
from service.generation.output import Finishing
from service.generation.requests import GenerationRequest
from service.rendering.encoding import Encoding
from service.rendering.presentation import check_transparency
from service.rendering.recording import record


def add_generations(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/generations."""

    @app.post(
        "/v1/images/generations",
        summary="Generate pictures",
        responses=responses(GenerationResponse, *COMMON, 404),
        openapi_extra=json_body(GenerationRequest),
        response_class=Response,
    )
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 pictures of a category or a mixture, or, by default, of all in turn."""
        async with time_limit(runtime.settings.request_timeout_sec):
            require_json(request)
            asked = validate(GenerationRequest, parse_json(await request.body()))
            async with runtime.generations.place():
                work = partial(_generate, request, asked, runtime)
                return await make(request, runtime.state, [await request.body()], asked.count, work)


async def _generate(request: Request, asked: GenerationRequest, runtime: Runtime) -> Response:
    kind, output_format = settle_answer(
        request.headers.get("accept"), asked.output_format, asked.count
    )
    check_transparency(asked.background, output_format)
    model = await find_model(runtime, asked.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    plan = plan_pictures(asked, manifest)
    encoding = Encoding(runtime.marker, output_format, asked.output_compression)
    watermark = runtime.marker.watermark_of(model.session)
    finishing = Finishing(model_id, manifest, encoding, plan.presentation, watermark)
    made = await runtime.painters.run(generation_jobs(model.session, plan, finishing))
    pictures = [picture for job in made for picture in job]
    record(runtime.state.records, "generation", pictures)
    runtime.metrics.pictures.labels("generation", model_id).inc(len(pictures))
    facts = {**finishing.facts(), "truncation_psi": plan.specs[0].truncation_psi}
    return answer(kind, output_format, pictures, facts)
