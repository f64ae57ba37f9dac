"""Decode photos in one process per core; a photo that hangs or kills its process is left out.

Codecs are C code fed with untrusted bytes. A process that dies, or is killed because one photo
takes too long, is replaced, and only that photo is lost. The limit is on CPU time, so that a
busy machine loses no photo; the limit on wall time, for reads that never return, is far
longer. Memory is limited to what the largest photo that is allowed takes. Pixels go straight
from the process into the images file, never through a pipe.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from PIL import Image

from models.confinement import (
    budget_for,
    end_with_parent,
    leave_no_core,
    limit_cpu,
    limit_memory,
)
from training.photos.decoding import DecodedPhoto, UnusablePhoto, decode_photo
from training.photos.options import PrepareOptions

# A process imports its codecs before its first photo, on a busy machine slowly.
_START_LIMIT_SEC: Final = 600.0

Outcome = DecodedPhoto | UnusablePhoto


class DecodeError(RuntimeError):
    """Decoding can't continue, whatever the photo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesFile:
    """The file that pixels are written to: row i starts at offset_bytes + i * bytes per image."""

    path: Path
    offset_bytes: int


@dataclass(slots=True)
class _Worker:
    """A process, its pipe, and the photo that it is decoding."""

    process: BaseProcess
    pipe: Connection
    lifeline: Connection
    row: int | None = None
    deadline: float = 0.0
    started: bool = False


def decode_all(
    files: Sequence[str], options: PrepareOptions, images: ImagesFile, *, processes: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Decode `files` into the rows of `images`.

    Args:
        files: Paths of regular files; file i goes to row i.
        options: Size and shape of the result, and how long one photo may take.
        images: A file that is large enough already.
        processes: How many photos to decode at once.

    Yields:
        Index of a file, and its outcome; each index once, in no fixed order.

    Raises:
        DecodeError: The images file can't be written, or processes do not start.
    """
    pool = _Pool(files, options, images)
    try:
        yield from pool.run(processes)
    finally:
        pool.stop()


class _Pool:
    """Assigns photos to processes, collects outcomes, replaces dead processes."""

    def __init__(self, files: Sequence[str], options: PrepareOptions, images: ImagesFile) -> None:
        self._files, self._options, self._images = files, options, images
        self._rows = iter(range(len(files)))
        self._workers: list[_Worker] = []
        # With a fork server, processes do not inherit this one's threads and open files.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["training.photos.decoding"])

    def run(self, processes: int) -> Iterator[tuple[int, Outcome]]:
        for _ in range(processes):
            self._start()
        while busy := [worker for worker in self._workers if worker.row is not None]:
            timeout = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = set(wait([worker.pipe for worker in busy], timeout))
            for worker in busy:
                if worker.pipe in ready:
                    yield from self._collect(worker)
                elif time.monotonic() > worker.deadline:
                    if not worker.started:
                        raise DecodeError(f"no decoding process within {_START_LIMIT_SEC:g} s")
                    message = f"not decoded after {self._options.wall_limit_sec:g} s"
                    yield self._replace(worker, "took_too_long", message)

    def stop(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle process exits when its pipe is closed
        for worker in self._workers:
            if worker.row is None:
                worker.process.join(timeout=1)
            _kill(worker)
        self._workers = []

    def _start(self) -> None:
        """Start a process with the next photo, if there is one."""
        row = next(self._rows, None)
        if row is None:
            return
        parent_end, child_end = self._context.Pipe()
        lifeline, held = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve, args=(child_end, lifeline, self._options, self._images), daemon=True
        )
        process.start()
        child_end.close()
        lifeline.close()
        worker = _Worker(process, parent_end, held)
        self._workers.append(worker)
        self._assign(worker, row)
        worker.deadline = time.monotonic() + _START_LIMIT_SEC

    def _assign(self, worker: _Worker, row: int | None) -> None:
        worker.row = row
        worker.deadline = time.monotonic() + self._options.wall_limit_sec
        if row is not None:
            with suppress(OSError):  # it died: noticed at the next wait
                worker.pipe.send((row, self._files[row]))

    def _collect(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        """Receive a message: first that the process is ready, then the outcome of each photo."""
        try:
            row, outcome = worker.pipe.recv()
        except (EOFError, OSError) as error:
            worker.process.join(timeout=5)
            died = f"died ({_cause_of_death(worker.process.exitcode)})"
            if not worker.started:
                raise DecodeError(f"a decoding process {died} before its first photo") from error
            if worker.process.exitcode == -signal.SIGPROF:
                message = f"not decoded in {self._options.cpu_limit_sec:g} s of CPU time"
                yield self._replace(worker, "took_too_long", message)
            else:
                yield self._replace(worker, "decoder_died", f"the decoder {died} on it")
            return
        if outcome is None:
            worker.started = True
            worker.deadline = time.monotonic() + self._options.wall_limit_sec
            return
        if isinstance(outcome, DecodeError):
            raise outcome
        self._assign(worker, next(self._rows, None))
        yield row, outcome

    def _replace(self, worker: _Worker, reason: str, message: str) -> tuple[int, Outcome]:
        """Give up the photo being decoded, and start another process."""
        _kill(worker)
        worker.pipe.close()
        self._workers.remove(worker)
        self._start()
        assert worker.row is not None
        return worker.row, UnusablePhoto(reason, message)


def _serve(
    pipe: Connection, lifeline: Connection, options: PrepareOptions, images: ImagesFile
) -> None:
    """Run a decoding process: decode photos until the other end closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    end_with_parent(lifeline.fileno())
    leave_no_core()
    limit_memory(budget_for(options.max_bytes, (options.max_pixels, 1)).memory_bytes)
    Image.init()  # load every codec now, outside any photo's time limit
    handle = os.open(images.path, os.O_WRONLY | os.O_CLOEXEC)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send((-1, None))  # ready
        while True:
            row, file = pipe.recv()
            limit_cpu(options.cpu_limit_sec)
            outcome = _decode_into(handle, images.offset_bytes, row, file, options)
            limit_cpu(0)
            pipe.send((row, outcome))


def _decode_into(
    handle: int, offset_bytes: int, row: int, file: str, options: PrepareOptions
) -> Outcome | DecodeError:
    """Decode one photo and write its pixels to its row."""
    try:
        photo, pixels = decode_photo(file, options)
    except UnusablePhoto as error:
        return error
    except MemoryError:
        return UnusablePhoto("too_costly", "it takes too much memory to decode")
    except Exception as error:  # no single photo may end the whole preparation
        return UnusablePhoto("unexpected_error", f"{type(error).__name__}: {error}")
    try:
        written = os.pwrite(handle, pixels.tobytes(), offset_bytes + row * pixels.nbytes)
    except OSError as error:
        return DecodeError(f"can't write the dataset: {error.strerror}")
    if written != pixels.nbytes:
        return DecodeError("can't write the dataset: the disk is full")
    return photo


def _kill(worker: _Worker) -> None:
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()
    worker.lifeline.close()


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
