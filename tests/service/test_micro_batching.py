"""Micro-batching and IO binding: on the processor all that CUDA uses but its provider."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

import service.model_store.pool
from models.manifest import GENERATOR_FILE
from service.app import build_runtime
from service.errors import SessionError
from service.inference.generation import (
    CUDA_BATCH_SIZES,
    GeneratorSession,
    ImageSpec,
    waiting_threads,
)
from service.inference.graphs import BoundGraph, Graph
from service.inference.micro_batching import Batching
from service.inference.signatures import signatures
from service.model_store.exports import read_export
from service.model_store.registry import Registry
from service.telemetry.observation import Observation, begin

from .conftest import BACKSTOP_SEC, wait_for
from .live import live_service
from .small_graphs import CATEGORIES, NOISE_DIM, NUM_WS, W_DIM, Z_DIM, constant
from .test_generations_http import decoded

OFFSET = np.random.default_rng(5).normal(0, 0.5, (8, NUM_WS, W_DIM)).astype(np.float32)


class Gate:
    """Lets runs end one by one: between two of them the device is busy as long as wanted."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = False
        self._passes = threading.Semaphore(0)

    def on_run(self, pictures: int) -> None:
        self.sizes.append(pictures)
        if not self.open:
            assert self._passes.acquire(timeout=BACKSTOP_SEC)

    def let_pass(self, runs: int = 1) -> None:
        self._passes.release(runs)

    def let_all_pass(self) -> None:
        self.open = True
        self._passes.release(100)


def load(export: Path, **options: Any) -> GeneratorSession:
    manifest, files = read_export(export)
    return GeneratorSession(files[GENERATOR_FILE], manifest, **{"device": "cpu", **options})


def specs(seeds: Sequence[int]) -> list[ImageSpec]:
    return [ImageSpec(seed, seed % 4, 0.5 + seed / 50) for seed in seeds]


@contextmanager
def gated(export: Path, sizes: tuple[int, ...] = CUDA_BATCH_SIZES) -> Iterator["Requests"]:
    gate = Gate()
    session = load(export, batching=Batching(sizes, gate.on_run))
    with ThreadPoolExecutor(40) as threads:
        requests = Requests(session, gate, threads)
        try:
            yield requests
        finally:
            gate.let_all_pass()


class Requests:
    """Requests of several threads, which join the line in the order in which they are made."""

    def __init__(self, session: GeneratorSession, gate: Gate, threads: ThreadPoolExecutor) -> None:
        self.session, self.gate, self._threads = session, gate, threads

    @property
    def waiting(self) -> int:
        batcher = self.session._batcher
        assert batcher is not None
        return len(batcher._line)

    def occupy(self) -> Future[Any]:
        """Ask for one picture; returns while the device is at it."""
        runs = len(self.gate.sizes)
        made = self._threads.submit(self.session.render, specs([99]))
        wait_for(lambda: len(self.gate.sizes) == runs + 1)
        return made

    def ask(self, asked: Sequence[ImageSpec], joining: int | None = None) -> Future[Any]:
        """Ask for pictures while the device is busy; returns when `joining` are in the line."""
        expected = self.waiting + (len(asked) if joining is None else joining)
        made = self._threads.submit(self.session.render, asked)
        wait_for(lambda: self.waiting == expected)
        return made


def pictures(made: Future[Any]) -> Any:
    return made.result(timeout=BACKSTOP_SEC)


def assert_same(found: Any, expected: Any) -> None:
    """A processor may round otherwise in a larger batch: that changes no level by more than one."""
    assert np.shape(found) == np.shape(expected)
    assert np.abs(np.asarray(found, dtype=int) - expected).max() <= 1


