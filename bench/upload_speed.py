"""Compares an ordinary upload's time and CPU with those of an earlier commit, in the same run.

Both services, this tree's and that of commit BEFORE, run as in production and serve the same
export, BEFORE's `base:clothing`. One client sends one photo after the other, alternately to each:
a JPEG of a shop's usual size to augmentations (flipped, returned as JPEG) and to variations. CPU
time is that of the service with all its processes.
"""

import io
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from measuring import REPOSITORY, Measurement, interleaved, quotients, run
from PIL import Image
from processes import running, usable_port

BEFORE = "5acf454"
PHOTO_PX = (1200, 1600)
LIMIT_SEC = 600.0
FIELDS = {
    "augmentations": {
        "seed": "1",
        "operations": '[{"name": "flip", "probability": 1}]',
        "output_format": "jpeg",
    },
    "variations": {"n": "1", "seed": "1", "category": "dress", "output_format": "jpeg"},
}


def photo() -> bytes:
    """A JPEG with as much detail as a photo has: smooth shapes and a little noise."""
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (24, 18, 3), dtype=np.uint8))
    smooth = np.asarray(rough.resize(PHOTO_PX, Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class Uploads:
    """One client of one service."""

    def __init__(self, client: httpx.Client, server_pid: int, data: bytes) -> None:
        self._client, self._server, self._data = client, psutil.Process(server_pid), data

    def send(self, endpoint: str, count: int) -> dict[str, float]:
        """Send the photo `count` times; returns the median time and the CPU time of a request.

        Raises:
            httpx.HTTPStatusError: It was refused.
        """
        times, cpu_s = list[float](), self._cpu_s()
        for _ in range(count):
            start = time.perf_counter()
            files = {"image": ("photo.jpg", self._data, "image/jpeg")}
            self._client.post(
                f"/v1/images/{endpoint}", files=files, data=FIELDS[endpoint]
            ).raise_for_status()
            times.append(1000 * (time.perf_counter() - start))
        children = [child.memory_info().rss / 1e6 for child in self._server.children()]
        return {
            "ms": statistics.median(times),
            "cpu_ms": 1000 * (self._cpu_s() - cpu_s) / count,
            "rss_mb": self._server.memory_info().rss / 1e6,
            "child_mb": max(children, default=0.0),
        }

    def _cpu_s(self) -> float:
        processes = [self._server, *self._server.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextmanager
def checkout(folder: Path) -> Iterator[Path]:
    """The tree of commit BEFORE, in a worktree of its own."""
    git = ("git", "-C", str(REPOSITORY), "worktree")
    run(*git, "add", "--detach", str(folder), BEFORE)
    try:
        yield folder
    finally:
        run(*git, "remove", "--force", str(folder))


@contextmanager
def service(tree: Path, folder: Path, data: bytes) -> Iterator[Uploads]:
    """Run `catalogan serve` of a tree, on the store of the environment."""
    port, key, log = usable_port(), secrets.token_urlsafe(24), folder / "service.log"
    environment = (f"PYTHONPATH={tree}", f"CATALOGAN_DATA_DIR={folder}", f"CATALOGAN_API_KEY={key}")
    serve = (sys.executable, "-m", "catalogan", "serve", "--device", "cpu", "--port", str(port))
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    with log.open("wb") as output, client:
        command = ["env", "-C", str(folder), *environment, *serve]
        with running(command, client, "/readyz", LIMIT_SEC, output.fileno()) as server:
            yield Uploads(client, server.pid, data)


def register(export: Path, home: Path) -> None:
    """Register an export in a store of its own, the environment's from now on."""
    for name in [name for name in os.environ if name.startswith("CATALOGAN_")]:
        del os.environ[name]
    os.environ |= {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    (home / "models").mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "catalogan", "register", str(export)],
        check=True,
        capture_output=True,
        cwd=REPOSITORY,
    )


def measure(quick: bool) -> Measurement:
    """Measure both endpoints of both services, alternately."""
    rounds, count = (2, 3) if quick else (9, 20)
    measurement, data = Measurement(), photo()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="catalogan-bench-")))
        before = stack.enter_context(checkout(folder / "before"))
        register(before / "training" / "data" / "bases" / "clothing", folder / "bentoml")
        sides = {}
        for name, tree in (("now", REPOSITORY), ("before", before)):
            (folder / name / "state").mkdir(parents=True, exist_ok=True)
            sides[name] = stack.enter_context(service(tree, folder / name / "state", data))
        for endpoint in FIELDS:
            work = [partial(side.send, endpoint, count) for side in sides.values()]
            interleaved(1, *work)  # a warm-up
            found = dict(zip(sides, interleaved(rounds, *work), strict=True))
            add(measurement, endpoint, found)
    resting = [one["child_mb"] for one in measurement.raw["uploads"]["augmentations"]["now"]]
    measurement.add("decoding_process_rss_mb", resting)
    measurement.raw["uploads"] |= {"before": BEFORE, "photo_px": PHOTO_PX, "photo_bytes": len(data)}
    return measurement


def add(measurement: Measurement, endpoint: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Add the figures of one endpoint."""
    now, before = (
        {key: [one[key] for one in found[name]] for key in ("ms", "cpu_ms")}
        for name in ("now", "before")
    )
    measurement.add(f"upload_{endpoint}_ms", now["ms"])
    extra = [a - b for a, b in zip(now["ms"], before["ms"], strict=True)]
    measurement.add(f"upload_{endpoint}_extra_ms", extra)
    measurement.add(f"upload_{endpoint}_over_before", quotients(now["ms"], before["ms"]))
    cpu = quotients(now["cpu_ms"], before["cpu_ms"])
    measurement.add(f"upload_{endpoint}_cpu_over_before", cpu)
    measurement.raw.setdefault("uploads", {})[endpoint] = found


if __name__ == "__main__":
    print({name: round(value, 3) for name, value in measure("--quick" in sys.argv).figures.items()})
