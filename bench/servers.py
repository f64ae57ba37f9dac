"""The servers that are measured, each in a process of its own, and the fixed model they serve.

`bench-128` has about 3 M parameters and its first weights: what it shows does not change the time.
"""

import dataclasses
import datetime
import hashlib
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
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import CATALOGAN

from models.generator import Generator, GeneratorShape
from models.manifest import GENERATOR_FILE, MANIFEST_FILE, FileRecord, GeneratorManifest
from service.registry.store import Registry
from training.export.graphs import OPSET, to_onnx
from training.export.parity import measure_parity

NAME = "bench-128"
CATEGORIES = ("bag", "bottle", "box", "chair", "lamp", "mug", "shirt", "shoe")
WIDTHS = {"z_dim": 128, "w_dim": 256, "channel_base": 4096, "channel_max": 192}
SHAPE = GeneratorShape(height=128, width=128, channels=3, categories=len(CATEGORIES), **WIDTHS)
# A trained generator adds noise; the first weights would add none.
NOISE_STRENGTH = 0.1
CLIENTS = 8
START_LIMIT_SEC = 600.0
POLL_SEC = 0.01
HERE = Path(__file__).parent


def write_export(folder: Path) -> int:
    """Export the model as `catalogan export` would; gives its count of parameters."""
    torch.manual_seed(0)
    generator = Generator(SHAPE).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(NOISE_STRENGTH)
    generator.update_w_avg()
    graph = to_onnx(generator, "fp32")
    record = FileRecord(sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph))
    manifest = GeneratorManifest(
        name=NAME,
        created=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        categories=CATEGORIES,
        width=SHAPE.width,
        height=SHAPE.height,
        channels=3,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        num_ws=generator.style_shape[0],
        w_dim=generator.style_shape[1],
        opset=OPSET,
        preset=NAME,
        nimg=0,
        dataset_hash="0" * 64,
        training={"model": dataclasses.asdict(SHAPE)},
        licence="CC0-1.0",
        parity=measure_parity(generator, graph, "fp32"),
        files={GENERATOR_FILE: record},
    )
    folder.mkdir()
    (folder / GENERATOR_FILE).write_bytes(graph)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return sum(parameter.numel() for parameter in generator.parameters())


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
        self._process.wait()


class Server(NamedTuple):
    """A server that is ready: on 127.0.0.1, so many seconds after its start."""

    pid: int
    port: int
    start_s: float


class Bench:
    """The model, registered in a Model Store of its own below `folder`, and what serves it."""

    def __init__(self, folder: Path) -> None:
        """Settings of this process's environment are dropped."""
        for name in [name for name in os.environ if name.startswith("CATALOGAN_")]:
            del os.environ[name]
        self.folder, self.key = folder, secrets.token_urlsafe(24)
        os.environ |= {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "CATALOGAN_API_KEY": self.key,
            "PYTHONWARNINGS": "ignore",
        }
        (folder / "bentoml" / "models").mkdir(parents=True)
        self.parameters = write_export(folder / "export")
        self._model = (str(folder / "export"), Registry().register(folder / "export").model_id)

    def bare_session(self, threads: int) -> Helper:
        """The session without a server."""
        return Helper("plain.py", "session", *self._model, str(threads))

    @contextmanager
    def service(self) -> Iterator[Server]:
        """`catalogan serve`, as it would run in earnest."""
        command = [CATALOGAN, "serve", "--model", NAME, "--device", "cpu", "--port"]
        with self._running(command, "/readyz") as server:
            yield server

    @contextmanager
    def plain(self, framework: str, threads: int) -> Iterator[Server]:
        """A plain server: "fastapi" or "litserve"."""
        script = ["plain.py", "fastapi"] if framework == "fastapi" else ["plain_litserve.py"]
        command = [sys.executable, str(HERE / script[0]), *script[1:], *self._model, str(threads)]
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
        url = f"http://127.0.0.1:{server.port}/v1/images/generations"
        for key, field, statuses in (("wrong", "seed", {401}), (self.key, "sede", {400, 422})):
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            request = urllib.request.Request(url, json.dumps({field: 0}).encode(), headers)
            try:
                with urllib.request.urlopen(request) as answer:
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
                process.wait(START_LIMIT_SEC)
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
            with suppress(OSError), urllib.request.urlopen(request, timeout=10):
                return
            time.sleep(POLL_SEC)
        raise RuntimeError(f"{process.args!r} was not ready within {START_LIMIT_SEC:g} s")