def test_what_piles_up_while_the_device_is_busy_is_painted_together(export: Path) -> None:
    with gated(export) as requests:
        first = requests.occupy()
        made = [requests.ask(specs([seed])) for seed in range(11)]
        requests.gate.let_all_pass()
        assert len(pictures(first)) == 1
        alone = load(export)
        for seed, one in enumerate(made):
            assert_same(pictures(one), alone.render(specs([seed])))
    assert requests.gate.sizes == [1, 8, 3]


def test_an_idle_device_waits_for_nobody(export: Path) -> None:
    ran: list[int] = []
    session = load(export, batching=Batching((1, 2, 4, 8), ran.append))
    for count in (1, 3, 8, 10):
        session.render(specs(range(count)))
    assert ran == [1, 3, 8, 8, 2]  # and warming up is not counted


def test_same_pictures_alone_and_in_any_company(trained_export: Path, styled_export: Path) -> None:
    for export in (trained_export, styled_export):
        alone = load(export)
        assert alone.batch_sizes == (1,)
        asked = [
            ImageSpec(seed, seed % len(alone.manifest.categories), 0.3 + seed / 40)
            for seed in range(24)
        ]
        if export == styled_export:  # a third have offsets
            offset = OFFSET[0]
            asked = [
                ImageSpec(one.seed, one.category, 0.7, offset) if one.seed % 3 == 0 else one
                for one in asked
            ]
        expected = [alone.render([spec])[0] for spec in asked]
        session = load(export, batching=Batching((1, 2, 4, 8)))
        parts = [slice(0, 1), slice(1, 4), slice(4, 6), slice(6, 16), slice(16, 17), slice(17, 24)]
        with ThreadPoolExecutor(len(parts)) as threads:
            for _ in range(5):
                made = [threads.submit(session.render, asked[part]) for part in parts]
                for part, one in zip(parts, made, strict=True):
                    assert_same(pictures(one), expected[part])


def test_first_come_first_served_picture_by_picture(export: Path) -> None:
    with gated(export) as requests:
        requests.occupy()
        early = [requests.ask(specs([seed])) for seed in range(7)]
        several = requests.ask(specs(range(10, 13)))
        late = [requests.ask(specs([seed])) for seed in range(20, 26)]
        requests.gate.let_pass(2)  # the one that occupies it, then 7 and 1 of the 3
        for seed, one in enumerate(early):
            assert_same(pictures(one), load(export).render(specs([seed])))
        assert not several.done()
        requests.gate.let_pass()  # 2 of the 3, then 6
        assert len(pictures(several)) == 3
        assert [len(pictures(one)) for one in late] == [1] * 6
    assert requests.gate.sizes == [1, 8, 8]


def test_a_request_of_many_has_one_batch_ahead_of_a_single(export: Path) -> None:
    with gated(export) as requests:
        requests.occupy()
        many = requests.ask(specs(range(30)), joining=8)
        single = requests.ask(specs([50]))
        requests.gate.let_pass(3)
        assert len(pictures(single)) == 1
        assert not many.done()
        requests.gate.let_all_pass()
        assert len(pictures(many)) == 30


@pytest.fixture
def fragile(make_export: Callable[..., Path], make_graph: Callable[..., Any]) -> Path:
    """An export whose graph fails as a whole where one truncation_psi is 5 or more."""
    model = make_graph()
    model.graph.initializer.append(constant("ones", np.ones(5, dtype=np.float32)))
    model.graph.node.insert(
        0, helper.make_node("Cast", ["truncation_psi"], ["whole"], to=TensorProto.INT64)
    )
    model.graph.node.insert(1, helper.make_node("Gather", ["ones", "whole"], ["one_each"]))
    model.graph.node.insert(2, helper.make_node("Mul", ["truncation_psi", "one_each"], ["safe"]))
    (unsqueeze,) = [node for node in model.graph.node if node.op_type == "Unsqueeze"]
    unsqueeze.input[0] = "safe"
    return make_export(model)


