"""OpenTelemetry traces over OTLP/HTTP. Imported only where the operator set an endpoint.

The standard OTEL_* variables rule: endpoint, headers, timeout, sampler, resource, batches.
"""

import os
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from service.telemetry.observation import Observation

# A long animation has hundreds of stages; what is left out is counted in an attribute.
MAX_STAGE_SPANS: Final = 100


class OtlpTracing:
    """Begins spans and sends those that ended, in the background."""

    def __init__(self) -> None:
        """Send to where OTEL_EXPORTER_OTLP_ENDPOINT says."""
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        resource = Resource.create({} if named else {SERVICE_NAME: "catalogan"})
        # A provider of our own: BentoML has another, which samples nothing.
        self._provider: Final = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer: Final = self._provider.get_tracer("catalogan")

    def begin(self, headers: Mapping[str, str]) -> "RequestSpan":
        """Begin a request's span, below the one that its traceparent names."""
        # From an empty context: BentoML's middleware leaves a span that is not sampled.
        parent = extract(headers, context=Context())
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        return RequestSpan(self._tracer, span)

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class RequestSpan:
    """A request's span while it lasts."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        """Wrap a span that has begun."""
        self._tracer: Final = tracer
        self._span: Final = span
        self.trace_id: Final = format_trace_id(span.get_span_context().trace_id)

    def finish(self, method: str, route: str, status: int, observed: Observation) -> None:
        """End the span, and add those of the request's stages."""
        if not self._span.is_recording():
            return
        self._span.update_name(f"{method} {route}")
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "catalogan.request_id": observed.request_id,
        }
        if observed.model:
            attributes["catalogan.model"] = observed.model
        if len(observed.intervals) > MAX_STAGE_SPANS:
            attributes["catalogan.stages_left_out"] = len(observed.intervals) - MAX_STAGE_SPANS
        self._span.set_attributes(attributes)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", str(status))
        self._add_stages(observed)
        self._span.end()

    def _add_stages(self, observed: Observation) -> None:
        context = set_span_in_context(self._span, Context())
        offset_ns = time.time_ns() - time.perf_counter_ns()
        for interval in observed.intervals[:MAX_STAGE_SPANS]:
            child = self._tracer.start_span(
                interval.stage, context, start_time=interval.start_ns + offset_ns
            )
            child.end(interval.end_ns + offset_ns)
