"""Decoding processes: limits, death, replacement, threads, and no orphans."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from models.confinement import budget_for
from models.images import ImageError, ImageLimits
from service.decoding.processes import DecodingProcesses
from service.decoding.uploads import open_upload
from service.errors import NotReady

from ..hostile_files import encoded, tiled_tiff
from ..processes import started
from .conftest import wait_for

MAX_REST_BYTES = 60e6
LARGE = (6_000, 5_000)


@pytest.fixture
def decoding() -> Iterator[DecodingProcesses]:
    with closing(DecodingProcesses(2, ImageLimits())) as processes:
        yield processes


def photo(side_px: int = 64) -> bytes:
    return encoded(Image.new("RGB", (side_px, side_px), (10, 200, 30)), "PNG")


def size_of(decoding: DecodingProcesses, data: bytes) -> list[int]:
    size: list[int] = decoding.run("open", data, max_side_px=2048)[0]["size"]
    return size


def running() -> list[psutil.Process]:
    """Decoding processes of this one."""
    children = psutil.Process().children()
    return [child for child in children if "service.decoding.child" in " ".join(child.cmdline())]


def test_a_process_is_used_again_and_small_at_rest(decoding: DecodingProcesses) -> None:
    deep = np.zeros(LARGE, dtype=np.uint16)
    deep[::7, ::5] = 65_535
    for data in (photo(), encoded(Image.fromarray(deep), "PNG", compress_level=1), photo()):
        size_of(decoding, data)
    (process,) = running()
    assert process.memory_info().rss < MAX_REST_BYTES
    peak_kb = int(next_line(f"/proc/{process.pid}/status", "VmHWM").split()[1])
    # 16 bits of grey take no floats of 8 bytes for all pixels at once.
    assert peak_kb * 1000 < MAX_REST_BYTES + 8 * LARGE[0] * LARGE[1]


def next_line(path: str, start: str) -> str:
    return next(line for line in Path(path).read_text().splitlines() if line.startswith(start))


@pytest.mark.parametrize(
    ("sent", "told"), [(signal.SIGSEGV, "crashed"), (signal.SIGPROF, "too much CPU time")]
)
def test_a_process_that_dies_costs_one_upload(
    decoding: DecodingProcesses, sent: signal.Signals, told: str
) -> None:
    size_of(decoding, photo())
    (first,) = running()
    first.suspend()
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(size_of, decoding, photo())
        wait_for(lambda: len(decoding._busy) == 1)
        # Another is decoded beside it.
        assert size_of(decoding, photo(32)) == [32, 32]
        first.send_signal(sent)
        first.resume()
        with pytest.raises(ImageError, match=told) as caught:
            held.result()
    assert caught.value.reason == "too_costly"
    assert not first.is_running()
    for _ in range(3):
        assert size_of(decoding, photo(40)) == [40, 40]


def test_a_process_that_died_idle_costs_no_upload(decoding: DecodingProcesses) -> None:
    size_of(decoding, photo())
    (first,) = running()
    first.kill()
    wait_for(lambda: first.status() == psutil.STATUS_ZOMBIE)
    assert size_of(decoding, photo()) == [64, 64]


def test_many_threads_share_it(decoding: DecodingProcesses) -> None:
    with ThreadPoolExecutor(8) as threads:
        sides = [16 + index % 40 for index in range(80)]
        sizes = list(threads.map(lambda side: size_of(decoding, photo(side)), sides))
    assert sizes == [[side, side] for side in sides]
    assert len(running()) == 2


def test_stopping_ends_even_what_is_being_decoded(decoding: DecodingProcesses) -> None:
    size_of(decoding, photo())
    (process,) = running()
    process.suspend()
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(size_of, decoding, photo())
        wait_for(lambda: len(decoding._busy) == 1)
        decoding.close()
        with pytest.raises(NotReady):
            held.result()
    assert not running()
    with pytest.raises(NotReady):
        size_of(decoding, photo())


def test_pixels_and_opacity_come_back_as_they_are(decoding: DecodingProcesses) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 40, 4), dtype=np.uint8)
    opened = open_upload(encoded(Image.fromarray(pixels), "PNG"), decoding, 2048)
    assert opened.size == (40, 30)
    assert (opened.pixels == pixels[..., :3]).all()
    assert opened.alpha is not None
    assert (opened.alpha == pixels[..., 3]).all()
    opaque = open_upload(encoded(Image.fromarray(pixels[..., :3]), "PNG"), decoding, 20)
    assert opaque.alpha is None
    assert opaque.pixels.shape == (15, 20, 3)


def confined(code: str) -> int:
    """Exit status of a process that runs `code`."""
    start = "from models.confinement import *\nfrom models.images import *\n"
    command = [sys.executable, "-c", start + code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=env, stderr=subprocess.DEVNULL).returncode


def test_cpu_time_and_memory_are_held_by_the_system() -> None:
    assert confined("limit_cpu(0.2)\nwhile True: pow(3, 10**6)") == -signal.SIGPROF
    hungry = (
        "confine(budget_for(0, ({0}, {0})))\ntry: bytes(500_000_000)\nexcept MemoryError: exit(7)"
    )
    assert confined(hungry.format(16)) == 7
    assert confined(hungry.format(6_000)) == 0


def test_a_file_is_held_to_its_own_size_whatever_is_not_checked(tmp_path: Path) -> None:
    # As if tiles were not looked at: the codec itself asks for 2.3 GB.
    (tmp_path / "tiled.tif").write_bytes(tiled_tiff())
    code = (
        "import sys, models.image_checks as c\n"
        "c._check_tiff = lambda image: None\n"
        f"data = open({str(tmp_path / 'tiled.tif')!r}, 'rb').read()\n"
        "confine(budget_for(len(data), (16, 16)))\n"
        "try: open_image(data)\n"
        "except ImageError as error: exit(8)"
    )
    assert confined(code) == 8


def test_budgets_grow_with_the_size_that_a_file_states() -> None:
    small, large = budget_for(1_000, (64, 64)), budget_for(25_000_000, (8_000, 5_000))
    assert small.memory_bytes < 250e6
    assert small.cpu_sec < 6
    assert large.memory_bytes < 1e9
    assert large.cpu_sec < 20


PARENT = """
import io, sys, threading
from models.images import ImageLimits
from service.decoding.processes import DecodingProcesses
processes = DecodingProcesses(1, ImageLimits())
data = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4)))
processes.run("measure", data)
print(processes._idle[0]._process.pid, flush=True)
sys.stdin.read()
threading.Thread(target=processes.run, args=("open", data), kwargs={"max_side_px": 9}).start()
while processes._idle: pass
print("busy", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process in a codec")
def test_no_process_outlives_its_parent_not_even_in_a_codec() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started([sys.executable, "-c", PARENT], env=env, **pipes) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.buffer.write(len(photo()).to_bytes(4) + photo())
        parent.stdin.flush()
        child = psutil.Process(int(parent.stdout.readline()))
        child.suspend()  # it reads nothing, as in a codec
        parent.stdin.close()
        assert parent.stdout.readline() == "busy\n"
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([child], timeout=60)
        for one in alive:
            one.kill()
    assert not alive


def test_a_process_knows_nothing_of_the_service(
    decoding: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGAN_API_KEY", "secret")
    size_of(decoding, photo())
    (process,) = running()
    assert not [name for name in process.environ() if name.startswith("CATALOGAN")]
    loaded = " ".join(m.path for m in process.memory_maps())
    for library in ("onnxruntime", "pydantic", "sqlalchemy"):
        assert library not in loaded