def test_a_batch_that_fails_tells_all_its_callers_and_the_next_one_runs(fragile: Path) -> None:
    with gated(fragile) as requests:
        requests.occupy()
        made = [requests.ask(specs([seed])) for seed in range(3)]
        many = requests.ask([*specs([4]), ImageSpec(1, 0, 7.0)])
        full = requests.ask(specs(range(5, 10)))  # 3 of them are in the failing batch
        later = requests.ask(specs([20]))
        requests.gate.let_all_pass()
        errors = []
        for one in (*made, many, full):
            with pytest.raises(SessionError, match=r"generator\.onnx failed") as caught:
                pictures(one)
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == len(errors)
        assert_same(pictures(later), load(fragile).render(specs([20])))
        assert len(requests.session.render(specs(range(9)))) == 9


@pytest.mark.parametrize(
    "bad",
    [
        ImageSpec(1, 9, 0.7),
        ImageSpec(1, 0, 0.7, OFFSET[0, :2]),
        ImageSpec(1, 0, 0.7, OFFSET[0].astype(np.float64)),
        ImageSpec(1, 0, 0.7, np.full_like(OFFSET[0], np.nan)),
    ],
)
def test_what_is_wrong_with_one_spec_is_its_callers_alone(
    styled_export: Path, bad: ImageSpec
) -> None:
    expected = load(styled_export).render(specs([3]))
    with gated(styled_export) as requests:
        requests.occupy()
        good = requests.ask(specs([3]))
        is_nan = bad.style_offset is not None and bool(np.isnan(bad.style_offset).all())
        failed = requests.ask([bad], joining=int(is_nan))
        other = requests.ask(specs([3]))
        requests.gate.let_all_pass()
        with pytest.raises((SessionError, IndexError)):
            pictures(failed)
        for one in (good, other):
            assert_same(pictures(one), expected)


def test_values_that_are_not_finite_are_refused_at_loading(make_graph: Any, export: Path) -> None:
    manifest, _ = read_export(export)
    model = make_graph()
    model.graph.node[-1].op_type = "Log"
    with pytest.raises(SessionError, match="not finite"):
        GeneratorSession(model.SerializeToString(), manifest, batching=Batching((1, 2)))


def test_the_device_thread_ends_with_its_session_and_not_before_its_work(export: Path) -> None:
    before = set(threading.enumerate())
    with gated(export) as requests:
        first = requests.occupy()
        made = [requests.ask(specs([seed])) for seed in range(3)]
        (device,) = [t for t in set(threading.enumerate()) - before if "device" in t.name]
        gate = requests.gate
        del requests.session  # as when a model is evicted
        gc.collect()
        assert device.is_alive()
        gate.let_all_pass()
        assert [len(pictures(one)) for one in (first, *made)] == [1] * 4
    del first, made, requests
    gc.collect()
    device.join(BACKSTOP_SEC)
    assert not device.is_alive()


def test_each_request_notes_its_own_wait_and_its_run(export: Path) -> None:
    def observed(session: GeneratorSession, asked: Sequence[ImageSpec]) -> Observation:
        observation = Observation("test")
        begin(observation)
        session.render(asked)
        return observation

    with gated(export) as requests, ThreadPoolExecutor(2) as threads:
        requests.occupy()
        started_ns = time.perf_counter_ns()
        several = threads.submit(observed, requests.session, specs(range(7)))
        wait_for(lambda: requests.waiting == 7)
        split = threads.submit(observed, requests.session, specs(range(3)))
        wait_for(lambda: requests.waiting == 10)
        requests.gate.let_all_pass()
        intervals = pictures(several).intervals
        assert [interval.stage for interval in intervals] == ["queue", "inference"]
        assert started_ns < intervals[0].start_ns < intervals[0].end_ns == intervals[1].start_ns
        assert intervals[1].start_ns < intervals[1].end_ns < time.perf_counter_ns()
        two_runs = pictures(split).intervals
        assert [interval.stage for interval in two_runs] == ["queue", "inference"] * 2
        assert two_runs[1].start_ns == intervals[1].start_ns
        assert two_runs[2].start_ns == two_runs[1].end_ns <= two_runs[3].start_ns


