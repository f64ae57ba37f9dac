"""Log lines of one form, the service's and the libraries': text for people, JSON for programs."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from service.settings import LogFormat
from service.telemetry.observation import current

# Libraries that bring handlers of their own.
_FOREIGN: Final = ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access", "circus")
# What ends a line or steers a terminal is shown escaped, so that no value can forge a line.
_ESCAPES: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029)
} | {0x0A: "\\n", 0x0D: "\\r"}

_ENCODER: Final = json.JSONEncoder(default=str)


def configure_logging(log_format: LogFormat) -> None:
    """Send all logs to stderr in one form; call it again after a library took logging over."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    plain = (_StderrHandler, logging.StreamHandler)
    root.handlers[:] = [h for h in root.handlers if type(h) not in plain] + [handler]
    root.setLevel(logging.WARNING)
    for name in ("service", "bentoml", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # our 400 says it
    for name in _FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
        foreign.disabled = False


class _StderrHandler(logging.Handler):
    """Writes to what is sys.stderr at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """A line of text, behind it as `name=value` what it doesn't say, behind bars tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line or lines."""
        said = record.args if isinstance(record.args, tuple) else ()
        unsaid = {name: value for name, value in _fields(record).items() if value not in said}
        fields = "".join(f" {name}={value}" for name, value in unsaid.items())
        head = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        lines = [head]
        if record.exc_info:
            lines += [f"| {line}" for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join(_escaped(line) for line in lines)


def _escaped(line: str) -> str:
    # Nearly all are, and to look is quicker than to translate.
    return line if line.isprintable() else line.translate(_ESCAPES)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the record's writer passed as `extra={"fields": ...}`, and the request's ids."""
    observation = current()
    ids = {}
    if observation is not None:
        ids["request_id"] = observation.request_id
        if observation.trace_id:
            ids["trace_id"] = observation.trace_id
    return {**ids, **getattr(record, "fields", {})}
