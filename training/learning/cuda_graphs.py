"""Training steps as CUDA graphs: recorded once, then replayed without Python.

A step of a small pair of networks consists of thousands of kernels, each of which finishes before
Python has launched the next: on an H100 at 64 px the GPU was idle for three quarters of a step
(docs/performance.md).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

# Steps of each kind run without a graph before it is recorded, so that libraries are initialised.
PLAIN_STEPS: Final = 2


@dataclass(frozen=True)
class Recording:
    """Graphs, to be replayed in the order of recording, and the tensors that they read."""

    inputs: tuple[Tensor, ...]
    graphs: list[torch.cuda.CUDAGraph]
    outputs: list[Any]  # valid until the next replay of any recording

    def read(self, inputs: tuple[Tensor, ...]) -> None:
        """Copy in the inputs of the next replays."""
        torch._foreach_copy_(self.inputs, inputs)

    def replay(self, index: int) -> Any:
        """Run one of the graphs and return its output."""
        self.graphs[index].replay()
        return self.outputs[index]


class StepGraphs:
    """Recordings of each kind of step, which share one memory pool."""

    def __init__(self, plain_steps: int = PLAIN_STEPS) -> None:
        """Record each kind of step after it has run `plain_steps` times."""
        self.plain_steps = plain_steps
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording] = {}
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Switch to the recording stream, since the default stream can't be recorded."""
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
        """Return the recording of a kind of step with `inputs` copied in; None if not recorded yet.

        Args:
            kind: Steps of one kind launch the same kernels on tensors of the same shapes.
            inputs: All tensors that differ from step to step, except the networks' own.
            halves: Returns the functions of a step that reads the given tensors; called only for
                recording.
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
            # The loader's thread pins memory meanwhile, which must not invalidate the recording.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs.append(half())
            graphs.append(graph)
        return Recording(inputs, graphs, outputs)
