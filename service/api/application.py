"""The public API: a FastAPI app whose routes only translate."""

import importlib
import pkgutil

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from service.api import routes
from service.api.endpoint import METRICS, OPENAPI
from service.api.openapi import describe, route
from service.api.responses import error_response
from service.api.runtime import Runtime
from service.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from service.telemetry.metrics import CONTENT_TYPE


def create_app(runtime: Runtime) -> FastAPI:
    """Build the FastAPI app over `runtime`."""
    app = FastAPI(
        title="Catalogan",
        version="1",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to the Host that the client chose
    )
    _add_error_handlers(app)
    for found in pkgutil.iter_modules(routes.__path__):
        importlib.import_module(f"{routes.__name__}.{found.name}").add_routes(app, runtime)

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
