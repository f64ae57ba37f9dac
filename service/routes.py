"""The public API: a FastAPI app whose routes only translate."""

import time
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from service import errors
from service.answers import answer, error_response, image_format
from service.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from service.generations import Encoding, generation_jobs, picture_specs
from service.imaging import MEDIA_TYPES
from service.metrics import CONTENT_TYPE, Metrics
from service.model_pool import LoadedModel, ModelPool
from service.negotiation import choose_answer
from service.registry import RegisteredModel
from service.schemas import (
    ErrorResponse,
    GenerationRequest,
    GenerationResponse,
    ModelInfo,
    ModelList,
    parse_json,
    validate,
)
from service.settings import Settings
from service.workers import Workers

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "contentMediaType": "image/png"}}


@dataclass(frozen=True)
class Runtime:
    """What the routes work with."""

    settings: Settings
    pool: ModelPool
    workers: Workers
    metrics: Metrics


def create_app(runtime: Runtime) -> FastAPI:
    """Build the FastAPI app over `runtime`."""
    app = FastAPI(
        title="Catalogan",
        version="1",
        summary="Synthetic product pictures.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    _add_error_handlers(app)
    _add_generations(app, runtime)
    _add_models(app, runtime)

    @app.get("/v1/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return JSONResponse(app.openapi())

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        runtime.metrics.ready.set(runtime.pool.default is not None)
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE)

    return app


def _add_generations(app: FastAPI, runtime: Runtime) -> None:
    @app.post(
        "/v1/images/generations",
        summary="Generate pictures",
        responses=_responses(GenerationResponse, 400, 401, 404, 413, 429, 500, 503, 504),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": GenerationRequest.model_json_schema()}},
            }
        },
        response_class=Response,
    )
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 pictures of one category, or, by default, of all in turn."""
        async with runtime.workers.place():
            _require_json(request)
            asked = validate(GenerationRequest, parse_json(await request.body()))
            media = MEDIA_TYPES[asked.output_format] if asked.output_format else None
            kind = choose_answer(request.headers.get("accept"), media)
            output_format = image_format(kind, asked.output_format, asked.n or 1)
            model = await _model(runtime, asked.model)
            manifest, model_id = model.registered.manifest, model.registered.model_id
            specs = picture_specs(asked, manifest)
            encoding = Encoding(output_format, asked.output_compression)
            made = await runtime.workers.run(
                generation_jobs(model.session, model_id, specs, encoding)
            )
        pictures = [picture for job in made for picture in job]
        runtime.metrics.pictures.labels("generation", model_id).inc(len(pictures))
        facts = {
            "created": int(time.time()),
            "model": model_id,
            "model_hash": manifest.model_hash,
            "output_format": output_format,
            "size": f"{manifest.width}x{manifest.height}",
            "truncation_psi": specs[0].truncation_psi,
        }
        return answer(kind, output_format, pictures, facts)


def _add_models(app: FastAPI, runtime: Runtime) -> None:
    def describe(model: RegisteredModel) -> ModelInfo:
        default = runtime.pool.default
        return _model_info(
            model, default is not None and default.registered.model_id == model.model_id
        )

    @app.get("/v1/models", summary="List models", responses=_responses(None, 401))
    def list_models() -> ModelList:
        """Models that requests may name."""
        return ModelList(data=[describe(model) for model in runtime.pool.promoted()])

    @app.get("/v1/models/{model}", summary="Show a model", responses=_responses(None, 401, 404))
    def show_model(model: str) -> ModelInfo:
        """One model, by name or "name:version"."""
        for known in runtime.pool.promoted():
            if model in (known.name, known.model_id):
                return describe(known)
        raise NotFound("no such model is served; GET /v1/models lists them", param="model")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        kinds: dict[int, type[ApiError]] = {404: NotFound, 405: MethodNotAllowed}
        translated = kinds.get(error.status_code, BadRequest)(str(error.detail))
        translated.headers.update(error.headers or {})
        return error_response(translated)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(ApiError("something went wrong; the log knows more"))


async def _model(runtime: Runtime, model_id: str | None) -> LoadedModel:
    """Look the model up; loading one takes a worker, not the event loop."""
    (model,) = await runtime.workers.run([lambda: runtime.pool.get(model_id)])
    return model


def _require_json(request: Request) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest("send the body as Content-Type: application/json", param="Content-Type")


def _model_info(model: RegisteredModel, default: bool) -> ModelInfo:
    manifest = model.manifest
    return ModelInfo(
        id=model.name,
        created=int(manifest.created.timestamp()),
        owned_by=manifest.author,
        version=model.version,
        model_hash=manifest.model_hash,
        default=default,
        categories=list(manifest.categories),
        size=f"{manifest.width}x{manifest.height}",
        channels=manifest.channels,
        truncation_psi=manifest.truncation_psi,
        licence=manifest.licence,
    )


def _responses(pictures: type | None, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's response table for a route."""
    table: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": _STATUS_TEXT[status]} for status in statuses
    }
    if pictures is not None:
        binary = {
            media: {"schema": {"type": "string", "contentMediaType": media}}
            for media in (*MEDIA_TYPES.values(), "application/zip")
        }
        table[200] = {"model": pictures, "description": "The pictures", "content": binary}
    return table


_STATUS_TEXT: Final = {
    kind.status: (kind.__doc__ or "").partition(":")[2].strip() or "Something went wrong."
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ApiError)
}
