"""Jobs that wait for a thread, and whose turn it is."""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

# After so long, half of what a caller used is forgotten, and others count as gone.
LATELY_SEC: Final = 60.0
# Whoever else waits for the end of such a job notices.
LONG_JOB_SEC: Final = 0.5


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
            # By its traceback the error would keep itself, and all that the work held, from
            # being freed at once.
            del self
        else:
            self.result.set_result(result)


@dataclass
class _Caller:
    """What is known of one caller.

    Attributes:
        waiting: Its jobs that have not begun, in their order.
        running: How many have.
        used_sec: Of the threads; half is forgotten in `LATELY_SEC`.
        longest_sec: The longest of its jobs; forgotten in the same way.
        noted_at: When both were right.
    """

    waiting: deque[Job] = field(default_factory=deque)
    running: int = 0
    used_sec: float = 0.0
    longest_sec: float = 0.0
    noted_at: float = 0.0

    def kept(self, now: float) -> float:
        """The fraction that is not forgotten."""
        return math.exp2((self.noted_at - now) / LATELY_SEC)

    def note(self, seconds: float, now: float) -> None:
        """Count a job that took `seconds`."""
        kept = self.kept(now)
        self.used_sec = self.used_sec * kept + seconds
        self.longest_sec = max(self.longest_sec * kept, seconds)
        self.noted_at = now


class FairQueue:
    """Jobs by caller. Safe to use from several threads.

    Next comes the job of the caller with the fewest running; of equal ones, of whoever used the
    least of the threads lately, whether or not anything came of it. A caller whose jobs are long
    leaves one thread free while there are others, who would wait for their end.
    """

    def __init__(
        self, threads: int, clock: Callable[[], float] = time.monotonic, *, spare: bool = False
    ) -> None:
        """Be empty.

        Args:
            threads: How many take jobs.
            clock: In seconds.
            spare: Whether each caller leaves one thread free, however short its jobs are.
        """
        self._threads: Final = threads
        self._spare: Final = spare
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._callers: Final[dict[str, _Caller]] = {}
        self._seen: Final = OrderedDict[str, float]()  # the latest last

    def add(self, name: str, jobs: Sequence[Job]) -> None:
        """Have the caller `name` wait with `jobs`; each needs one `run`."""
        with self._lock:
            self._callers.setdefault(name, _Caller()).waiting.extend(jobs)
            self._seen[name] = self._clock()
            self._seen.move_to_end(name)

    def run(self) -> None:
        """Run jobs as long as there are any whose turn it is."""
        while (taken := self._take()) is not None:
            caller, job = taken
            started = self._clock()
            try:
                job.run()
            finally:
                del taken, job  # an error's traceback leads here
                with self._lock:
                    caller.running -= 1
                    now = self._clock()
                    caller.note(now - started, now)

    def cancel(self) -> None:
        """Cancel all that wait."""
        with self._lock:
            left = [job for caller in self._callers.values() for job in caller.waiting]
            for caller in self._callers.values():
                caller.waiting.clear()
        for job in left:
            job.result.cancel()

    def _take(self) -> tuple[_Caller, Job] | None:
        with self._lock:
            now = self._clock()
            waiting = [
                (caller.running, caller.used_sec * caller.kept(now), name)
                for name, caller in self._callers.items()
                if caller.waiting and self._may_run(name, caller, now)
            ]
            for *_, name in sorted(waiting, key=lambda ranked: ranked[:2]):
                caller = self._callers[name]
                while caller.waiting:
                    job = caller.waiting.popleft()
                    if job.result.set_running_or_notify_cancel():  # else it was cancelled
                        caller.running += 1
                        return caller, job
            return None

    def _may_run(self, name: str, caller: _Caller, now: float) -> bool:
        """Whether a caller may have one more thread; what it may not have now it gets later."""
        if caller.running == 0 or caller.running < self._threads - 1:
            return True
        is_long = caller.longest_sec * caller.kept(now) > LONG_JOB_SEC
        return not (self._spare or (is_long and self._has_others(name, now)))

    def _has_others(self, name: str, now: float) -> bool:
        latest = next((other for other in reversed(self._seen) if other != name), None)
        return latest is not None and now - self._seen[latest] < LATELY_SEC
