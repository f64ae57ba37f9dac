"""The servers that are measured, each in a process of its own, and the helpers beside them."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_model import NAME, write_export
from measuring import CATALOGAN

from service.registry.store import Registry

CLIENTS = 8
START_LIMIT_SEC = 600.0
STOP_LIMIT_SEC = 600.0
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


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    Attributes:
        pid: Of its first process.
        port: Where it listens, on 127.0.0.1.
        start_s: Seconds from exec to readiness.
    """

    pid: int
    port: int
    start_s: float


@dataclass(frozen=True)
class Bench:
    """The model, registered in a Model Store of its own, and what it is served with.

    Attributes:
        folder: For everything that is written.
        model_id: "name:version".
        parameters: Of the model.
        key: The API key.
    """

    folder: Path
    model_id: str
    parameters: int
    key: str

    @classmethod
    def set_up(cls, folder: Path) -> "Bench":
        """Export and register the model; settings of this process's environment are dropped."""
        for name in [name for name in os.environ if name.startswith("CATALOGAN_")]:
            del os.environ[name]
        key = secrets.token_urlsafe(24)
        os.environ |= {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "CATALOGAN_API_KEY": key,
            "PYTHONWARNINGS": "ignore",
        }
        (folder / "bentoml" / "models").mkdir(parents=True)
        parameters = write_export(folder / "export")
        return cls(folder, Registry().register(folder / "export").model_id, parameters, key)

    def bare_session(self, threads: int) -> Helper:
        """The session without a server."""
        return Helper("bare_session.py", str(self.folder / "export"), self.model_id, str(threads))

    @contextmanager
    def service(self) -> Iterator[Server]:
        """`catalogan serve`, as it would run in earnest."""
        command = [CATALOGAN, "serve", "--model", NAME, "--device", "cpu", "--port"]
        with self._running(command, "/readyz") as server:
            yield server

    @contextmanager
    def plain(self, framework: str, threads: int) -> Iterator[Server]:
        """A plain server: "fastapi" or "litserve"."""
        script, export = HERE / f"plain_{framework}.py", self.folder / "export"
        command = [sys.executable, str(script), str(export), self.model_id, str(threads)]
        with self._running(command, "/health") as server:
            yield server

    @contextmanager
    def load(self, server: Server) -> Iterator[Helper]:
        """Clients of a server."""
        helper = Helper("load.py", str(server.port), self.key, str(CLIENTS), str(server.pid))
        try:
            yield helper
        finally:
            helper.close()

    def check(self, server: Server) -> None:
        """Refuse to measure a server that does not check keys and requests.

        Raises:
            RuntimeError: It does not.
        """
        for key, field, statuses in (("wrong", "seed", {401}), (self.key, "sede", {400, 422})):
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/v1/images/generations",
                json.dumps({field: 0}).encode(),
                {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            if status not in statuses:
                raise RuntimeError(f"{server} answered {status}, not one of {statuses}")

    @contextmanager
    def _running(self, command: Sequence[str], probe: str) -> Iterator[Server]:
        """Run a server whose command ends with its port, until it answers `probe` and then on."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        start = time.perf_counter()
        with (self.folder / "servers.log").open("ab") as log:
            # A group of its own: what a server of several processes leaves is ended, too.
            process = subprocess.Popen(
                [*command, str(port)], stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait(process, f"http://127.0.0.1:{port}{probe}", start)
            yield Server(process.pid, port, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_LIMIT_SEC)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _wait(self, process: subprocess.Popen[bytes], url: str, start: float) -> None:
        """Poll until a server is ready.

        Raises:
            RuntimeError: It ended, or is not ready in time.
        """
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.key}"})
        while time.perf_counter() - start < START_LIMIT_SEC:
            if process.poll() is not None:
                log = (self.folder / "servers.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{log}")
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(POLL_SEC)
        raise RuntimeError(f"{process.args!r} was not ready within {START_LIMIT_SEC:g} s")
