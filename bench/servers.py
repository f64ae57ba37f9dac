"""The servers that are measured, each in a process of its own, and the fixed model they serve.

`bench-128` has about 3 M parameters and is trained for one step: quality does not change the time.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import numpy as np
from gpu_bundle import MemoryDataset
from load import Load
from measuring import CATALOGAN
from processes import running, usable_port
from training_speed import new_trainer

from service.model_store.registry import Registry
from training.export.export import ExportOptions, export_run
from training.learning.config import resolve

NAME = "bench-128"
SIZE_PX = 128
CATEGORIES = ("bag", "bottle", "box", "chair", "lamp", "mug", "shirt", "shoe")
WIDTHS = {"z_dim": 128, "w_dim": 256, "channel_base": 4096, "channel_max": 192}
CLIENTS = 8
LIMIT_SEC = 600.0


def write_export(folder: Path) -> int:
    """Train the model for one step and export it; returns its number of parameters."""
    count = len(CATEGORIES)
    photos = np.zeros((count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    dataset = MemoryDataset(photos, np.arange(count), CATEGORIES)
    config = resolve({"model": WIDTHS, "batch_size": count, "max_kimg": count / 1000})
    trainer = new_trainer(folder / "run", dataset, config)
    trainer.train(lambda _: None, lambda: False)
    export_run(trainer.run, folder / "export", ExportOptions(name=NAME, licence="CC0-1.0"))
    return sum(parameter.numel() for parameter in trainer.generator.parameters())


class Bench:
    """The model, registered in its own Model Store below `folder`, and the servers."""

    def __init__(self, folder: Path) -> None:
        """Prepare the model and the environment; Catalogan's settings in it are removed."""
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
        self.parameters = write_export(folder)
        self.model = (str(folder / "export"), Registry().register(folder / "export").model_id)

    def service(self) -> AbstractContextManager[Load]:
        """Run `catalogan serve` as in production."""
        command = [CATALOGAN, "serve", "--model", NAME, "--device", "cpu", "--port"]
        return self._running(command, "/readyz")

    def plain(self, framework: str, threads: int) -> AbstractContextManager[Load]:
        """Run a plain server: "fastapi" or "litserve"."""
        script = str(Path(__file__).with_name("plain.py"))
        command = [sys.executable, script, framework, *self.model, str(threads)]
        return self._running(command, "/health")

    @contextmanager
    def _running(self, command: list[str], probe: str) -> Iterator[Load]:
        """Run a server whose command ends with its port.

        Raises:
            RuntimeError: It ended, or is not ready in time.
        """
        port, log = usable_port(), self.folder / "servers.log"
        with (
            log.open("ab") as file,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=10,
            ) as client,
        ):
            start = time.perf_counter()
            try:
                with running(
                    [*command, str(port)], client, probe, LIMIT_SEC, file.fileno()
                ) as server:
                    start_s = time.perf_counter() - start
                    yield Load(port, self.key, CLIENTS, server.pid, start_s)
            except RuntimeError as error:
                error.add_note(log.read_text(errors="replace")[-2000:])
                raise
