"""The public API: a FastAPI app whose routes only translate."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from models.manifest import ENCODER_FILE, MAPPING_FILE
from service.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from service.http.dataset_routes import add_datasets
from service.http.decoding import Decoder
from service.http.generation_routes import add_generations
from service.http.interpolation_routes import add_interpolations
from service.http.metrics import CONTENT_TYPE
from service.http.openapi import describe, responses
from service.http.photo_routes import add_augmentations, add_variations
from service.http.runtime import Runtime
from service.http.usage_routes import add_usage
from service.http.verification_routes import add_verifications
from service.images.presentation import largest_size
from service.messages.answers import error_response
from service.messages.schemas import Marks, ModelInfo, ModelList
from service.registry.store import RegisteredModel


def create_app(runtime: Runtime) -> FastAPI:
    """Build the FastAPI app over `runtime`."""
    app = FastAPI(title="Catalogan", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    add_generations(app, runtime)
    decoder = Decoder(runtime)
    add_interpolations(app, runtime, decoder)
    add_datasets(app, runtime)
    add_augmentations(app, runtime, decoder)
    add_variations(app, runtime, decoder)
    _add_models(app, runtime)
    add_usage(app, runtime)
    add_verifications(app, runtime)

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(describe(app, keyed=not runtime.keyring.open))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        runtime.metrics.ready.set(runtime.ready)
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE)

    return app


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
        synonyms={name: list(others) for name, others in manifest.synonyms.items()},
        size=f"{manifest.width}x{manifest.height}",
        max_size="{}x{}".format(*largest_size(manifest)),
        channels=manifest.channels,
        truncation_psi=manifest.truncation_psi,
        style_layers=manifest.num_ws if MAPPING_FILE in manifest.files else None,
        encoder=ENCODER_FILE in manifest.files,
        licence=manifest.licence,
        marks=Marks(
            xmp=runtime.marker.xmp,
            signed_by=runtime.marker.signing,
            watermark=runtime.marker.wants_watermark(manifest),
        ),
    )
