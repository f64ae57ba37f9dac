"""Shares work on many rows out to threads, so that its result is that of one thread."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def share_out(work: Callable[[slice], None], count: int, rows_at_once: int) -> None:
    """Call `work` with slices that cover `count` rows, from as many threads as torch uses.

    Within each call torch has one thread: every sum is in one order, on any machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    starts = range(0, count, rows_at_once)
    try:
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(lambda start: work(slice(start, start + rows_at_once)), starts)
            deque(parts, maxlen=0)  # raises what a call raised
    finally:
        torch.set_num_threads(threads)
