"""What a process that decodes strangers' files may cost, held by the system, not by the codecs.

For processes that do nothing else: a limit on CPU time ends the process, whatever it is at. Where
a system lacks a limit (macOS does not hold one on memory), that one is left out.
"""

import fcntl
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# A process with its codecs and one small file; the header of any file is read within this.
_BASE_BYTES: Final = 200_000_000
# Copies of the file, and of its pixels: WebP takes four of 4 bytes, others less.
_COPIES_OF_FILE: Final = 3
_BYTES_PER_PIXEL: Final = 16
_BASE_CPU_SEC: Final = 5.0
# The slowest formats take a fifth of this on a core of 2020.
_CPU_SEC_PER_MEGAPIXEL: Final = 0.3


@dataclass(frozen=True)
class Budget:
    """What decoding one file may cost."""

    memory_bytes: int
    cpu_sec: float


def budget_for(file_bytes: int, size: tuple[int, int] = (0, 0)) -> Budget:
    """What a file may cost to decode, of the size in pixels that its header states."""
    pixels = size[0] * size[1]
    memory = _BASE_BYTES + _COPIES_OF_FILE * file_bytes + _BYTES_PER_PIXEL * pixels
    return Budget(memory, _BASE_CPU_SEC + _CPU_SEC_PER_MEGAPIXEL * pixels / 1e6)


def limit_memory(limit_bytes: int) -> None:
    """Let this process allocate so much; what goes over it is a MemoryError, or ends it."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.RLIM_INFINITY))


def limit_cpu(seconds: float) -> None:
    """End this process by SIGPROF after so much more CPU time; 0 = no limit any more."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def confine(budget: Budget) -> None:
    """Hold this process to a budget from now on."""
    limit_memory(budget.memory_bytes)
    limit_cpu(budget.cpu_sec)


def leave_no_core() -> None:
    """Have no file written that holds what was being decoded, should this process crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(lifeline: int) -> None:
    """Have the system end this process at once when the other end of a pipe is closed.

    Also in the midst of a codec. Only Linux does; elsewhere a process ends when it next reads.
    """
    with suppress(OSError, AttributeError):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | fcntl.FASYNC)
