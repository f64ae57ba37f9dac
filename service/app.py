"""Composes the service: what the API works with, and the layers that a request passes."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keyring import Keyring
from service.access.links import Links
from service.api.application import create_app
from service.api.endpoint import QueueName
from service.api.middleware.authentication import Authentication
from service.api.middleware.body_limits import BodyLimits
from service.api.middleware.lifetime import Lifetime
from service.api.middleware.request_log import RequestLog
from service.api.queues import Queue
from service.api.responses import error_response
from service.api.runtime import Runtime
from service.decoding.decoder import Decoder
from service.errors import NotReady
from service.inference.generation import CUDA_BATCH_SIZES, waiting_threads
from service.inference.workers import Workers
from service.model_store.pool import ModelPool
from service.model_store.registry import Registry
from service.provenance.marker import open_marker
from service.settings import Settings, load_settings
from service.storage.state import State
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracing


class Gateway:
    """Stands where the API will be once the service's process has started it.

    BentoML takes mounted apps when the class is defined, long before there are settings.
    It gets every path but the probes, so that errors of unknown ones have the shape of all.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._prepared: Runtime | None = None
        self._runtime: Runtime | None = None
        self._lifetime: Lifetime | None = None

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
        """Serve the API from now on."""
        self._runtime = runtime
        app = create_app(runtime)
        settings = runtime.settings
        self._lifetime = Lifetime(app, settings)
        access = Authentication(self._lifetime, runtime.keyring, runtime.state.usage, settings)
        guarded = BodyLimits(access, settings)
        self._app = RequestLog(guarded, app.routes, runtime.metrics, tracing)

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        if self._runtime is not None:
            self._runtime.drain()

    async def finish(self) -> None:
        """Wait for what still ends behind responses."""
        if self._lifetime is not None:
            await self._lifetime.finish()

    def count_ended_connection(self, reason: str) -> None:
        """Count a connection that was ended for what its client did."""
        if self._runtime is not None:
            self._runtime.metrics.connections_ended.labels(reason).inc()

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a model is loaded, and no shutdown has begun."""
        return self._runtime is not None and self._runtime.ready

    @property
    def degraded(self) -> str | None:
        """What can't be done now, though the service is ready."""
        return self._runtime.degraded if self._runtime is not None else None

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
    state = State(settings)
    state.move_to_ids(keyring.all())
    metrics = Metrics(CUDA_BATCH_SIZES)
    workers = Workers(settings.workers, settings.max_queue_wait_sec)
    gpu_threads = workers
    if waiting := waiting_threads(settings.device):
        gpu_threads = Workers(settings.workers + waiting, settings.max_queue_wait_sec)
    return Runtime(
        settings=settings,
        pool=ModelPool(settings, Registry(), metrics.model_loaded, metrics.batch_run),
        workers=workers,
        gpu_threads=gpu_threads,
        metrics=metrics,
        state=state,
        keyring=keyring,
        links=Links(settings),
        marker=marker,
        decoder=Decoder(settings.workers, settings.max_queue_wait_sec, settings.image_limits),
        queues={name: Queue(name, limit, metrics) for name, limit in _queue_limits(settings)},
    )


def _queue_limits(settings: Settings) -> list[tuple[QueueName, int]]:
    return [
        ("generations", settings.max_pending_generations),
        ("links", settings.max_pending_generations),
        ("interpolations", settings.max_pending_interpolations),
        ("uploads", settings.max_pending_uploads),
        ("strangers", settings.max_pending_uploads),
        ("datasets", settings.max_pending_datasets),
    ]
