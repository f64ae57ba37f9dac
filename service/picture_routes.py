"""Routes that paint pictures from seeds."""

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.answers import answer, settle_answer
from service.finishing import Finishing
from service.generations import generation_jobs, plan_pictures
from service.imaging import Encoding
from service.openapi import json_body, responses
from service.presentation import check_transparency
from service.runtime import COMMON, Runtime, find_model, require_json
from service.schemas import GenerationRequest, GenerationResponse, parse_json, validate
from service.workers import time_limit


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
                return await _generate(request, asked, runtime)


async def _generate(request: Request, asked: GenerationRequest, runtime: Runtime) -> Response:
    kind, output_format = settle_answer(
        request.headers.get("accept"), asked.output_format, asked.count
    )
    check_transparency(asked.background, output_format)
    model = await find_model(runtime, asked.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    plan = plan_pictures(asked, manifest)
    encoding = Encoding(output_format, asked.output_compression)
    finishing = Finishing(model_id, manifest, encoding, plan.presentation)
    made = await runtime.workers.run(generation_jobs(model.session, plan, finishing))
    pictures = [picture for job in made for picture in job]
    runtime.metrics.pictures.labels("generation", model_id).inc(len(pictures))
    facts = {**finishing.facts(), "truncation_psi": plan.specs[0].truncation_psi}
    return answer(kind, output_format, pictures, facts)
