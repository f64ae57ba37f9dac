"""A step as CUDA graphs: recorded once, then replayed without Python.

A step of a small pair of networks is thousands of kernels, each done sooner than Python launches
the next: on an H100 at 64 px three quarters of a step were waiting (docs/performance.md).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

# A step of a kind is done plainly so often before it is recorded: libraries set up what they need.
PLAIN_STEPS: Final = 2


@dataclass(frozen=True)
class Recording:
    """Graphs to be replayed in the order in which they were recorded, and where they read."""

    inputs: tuple[Tensor, ...]
    graphs: list[torch.cuda.CUDAGraph]
    outputs: list[Any]  # tensors that the next replay of any recording may overwrite

    def read(self, inputs: tuple[Tensor, ...]) -> None:
        """Take the inputs of the next replays."""
        torch._foreach_copy_(self.inputs, inputs)

    def replay(self, index: int) -> Any:
        """Run one of the graphs; what it computed."""
        self.graphs[index].replay()
        return self.outputs[index]


class StepGraphs:
    """Recordings of each kind of step. They share their memory."""

    def __init__(self, plain_steps: int = PLAIN_STEPS) -> None:
        """Record a kind once it was done `plain_steps` times."""
        self.plain_steps = plain_steps
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording] = {}
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work on the stream that recordings are made on: the default one can't be recorded."""
        waiting = torch.cuda.current_stream()
        self._stream.wait_stream(waiting)
        with torch.cuda.stream(self._stream):
            yield
        waiting.wait_stream(self._stream)

    def recording(
        self,
        kind: Hashable,
        inputs: tuple[Tensor, ...],
        halves: Callable[[tuple[Tensor, ...]], list[Callable[[], Any]]],
    ) -> Recording | None:
        """The recording of a kind of step, reading `inputs`; None while it is to be done plainly.

        Args:
            kind: Steps that launch the same kernels on tensors of the same shapes.
            inputs: All tensors that differ from step to step, but for the networks' own.
            halves: Functions of a step that reads the tensors it is given; not called before
                it is time to record.
        """
        if kind not in self._recordings:
            self._seen[kind] += 1
            if self._seen[kind] <= self.plain_steps:
                return None
            self._recordings[kind] = self._record(tuple(t.clone() for t in inputs), halves)
        recording = self._recordings[kind]
        recording.read(inputs)
        return recording

    def _record(
        self,
        inputs: tuple[Tensor, ...],
        halves: Callable[[tuple[Tensor, ...]], list[Callable[[], Any]]],
    ) -> Recording:
        graphs, outputs = [], []
        for half in halves(inputs):
            graph = torch.cuda.CUDAGraph()
            # The loader pins memory in its thread meanwhile, which concerns no recording.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs.append(half())
            graphs.append(graph)
        return Recording(inputs, graphs, outputs)
