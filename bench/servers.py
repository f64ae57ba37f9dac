"""The servers that are measured, each in a process of its own, and the fixed model they serve.

`bench-128` has about 3 M parameters after one step: what it shows does not change the time.
"""

import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import torch
from gpu_bundle import MemoryDataset
from load import Load
from measuring import CATALOGAN
from plain import ROUTE, BareSession

from service.registry.store import Registry
from training.export.export import ExportOptions, export_run
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.run import write_run
from training.learning.trainer import Trainer

NAME = "bench-128"
SIZE_PX = 128
CATEGORIES = ("bag", "bottle", "box", "chair", "lamp", "mug", "shirt", "shoe")
WIDTHS = {"z_dim": 128, "w_dim": 256, "channel_base": 4096, "channel_max": 192}
CLIENTS = 8
START_LIMIT_SEC = 600.0
POLL_SEC = 0.01


def write_export(folder: Path) -> int:
    """Train the model for one step and export it; returns its count of parameters."""
    count = len(CATEGORIES)
    photos = np.zeros((count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    dataset = MemoryDataset(photos, np.arange(count), CATEGORIES)
    config = resolve({"model": WIDTHS, "batch_size": count, "max_kimg": count / 1000})
    run = folder / "run"
    run.mkdir()
    write_run(run, config, dataset)
    trainer = Trainer(run, dataset, config, torch.device("cpu"), Ranks())
    trainer.train(lambda _: None, lambda: False)
    export_run(run, folder / "export", ExportOptions(name=NAME, licence="CC0-1.0"))
    return sum(parameter.numel() for parameter in trainer.generator.parameters())


class OwnProcess(BaseManager):
    """A process of its own, in which objects live whose methods can be called from here."""


OwnProcess.register("load", Load)
OwnProcess.register("session", BareSession)


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
        self._headers = {"Authorization": f"Bearer {self.key}"}
        os.environ |= {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "CATALOGAN_API_KEY": self.key,
            "PYTHONWARNINGS": "ignore",
        }
        (folder / "bentoml" / "models").mkdir(parents=True)
        self.parameters = write_export(folder)
        self._model = (str(folder / "export"), Registry().register(folder / "export").model_id)

    @contextmanager
    def bare_session(self, threads: int) -> Iterator[BareSession]:
        """The session without a server."""
        with OwnProcess(ctx=multiprocessing.get_context("spawn")) as process:
            yield process.session(*self._model, threads)

    @contextmanager
    def load(self, server: Server) -> Iterator[Load]:
        """Clients of a server."""
        with OwnProcess(ctx=multiprocessing.get_context("spawn")) as process:
            yield process.load(server.port, self.key, CLIENTS, server.pid)

    @contextmanager
    def service(self) -> Iterator[Server]:
        """`catalogan serve`, as it would run in earnest."""
        command = [CATALOGAN, "serve", "--model", NAME, "--device", "cpu", "--port"]
        with self._running(command, "/readyz") as server:
            yield server

    @contextmanager
    def plain(self, framework: str, threads: int) -> Iterator[Server]:
        """A plain server: "fastapi" or "litserve"."""
        script = str(Path(__file__).with_name("plain.py"))
        command = [sys.executable, script, framework, *self._model, str(threads)]
        with self._running(command, "/health") as server:
            yield server

    def check(self, server: Server) -> None:
        """Refuse to measure a server that does not check keys and requests.

        Raises:
            RuntimeError: It does not.
        """
        url = f"http://127.0.0.1:{server.port}{ROUTE}"
        wrong_key = httpx.post(url, json={"seed": 0}, headers={"Authorization": "Bearer wrong"})
        wrong_field = httpx.post(url, json={"sede": 0}, headers=self._headers)
        statuses = (wrong_key.status_code, wrong_field.status_code)
        if statuses not in ((401, 400), (401, 422)):
            raise RuntimeError(f"{server} accepts a wrong key or a wrong field: {statuses}")

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
        url = f"http://127.0.0.1:{port}{probe}"
        try:
            with httpx.Client(headers=self._headers, timeout=10) as client:
                self._wait(process, lambda: client.get(url).is_success, start)
            yield Server(process.pid, port, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(START_LIMIT_SEC)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _wait(
        self, process: subprocess.Popen[bytes], is_ready: Callable[[], bool], start: float
    ) -> None:
        """Poll until a server is ready.

        Raises:
            RuntimeError: It ended, or is not ready in time.
        """
        while time.perf_counter() - start < START_LIMIT_SEC:
            if process.poll() is not None:
                log = (self.folder / "servers.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{log}")
            with suppress(httpx.TransportError):
                if is_ready():
                    return
            time.sleep(POLL_SEC)
        raise RuntimeError(f"{process.args!r} was not ready within {START_LIMIT_SEC:g} s")
