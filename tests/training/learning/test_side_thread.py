"""A task beside the caller computes what it would at once, and nothing outlives a step."""

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.dataset import PreparedDataset
from training.learning.adversarial import AdversarialPair
from training.learning.config import merge, resolve
from training.learning.distributed import Ranks
from training.learning.loader import BatchLoader
from training.learning.run import build_networks
from training.learning.side_thread import SideThread


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def states(
    dataset: PreparedDataset, settings: dict[str, Any], threads: int
) -> list[dict[str, torch.Tensor]]:
    """Both networks after six steps, R1 among them."""
    torch.set_num_threads(1)
    config = resolve(settings)
    networks = build_networks(config, dataset.info)
    discriminator = networks[1]
    half = torch.arange(discriminator.mask_shape[0])[None, :, None, None] % 2
    discriminator.mask.hold(2.0 * half)
    pair = AdversarialPair(*networks, config, torch.float32, SideThread(threads))
    loader = BatchLoader(dataset, config.batch_size, config.seed, torch.device("cpu"), 4)
    batches = loader.batches(0, Ranks())
    batch = next(batches)
    for step in range(6):
        following = next(batches)
        pair.step(batch, following, step * config.batch_size, 0.5, Ranks())
        batch = following
    return [network.state_dict() for network in networks]


@pytest.mark.parametrize("objective", ["logistic", "relativistic"])
@pytest.mark.parametrize("sees_mask", [True, False])
def test_learning_beside_each_other_equals_learning_in_turn(
    tiny_dataset: Path, tiny_settings: dict[str, Any], objective: str, sees_mask: bool
) -> None:
    settings = merge(
        {**tiny_settings, "max_kimg": 1, "objective": objective},
        {"masking": {"generator_sees_mask": sees_mask}},
    )
    dataset = PreparedDataset(tiny_dataset)
    at_once, beside = (states(dataset, settings, threads) for threads in (1, 2))
    for one, other in zip(at_once, beside, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_whether_the_generator_sees_the_mask_matters(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    dataset, settings = PreparedDataset(tiny_dataset), {**tiny_settings, "max_kimg": 1}
    seen, unseen = (
        states(dataset, merge(settings, {"masking": {"generator_sees_mask": sees}}), 1)[0]
        for sees in (True, False)
    )
    assert not torch.equal(seen["synthesis.constant"], unseen["synthesis.constant"])


def test_the_generator_learns_from_the_discriminator_as_it_was(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    """What the discriminator learns in a step changes nothing for the generator in that step."""
    dataset, config = PreparedDataset(tiny_dataset), resolve({**tiny_settings, "max_kimg": 1})
    learnt = []
    for rate in (0.0, 0.1):
        networks = build_networks(config, dataset.info)
        pair = AdversarialPair(*networks, config, torch.float32, SideThread(1))
        for group in pair.discriminator_optimizer.param_groups:
            group["lr"] = rate
        batch = next(BatchLoader(dataset, 8, 0, torch.device("cpu"), 4).batches(0, Ranks()))
        pair.step(batch, batch, 0, 0.5, Ranks())
        learnt.append([network.state_dict() for network in networks])
    (slow, still), (fast, moved) = learnt
    assert all(torch.equal(slow[name], fast[name]) for name in slow)
    assert not torch.equal(still["embed"], moved["embed"])


def test_pictures_painted_ahead_are_forgotten_with_the_weights_that_painted_them(
    tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    dataset, config = PreparedDataset(tiny_dataset), resolve({**tiny_settings, "max_kimg": 1})
    batch = next(BatchLoader(dataset, 8, 0, torch.device("cpu"), 4).batches(0, Ranks()))
    logits = []
    for goes_back in (False, True):
        networks = build_networks(config, dataset.info)
        pair = AdversarialPair(*networks, config, torch.float32, SideThread(1))
        if goes_back:
            before = copy.deepcopy([network.state_dict() for network in networks])
            optimizers = copy.deepcopy([o.state_dict() for o in pair.optimizers])
            pair.step(batch, batch, 0, 0.5, Ranks())
            for network, state in zip(networks, before, strict=True):
                network.load_state_dict(state)
            pair.load_optimizers(*optimizers)
        logits.append(pair.step(batch, batch, 8, 0.5, Ranks()).fake_logits)
    assert torch.equal(*logits)


def test_tasks_run_in_their_order_in_one_other_thread() -> None:
    side = SideThread(2)
    seen: list[tuple[int, str, int]] = []

    def note(number: int) -> int:
        seen.append((number, threading.current_thread().name, torch.get_num_threads()))
        return number

    with side.sharing():
        assert [side.submit(note, i).result() for i in range(3)] == [0, 1, 2]
    assert [number for number, _, _ in seen] == [0, 1, 2]
    (name,) = {name for _, name, _ in seen}
    assert name != threading.current_thread().name


@pytest.mark.parametrize(("threads", "own", "left"), [(2, 1, 1), (5, 2, 3), (8, 4, 4)])
def test_the_threads_are_shared_out_and_given_back(threads: int, own: int, left: int) -> None:
    torch.set_num_threads(threads)
    side = SideThread(threads)
    with side.sharing():
        assert side.submit(torch.get_num_threads).result() == own
        assert torch.get_num_threads() == left
    assert torch.get_num_threads() == threads


def test_one_thread_does_everything_at_once() -> None:
    side = SideThread(1)
    with side.sharing():
        assert side.submit(threading.current_thread).result() is threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            side.submit(lambda: 1 / 0)


def test_a_step_that_fails_waits_for_what_runs_beside_it() -> None:
    side, go, ended = SideThread(2), threading.Event(), []

    def slow() -> None:
        go.wait(10)
        ended.append(True)

    def step() -> None:
        with side.sharing():
            side.submit(slow)
            threading.Timer(0.2, go.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert ended


def test_a_task_that_fails_says_so_to_who_waits_for_it() -> None:
    side = SideThread(2)
    with side.sharing():
        failed = side.submit(lambda: 1 / 0)
        assert side.submit(int).result() == 0
        with pytest.raises(ZeroDivisionError):
            failed.result()
