"""How fast the service is, against the bare ONNX Runtime session with the same encoder.

`catalogan serve` runs as it would in earnest: in a process of its own, with an API key, its
log going to a file. Eight clients ask for one PNG each, again and again. The bare session
works in as many threads as the service, in turns with it, on the same pictures, which is
checked.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench_model import NAME, write_export
from measuring import CATALOGAN, Measurement, interleaved, quotients, run_part

from service.registry.store import Registry
from service.settings import load_settings

CLIENTS = 8
COLD_START_LIMIT_SEC = 60.0
POLL_SEC = 0.01
HERE = Path(__file__).parent


class Helper:
    """A process that answers each line with a line of JSON."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> Any:
        """Send a line, wait for the answer.

        Raises:
            RuntimeError: The process ended instead.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended; its message is above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)


@contextmanager
def service(log: IO[bytes], key: str) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """A running service: its process, its port, and seconds from exec to readiness."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "CATALOGAN_API_KEY": key}
    start = time.perf_counter()
    process = subprocess.Popen(
        [CATALOGAN, "serve", "--port", str(port), "--model", NAME, "--device", "cpu"],
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        wait_until_ready(process, port, start)
        yield process, port, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, start: float) -> None:
    """Poll /readyz.

    Raises:
        RuntimeError: The service ended, or is not ready in time.
    """
    while time.perf_counter() - start < COLD_START_LIMIT_SEC:
        if process.poll() is not None:
            raise RuntimeError(f"catalogan serve ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(POLL_SEC)
    raise RuntimeError(f"catalogan serve was not ready within {COLD_START_LIMIT_SEC:g} s")


def register(folder: Path) -> tuple[Path, str, int]:
    """Export and register the model in a Model Store of its own.

    Returns:
        The export, the model's id and its count of parameters.
    """
    os.environ |= {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    (folder / "bentoml" / "models").mkdir(parents=True)
    export = folder / "export"
    parameters = write_export(export)
    return export, Registry().register(export).model_id, parameters


def cold_starts(folder: Path, key: str, rounds: int) -> list[float]:
    """Seconds from exec to the first readiness, service by service."""
    times = []
    for _ in range(rounds):
        with (folder / "serve.log").open("ab") as log, service(log, key) as (_, _, seconds):
            times.append(seconds)
    return times


def check_same_picture(load: Helper, bare: Helper) -> None:
    """Refuse to compare sides that do not make the same pictures."""
    for seed in (0, 5):
        if load.ask(f"picture {seed}") != bare.ask(f"picture {seed}"):
            raise RuntimeError(f"service and bare session differ in the picture of seed {seed}")


def measure(quick: bool) -> Measurement:
    """Measure throughput, CPU time, start and memory."""
    for name in [name for name in os.environ if name.startswith("CATALOGAN_")]:
        del os.environ[name]
    os.environ["PYTHONWARNINGS"] = "ignore"
    rounds, seconds = (2, 1.0) if quick else (9, 6.0)
    threads, key = load_settings().workers, secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        folder = Path(name)
        export, model_id, parameters = register(folder)
        starts = cold_starts(folder, key, 1 if quick else 5)
        bare = Helper("bare_session.py", str(export), model_id, str(threads))
        with (folder / "serve.log").open("ab") as log, service(log, key) as (process, port, _):
            load = Helper("load.py", str(port), key, str(CLIENTS), str(process.pid))
            check_same_picture(load, bare)
            load.ask(str(seconds)), bare.ask(str(seconds))  # warm-up
            served, alone = interleaved(
                rounds, lambda: load.ask(str(seconds)), lambda: bare.ask(str(seconds))
            )
            load.close()
        bare.close()
    return evaluated(served, alone, starts, {"threads": threads, "parameters": parameters})


def evaluated(
    served: list[dict[str, float]],
    alone: list[dict[str, float]],
    starts: list[float],
    facts: dict[str, int],
) -> Measurement:
    """Turn rounds into figures."""
    measurement = Measurement()
    throughputs = [[r["pictures"] / r["seconds"] for r in rounds] for rounds in (served, alone)]
    measurement.add("serve_pictures_per_s", throughputs[0])
    measurement.add("session_pictures_per_s", throughputs[1])
    measurement.add("serve_over_session", quotients(*throughputs))
    cpu_ms = [[1000 * r["cpu_s"] / r["pictures"] for r in rounds] for rounds in (served, alone)]
    measurement.add("serve_cpu_ms_per_request", cpu_ms[0])
    measurement.add("session_cpu_ms_per_image", cpu_ms[1])
    measurement.add("cold_start_s", starts)
    measurement.add("service_rss_mb", [r["rss_mb"] for r in served])
    measurement.raw["serving"] = {
        "model": NAME,
        **facts,
        "clients": CLIENTS,
        "service_rounds": served,
        "session_rounds": alone,
    }
    return measurement


if __name__ == "__main__":
    run_part(__doc__, measure)
