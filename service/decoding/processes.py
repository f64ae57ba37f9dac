"""Processes that decode uploads, so that no file can hold up, fill or end the service.

Codecs are C code fed with untrusted bytes. Each process decodes one file at a time within the
file's own budget (`models.confinement`), is used again, and is replaced when it dies. It has none
of the service's environment, imports nothing of it, and ends with it.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.images import ImageError, ImageLimits
from service.errors import NotReady

logger = logging.getLogger(__name__)

# For reads that never return, and a machine that hardly runs; the limit on CPU time comes first.
_WALL_LIMIT_SEC: Final = 120.0
_WAY_OUT: Final = "save it again as a plain JPEG or PNG"
_MAX_RESPONSE_BYTES: Final = 100_000
# Memory that stays with a process between files, so that an ordinary photo needs no new pages.
_KEPT_BYTES: Final = 16_000_000
_CODE: Final = "import sys; sys.path[:] = {path}; from service.decoding.child import main; main()"
# All that a process gets of the environment; glibc gives blocks of a megabyte back when freed.
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")
_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_ARENA_MAX": "1",
}

Part = NDArray[np.uint8]


class _Died(Exception):
    """The process ended in the midst of a request; the message says of what."""


class DecodingProcesses:
    """Decodes files in so many processes; any number of threads may share it."""

    def __init__(self, count: int, limits: ImageLimits) -> None:
        """Start no process yet.

        Args:
            count: Files that are decoded at a time.
            limits: Of each file.
        """
        self.limits: Final = limits
        self._free: Final = threading.BoundedSemaphore(count)
        self._lock: Final = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._stopped = False

    def run(self, task: str, data: bytes, **arguments: Any) -> tuple[dict[str, Any], list[Part]]:
        """Do one of `service.decoding.tasks` in a process.

        Returns:
            What the task says, and the parts of the pixels.

        Raises:
            ImageError: The image can't be used, or costs too much to find out.
            NotReady: The service is shutting down.
        """
        if len(data) > self.limits.max_bytes:
            raise ImageError("too_many_bytes", f"{len(data)} bytes, over {self.limits.max_bytes}")
        request = {"task": task, "limits": asdict(self.limits), **arguments}
        with self._free:
            process = self._take()
            try:
                response = process.request(request, data)
            except BaseException as error:
                self._bury(process)
                if not isinstance(error, _Died):
                    raise
                logger.warning("a decoding process was replaced: %s", error)
                raise ImageError("too_costly", str(error)) from None
            if response.get("spent"):
                self._bury(process)
            else:
                self._put_back(process)
        if "reason" in response:
            raise ImageError(response["reason"], response["message"])
        return response["about"], response["parts"]

    def close(self) -> None:
        """End all processes; what they were doing is given up."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()  # whose thread closes it
        for process in idle:
            process.close()

    def _take(self) -> "_Process":
        """The process that was used last, else a new one."""
        while True:
            with self._lock:
                self._check_running()
                if not self._idle:
                    break
                process = self._idle.pop()
                if process.alive:
                    self._busy.add(process)
                    return process
            process.close()
        process = _Process()
        with self._lock:
            self._busy.add(process)
        return process

    def _put_back(self, process: "_Process") -> None:
        with self._lock:
            self._busy.discard(process)
            if not self._stopped:
                self._idle.append(process)
                return
        process.close()

    def _bury(self, process: "_Process") -> None:
        with self._lock:
            self._busy.discard(process)
        process.close()
        self._check_running()

    def _check_running(self) -> None:
        if self._stopped:
            raise NotReady("the service is shutting down", retry_after_sec=5)


class _Process:
    """One process, the pipes to and from it, and the memory that both write to."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            RuntimeError: It does not start.
        """
        self._shared: Final = _shared_memory()
        requests, self._requests = os.pipe()
        self._responses, responses = os.pipe()
        lifeline, self._lifeline = os.pipe()
        theirs = (requests, responses, self._shared, lifeline)
        # Some entries are no folders but names that import hooks know.
        path = [str(Path(one).resolve()) if Path(one).exists() else one for one in sys.path]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._process: Final = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-c", _CODE.format(path=path), *map(str, theirs)],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**inherited, **_ENVIRONMENT},
        )
        for end in (requests, responses, lifeline):
            os.close(end)
        try:
            self._read()
        except _Died as error:
            self.close()
            raise RuntimeError(f"a decoding process does not start: {error}") from error

    def request(self, request: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        """Have it do a request, and fetch the pixels.

        Raises:
            _Died: It ended, was ended, or does not respond.
        """
        _write(self._shared, data)
        line = json.dumps({**request, "bytes": len(data)}).encode() + b"\n"
        try:
            os.write(self._requests, line)
        except OSError:
            raise self._death() from None
        response = self._read()
        if "parts" in response:
            response["parts"] = self._fetch(response["parts"])
        if os.fstat(self._shared).st_size > _KEPT_BYTES:
            os.ftruncate(self._shared, 0)
        return response

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, whatever it is at; any thread may."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go of what led to it; only for the thread that uses it."""
        self._process.kill()
        self._process.wait()
        for end in (self._requests, self._responses, self._lifeline, self._shared):
            os.close(end)

    def _read(self) -> dict[str, Any]:
        line, waiting = b"", select.poll()
        waiting.register(self._responses, select.POLLIN)
        while not line.endswith(b"\n"):
            if not waiting.poll(1000 * _WALL_LIMIT_SEC):
                raise _Died(f"it is not decoded after {_WALL_LIMIT_SEC:g} s; {_WAY_OUT}")
            more = os.read(self._responses, 65_536)
            if not more or len(line) > _MAX_RESPONSE_BYTES:
                raise self._death()
            line += more
        response: dict[str, Any] = json.loads(line)
        return response

    def _death(self) -> _Died:
        """Why it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        if code == -signal.SIGPROF:
            return _Died(f"it takes too much CPU time to decode; {_WAY_OUT}")
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return _Died(f"its decoder crashed ({cause}); {_WAY_OUT}")

    def _fetch(self, lengths: Sequence[int]) -> list[Part]:
        """Copy the parts out: what the process does to its memory later changes nothing here."""
        if sum(lengths) > os.fstat(self._shared).st_size:
            raise _Died("its decoder returned too few pixels")
        parts, at = [], 0
        for length in lengths:
            part = np.empty(length, dtype=np.uint8)
            done = 0
            while done < length:
                read = os.preadv(self._shared, [part.data[done:]], at + done)
                if not read:
                    raise _Died("its decoder returned too few pixels")
                done += read
            parts.append(part)
            at += length
        return parts


def _write(shared: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(shared, memoryview(data)[done:], done)


def _shared_memory() -> int:
    """A file in memory; a nameless temporary one where the system has none."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("catalogan-decoding")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