def test_threads_that_wait_for_a_gpu_are_beside_those_that_compute(
    monkeypatch: pytest.MonkeyPatch, bento_home: Path
) -> None:
    assert waiting_threads("auto") == 0 or "CUDAExecutionProvider" in ort.get_available_providers()
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert waiting_threads("cpu") == 0
    assert waiting_threads("auto") == waiting_threads("cuda") == 16
    monkeypatch.setenv("CATALOGAN_WORKERS", "2")
    runtime = build_runtime()
    together = threading.Barrier(18)
    met = [runtime.gpu_threads._threads.submit(together.wait, BACKSTOP_SEC) for _ in range(18)]
    assert sorted(one.result() for one in met) == list(range(18))
    assert runtime.workers._threads._max_workers == 2  # photos are decoded by no more
    runtime.workers.stop()
    runtime.gpu_threads.stop()
    runtime.state.close()


def test_requests_over_http_share_runs_and_the_metric_tells(
    bento_home: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = Registry().register(export)
    url, asked = "/v1/images/generations", list(range(24))

    def answers() -> tuple[list[Any], dict[str, float]]:
        with (
            live_service(workers="12") as address,
            httpx.Client(base_url=address, timeout=None) as client,
            ThreadPoolExecutor(24) as threads,
        ):
            made = list(threads.map(lambda seed: client.post(url, json={"seed": seed}), asked))
            assert {answer.status_code for answer in made} == {200}
            assert all("inference;dur=" in answer.headers["Server-Timing"] for answer in made)
            text = client.get("/metrics").text
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("model") == registered.model_id
        }
        return [decoded(answer.json())[0] for answer in made], samples

    alone, samples = answers()
    assert "catalogan_batch_pictures_count" not in samples

    render, begun = GeneratorSession.render, []

    def noted(self: GeneratorSession, specs: Sequence[ImageSpec], *more: Any) -> Any:
        begun.append(specs)
        return render(self, specs, *more)

    def after_all_have_come(on_run: Callable[[int], None]) -> Batching:
        """The first run ends when the other workers have joined the line."""
        return Batching(
            (1, 2, 4, 8), lambda count: (wait_for(lambda: len(begun) >= 12), on_run(count))[1]
        )

    monkeypatch.setattr(GeneratorSession, "render", noted)
    monkeypatch.setattr(service.model_store.pool, "Batching", after_all_have_come)
    together, samples = answers()
    assert_same(together, alone)
    assert samples["catalogan_batch_pictures_sum"] == 24
    assert samples["catalogan_batch_pictures_count"] < 24


# IO binding


@pytest.fixture(scope="module")
def graph(styled_export: Path) -> Graph:
    manifest, files = read_export(styled_export)
    return Graph(files[GENERATOR_FILE], signatures(manifest)[GENERATOR_FILE])


