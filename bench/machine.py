"""Which commit was measured, and on what."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
from measuring import REPOSITORY, cores


def commit() -> str:
    """Hash of the checked-out commit, with "-dirty" where files differ; "unknown" without git."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        changes = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    # The results themselves change with every run.
    dirty = any(not line.endswith("bench/results.json") for line in changes)
    return head + "-dirty" * dirty


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, and how busy the machine is already."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "onnxruntime": _onnxruntime(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _onnxruntime() -> str:
    for flavour in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return f"{flavour} {importlib.metadata.version(flavour)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"
