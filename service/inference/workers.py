"""Fair queues in front of the threads that generate images."""

import asyncio
import contextvars
import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from service.errors import Busy
from service.telemetry.observation import note_interval, stage

Result = TypeVar("Result")

# Whose request is being served: the name of its key; empty outside requests.
caller: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("caller", default="")
# After so long, half of what a caller used of the workers is forgotten.
HALF_FORGOTTEN_SEC: Final = 60.0


async def to_the_end(work: Awaitable[Result]) -> Result:
    """Wait for `work` to end, whatever happens; return its result.

    A thread can't be stopped, so what it was given must not be free before it ends, and what it
    took must be known. Whoever is cancelled meanwhile notices when they wait for something else.
    """
    running = asyncio.ensure_future(work)
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        task.uncancel()
        task.cancel()
    return running.result()


class Lock(Protocol):
    """What requests take in turn."""

    async def acquire(self) -> object:
        """Wait for it."""

    def release(self) -> None:
        """Let the next one have it."""


@asynccontextmanager
async def one_at_a_time(lock: Lock) -> AsyncIterator[None]:
    """Hold the turn, and note how long it took to come."""
    with stage("queue"):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Workers:
    """Runs jobs on a fixed number of threads, which callers share evenly."""

    def __init__(self, threads: int, max_wait_sec: float) -> None:
        """Start no thread yet.

        Args:
            threads: Jobs that run at a time.
            max_wait_sec: How long a call may wait for its first job to begin.
        """
        self._max_wait_sec: Final = max_wait_sec
        self._waiting: Final = FairQueue()
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(
        self, jobs: Sequence[Callable[[], Result]], *, patient: bool = False
    ) -> list[Result]:
        """Run jobs in parallel; give their results in order.

        Jobs that have not begun when one fails, or when the caller is cancelled, never run. Those
        that have are waited for: until then the caller keeps its slot and its locks.

        Args:
            jobs: What to run.
            patient: Wait for a worker as long as it takes, as what was begun must go on.

        Raises:
            Busy: The turn came too late. It is notified of when it comes: a response now would not
                shorten the queue.
        """
        wait = _Wait(math.inf if patient else self._max_wait_sec)
        # A copy each, so that what a job notes is noted of this request.
        handed_over = [Job(partial(contextvars.copy_context().run, wait.run, job)) for job in jobs]
        self._waiting.add(caller.get(), handed_over)
        for _ in handed_over:
            self._threads.submit(self._waiting.run_next)
        try:
            return list(
                await asyncio.gather(*(asyncio.wrap_future(job.result) for job in handed_over))
            )
        finally:
            begun = [job.result for job in handed_over if not job.result.cancel()]
            running = [asyncio.wrap_future(result) for result in begun if not result.done()]
            if running:
                await to_the_end(asyncio.wait(running))

    def stop(self) -> None:
        """End the threads once their present jobs are done; those that wait never run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._waiting.cancel()


class Job:
    """One job, and what becomes of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        """`work` is what to do."""
        self._work: Final = work
        self.result: Final[Future[Any]] = Future()

    def run(self) -> None:
        """Do it; whatever it raises is its result."""
        try:
            result = self._work()
        except BaseException as error:
            self.result.set_exception(error)
        else:
            self.result.set_result(result)


class FairQueue:
    """Jobs that wait for a thread, by caller. Safe to use from several threads.

    Next comes the job of the caller with the fewest running; of equal ones, of whoever used the
    least of the workers lately, whether or not anything came of it. So nobody gets more than a
    fair share while others wait, and whoever calls alone gets all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Be empty."""
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._waiting: Final[dict[str, deque[Job]]] = {}
        self._running: Final = Counter[str]()
        self._used: Final[dict[str, tuple[float, float]]] = defaultdict(lambda: (0.0, 0.0))

    def add(self, name: str, jobs: Sequence[Job]) -> None:
        """Have the caller `name` wait with `jobs`; each needs one `run_next`."""
        if jobs:
            with self._lock:
                self._waiting.setdefault(name, deque()).extend(jobs)

    def run_next(self) -> None:
        """Run the job whose turn it is; one that was cancelled needs no turn."""
        with self._lock:
            name = min(self._waiting, key=self._rank, default=None)
            if name is None:  # all were cancelled
                return
            jobs = self._waiting[name]
            job = jobs.popleft()
            if not jobs:
                del self._waiting[name]
            if not job.result.set_running_or_notify_cancel():
                return
            self._running[name] += 1
        started = self._clock()
        try:
            job.run()
        finally:
            self._note_end(name, started)

    def cancel(self) -> None:
        """Cancel all that wait."""
        with self._lock:
            left = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
        for job in left:
            job.result.cancel()

    def _rank(self, name: str) -> tuple[int, float]:
        return self._running[name], self._used_lately(name, self._clock())

    def _used_lately(self, name: str, now: float) -> float:
        """Seconds of workers that a caller used, those longer ago for less."""
        seconds, then = self._used[name]
        return seconds * math.exp2((then - now) / HALF_FORGOTTEN_SEC)

    def _note_end(self, name: str, started: float) -> None:
        now = self._clock()
        with self._lock:
            self._running[name] -= 1
            self._used[name] = (self._used_lately(name, now) + now - started, now)


class _Wait:
    """The wait of jobs that were handed over together: until the first of them begins."""

    def __init__(self, max_wait_sec: float) -> None:
        self._max_wait_sec: Final = max_wait_sec
        self._handed_over_ns: Final = time.perf_counter_ns()
        self._first: Final = [True]

    def run(self, job: Callable[[], Result]) -> Result:
        try:
            self._first.pop()  # one of several threads gets it
        except IndexError:
            return job()
        note_interval("queue", self._handed_over_ns)
        waited_sec = (time.perf_counter_ns() - self._handed_over_ns) / 1e9
        if waited_sec > self._max_wait_sec:
            raise Busy(
                f"no worker was free for {waited_sec:.0f} s",
                retry_after_sec=min(60, math.ceil(waited_sec / 2)),
            )
        return job()