def inputs(rows: int, seed: int = 0, offset: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    drawn = {
        "z": rng.standard_normal((rows, Z_DIM), dtype=np.float32),
        "category": rng.random((rows, len(CATEGORIES)), dtype=np.float32),
        "truncation_psi": rng.random(rows, dtype=np.float32),
        "noise": rng.standard_normal((rows, NOISE_DIM), dtype=np.float32),
    }
    return {**drawn, "style_offset": OFFSET[:rows]} if offset else drawn


def address(bound: BoundGraph) -> int:
    (output,) = bound._binding.get_outputs()
    return int(output.data_ptr())


@pytest.mark.parametrize("rows", CUDA_BATCH_SIZES)
def test_bound_runs_give_what_plain_ones_give(graph: Graph, rows: int) -> None:
    bound, addresses, seen = graph.bind(rows), set(), []
    for seed, offset in ((0, False), (1, False), (2, True), (2, False), (3, True), (0, False)):
        feeds = inputs(rows, seed, offset)
        output = bound.run(feeds)
        np.testing.assert_array_equal(output, graph.run(feeds))
        seen.append((output, output.copy()))
        addresses.add(address(bound))
    assert len(addresses) == 1  # the same buffer each time
    for output, copy in seen:  # and what was given away is not written over
        np.testing.assert_array_equal(output, copy)


def test_sizes_have_buffers_of_their_own(graph: Graph) -> None:
    one, two = graph.bind(1), graph.bind(2)
    feeds_of_one, feeds_of_two = inputs(1, 1), inputs(2, 2)
    expected_of_one, expected_of_two = graph.run(feeds_of_one), graph.run(feeds_of_two)
    for _ in range(2):
        np.testing.assert_array_equal(one.run(feeds_of_one), expected_of_one)
        np.testing.assert_array_equal(two.run(feeds_of_two), expected_of_two)
    assert address(one) != address(two)


def test_inputs_may_lie_in_memory_as_they_like(graph: Graph) -> None:
    feeds = inputs(4, 7, offset=True)
    strided = {
        name: np.asfortranarray(np.repeat(array, 2, axis=0)[::2]) for name, array in feeds.items()
    }
    np.testing.assert_array_equal(graph.bind(4).run(strided), graph.run(feeds))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros((4, Z_DIM))}, "z is float64"),
        ({"z": np.zeros((Z_DIM, 4), np.float32)}, "z is float32"),
        ({"noise": np.zeros((2, NOISE_DIM * 2), np.float32)}, "noise is"),
        ({"style_offset": OFFSET[:1]}, "style_offset is"),
        ({"other": np.zeros((4, 1), np.float32)}, "takes no other"),
        ({name: array[:2] for name, array in inputs(4).items()}, "bound to 4 rows, not 2"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_leave_no_trace(
    graph: Graph, change: dict[str, Any], message: str
) -> None:
    bound, feeds = graph.bind(4), inputs(4)
    with pytest.raises(SessionError, match=message):
        bound.run({**feeds, **change})
    np.testing.assert_array_equal(bound.run(feeds), graph.run(feeds))
    del feeds["noise"]
    with pytest.raises(SessionError, match=r"needs \['noise'\]"):
        bound.run(feeds)


def test_threads_take_turns_at_the_buffers(graph: Graph) -> None:
    bound = graph.bind(2)
    feeds = [inputs(2, seed, offset=seed % 2 == 0) for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for one, output in zip(feeds, threads.map(bound.run, feeds), strict=True):
            np.testing.assert_array_equal(output, graph.run(one))


@pytest.mark.gpu
def test_on_cuda_company_changes_no_level_by_more_than_one(trained_export: Path) -> None:
    session, cpu = load(trained_export, device="auto"), load(trained_export)
    if session.device != "cuda":
        pytest.skip("no CUDA here")
    assert session.batch_sizes == CUDA_BATCH_SIZES
    asked = [ImageSpec(seed, 0, 0.7) for seed in range(24)]
    with ThreadPoolExecutor(24) as threads:
        made = list(threads.map(lambda spec: session.render([spec])[0], asked))
    for ours, theirs in zip(made, cpu.render(asked), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.gpu
def test_bound_runs_on_cuda_give_what_plain_ones_give(styled_export: Path) -> None:
    manifest, files = read_export(styled_export)
    graph = Graph(files[GENERATOR_FILE], signatures(manifest)[GENERATOR_FILE], device="auto")
    if graph.device != "cuda":
        pytest.skip("no CUDA here")
    for rows in CUDA_BATCH_SIZES:
        bound = graph.bind(rows)
        for seed, offset in ((0, False), (1, True), (0, False)):
            feeds = inputs(rows, seed, offset)
            np.testing.assert_array_equal(bound.run(feeds), graph.run(feeds))
