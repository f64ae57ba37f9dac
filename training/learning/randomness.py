"""Random numbers by purpose and position, so that nothing random needs saving.

What a step draws depends on the run's seed, the purpose and the count of images shown:
a resumed run draws what the uninterrupted one would have drawn.
"""

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What random numbers are for; each purpose has a stream of its own."""

    INIT = 0
    ORDER = 1
    LATENTS = 2
    AUGMENT = 3
    MASK = 4
    PROBES = 5
    GRID = 6
    VALIDATION = 7
    ENCODER = 8
    WATERMARK = 9
    MIRROR = 10
    UPSCALER = 11


def seed_for(seed: int, purpose: Purpose, position: int = 0) -> int:
    """A 63-bit seed that is well mixed over all three numbers."""
    state = np.random.SeedSequence([seed, int(purpose), position]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def generator_for(
    seed: int, purpose: Purpose, position: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device`, seeded by seed_for."""
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, position))


def epoch_order(
    seed: int, epoch: int, labels: NDArray[np.int64], group_size: int
) -> NDArray[np.int64]:
    """The order in which pass `epoch` takes photos: shuffled groups of one category each.

    The discriminator's minibatch deviation compares the pictures of a group. Only among
    pictures of one category does it show that a generator paints the same one over and
    over; mixed groups differ anyhow.

    Args:
        seed: The run's.
        epoch: Which pass.
        labels: Category of each photo, [N].
        group_size: Photos in a group; what a category has left over forms mixed groups.

    Returns:
        Positions, [N - N % group_size]: which are left out differs from pass to pass.
    """
    random = np.random.default_rng(seed_for(seed, Purpose.ORDER, epoch))
    shuffled = random.permutation(len(labels))
    sorted_by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, count = np.unique(labels[sorted_by_label], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(first, count)  # within its category
    whole = place < np.repeat(count - count % group_size, count)
    rest = random.permutation(sorted_by_label[~whole])
    mixed = rest[: len(rest) - len(rest) % group_size]
    groups = np.concatenate([sorted_by_label[whole], mixed]).reshape(-1, group_size)
    return random.permutation(groups).reshape(-1)
