"""`make bench` and `make soak` for real, but quick: every figure is there and within reason."""

import importlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "bench"
BENCH = FOLDER / "bench.py"
STALL_SEC = 0.6

# Wide enough for any machine, however busy; narrow enough for a wrong unit to show.
PLAUSIBLE = {
    "train_images_per_s": (0.1, 1e5),
    "train_step_over_convolutions": (0.2, 50),
    "masking_cost": (-0.99, 100),
    "prepare_over_decode": (0.001, 10),
    "serve_over_session": (0.01, 20),
    "serve_cpu_ms_per_request": (0.5, 5000),
    "session_cpu_ms_per_image": (0.5, 5000),
    "fastapi_cpu_ms_per_request": (0.5, 5000),
    "litserve_cpu_ms_per_request": (0.5, 5000),
    "serve_over_fastapi_cpu": (0.1, 10),
    "serve_over_litserve_cpu": (0.1, 10),
    "p50_ms": (0.5, 60_000),
    "p99_ms": (0.5, 60_000),
    "p99_over_p50": (1, 1000),
    "poisson_p99_over_p50": (1, 1000),
    "cold_start_s": (0.02, 600),
    "service_rss_mb": (50, 5000),
    "upload_augmentations_over_before": (0.01, 20),
    "upload_variations_over_before": (0.01, 20),
    "decoding_process_rss_mb": (5, 500),
}


