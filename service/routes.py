"""The public API: a FastAPI app whose routes only translate."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from models.images import ImageLimits
from models.manifest import MAPPING_FILE
from service.answers import answer, error_response, image_format
from service.augmentations import (
    AugmentationRequest,
    AugmentationResponse,
    augmentation_jobs,
    open_photo,
    parse_fields,
)
from service.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from service.finishing import Finishing
from service.generations import generation_jobs, plan_pictures
from service.imaging import MEDIA_TYPES, Encoding
from service.metrics import CONTENT_TYPE, Metrics
from service.model_pool import LoadedModel, ModelPool
from service.negotiation import choose_answer
from service.openapi import describe, form_body, json_body, responses
from service.presentation import check_transparency
from service.registry import RegisteredModel
from service.schemas import (
    GenerationRequest,
    GenerationResponse,
    ModelInfo,
    ModelList,
    parse_json,
    validate,
)
from service.settings import Settings
from service.uploads import read_form
from service.workers import Queue, Workers, time_limit

# The statuses that any route which makes pictures may answer with.
COMMON: Final = (400, 401, 413, 429, 500, 503, 504)


@dataclass(frozen=True)
class Runtime:
    """What the routes work with.

    Uploads have a queue of their own: a slow sender holds a place while it sends.
    """

    settings: Settings
    pool: ModelPool
    workers: Workers
    metrics: Metrics
    generations: Queue
    uploads: Queue

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a model is loaded, and no shutdown has begun."""
        return self.pool.default is not None and not self.generations.draining

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        self.generations.draining = self.uploads.draining = True


def create_app(runtime: Runtime) -> FastAPI:
    """Build the FastAPI app over `runtime`."""
    app = FastAPI(title="Catalogan", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    _add_generations(app, runtime)
    _add_augmentations(app, runtime)
    _add_models(app, runtime)

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(describe(app))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        runtime.metrics.ready.set(runtime.ready)
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE)

    return app


def _add_generations(app: FastAPI, runtime: Runtime) -> None:
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
            _require_json(request)
            asked = validate(GenerationRequest, parse_json(await request.body()))
            async with runtime.generations.place():
                return await _generate(request, asked, runtime)


async def _generate(request: Request, asked: GenerationRequest, runtime: Runtime) -> Response:
    media = MEDIA_TYPES[asked.output_format] if asked.output_format else None
    kind = choose_answer(request.headers.get("accept"), media)
    output_format = image_format(kind, asked.output_format, asked.count)
    check_transparency(asked.background, output_format)
    model = await _model(runtime, asked.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    plan = plan_pictures(asked, manifest)
    encoding = Encoding(output_format, asked.output_compression)
    finishing = Finishing(model_id, manifest, encoding, plan.presentation)
    made = await runtime.workers.run(generation_jobs(model.session, plan, finishing))
    pictures = [picture for job in made for picture in job]
    runtime.metrics.pictures.labels("generation", model_id).inc(len(pictures))
    facts = {
        "created": int(time.time()),
        "model": model_id,
        "model_hash": manifest.model_hash,
        "output_format": output_format,
        "size": plan.presentation.size,
        "truncation_psi": plan.specs[0].truncation_psi,
    }
    return answer(kind, output_format, pictures, facts)


def _add_augmentations(app: FastAPI, runtime: Runtime) -> None:
    settings = runtime.settings
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_upload_pixels)
    # A decoded photo takes up to half a gigabyte on its way: one at a time.
    decoding = asyncio.Semaphore(1)

    @app.post(
        "/v1/images/augmentations",
        summary="Augment a photo",
        responses=responses(AugmentationResponse, *COMMON, 415, 422),
        openapi_extra=form_body(AugmentationRequest),
        response_class=Response,
    )
    async def augment(request: Request) -> Response:
        """Make 1 to 10 variants of a photo, and list what was done to each."""
        async with time_limit(settings.request_timeout_sec), runtime.uploads.place():
            data, fields = await read_form(request, settings.max_upload_bytes)
            asked = parse_fields(fields)
            media = MEDIA_TYPES[asked.output_format] if asked.output_format else None
            kind = choose_answer(request.headers.get("accept"), media)
            output_format = image_format(kind, asked.output_format, asked.n)
            async with decoding:
                (photo,) = await runtime.workers.run([lambda: open_photo(data, limits)])
            encoding = Encoding(output_format, asked.output_compression)
            pictures = await runtime.workers.run(augmentation_jobs(photo, asked, encoding))
            runtime.metrics.pictures.labels("augmentation", "").inc(len(pictures))
            facts = {
                "created": int(time.time()),
                "output_format": output_format,
                "size": f"{photo.width}x{photo.height}",
            }
            return answer(kind, output_format, pictures, facts)


def _add_models(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/v1/models", summary="List models", responses=responses(None, 401, 500))
    def list_models() -> ModelList:
        """Models that requests may name."""
        return ModelList(data=[_model_info(m, runtime) for m in runtime.pool.promoted()])

    @app.get("/v1/models/{model}", summary="Show a model", responses=responses(None, 401, 404, 500))
    def show_model(model: str) -> ModelInfo:
        """One model, by name or "name:version"."""
        for known in runtime.pool.promoted():
            if model in (known.name, known.model_id):
                return _model_info(known, runtime)
        raise NotFound(
            "no such model is served; GET /v1/models lists them",
            param="model",
            code="model_not_found",
        )


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
    """Look the model up; one that must be loaded first takes a worker, not the event loop."""
    loaded = runtime.pool.loaded(model_id)
    if loaded is None:
        (loaded,) = await runtime.workers.run([lambda: runtime.pool.get(model_id)])
    return loaded


def _require_json(request: Request) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest("send the body as Content-Type: application/json", param="Content-Type")


def _model_info(model: RegisteredModel, runtime: Runtime) -> ModelInfo:
    manifest, default = model.manifest, runtime.pool.default
    return ModelInfo(
        id=model.name,
        created=int(manifest.created.timestamp()),
        owned_by=manifest.author,
        version=model.version,
        model_hash=manifest.model_hash,
        default=default is not None and default.registered.model_id == model.model_id,
        categories=list(manifest.categories),
        size=f"{manifest.width}x{manifest.height}",
        channels=manifest.channels,
        truncation_psi=manifest.truncation_psi,
        style_layers=manifest.num_ws if MAPPING_FILE in manifest.files else None,
        licence=manifest.licence,
    )
