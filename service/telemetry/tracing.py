"""Whether requests are traced, and by what."""

import os
from collections.abc import Mapping
from typing import Protocol

from service.errors import SettingsError
from service.telemetry.observation import Observation


class Span(Protocol):
    """A request's span while it lasts."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    def finish(self, method: str, route: str, status: int, observed: Observation) -> None:
        """End the span, and add those of the request's stages."""


class Tracing(Protocol):
    """What begins spans; `service.telemetry.otlp` has the only one."""

    def begin(self, headers: Mapping[str, str]) -> Span:
        """Begin a request's span; `headers` may name its parent."""

    def stop(self) -> None:
        """Send what is left."""


def start_tracing() -> Tracing | None:
    """Begin to trace where an OTLP endpoint is set; else load nothing of it.

    Raises:
        SettingsError: Another protocol than OTLP/HTTP is requested.
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
    from service.telemetry.otlp import OtlpTracing

    return OtlpTracing()