@pytest.mark.slow
def test_bench_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    soaked = {"soak_rss_growth": 0.01, "soak": {"minutes": 60.0}}
    out.write_text(json.dumps({**soaked, "train_images_per_s": 0.0}))
    command = [sys.executable, str(BENCH), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    results = json.loads(out.read_text())
    for name, (lowest, highest) in PLAUSIBLE.items():
        assert lowest < results[name] < highest, name
        assert results["samples"][name], name
        assert name in done.stdout
    assert soaked.items() <= results.items()
    assert results["commit"]
    assert {"processor", "cores", "memory_gb", "python", "torch", "onnxruntime"} <= set(
        results["machine"]
    )
    # The exported model is the one that the figures are defined for.
    assert 2.5e6 < results["raw"]["serving"]["parameters"] < 3.5e6
    assert results["raw"]["training"]["convolutions_in_interval"] > 16 * 20


@pytest.mark.slow
def test_soak_measures_and_keeps_no_trial(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, str(FOLDER / "soak.py"), "--minutes", "0.02", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5/5: " in done.stdout
    assert "soak_rss_growth" in done.stdout
    assert re.search(r"p99 \d+ ms in the worst window; memory \d+ MB before", done.stdout)
    # Hostile clients were there, and got what they should: else it fails.
    assert re.search(r"wrong keys: \d+ x 401|abandoned requests: \d+ x left", done.stdout)
    assert ", 0 errors" in done.stdout.splitlines()[-1]
    assert not out.exists()


@pytest.fixture
def tiny_photos(tmp_path: Path) -> Path:
    """A dataset of 100 soft blobs in one category at 16 px: no classifier is trained of it."""
    from training.photos.catalogue import prepare_dataset
    from training.photos.options import PrepareOptions

    rng = np.random.default_rng(0)
    for i in range(100):
        folder = tmp_path / "photos" / "cups"
        folder.mkdir(parents=True, exist_ok=True)
        blob = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        blob.resize((40, 48), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    options = {"width": 16, "height": 16, "validation_share": 0.4}
    prepare_dataset(tmp_path / "photos", tmp_path / "data", PrepareOptions.model_validate(options))
    return tmp_path / "data"


@pytest.fixture
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.usefixtures("bench_modules")
def test_soak_goes_into_the_results(tmp_path: Path) -> None:
    keep, out = importlib.import_module("measuring").keep_soak, tmp_path / "results.json"
    keep(out, {"rss_growth": 0.5, "minutes": 5.0})
    keep(out, {"rss_growth": 0.02, "minutes": 60.0})
    out.write_text(json.dumps({**json.loads(out.read_text()), "p50_ms": 30.0}))
    keep(out, {"rss_growth": 0.01, "minutes": 61.0})
    assert json.loads(out.read_text()) == {
        "p50_ms": 30.0,
        "soak_rss_growth": 0.01,
        "soak": {"rss_growth": 0.01, "minutes": 61.0},
    }


@pytest.mark.usefixtures("bench_modules")
def test_growth_compares_the_last_tenth_with_the_first() -> None:
    growth = importlib.import_module("measuring").growth
    assert growth([100.0] * 30) == 0
    assert growth([90.0, 110.0, *[500.0] * 16, 109.0, 111.0]) == pytest.approx(0.1)


@pytest.mark.usefixtures("bench_modules")
def test_a_study_compares_arms_on_the_same_seeds(tmp_path: Path) -> None:
    """Distances by their ratio, shares by their difference, on the seeds that both have."""
    plan = {"arms": {"before": {}, "both": {}}, "reference": "before", "score": "kernel_distance"}
    figures = {
        ("before", 0): (0.4, 0.2),
        ("before", 1): (0.8, 0.3),
        ("both", 0): (0.1, 0.25),
        ("both", 1): (0.4, 0.31),
        ("both", 2): (9.0, 0.9),
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with (tmp_path / "plan.jsonl").open("w") as ledger:
        for (arm, seed), (distance, recall) in figures.items():
            record = {"data": "shop", "arm": arm, "seed": seed, "nimg": 50_000, "commit": "1"}
            record |= {"kernel_distance": distance, "recall": recall, "masked_share": 0.0}
            ledger.write(json.dumps(record) + "\n")
    study = importlib.import_module("study").Study(tmp_path / "plan.json")
    *_, before, both = study.table("shop", ["before", "both"], [0, 1, 2]).splitlines()
    assert before == "| before | 0.600 ± 0.283 | 0.250 ± 0.071 | 1 | 0% | 50 | 2 |"
    # The differences 0.05 and 0.01, and the logarithms -1.386 and -0.693, by Student's t of 12.706.
    assert "(+0.030: -0.224 to +0.284) | 0.354 (0.004 to 28.902) | 0% | 50 | 3 |" in both


@pytest.mark.slow
def test_a_study_trains_and_judges(tmp_path: Path, tiny_photos: Path) -> None:
    small = {"batch_size": 8, "model": {"channel_base": 128, "channel_max": 16}}
    small["discriminator"] = "convolutional"
    stage = {"data": ["tiny"], "arms": ["off", "dynamic"], "seeds": [0], "slices": 2}
    plan = {
        "arms": {"off": {"masking": {"mode": "off"}, **small}, "dynamic": small},
        "stages": [{**stage, "minutes": 0.05, "judged": 1}],
        "reference": "off",
        "score": "kernel_distance",
        "samples": 40,
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, str(FOLDER / "study.py"), str(tmp_path / "plan.json")]
    command += ["--data", f"tiny={tiny_photos}", "--work", str(tmp_path / "work")]
    for _ in range(2):  # nothing is left to do the second time
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        records = [json.loads(x) for x in (tmp_path / "plan.jsonl").read_text().splitlines()]
        assert len(records) == 4
    assert {r["arm"] for r in records[:2]} == {"off", "dynamic"}  # in turns
    assert ["kernel_distance" in record for record in records] == [False, False, True, True]
    assert all(r["cpu_sec"] > 1 and r["nimg"] > 0 for r in records)
    assert "| dynamic |" in done.stdout
    assert len(list(tmp_path.rglob("contact-sheet.png"))) == 2


@pytest.mark.usefixtures("bench_modules")
def test_sides_take_turns() -> None:
    measuring, done = importlib.import_module("measuring"), []
    sides = [lambda name=name: done.append(name) or len(done) for name in "abc"]
    assert measuring.interleaved(3, *sides) == [[1, 6, 7], [2, 5, 8], [3, 4, 9]]
    assert "".join(done) == "abccbaabc"


@pytest.mark.usefixtures("bench_modules")
def test_requests_arrive_at_their_rate() -> None:
    arrivals = importlib.import_module("load").arrivals
    even = arrivals("even", 50.0, 4.0, random.Random(0))
    assert even == pytest.approx([index / 50 for index in range(200)])
    apart = [
        b - a for a, b in itertools.pairwise(arrivals("poisson", 50.0, 100.0, random.Random(0)))
    ]
    mean = sum(apart) / len(apart)
    assert mean == pytest.approx(1 / 50, rel=0.01)
    assert min(apart) >= 0
    assert max(apart) > 4 * mean
    # As with an exponential distribution, 1/e of the gaps are longer than the mean.
    assert sum(gap > mean for gap in apart) / len(apart) == pytest.approx(0.368, abs=0.02)


class StallingServer(ThreadingHTTPServer):
    """Answers nothing until STALL_SEC after the first request; now and then with an error."""

    request_queue_size = 128  # all connections come at once

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        server: "StallingServer"

        def do_POST(self) -> None:
            seed = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["seed"]
            time.sleep(max(0.0, self.server.stalled_until() - time.perf_counter()))
            body = b"\x89PNG"
            self.send_response(500 if seed % 100 == 99 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self._first = threading.Lock()
        self._until: float | None = None

    def stalled_until(self) -> float:
        with self._first:
            if self._until is None:
                self._until = time.perf_counter() + STALL_SEC
            return self._until


@pytest.fixture
def stalling() -> Iterator[StallingServer]:
    with StallingServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("bench_modules")
def test_latencies_count_from_when_requests_were_due(stalling: StallingServer) -> None:
    """Also those of requests that could not be sent, as all connections waited for answers."""
    port = stalling.server_address[1]
    load = importlib.import_module("load").Load(port, "key", 1, os.getpid(), 0.0)
    result = load.open("even", 300, 1.0)
    latencies = result["latencies_ms"]
    assert (len(latencies), result["errors"], len(result["rss_mb"])) == (297, 3, 6)
    assert "500" in result["messages"][0]
    # 150 were due at least 100 ms before the stall's end, one of which failed.
    assert sum(latency >= 100 for latency in latencies) >= 149
