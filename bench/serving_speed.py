"""Compares the service's speed with the bare session and with plain servers.

`catalogan serve` runs as in production: in a process of its own, with an API key, its
log going to a file. Eight clients request one PNG each, again and again. The bare ONNX
Runtime session with the same encoder and marks works in as many threads as the service, and
so do servers in plain FastAPI and LitServe; all alternate, on the same images, which is
checked. Latencies are then measured at half of the throughput, where requests do not wait for
earlier responses: evenly spaced, which shows the service alone, and at
random, where requests also queue (two workers with a constant time per request would
have a p99 of 2.5 times the median).
"""

import statistics
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from load import Load
from measuring import Measurement, image_hash, interleaved, percentile, quotients
from plain import BareSession
from servers import CLIENTS, NAME, Bench

from service.settings import load_settings

PLAIN = ("fastapi", "litserve")
HALF = 0.5

Rounds = list[dict[str, Any]]


def cold_starts(bench: Bench, rounds: int) -> list[float]:
    """Seconds from exec to the first readiness, service by service."""
    times = []
    for _ in range(rounds):
        with bench.service() as load:
            times.append(load.start_s)
    return times


def check_same_images(sides: dict[str, Load | BareSession]) -> None:
    """Refuse to compare sides that do not generate the same images."""
    for seed in (0, 5):
        hashes = {name: image_hash(side.image(seed)) for name, side in sides.items()}
        if len(set(hashes.values())) > 1:
            raise RuntimeError(f"the images of seed {seed} differ: {hashes}")


def closed_rounds(
    sides: dict[str, Load | BareSession], rounds: int, seconds: float
) -> dict[str, Rounds]:
    """Run each side at its limit, alternately, after a warm-up."""
    work = [partial(side.closed, seconds) for side in sides.values()]
    interleaved(1, *work)
    return dict(zip(sides, interleaved(rounds, *work), strict=True))


def open_rounds(load: Load, rate: float, rounds: int, seconds: float) -> dict[str, Rounds]:
    """Send `rate` requests per second, evenly and at random, alternately.

    Raises:
        RuntimeError: A request failed.
    """
    kinds = ("even", "poisson")
    work = [partial(load.open, kind, rate, seconds) for kind in kinds]
    results = dict(zip(kinds, interleaved(rounds, *work), strict=True))
    for one in (one for kind in results.values() for one in kind):
        if one["errors"]:
            raise RuntimeError(f"{one['errors']} requests failed: {one['messages']}")
    return results


def measure(quick: bool) -> Measurement:
    """Measure throughput, CPU time, latencies, start and memory."""
    rounds, seconds = (1, 0.5) if quick else (9, 6.0)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="catalogan-bench-"))
        bench = Bench(Path(folder))
        threads = load_settings().workers
        starts = cold_starts(bench, 1 if quick else 5)
        servers = {"service": bench.service(), **{f: bench.plain(f, threads) for f in PLAIN}}
        loads = {name: stack.enter_context(starting) for name, starting in servers.items()}
        for load in loads.values():
            load.check()
        sides = {"session": BareSession(*bench.model, threads), **loads}
        check_same_images(sides)
        closed = closed_rounds(sides, rounds, seconds)
        rate = HALF * statistics.median(throughputs(closed["service"]))
        rounds, seconds = (1, 1.0) if quick else (5, 20.0)
        latencies = open_rounds(loads["service"], rate, rounds, seconds)
    measurement = Measurement()
    add_throughputs(measurement, closed)
    add_latencies(measurement, latencies)
    measurement.add("cold_start_s", starts)
    measurement.raw["serving"] = {
        "model": NAME,
        "threads": threads,
        "parameters": bench.parameters,
        "clients": CLIENTS,
        **{f"{name}_rounds": results for name, results in closed.items()},
        "half_load_pictures_per_s": rate,
        "half_load_requests": {
            kind: sum(len(one["latencies_ms"]) for one in results)
            for kind, results in latencies.items()
        },
    }
    return measurement


def throughputs(rounds: Rounds) -> list[float]:
    """Images per second, round by round."""
    return [one["images"] / one["seconds"] for one in rounds]


def add_throughputs(measurement: Measurement, closed: dict[str, Rounds]) -> None:
    """Add the throughput at the limit, and its CPU time."""
    served = {name: throughputs(rounds) for name, rounds in closed.items()}
    measurement.add("serve_pictures_per_s", served["service"])
    measurement.add("session_pictures_per_s", served["session"])
    measurement.add("serve_over_session", quotients(served["service"], served["session"]))
    cpu_ms = {
        name: [1000 * one["cpu_s"] / one["images"] for one in rounds]
        for name, rounds in closed.items()
    }
    measurement.add("serve_cpu_ms_per_request", cpu_ms["service"])
    measurement.add("session_cpu_ms_per_image", cpu_ms["session"])
    for name in PLAIN:
        measurement.add(f"{name}_cpu_ms_per_request", cpu_ms[name])
        measurement.add(f"serve_over_{name}_cpu", quotients(cpu_ms["service"], cpu_ms[name]))
        measurement.add(f"{name}_pictures_per_s", served[name])
    measurement.add("service_rss_mb", [one["rss_mb"] for one in closed["service"]])


def add_latencies(measurement: Measurement, opened: dict[str, Rounds]) -> None:
    """Add the latencies at half load, of even and of random ("poisson") requests."""
    for prefix, kind in (("", "even"), ("poisson_", "poisson")):
        latencies = [one["latencies_ms"] for one in opened[kind]]
        median, high = ([percentile(one, percent) for one in latencies] for percent in (50, 99))
        measurement.add(f"{prefix}p50_ms", median)
        measurement.add(f"{prefix}p99_ms", high)
        measurement.add(f"{prefix}p99_over_p50", quotients(high, median))
