"""What is noted of a request while it is served, for its log line, metrics, trace and headers.

Any layer may note something; outside a request nothing is kept. What is noted is of few
values and never private: no keys, bodies, prompts or paths.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal

Stage = Literal["queue", "decode", "inference", "encode"]
STAGES: Final[tuple[Stage, ...]] = ("queue", "decode", "inference", "encode")
# Beyond these a request's parts are still served, but no longer noted one by one.
MAX_INTERVALS: Final = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """One stretch of work, or of waiting; start and end as of time.perf_counter_ns()."""

    stage: Stage
    start_ns: int
    end_ns: int


@dataclass
class Observation:
    """What is noted of one request; several threads may note at once.

    Attributes:
        request_id: The service's, or the client's where it is plain.
        trace_id: 32 hexadecimal digits, where the request is traced.
        started_ns: time.perf_counter_ns() when the head was there.
        key: Name of the API key that it came with; never the key.
        model: "name:version" of the model that served it.
        rejection: Why its upload was refused, in one word.
        intervals: Its stages, in the order in which they ended.
    """

    request_id: str
    trace_id: str | None = None
    started_ns: int = field(default_factory=time.perf_counter_ns)
    key: str | None = None
    model: str | None = None
    rejection: str | None = None
    intervals: list[Interval] = field(default_factory=list)

    def seconds(self) -> float:
        """Time since the head was there."""
        return (time.perf_counter_ns() - self.started_ns) / 1e9

    def stage_seconds(self) -> dict[Stage, float]:
        """Time in which at least one thread was at each stage; what never began is left out."""
        noted = list(self.intervals)
        found = {stage: _union_ns([s for s in noted if s.stage == stage]) for stage in STAGES}
        return {stage: total / 1e9 for stage, total in found.items() if total is not None}


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)
current: Final = _current.get
begin: Final = _current.set
end: Final = _current.reset


class stage:
    """Context manager: notes how long its block took."""

    def __init__(self, name: Stage) -> None:
        """`name` is the stage that the block is of."""
        self._name: Final = name

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        note_interval(self._name, self._start_ns)


def note_interval(name: Stage, start_ns: int, end_ns: int | None = None) -> None:
    """Note a stretch that began at `start_ns` and ends now, or ended at `end_ns`."""
    observation = _current.get()
    if observation is not None and len(observation.intervals) < MAX_INTERVALS:
        ended_ns = time.perf_counter_ns() if end_ns is None else end_ns
        observation.intervals.append(Interval(name, start_ns, ended_ns))


def note_key(name: str) -> None:
    """Note the name of the API key that the request came with."""
    observation = _current.get()
    if observation is not None:
        observation.key = name


def note_model(model_id: str) -> None:
    """Note which model serves the request."""
    observation = _current.get()
    if observation is not None:
        observation.model = model_id


def note_rejection(reason: str) -> None:
    """Note why the request's upload is refused: a word of a fixed few."""
    observation = _current.get()
    if observation is not None:
        observation.rejection = reason


def _union_ns(intervals: list[Interval]) -> int | None:
    """Length of the union of stretches that may overlap; None of none."""
    total, reached = 0, 0
    for interval in sorted(intervals, key=lambda interval: interval.start_ns):
        total += max(0, interval.end_ns - max(reached, interval.start_ns))
        reached = max(reached, interval.end_ns)
    return total if intervals else None
