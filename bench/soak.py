"""Tests the endurance of the service: an hour, or another time, with hostile clients among others.

    python bench/soak.py --minutes 60

Good requests come at random at 0.4 of the throughput, which is measured first: the hostile clients
of bench/hostile.py, which all have one key, may take as much again. The service's memory is read
every ten seconds; latencies of good requests, counted from the time at which a request was due,
and errors are printed for each minute. `soak_rss_growth` is the mean memory of the last tenth of
the time relative to that of the first tenth, minus 1; the first minute counts as warm-up.
`rss_mb_after` is what is left when the hostile clients are gone. Results of five minutes or more
are written to bench/results.json, which `make bench` writes, too.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile import hostile_clients, surprises
from load import Load
from measuring import RESULTS, commit, growth, keep_soak, machine, percentile
from servers import Bench

from service.access.api_keys import create_key

LOAD_FRACTION = 0.4
MINUTE_SEC = 60.0
TRIAL_SEC = 5.0
# Even a short soak has this many windows to compare.
MIN_WINDOWS = 5
MIN_RESPONSES = 2
# In shorter soaks memory growth is meaningless.
MIN_KEPT_MINUTES = 5.0
# Until what the last hostile requests took is given back.
REST_SEC = 5.0


def soak(load: Load, minutes: float, hostile_key: str) -> dict[str, Any]:
    """Load a service for `minutes`, with hostile clients that have a key of their own.

    Returns:
        The value of "soak" in results.json.

    Raises:
        RuntimeError: The service does not respond any more.
    """
    trial_sec = min(TRIAL_SEC, minutes * MINUTE_SEC / 10)
    trials = [load.closed(trial_sec) for _ in range(3)]
    throughput = statistics.median(one["images"] / one["seconds"] for one in trials)
    rate, before = LOAD_FRACTION * throughput, load.rss_mb()
    start = time.perf_counter()
    with hostile_clients(load.port, hostile_key) as tally:
        windows = _windows(load, minutes, rate)
    seconds = time.perf_counter() - start
    time.sleep(min(REST_SEC, seconds))
    rss = [sample for window in windows for sample in window["rss_mb"]]
    return {
        "minutes": seconds / MINUTE_SEC,
        "pictures_per_s_at_most": throughput,
        "rate": rate,
        "requests": sum(len(w["latencies_ms"]) + w["errors"] for w in windows),
        "errors": sum(window["errors"] for window in windows),
        "messages": [message for window in windows for message in window["messages"]][:10],
        "p50_ms": [window["p50_ms"] for window in windows],
        "p99_ms": [window["p99_ms"] for window in windows],
        "rss_mb": rss,
        "rss_growth": growth(rss[len(windows[0]["rss_mb"]) :]),
        "rss_mb_before": before,
        "rss_mb_after": load.rss_mb(),
        "hostile": tally,
        "surprises": surprises(tally),
    }


def _windows(load: Load, minutes: float, rate: float) -> list[dict[str, Any]]:
    """Load it window by window, and print what each shows."""
    count = max(MIN_WINDOWS, round(minutes))
    windows = []
    for index in range(count):
        window = load.open("poisson", rate, minutes * MINUTE_SEC / count)
        if len(window["latencies_ms"]) < MIN_RESPONSES:
            raise RuntimeError(f"the service does not respond any more: {window['messages']}")
        for percent in (50, 99):
            window[f"p{percent}_ms"] = percentile(window["latencies_ms"], percent)
        windows.append(window)
        print(
            f"{index + 1}/{count}: {len(window['latencies_ms'])} responses, "
            f"{window['errors']} errors, p50 {window['p50_ms']:.1f} ms, "
            f"p99 {window['p99_ms']:.1f} ms, {window['rss_mb'][-1]:.1f} MB",
            flush=True,
        )
    return windows


def main() -> None:
    """Soak, print the result, and store it if it is long enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    metadata = {"commit": commit(), "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        bench = Bench(Path(name))
        keys = Path(name) / "keys.json"
        hostile_key = create_key(keys, "hostile", ["generate"], None, None)
        os.environ["CATALOGAN_KEYS_FILE"] = str(keys)
        os.environ["CATALOGAN_OPEN_VERIFICATION"] = "600/minute"
        with bench.service() as load:
            result = soak(load, options.minutes, hostile_key)
    for attack, outcomes in result["hostile"].items():
        print(f"{attack}: " + ", ".join(f"{n} x {what}" for what, n in sorted(outcomes.items())))
    print(
        f"p99 {max(result['p99_ms']):.0f} ms in the worst window; memory "
        f"{result['rss_mb_before']:.0f} MB before, {max(result['rss_mb']):.0f} MB at most, "
        f"{result['rss_mb_after']:.0f} MB after"
    )
    print(
        f"soak_rss_growth {result['rss_growth']:+.4f} in {result['minutes']:.1f} min, "
        f"{result['requests']} requests at {result['rate']:.1f}/s, {result['errors']} errors"
    )
    if result["minutes"] >= MIN_KEPT_MINUTES:
        keep_soak(options.out, {**result, **metadata})
    if result["errors"] or result["surprises"]:
        sys.exit(
            f"soak: {result['errors']} good requests failed: {result['messages']}; "
            f"hostile ones got what they should not: {result['surprises']}"
        )


if __name__ == "__main__":
    main()
