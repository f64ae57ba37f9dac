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
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from PIL import Image

from training.photos.decoding import DecodedPhoto, Target, UnusablePhoto, decode_photo

# Photos handed to a process at a time: hides the pipe's latency, and is little to redo.
_BATCH: Final = 8
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Longest that one photo may take."""

    cpu_sec: float = 30.0
    wall_sec: float = 600.0


@dataclass(slots=True)
class _Worker:
    """A process, its pipe, and the photos it has not answered yet, in its order."""

    process: BaseProcess
    pipe: Connection
    pending: deque[int] = field(default_factory=deque)
    deadline: float = 0.0
    started: bool = False


def decode_all(
    files: Sequence[str],
    target: Target,
    images: ImagesFile,
    *,
    processes: int,
    limits: TimeLimits,
) -> Generator[tuple[int, Outcome], None, None]:
    """Decode `files` into the rows of `images`.

    Args:
        files: Paths of regular files; file i goes to row i.
        target: What to bring each photo to.
        images: A file that is large enough already.
        processes: How many photos to decode at once.
        limits: Longest that one photo may take.

    Yields:
        Index of a file, and what became of it; each index once, in no fixed order.

    Raises:
        DecodeError: The images file can't be written, or processes do not start.
    """
    pool = _Pool(files, target, images, limits)
    try:
        yield from pool.run(min(processes, max(1, len(files))))
    finally:
        pool.stop()


class _Pool:
    """Hands out photos, collects answers, replaces processes."""

    def __init__(
        self, files: Sequence[str], target: Target, images: ImagesFile, limits: TimeLimits
    ) -> None:
        self._files = files
        self._arguments = (target, images, limits.cpu_sec)
        self._limits = limits
        self._queue = deque(range(len(files)))
        self._workers: list[_Worker] = []
        self._context = _context()

    def run(self, processes: int) -> Iterator[tuple[int, Outcome]]:
        for _ in range(processes):
            self._start()
        while any(worker.pending for worker in self._workers):
            now = time.monotonic()
            timeout = max(0.0, min(w.deadline for w in self._workers if w.pending) - now)
            ready = set(wait([w.pipe for w in self._workers if w.pending], timeout))
            for worker in list(self._workers):
                if worker.pipe in ready:
                    yield from self._collect(worker)
                elif worker.pending and time.monotonic() > worker.deadline:
                    if not worker.started:
                        raise DecodeError(f"no decoding process within {_START_LIMIT_SEC:g} s")
                    message = f"not decoded after {self._limits.wall_sec:g} s"
                    yield self._replace(worker, "took_too_long", message)

    def stop(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle process ends, as there is nothing more to read
        for worker in self._workers:
            if not worker.pending:
                worker.process.join(timeout=1)
            _kill(worker)
        self._workers = []

    def _start(self) -> None:
        """Start a process, and give it work."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, *self._arguments), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        self._hand_out(worker)
        worker.deadline = time.monotonic() + _START_LIMIT_SEC

    def _hand_out(self, worker: _Worker) -> None:
        batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
        if batch:
            worker.pending.extend(batch)
            worker.deadline = time.monotonic() + self._limits.wall_sec
            with suppress(OSError):  # it died: seen at the next wait
                worker.pipe.send([(index, self._files[index]) for index in batch])

    def _collect(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        """Take one answer; the first pending photo is the one it is about."""
        try:
            index, outcome = worker.pipe.recv()
        except (EOFError, OSError) as error:
            worker.process.join(timeout=5)
            died = f"died ({_died_of(worker.process.exitcode)})"
            if not worker.started:
                raise DecodeError(f"a decoding process {died} before its first photo") from error
            if worker.process.exitcode == -signal.SIGPROF:
                message = f"not decoded in {self._limits.cpu_sec:g} s of processor time"
                yield self._replace(worker, "took_too_long", message)
            else:
                yield self._replace(worker, "decoder_died", f"the decoder {died} on it")
            return
        worker.deadline = time.monotonic() + self._limits.wall_sec
        if outcome is None:
            worker.started = True
            return
        if isinstance(outcome, DecodeError):
            raise outcome
        worker.pending.popleft()
        if not worker.pending:
            self._hand_out(worker)
        yield index, outcome

    def _replace(self, worker: _Worker, reason: str, message: str) -> tuple[int, Outcome]:
        """Give up the photo at work, put the others back, and start anew."""
        _kill(worker)
        worker.pipe.close()
        self._workers.remove(worker)
        lost = worker.pending.popleft()
        self._queue.extendleft(reversed(worker.pending))
        if self._queue:
            self._start()
        return lost, UnusablePhoto(reason, message)


def _context() -> BaseContext:
    """Processes that do not inherit our threads and open files."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["training.photos.decoding"])
        return context
    return multiprocessing.get_context("spawn")


def _serve(pipe: Connection, target: Target, images: ImagesFile, cpu_sec: float) -> None:
    """A decoding process: take batches until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    Image.init()  # load every codec now, on no photo's account
    handle = os.open(images.path, os.O_WRONLY | os.O_CLOEXEC)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send((-1, None))  # ready
        while True:
            for index, file in pipe.recv():
                signal.setitimer(signal.ITIMER_PROF, cpu_sec)  # its signal ends the process
                outcome = _decode_into(handle, images.offset_bytes, index, file, target)
                signal.setitimer(signal.ITIMER_PROF, 0)
                pipe.send((index, outcome))


def _decode_into(
    handle: int, offset_bytes: int, index: int, file: str, target: Target
) -> Outcome | DecodeError:
    """Decode one photo, and write its pixels to its row."""
    try:
        photo, pixels = decode_photo(file, target)
    except UnusablePhoto as error:
        return error
    except MemoryError:
        return UnusablePhoto("undecodable", "not enough memory to decode it")
    except Exception as error:  # one photo must not cost the run, whatever it hits
        return UnusablePhoto("unexpected_error", f"{type(error).__name__}: {error}")
    try:
        row = pixels.tobytes()
        written = os.pwrite(handle, row, offset_bytes + index * len(row))
    except OSError as error:
        return DecodeError(f"can't write the dataset: {error.strerror}")
    if written != len(row):
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
