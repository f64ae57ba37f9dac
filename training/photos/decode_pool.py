"""Decode photos in one process per core; a photo that hangs or kills one is left out.

Codecs are C code fed with other people's bytes. A process that dies, or is ended because
one photo takes too long, is replaced, and only that photo is lost. Processor time is what
is limited, so that a busy machine loses no photo; the limit of wall time, for reads that
never return, is far beyond it. Pixels go straight from the process into the images file,
never through a pipe.
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

from training.photos.decoding import DecodedPhoto, UnusablePhoto, decode_photo
from training.photos.options import PrepareOptions

# A process imports its codecs before its first photo, on a busy machine slowly.
_START_LIMIT_SEC: Final = 600.0

Outcome = DecodedPhoto | UnusablePhoto


class DecodeError(RuntimeError):
    """Decoding can't go on at all, whatever the photo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesFile:
    """Where pixels go: row i starts at offset_bytes + i * bytes per image."""

    path: Path
    offset_bytes: int


@dataclass(slots=True)
class _Worker:
    """A process, its pipe, and the photo that it is at."""

    process: BaseProcess
    pipe: Connection
    row: int | None = None
    deadline: float = 0.0
    started: bool = False


def decode_all(
    files: Sequence[str], options: PrepareOptions, images: ImagesFile, *, processes: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Decode `files` into the rows of `images`.

    Args:
        files: Paths of regular files; file i goes to row i.
        options: What to bring each photo to, and how long one may take.
        images: A file that is large enough already.
        processes: How many photos to decode at once.

    Yields:
        Index of a file, and what became of it; each index once, in no fixed order.

    Raises:
        DecodeError: The images file can't be written, or processes do not start.
    """
    pool = _Pool(files, options, images)
    try:
        yield from pool.run(processes)
    finally:
        pool.stop()


class _Pool:
    """Hands out photos, collects answers, replaces processes."""

    def __init__(self, files: Sequence[str], options: PrepareOptions, images: ImagesFile) -> None:
        self._files, self._options, self._images = files, options, images
        self._rows = iter(range(len(files)))
        self._workers: list[_Worker] = []
        # Processes that do not inherit our threads and open files.
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
            worker.pipe.close()  # an idle process ends, as there is nothing more to read
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
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._options, self._images), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        self._hand_out(worker, row)
        worker.deadline = time.monotonic() + _START_LIMIT_SEC

    def _hand_out(self, worker: _Worker, row: int | None) -> None:
        worker.row = row
        worker.deadline = time.monotonic() + self._options.wall_limit_sec
        if row is not None:
            with suppress(OSError):  # it died: seen at the next wait
                worker.pipe.send((row, self._files[row]))

    def _collect(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        """Take what a process says: first that it is ready, then what became of each photo."""
        try:
            row, outcome = worker.pipe.recv()
        except (EOFError, OSError) as error:
            worker.process.join(timeout=5)
            died = f"died ({_died_of(worker.process.exitcode)})"
            if not worker.started:
                raise DecodeError(f"a decoding process {died} before its first photo") from error
            if worker.process.exitcode == -signal.SIGPROF:
                message = f"not decoded in {self._options.cpu_limit_sec:g} s of processor time"
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
        self._hand_out(worker, next(self._rows, None))
        yield row, outcome

    def _replace(self, worker: _Worker, reason: str, message: str) -> tuple[int, Outcome]:
        """Give up the photo at work, and start another process."""
        _kill(worker)
        worker.pipe.close()
        self._workers.remove(worker)
        self._start()
        assert worker.row is not None
        return worker.row, UnusablePhoto(reason, message)


def _serve(pipe: Connection, options: PrepareOptions, images: ImagesFile) -> None:
    """A decoding process: take photos until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    Image.init()  # load every codec now, on no photo's account
    handle = os.open(images.path, os.O_WRONLY | os.O_CLOEXEC)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send((-1, None))  # ready
        while True:
            row, file = pipe.recv()
            # Its signal ends the process.
            signal.setitimer(signal.ITIMER_PROF, options.cpu_limit_sec)
            outcome = _decode_into(handle, images.offset_bytes, row, file, options)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send((row, outcome))


def _decode_into(
    handle: int, offset_bytes: int, row: int, file: str, options: PrepareOptions
) -> Outcome | DecodeError:
    """Decode one photo, and write its pixels to its row."""
    try:
        photo, pixels = decode_photo(file, options)
    except UnusablePhoto as error:
        return error
    except MemoryError:
        return UnusablePhoto("undecodable", "not enough memory to decode it")
    except Exception as error:  # one photo must not cost the run, whatever it hits
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


def _died_of(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
