"""The BentoML service: lifecycle, probes, and the public API mounted at its root."""

import logging
import os
import socket
import sys
from typing import Any, Final

import bentoml
import click
from bentoml.models import BentoModel
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keyring import Keyring
from service.errors import NotReady, OperatorError, SettingsError
from service.http.access import Access
from service.http.guard import Guard
from service.http.metrics import Metrics
from service.http.observing import Observer, Tracing
from service.http.routes import create_app
from service.http.runtime import Runtime
from service.http.workers import Queue, Workers
from service.inference.generation import waiting_threads
from service.logs import configure_logging
from service.marks.marker import open_marker
from service.memory import return_large_blocks
from service.messages.answers import error_response
from service.registry.model_pool import ModelPool
from service.registry.store import Registry
from service.settings import MAX_REQUEST_TIMEOUT_SEC, check_exposure, load_settings
from service.state.state import State

logger = logging.getLogger(__name__)

# What BentoML itself answers.
PROBES: Final = frozenset({"/livez", "/healthz", "/readyz"})


class Gateway:
    """Stands where the API will be once the service's process has started it.

    BentoML takes mounted apps when the class is defined, long before there are settings.
    It gets every path but the probes, so that unknown ones are answered in our shape.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._prepared: Runtime | None = None
        self._runtime: Runtime | None = None

    def prepare(self) -> None:
        """Build what the API works with, before BentoML starts: its log would bury the reason.

        Raises:
            SettingsError: A setting, the keys, the signing key or the database are not as they must
            be.
        """
        self._prepared = build_runtime()

    def take_prepared(self) -> Runtime:
        """What `prepare` built, else what is built now."""
        prepared, self._prepared = self._prepared, None
        return prepared or build_runtime()

    def open(self, runtime: Runtime, tracing: Tracing | None = None) -> None:
        """Answer with the API from now on."""
        self._runtime = runtime
        app = create_app(runtime)
        settings = runtime.settings
        access = Access(app, runtime.keyring, runtime.state.usage, settings)
        guarded = Guard(access, settings)
        self._app = Observer(guarded, app.routes, runtime.metrics, tracing)

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        if self._runtime is not None:
            self._runtime.drain()

    def count_ended_connection(self, reason: str) -> None:
        """Count a connection that was ended for what its client did."""
        if self._runtime is not None:
            self._runtime.metrics.connections_ended.labels(reason).inc()

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
        SettingsError: A setting, the keys, the signing key or the database are not as they must
            be.
    """
    settings = load_settings()
    keyring, marker = Keyring(settings), open_marker(settings)
    metrics = Metrics()
    workers = Workers(settings.workers, settings.max_queue_wait_sec)
    painters = workers
    if waiting := waiting_threads(settings.device):
        painters = Workers(settings.workers + waiting, settings.max_queue_wait_sec)
    return Runtime(
        settings=settings,
        pool=ModelPool(settings, Registry(), metrics.model_loaded, metrics.batch_run),
        workers=workers,
        painters=painters,
        metrics=metrics,
        state=State(settings),
        keyring=keyring,
        marker=marker,
        generations=Queue("generations", settings.max_pending_generations, metrics),
        interpolations=Queue("interpolations", settings.max_pending_interpolations, metrics),
        uploads=Queue("uploads", settings.max_pending_uploads, metrics),
        datasets=Queue("datasets", settings.max_pending_datasets, metrics),
    )


def start_tracing() -> Tracing | None:
    """Begin to trace where an OTLP endpoint is set; else load nothing of it.

    Raises:
        SettingsError: Another protocol than OTLP/HTTP is asked for.
    """
    where = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or (
        os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if off or not any(os.environ.get(name) for name in where):
        return None
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            raise SettingsError(f"{name}: only http/protobuf is supported")
    from service.http.tracing import Tracing as OtlpTracing

    return OtlpTracing()


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
        return_large_blocks()
        self.runtime = gateway.take_prepared()
        if _bound_host():  # a process of BentoML's, which has handlers of its own by now
            configure_logging(self.runtime.settings.log_format)
        self.tracing = start_tracing()
        check_exposure(self.runtime.settings, _bound_host())
        self.runtime.pool.start()
        gateway.open(self.runtime, self.tracing)

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
        self.runtime.painters.stop()
        self.runtime.state.close()
        if self.tracing is not None:
            self.tracing.stop()

    async def __is_ready__(self) -> bool:
        """Answer /readyz."""
        return gateway.ready


class _Edge:
    """Sends all but the probes straight to the API.

    BentoML's own routing does not mount paths with line breaks, and answers some paths in
    another shape.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] not in PROBES:
            await gateway(scope, receive, send)
        elif scope["path"] == "/readyz" and not gateway.ready:
            error = NotReady("no model is loaded, or the service stops", retry_after_sec=5)
            await error_response(error)(scope, receive, send)
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
    # BentoML can't be told to leave these out: its time limit, whose timers outlive each
    # request, and its spans, which nobody samples.
    unwanted = {"TimeoutMiddleware", "OpenTelemetryMiddleware"}
    app.user_middleware = [
        m for m in app.user_middleware if getattr(m.cls, "__name__", "") not in unwanted
    ]
    return app
