"""`make bench` for real, but quick: every figure is there and within reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "bench.py"

# Wide enough for any machine, however busy; narrow enough for a wrong unit to show.
PLAUSIBLE = {
    "train_images_per_s": (0.1, 1e5),
    "train_step_over_convolutions": (0.2, 50),
    "masking_cost": (-0.9, 20),
    "prepare_over_decode": (0.001, 10),
    "serve_over_session": (0.01, 20),
    "serve_cpu_ms_per_request": (0.5, 5000),
    "session_cpu_ms_per_image": (0.5, 5000),
    "cold_start_s": (0.2, 60),
    "service_rss_mb": (50, 5000),
}


@pytest.mark.slow
def test_bench_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, str(BENCH), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr

    results = json.loads(out.read_text())
    for name, (lowest, highest) in PLAUSIBLE.items():
        assert lowest < results[name] < highest, name
        assert results["samples"][name], name
        assert name in done.stdout
    assert results["commit"]
    assert {"processor", "cores", "memory_gb", "python", "torch", "onnxruntime"} <= set(
        results["machine"]
    )
    # The exported model is the one that the figures are defined for.
    assert 2.5e6 < results["raw"]["serving"]["parameters"] < 3.5e6
    assert results["raw"]["training"]["convolutions_in_interval"] > 16 * 20
