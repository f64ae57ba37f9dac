"""The public API: a FastAPI app whose routes only translate."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from service.api.endpoint import METRICS, OPENAPI
from service.api.openapi import describe, route
from service.api.responses import error_response
from service.api.routes.augmentations import add_augmentations
from service.api.routes.datasets import add_datasets
from service.api.routes.generations import add_generations
from service.api.routes.interpolations import add_interpolations
from service.api.routes.models import add_models
from service.api.routes.usage import add_usage
from service.api.routes.variations import add_variations
from service.api.routes.verifications import add_verifications
from service.api.runtime import Runtime
from service.decoding.decoder import Decoder
from service.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from service.telemetry.metrics import CONTENT_TYPE


def create_app(runtime: Runtime) -> FastAPI:
    """Build the FastAPI app over `runtime`."""
    app = FastAPI(title="Catalogan", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    add_generations(app, runtime)
    decoder = Decoder(runtime.workers, runtime.settings.image_limits)
    add_interpolations(app, runtime, decoder)
    add_datasets(app, runtime)
    add_augmentations(app, runtime, decoder)
    add_variations(app, runtime, decoder)
    add_models(app, runtime)
    add_usage(app, runtime)
    add_verifications(app, runtime)

    @route(app, OPENAPI)
    async def openapi() -> Response:
        return JSONResponse(describe(app, keyed=not runtime.keyring.open))

    @route(app, METRICS)
    async def metrics() -> Response:
        runtime.metrics.ready.set(runtime.ready)
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE)

    return app


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
        return error_response(ApiError("something went wrong; see the service's log"))
