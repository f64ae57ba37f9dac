"""Calls that wait for somebody else: given up in time, and not tried again at once."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

Result = TypeVar("Result")


class Deadline:
    """Gives calls up after a while; any number of threads may share one.

    After a call that took too long, others are refused at once for a while, then one may try: else
    each of them would hold a worker until its own deadline.
    """

    def __init__(self, limit_sec: float, retry_sec: float) -> None:
        """Refuse nothing yet.

        Args:
            limit_sec: How long a call may take.
            retry_sec: How long others are refused after one that took longer.
        """
        self._limit_sec: Final = limit_sec
        self._retry_sec: Final = retry_sec
        self._lock: Final = threading.Lock()
        self._closed_until = 0.0

    def run(self, call: Callable[[], Result]) -> Result:
        """Return what `call` does, or raise what it raises.

        A call that is given up goes on in a thread of its own, which no shutdown waits for.

        Raises:
            TimeoutError: It took too long, or one did shortly before.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                raise TimeoutError
            if self._closed_until:  # this one tries, those after it wait for what comes of it
                self._closed_until = now + self._retry_sec
        done: Future[Result] = Future()
        threading.Thread(target=_settle, args=(done, call), name="signing", daemon=True).start()
        try:
            result = done.result(self._limit_sec)
        except TimeoutError:
            with self._lock:
                self._closed_until = time.monotonic() + self._retry_sec
            raise
        with self._lock:
            self._closed_until = 0.0
        return result


def _settle(done: Future[Result], call: Callable[[], Result]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # whatever it is, it is the caller's
        done.set_exception(error)
