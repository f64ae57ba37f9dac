"""The BentoML service: lifecycle, probes, and the public API mounted at its root."""

import logging
import socket
import sys
from typing import Any, Final

import bentoml
import click
from bentoml.models import BentoModel
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import NotReady, OperatorError, SettingsError
from service.http.guard import Guard
from service.http.metrics import Metrics
from service.http.routes import create_app
from service.http.runtime import Runtime
from service.http.workers import Queue, Workers
from service.messages.answers import error_response
from service.registry.model_pool import ModelPool
from service.registry.store import Registry
from service.settings import MAX_REQUEST_TIMEOUT_SEC, check_exposure, load_settings

logger = logging.getLogger(__name__)


class Gateway:
    """Stands where the API will be once the service's process has started it.

    BentoML takes mounted apps when the class is defined, long before there are settings.
    It is no Starlette app, so BentoML sends it every path but its own probes, and unknown
    paths are answered in our shape.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._runtime: Runtime | None = None

    def open(self, runtime: Runtime) -> None:
        """Answer with the API from now on."""
        self._runtime = runtime
        self._app = Guard(create_app(runtime), runtime.settings, runtime.metrics)

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        if self._runtime is not None:
            self._runtime.drain()

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a model is loaded, and no shutdown has begun."""
        return self._runtime is not None and self._runtime.ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            error = NotReady("the service is starting", retry_after_sec=1)
            await error_response(error)(scope, receive, send)


gateway = Gateway()


def build_runtime() -> Runtime:
    """Assemble the service from the environment; loads no model yet.

    Raises:
        SettingsError: A setting is wrong.
    """
    settings = load_settings()
    metrics = Metrics()
    return Runtime(
        settings=settings,
        pool=ModelPool(settings, Registry()),
        workers=Workers(settings.workers),
        metrics=metrics,
        generations=Queue("generations", settings.max_pending_generations, metrics),
        interpolations=Queue("interpolations", settings.max_pending_interpolations, metrics),
        uploads=Queue("uploads", settings.max_pending_uploads, metrics),
        datasets=Queue("datasets", settings.max_pending_datasets, metrics),
    )


def _packed_model() -> BentoModel | None:
    """Reference the promoted model, so that `bentoml build` packs it."""
    try:
        served = Registry().promoted()
        wanted, _, version = (load_settings().model or next(iter(served), "")).partition(":")
        version = version or served.get(wanted, "")
        return BentoModel(Registry().get(f"{wanted}:{version}").model_id) if version else None
    except OperatorError:
        return None  # the service itself says what is wrong


@bentoml.service(
    workers=1,
    # Ours is shorter, and answers in the shape of all errors.
    traffic={"timeout": 2 * MAX_REQUEST_TIMEOUT_SEC},
    # BentoML's own would take raw paths for labels and log them.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(gateway, path="/", name="api")
class ProductImages:
    """Generates and augments product pictures."""

    packed_model = _packed_model()

    def __init__(self) -> None:
        """Load the promoted model and open the API."""
        self.runtime = build_runtime()
        check_exposure(self.runtime.settings, _bound_host())
        self.runtime.pool.start()
        gateway.open(self.runtime)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def refuse_exposure() -> None:
        """Stop `bentoml serve` before it starts workers, where others could reach it keyless."""
        context = click.get_current_context(silent=True)
        host = context.params.get("host") if context else None
        try:
            check_exposure(load_settings(), host or ("0.0.0.0" if context else None))  # noqa: S104
        except SettingsError as error:
            raise SystemExit(f"error: {error}") from None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """End watcher and threads."""
        self.runtime.pool.stop()
        self.runtime.workers.stop()

    async def __is_ready__(self) -> bool:
        """Answer /readyz."""
        return gateway.ready


class _Edge:
    """Answers in our shape what BentoML's own routing would answer in another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/readyz" and not gateway.ready:
            error = NotReady("no model is loaded, or the service stops", retry_after_sec=5)
            await error_response(error)(scope, receive, send)
        elif scope["type"] == "http" and "\n" in scope["path"]:
            await gateway(scope, receive, send)  # a mount doesn't match line breaks
        else:
            await self._app(scope, receive, send)


ProductImages.add_asgi_middleware(_Edge)  # type: ignore[attr-defined]


def _bound_host() -> str | None:
    """Address of the socket that BentoML's supervisor handed to this worker, if it did."""
    if "--fd" not in sys.argv:
        return None
    fd = int(sys.argv[sys.argv.index("--fd") + 1])
    listening = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    with listening:
        name: Any = listening.getsockname()
    return name[0] if isinstance(name, tuple) else None


def asgi_app() -> ASGIApp:
    """The whole service, BentoML's probes included, for any ASGI server."""
    app: Starlette = ProductImages.to_asgi()  # type: ignore[attr-defined]
    # BentoML can't be told to leave its time limit out, whose timers outlive each request.
    app.user_middleware = [
        m for m in app.user_middleware if getattr(m.cls, "__name__", "") != "TimeoutMiddleware"
    ]
    return app
