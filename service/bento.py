"""The BentoML service: lifecycle, probes, and the public API mounted at its root."""

import socket
import sys
from typing import Any, Final

import bentoml
import click
from bentoml.models import BentoModel
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.responses import error_response
from service.app import gateway
from service.errors import NotReady, OperatorError, SettingsError
from service.exposure import check_exposure
from service.memory import return_large_blocks
from service.model_store.registry import Registry
from service.settings import MAX_REQUEST_TIMEOUT_SEC, load_settings
from service.telemetry.logs import configure_logging
from service.telemetry.tracing import start_tracing

# Paths that BentoML itself serves.
PROBES: Final = frozenset({"/livez", "/healthz", "/readyz"})


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
    # The service's own is shorter, and its errors have the shape of all.
    traffic={"timeout": 2 * MAX_REQUEST_TIMEOUT_SEC},
    # BentoML's own would take raw paths for labels and log them.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(gateway, path="/", name="api")
class ProductImages:
    """Generates and augments product images."""

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
    async def close(self) -> None:
        """End watcher and threads."""
        self.runtime.pool.stop()
        self.runtime.decoder.stop()
        self.runtime.workers.stop()
        self.runtime.gpu_threads.stop()
        await gateway.finish()
        self.runtime.state.close()
        if self.tracing is not None:
            self.tracing.stop()

    async def __is_ready__(self) -> bool:
        """Answer /readyz."""
        return gateway.ready


class _Edge:
    """Sends all but the probes straight to the API.

    BentoML's own routing does not mount paths with line breaks, and serves some paths in
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
            error = NotReady("no model is loaded, or the service is stopping", retry_after_sec=5)
            await error_response(error)(scope, receive, send)
        elif scope["path"] == "/readyz" and gateway.degraded:
            # Still 200: what is wrong is wrong for all replicas, and none is to be taken away.
            response = PlainTextResponse(f"degraded: {gateway.degraded}\n")
            await response(scope, receive, send)
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
    # BentoML has no setting to leave these out: its time limit, whose timers outlive each
    # request, and its spans, which nobody samples.
    unwanted = {"TimeoutMiddleware", "OpenTelemetryMiddleware"}
    app.user_middleware = [
        m for m in app.user_middleware if getattr(m.cls, "__name__", "") not in unwanted
    ]
    return app
