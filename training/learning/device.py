"""The machine that trains: device, precision, memory."""

import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch

from training.learning.config import TrainingConfig


def pick_device(name: str) -> torch.device:
    """Choose the device for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        ValueError: The requested device is not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, usable in available.items() if usable)
    elif not available[name]:
        raise ValueError(f"--device {name}: torch finds none here; use --device auto or cpu")
    return torch.device(name)


def compute_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """Choose bfloat16 if requested, or if the device computes faster in it."""
    if config.precision == "fp32":
        return torch.float32
    if config.precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        good = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if good else torch.float32


def memory_mb(device: torch.device) -> float:
    """Memory allocated on the GPU, or else resident memory of the process, in MB."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the kernel.

    Each step frees and allocates the same feature maps of some megabytes; returning them to the
    kernel costs a page fault for every 4 kB, a fifth of a step's time on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc accepts
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 64 << 20)
