"""Prometheus metrics; every label has few values by construction."""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The service's metrics in a registry of their own."""

    def __init__(self) -> None:
        """Register all metrics."""
        self._registry: Final = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "catalogan_http_requests",
            "Answers by route template.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._duration = Histogram(
            "catalogan_http_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            ("route",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self._registry,
        )
        self.pending: Final = Gauge(
            "catalogan_pending_requests",
            "Requests that are being served, by queue.",
            ("queue",),
            registry=self._registry,
        )
        self.pictures: Final = Counter(
            "catalogan_pictures",
            "Pictures made, by kind and model.",
            ("kind", "model"),
            registry=self._registry,
        )
        self.streams: Final = Counter(
            "catalogan_streams",
            "Streamed answers, by how they ended.",
            ("ending",),
            registry=self._registry,
        )
        self.ready: Final = Gauge(
            "catalogan_ready", "1 while a model is loaded.", registry=self._registry
        )

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer.

        Args:
            route: Route template, never a raw path.
            method: HTTP method; unusual ones are counted together.
            status: HTTP status.
            seconds: Time it took.
        """
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._duration.labels(route).observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
