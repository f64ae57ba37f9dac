"""Images of several requests at the same time, generated in one run of the device."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import SessionError
from service.inference.graphs import Arrays, Graph
from service.telemetry.observation import note_interval

Generated = NDArray[np.float32]


@dataclass(frozen=True)
class Batching:
    """How images are batched.

    Attributes:
        sizes: Images of a run, ascending; None = what pays on the device.
        on_run: Is notified of how many images each run generated, fillers not counted.
    """

    sizes: tuple[int, ...] | None = None
    on_run: Callable[[int], None] = lambda _: None


BY_DEVICE: Final = Batching()


@dataclass(eq=False)
class _Waiting:
    """One image in the line.

    Attributes:
        row: Its inputs, each of one row.
        generated: Its output, without the batch's dimension.
        begun_ns: time.perf_counter_ns() when its run began.
        ended_ns: The same of its end.
    """

    row: Arrays
    generated: Future[Generated] = field(default_factory=Future)
    begun_ns: int = 0
    ended_ns: int = 0


class MicroBatcher:
    """Runs a graph on what piles up while the device is busy. Safe to call from several threads.

    First come, first served, image by image, up to the largest batch; a smaller one is
    filled up to the next fixed size. An idle device begins at once: nobody waits for company.
    """

    def __init__(
        self, graph: Graph, sizes: Sequence[int], example: Arrays, on_run: Callable[[int], None]
    ) -> None:
        """Reserve the device's memory and run each size once.

        Args:
            graph: What is run.
            sizes: Of batches, ascending; each has buffers of its own on the device.
            example: Inputs of one row.
            on_run: As of Batching.

        Raises:
            SessionError: The graph failed or returned values that are not finite.
        """
        self._graph: Final = graph
        self._bound: Final = {size: graph.bind(size) for size in sizes}
        self._largest: Final = sizes[-1]
        self._on_run: Final = on_run
        self._line: Final = deque[_Waiting]()
        # One thread, always the same, as CUDA's handles belong to the thread that runs. It
        # ends with this object.
        self._device: Final = ThreadPoolExecutor(1, thread_name_prefix="device")
        for size in sizes:
            graph.check_output(self._device.submit(self._generate_batch, [example] * size).result())

    def run(self, feeds: Arrays) -> list[Generated]:
        """Give the N outputs [...] for inputs [N, ...], N up to the largest batch.

        What is wrong with them is notified of before others could share the harm.

        Raises:
            SessionError: An input doesn't fit, the batch failed, or returned numbers for these
                inputs that are not finite.
        """
        count = self._graph.check_feeds(feeds)
        if count > self._largest:
            raise SessionError(f"{count} images are more than a batch of {self._largest}")
        waiting = [
            _Waiting({name: array[i : i + 1] for name, array in feeds.items()})
            for i in range(count)
        ]
        arrived_ns = time.perf_counter_ns()
        self._line.extend(waiting)
        # A run for each caller is enough for all images, as none brings more than a run
        # takes; one that finds its images gone with another's does nothing.
        self._device.submit(self._run_next)
        wait([one.generated for one in waiting])
        _note(waiting, arrived_ns)
        generated = [one.generated.result() for one in waiting]
        for one in generated:
            self._graph.check_output(one)
        return generated

    def _run_next(self) -> None:
        batch = [self._line.popleft() for _ in range(min(len(self._line), self._largest))]
        if not batch:
            return
        begun_ns = time.perf_counter_ns()
        error: BaseException | None = None
        try:
            outputs = self._generate_batch([one.row for one in batch])
            self._on_run(len(batch))
        except BaseException as raised:  # whatever it is, nobody may wait for ever
            error = raised
        ended_ns = time.perf_counter_ns()
        for index, one in enumerate(batch):
            one.begun_ns, one.ended_ns = begun_ns, ended_ns
            if error is None:
                one.generated.set_result(outputs[index])
            else:
                one.generated.set_exception(_own(error))

    def _generate_batch(self, rows: Sequence[Arrays]) -> Generated:
        """Run rows as one batch of the next fixed size; returns their outputs alone."""
        size = next(size for size in self._bound if size >= len(rows))
        padded = [*rows, *[rows[-1]] * (size - len(rows))]
        # Who leaves an optional input out has zeros for it where another has it.
        known = {name: array for row in rows for name, array in row.items()}
        feeds = {
            name: np.concatenate([row.get(name, np.zeros_like(one)) for row in padded])
            for name, one in known.items()
        }
        return self._bound[size].run(feeds)[: len(rows)]


def _own(error: BaseException) -> SessionError:
    """An error for one caller: raised in several threads, one object would mix their traces."""
    own = SessionError(str(error) or type(error).__name__)
    own.__cause__ = error
    return own


def _note(waiting: Sequence[_Waiting], since_ns: int) -> None:
    """Note the waits and runs of one caller's images, of which a run may take several."""
    for begun_ns, ended_ns in sorted({(one.begun_ns, one.ended_ns) for one in waiting}):
        note_interval("queue", since_ns, begun_ns)
        note_interval("inference", begun_ns, ended_ns)
        since_ns = ended_ns
