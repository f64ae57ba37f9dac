"""Prometheus metrics; every label has few values by construction."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service.telemetry.observation import Observation

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
LOAD_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The service's metrics in a registry of their own.

    The label model is the "name:version" of a model that was loaded, or empty where none was
    read; the label route is a template, or "unmatched".
    """

    def __init__(self, batch_sizes: Sequence[int]) -> None:
        """Register all metrics; `batch_sizes` are those that a GPU runs."""
        self._registry: Final = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._describe_requests()
        self._describe_models(batch_sizes)
        self.pending: Final = Gauge(
            "catalogan_pending_requests",
            "Requests that wait or are being served, by queue.",
            ("queue",),
            registry=self._registry,
        )
        self.images: Final = Counter(
            "catalogan_pictures",
            "Images created, by kind and model.",
            ("kind", "model"),
            registry=self._registry,
        )
        self.connections_ended: Final = Counter(
            "catalogan_connections_ended",
            "Connections that were ended for what their client did, by reason.",
            ("reason",),
            registry=self._registry,
        )
        self.streams: Final = Counter(
            "catalogan_streams",
            "Streamed responses, by how they ended.",
            ("ending",),
            registry=self._registry,
        )

    def _describe_requests(self) -> None:
        self._requests = Counter(
            "catalogan_http_requests",
            "Responses by route template.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._duration = Histogram(
            "catalogan_http_request_duration_seconds",
            "From the request's headers to the end of the response.",
            ("route", "model"),
            buckets=REQUEST_BUCKETS,
            registry=self._registry,
        )
        self.in_progress = Gauge(
            "catalogan_http_requests_in_progress",
            "Requests whose response is not complete.",
            registry=self._registry,
        )
        self._stages = Histogram(
            "catalogan_stage_duration_seconds",
            "A request's time in one stage: queue (waiting for a worker), decode, inference, "
            "encode.",
            ("stage", "model"),
            buckets=STAGE_BUCKETS,
            registry=self._registry,
        )
        self._rejections = Counter(
            "catalogan_upload_rejections",
            "Uploads that were refused, by reason.",
            ("reason",),
            registry=self._registry,
        )

    def _describe_models(self, batch_sizes: Sequence[int]) -> None:
        self.ready = Gauge("catalogan_ready", "1 while a model is loaded.", registry=self._registry)
        self._load_duration = Histogram(
            "catalogan_model_load_duration_seconds",
            "From looking a model up to its first image.",
            ("model",),
            buckets=LOAD_BUCKETS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "catalogan_batch_pictures",
            "Images that one run on the GPU generated.",
            ("model",),
            buckets=batch_sizes,
            registry=self._registry,
        )
        self._load_failures = Counter(
            "catalogan_model_load_failures",
            "Models that could not be loaded.",
            ("model",),
            registry=self._registry,
        )

    def observe(self, route: str, method: str, status: int, observation: Observation) -> None:
        """Count one response.

        Args:
            route: Route template, never a raw path.
            method: HTTP method; unusual ones are counted together.
            status: HTTP status.
            observation: What was noted of the request.
        """
        model = observation.model or ""
        self._requests.labels(route, known_method(method), str(status)).inc()
        self._duration.labels(route, model).observe(observation.seconds())
        for stage, seconds in observation.stage_seconds().items():
            self._stages.labels(stage, model).observe(seconds)
        if observation.rejection:
            self._rejections.labels(observation.rejection).inc()

    def model_loaded(self, model_id: str, seconds: float | None) -> None:
        """Count an attempt to load a model; `seconds` is None where it failed."""
        if seconds is None:
            self._load_failures.labels(model_id).inc()
        else:
            self._load_duration.labels(model_id).observe(seconds)

    def batch_run(self, model_id: str, images: int) -> None:
        """Count a run that generated the images of one or several requests together."""
        self._batches.labels(model_id).observe(images)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def known_method(method: str) -> str:
    """The method, or "other" for unusual ones."""
    return method if method in METHODS else "other"
