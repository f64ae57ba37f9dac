"""Log lines, timings, traces and metrics of requests, as operators get them."""

import gzip
import io
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.api.middleware.request_log import RequestLog
from service.errors import SettingsError
from service.model_store.registry import Registry
from service.telemetry import observation
from service.telemetry.logs import JsonFormatter, TextFormatter, configure_logging
from service.telemetry.metrics import Metrics
from service.telemetry.observation import Observation, note_interval

from .conftest import running_service
from .test_augmentations_http import photo
from .test_cli import COMMAND, free_port, serving

URL = "/v1/images/generations"
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "catalogan.json"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """An OTLP collector's trace endpoint: what is sent to it, decoded."""

    def __init__(self) -> None:
        received: list[ExportTraceServiceRequest] = []
        self.received, self.paths = received, set[str]()
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["Content-Type"] == "application/x-protobuf"
                paths.add(self.path)
                received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def service_names(self) -> set[str]:
        return {
            attribute.value.string_value
            for request in self.received
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture
def store(bento_home: Path, export: Path) -> Path:
    Registry().register(export)
    return bento_home


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def test_a_process_logs_json_and_traces_to_a_collector(store: Path, collector: Collector) -> None:
    port = free_port()
    environment = {
        "CATALOGAN_LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    with serving([*COMMAND, "serve", "--port", str(port)], port, **environment) as process:
        base = f"http://127.0.0.1:{port}"
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine.1"}
        made = httpx.post(base + URL, json={"n": 2}, headers=traced, timeout=None)
        assert made.status_code == 200
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        other = httpx.post(base + URL, json={}, headers=unsampled, timeout=None)
        assert other.status_code == 200
        assert httpx.get(f"{base}/private-path", timeout=None).status_code == 404
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    records = [json.loads(line) for line in output.splitlines()]
    assert records[0]["message"].startswith(f"listening on {base} ")
    assert {"uvicorn.error", "bentoml.serve", "service.api.middleware.request_log"} <= {
        record["logger"] for record in records
    }
    (line,) = [record for record in records if record.get("request_id") == "mine.1"]
    assert line["trace_id"] == TRACE
    assert line["message"] == f"POST {URL} 200"
    assert (line["method"], line["route"], line["status"]) == ("POST", URL, 200)
    assert line["model"].startswith("shop:")
    assert line["bytes_in"] == len(made.request.content)
    assert line["bytes_out"] == len(made.content)
    assert line["duration_ms"] >= line["inference_ms"] > 0

    assert collector.paths == {"/v1/traces"}
    assert collector.service_names == {"catalogan"}
    spans = collector.spans
    (request,) = [span for span in spans if span.name == f"POST {URL}"]
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert request.kind == Span.SPAN_KIND_SERVER
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": URL,
        "http.response.status_code": 200,
        "catalogan.request_id": "mine.1",
        "catalogan.model": line["model"],
    }
    stages = [span for span in spans if span.parent_span_id == request.span_id]
    assert sorted(span.name for span in stages) == [
        *["encode", "encode", "inference", "inference", "queue"]
    ]
    for span in stages:
        assert span.trace_id == request.trace_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
    (unknown,) = [span for span in spans if span.name == "GET unmatched"]
    assert unknown.trace_id.hex() != TRACE
    assert len(spans) == 7  # none of the one whose caller samples nothing
    assert "private-path" not in output + str(collector.received)


def test_traces_cost_nothing_where_they_are_off() -> None:
    code = (
        "import sys, service.bento, service.server.runner\n"
        "assert service.telemetry.tracing.start_tracing() is None\n"
        "print([m for m in sys.modules if 'otlp' in m or m == 'service.telemetry.otlp'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_are_turned_off_by_the_standard_variables(
    off: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.telemetry.tracing import start_tracing

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match="http/protobuf"):
        start_tracing()
    for name, value in off.items():
        monkeypatch.setenv(name, value)
    assert start_tracing() is None


def test_a_collector_that_is_away_does_not_disturb(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with running_service() as client:
        assert client.post(URL, json={}).status_code == 200


def test_answers_say_where_their_time_went(client: TestClient) -> None:
    timing = client.post(URL, json={"n": 3}).headers["server-timing"]
    spent = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([0-9.]+)", timing)}
    assert list(spent) == ["queue", "inference", "encode", "total"]
    assert spent["total"] >= max(spent["inference"], spent["encode"]) > 0
    varied = client.post("/v1/images/augmentations", files={"image": photo()})
    assert re.findall(r"(\w+);dur", varied.headers["server-timing"]) == [
        *["queue", "decode", "encode", "total"]
    ]
    refused = client.post(URL, content=b"x")
    assert re.fullmatch(r"total;dur=[0-9.]+", refused.headers["server-timing"])


def test_stages_that_overlap_count_once() -> None:
    observed = Observation("id")
    observed.intervals = [
        observation.Interval("inference", 0, 2_000_000_000),
        observation.Interval("inference", 1_000_000_000, 3_000_000_000),
        observation.Interval("inference", 1_500_000_000, 1_600_000_000),
        observation.Interval("inference", 5_000_000_000, 6_000_000_000),
        observation.Interval("encode", 0, 0),
    ]
    assert observed.stage_seconds() == {"inference": 4.0, "encode": 0.0}


def test_nothing_is_noted_outside_a_request_nor_without_end() -> None:
    note_interval("queue", 0)
    token = observation.begin(Observation("id"))
    try:
        for _ in range(observation.MAX_INTERVALS + 5):
            note_interval("queue", 0)
        observed = observation.current()
        assert observed is not None
        assert len(observed.intervals) == observation.MAX_INTERVALS
    finally:
        observation.end(token)
    assert observation.current() is None


def log_line(formatter: logging.Formatter, message: str, *args: Any, **extra: Any) -> str:
    record = logging.LogRecord("service.x", logging.INFO, "x.py", 1, message, args, None)
    record.__dict__.update(extra)
    return formatter.format(record)


@pytest.mark.parametrize(
    "evil", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\x85b", "a\x7fb"]
)
def test_no_value_can_forge_a_line(evil: str) -> None:
    for where in ({"message": "%s", "args": [evil]}, {"message": evil, "args": []}):
        text = log_line(TextFormatter(), where["message"], *where["args"], fields={"key": evil})  # type: ignore[arg-type]
        assert text.isprintable()
    line = log_line(JsonFormatter(), evil, fields={"key": evil})
    assert line.isprintable()
    assert json.loads(line)["message"] == evil
    try:
        raise ValueError(f"x\n2026-01-01T00:00:00Z INFO forged: {evil}")
    except ValueError:
        record = logging.LogRecord("a", 40, "x.py", 1, "failed", (), sys.exc_info())
    head, *rest = TextFormatter().format(record).split("\n")
    assert head.endswith("ERROR a: failed")
    assert all(line.startswith("| ") and line.isprintable() for line in rest)
    assert "forged" in json.loads(JsonFormatter().format(record))["exception"]


def test_libraries_handlers_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    root, stderr = logging.getLogger(), io.StringIO()
    before = list(root.handlers), root.level
    logging.getLogger("bentoml").addHandler(logging.StreamHandler(stderr))
    monkeypatch.setattr(sys, "stderr", stderr)
    try:
        for _ in range(2):
            configure_logging("json")
        logging.getLogger("bentoml.serve").info("from a library")
        logging.getLogger("uvicorn.access").info("from another")
        logging.getLogger("somebody.else").info("too much")
    finally:
        root.handlers[:], root.level = before
    messages = [json.loads(line)["message"] for line in stderr.getvalue().splitlines()]
    assert messages == ["from a library", "from another"]


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_tell_routes_models_stages_and_rejections_apart(store: Path) -> None:
    with running_service(max_upload_bytes="5000", max_upload_pixels="3000") as client:
        model = client.post(URL, json={"n": 2}).json()["model"]
        client.post(URL, json={"model": "unknown"})
        augment = "/v1/images/augmentations"
        for upload in (b"text", photo()[:-200], b"\xff" * 6000, b"\xff" * 200_000, photo((90, 90))):
            client.post(augment, files={"image": upload})
        found = samples(client)
    assert found["catalogan_http_requests_in_progress", ()] == 1  # this very one
    requests = ("catalogan_http_request_duration_seconds_count", (("model", model), ("route", URL)))
    assert found[requests] == 1
    for stage in ("queue", "inference", "encode"):
        key = ("catalogan_stage_duration_seconds_count", (("model", model), ("stage", stage)))
        assert found[key] == 1
    assert found["catalogan_model_load_duration_seconds_count", (("model", model),)] == 1
    reasons = {
        labels[0][1]: value
        for (name, labels), value in found.items()
        if name == "catalogan_upload_rejections_total"
    }
    assert reasons == {
        "not_an_image": 1,
        "undecodable": 1,
        "too_large": 1,
        "body_too_large": 1,
        "too_many_pixels": 1,
    }
    assert {dict(labels).get("model", "") for _, labels in found} == {"", model}


def test_the_log_names_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        observation.note_key("shop")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with caplog.at_level(logging.INFO, logger="service"):
        TestClient(RequestLog(app, [], Metrics((1, 2)), None)).get("/")
    (record,) = [r for r in caplog.records if r.name == "service.api.middleware.request_log"]
    assert record.__dict__["fields"]["key"] == "shop"


def test_what_is_refused_early_is_counted_with_its_route(store: Path) -> None:
    with running_service(api_key="secret-key-of-the-test", open_metrics="true") as client:
        client.post(URL, json={})
        client.get("/v1/models/some-name")
        client.get("/nowhere")
        found = samples(client)
    for method, route in (("POST", URL), ("GET", "/v1/models/{model}"), ("GET", "unmatched")):
        labels = (("method", method), ("route", route), ("status", "401"))
        assert found["catalogan_http_requests_total", labels] == 1


def dashboard_queries() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def test_every_query_of_the_dashboard_finds_its_metric(store: Path) -> None:
    with running_service() as client:
        client.post(URL, json={})
        client.post("/v1/images/augmentations", files={"image": b"text"})
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
        }.get(family.type, ("",))
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
        for suffix in suffixes:  # counters that nothing was counted in are there, too
            labels.setdefault(family.name + suffix, set())
    queries = dashboard_queries()
    assert len(queries) >= 10
    asked = {
        name for query in queries for name in re.findall(r"\bcatalogan_\w+|process_\w+", query)
    }
    assert asked <= labels.keys()
    for query in queries:
        for name, matchers in re.findall(r"\b((?:catalogan|process)_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels[name] | {"instance", "job"}
        grouped = set(",".join(re.findall(r"by \(([^)]*)\)", query)).replace(" ", "").split(","))
        for name in re.findall(r"\b(?:catalogan|process)_\w+", query):
            assert grouped - {""} <= labels[name] | {"instance"} or not labels[name]
