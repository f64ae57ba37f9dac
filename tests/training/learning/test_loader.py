"""The order of photos: every one once a pass, in groups of a category, by count alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.dataset import DatasetError, PreparedDataset
from training.learning import loader as loader_module
from training.learning.distributed import Ranks
from training.learning.loader import BatchLoader, to_float
from training.learning.randomness import epoch_order

LABELS = np.array([0] * 13 + [1] * 8 + [2] * 5)


@pytest.mark.parametrize("epoch", range(5))
def test_a_pass_takes_each_photo_once_but_for_a_remainder(epoch: int) -> None:
    order = epoch_order(0, epoch, LABELS, 4)
    assert len(order) == 24
    assert len(set(order.tolist())) == 24


def test_most_groups_are_of_one_category_and_passes_differ() -> None:
    first, second = (epoch_order(0, e, LABELS, 4) for e in range(2))
    assert not np.array_equal(first, second)
    groups = LABELS[first].reshape(-1, 4)
    assert sum(len(set(g.tolist())) == 1 for g in groups) == 3 + 2 + 1


def test_every_photo_is_seen_within_a_few_passes() -> None:
    seen = {int(i) for e in range(6) for i in epoch_order(0, e, LABELS, 4)}
    assert seen == set(range(len(LABELS)))


def test_ranks_share_a_batch_and_any_count_is_a_place_to_start(tiny_dataset: Path) -> None:
    data = PreparedDataset(tiny_dataset)
    loader = BatchLoader(data, 8, 0, torch.device("cpu"), 4)
    whole, _ = loader.positions(24, Ranks())
    halves = [loader.positions(24, Ranks(rank, 2))[0] for rank in range(2)]
    assert np.array_equal(whole, np.concatenate(halves))
    batches = loader.batches(0, Ranks())
    for nimg in (0, 8, 16):
        batch = next(batches)
        rows, _ = loader.positions(nimg, Ranks())
        assert torch.equal(batch.images, to_float(torch.from_numpy(data.images[rows])))
        assert batch.category.argmax(dim=1).tolist() == data.labels[rows].tolist()
        assert batch.category.sum(dim=1).tolist() == [1.0] * 8


def test_half_of_the_photos_are_mirrored_by_seed_and_count_alone(tiny_dataset: Path) -> None:
    data = PreparedDataset(tiny_dataset)
    device = torch.device("cpu")
    plain, mirrored, other = (
        BatchLoader(data, 8, seed, device, 4, mirror)
        for seed, mirror in ((0, False), (0, True), (1, True))
    )
    counts = range(0, 400, 8)
    flips = np.concatenate([mirrored.positions(n, Ranks())[1] for n in counts])
    assert 0.4 < flips.mean() < 0.6
    assert not any(plain.positions(n, Ranks())[1].any() for n in counts)
    seeds_differ = np.concatenate([other.positions(n, Ranks())[1] for n in counts])
    assert not np.array_equal(flips, seeds_differ)
    by_rank = [mirrored.positions(24, Ranks(rank, 2))[1] for rank in range(2)]
    assert np.array_equal(np.concatenate(by_rank), mirrored.positions(24, Ranks())[1])
    batch, as_it_is = (next(loader.batches(24, Ranks())) for loader in (mirrored, plain))
    flipped = torch.from_numpy(flips[24:32])
    assert flipped.any()
    assert torch.equal(batch.images[flipped], as_it_is.images[flipped].flip(3))
    assert torch.equal(batch.images[~flipped], as_it_is.images[~flipped])
    assert torch.equal(batch.category, as_it_is.category)


def test_a_pass_is_sorted_once(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million photos that takes longer than a step."""
    sorted_passes = []

    def noted(seed: int, epoch: int, *others: Any) -> Any:
        sorted_passes.append(epoch)
        return epoch_order(seed, epoch, *others)

    monkeypatch.setattr(loader_module, "epoch_order", noted)
    loader = BatchLoader(PreparedDataset(tiny_dataset), 8, 0, torch.device("cpu"), 4)
    for nimg in range(0, 3 * loader.epoch_length, 8):
        loader.positions(nimg, Ranks())
    assert sorted_passes[:3] == [0, 1, 2]
    assert len(sorted_passes) == len(set(sorted_passes)) <= 4


def test_only_training_photos_are_read(tiny_dataset: Path) -> None:
    data = PreparedDataset(tiny_dataset)
    loader = BatchLoader(data, 8, 0, torch.device("cpu"), 4)
    rows = {int(r) for n in range(0, 400, 8) for r in loader.positions(n, Ranks())[0]}
    assert rows == set(data.indices("train").tolist())


def test_an_unreadable_dataset_names_the_file(tmp_path: Path, tiny_dataset: Path) -> None:
    with pytest.raises(DatasetError, match="run `catalogan prepare` again"):
        PreparedDataset(tmp_path)


def test_too_few_photos_to_form_a_group_are_said(tiny_dataset: Path) -> None:
    data = PreparedDataset(tiny_dataset)
    with pytest.raises(DatasetError, match="needs at least 1000"):
        BatchLoader(data, 8, 0, torch.device("cpu"), 1000)
