"""Processes many rows in threads, with the same result as in one thread."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def run_in_threads(work: Callable[[slice], None], count: int, rows_at_once: int) -> None:
    """Call `work` with slices that cover `count` rows, in as many threads as torch uses.

    Within each call torch uses one thread, so the order of every sum is the same on any machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    starts = range(0, count, rows_at_once)
    try:
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(lambda start: work(slice(start, start + rows_at_once)), starts)
            deque(parts, maxlen=0)  # re-raises the exception of a call
    finally:
        torch.set_num_threads(threads)
