"""A second thread, so that both networks learn at once on a processor.

One network's small operations leave a core idle that the other network can use; splitting each
operation over the cores instead gains little on maps of some thousand pixels (figures:
docs/performance.md).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class SideThread:
    """Runs tasks in their order: beside the caller, or at once where that gains nothing.

    What a task computes must not depend on which of the two it is.
    """

    def __init__(self, threads: int) -> None:
        """Take half of `threads` and leave the caller the rest; of one there is no half."""
        self._all = threads
        self._own = threads // 2
        self._pool: ThreadPoolExecutor | None = None
        if self._own:
            # torch's number of threads is the calling thread's, and the default of new ones.
            self._pool = ThreadPoolExecutor(
                1, "generator", initializer=torch.set_num_threads, initargs=(self._own,)
            )

    def submit(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a task after those before it; the future has its result or its exception."""
        if self._pool:
            return self._pool.submit(task, *args, **kwargs)
        done: Future[T] = Future()
        done.set_result(task(*args, **kwargs))
        return done

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """While entered, leave the side thread its half; on leaving, wait for its tasks."""
        if self._pool is None:
            yield
            return
        torch.set_num_threads(self._all - self._own)
        try:
            yield
        finally:
            self._pool.submit(int).result()  # nothing may still work on what the caller changes
            torch.set_num_threads(self._all)
