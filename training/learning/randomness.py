"""Random numbers by purpose and position, so that no random state needs saving.

The numbers of a step depend on the run's seed, the purpose and the number of images shown:
a resumed run draws the same numbers as an uninterrupted one.
"""

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray


class Purpose(IntEnum):
    """Purpose of random numbers; each purpose has its own stream."""

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
    """Mix all three numbers into a 63-bit seed."""
    state = np.random.SeedSequence([seed, int(purpose), position]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def generator_for(
    seed: int, purpose: Purpose, position: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Create a torch generator on `device`, seeded by seed_for."""
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, position))


def epoch_order(
    seed: int, epoch: int, labels: NDArray[np.int64], group_size: int
) -> NDArray[np.int64]:
    """Draw the order of an epoch's photos: shuffled groups of one category each.

    The discriminator's minibatch standard deviation compares the images of a group. Only within
    one category does it reveal that a generator repeats the same image; images of mixed groups
    differ anyway.

    Args:
        seed: The run's seed.
        epoch: Number of the epoch.
        labels: Category of each photo, [N].
        group_size: Photos in a group; the remaining photos of all categories form mixed groups.

    Returns:
        Positions, [N - N % group_size]; each epoch leaves out other photos.
    """
    random = np.random.default_rng(seed_for(seed, Purpose.ORDER, epoch))
    shuffled = random.permutation(len(labels))
    sorted_by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, count = np.unique(labels[sorted_by_label], return_index=True, return_counts=True)
    position = np.arange(len(labels)) - np.repeat(first, count)  # within its category
    whole = position < np.repeat(count - count % group_size, count)
    rest = random.permutation(sorted_by_label[~whole])
    mixed = rest[: len(rest) - len(rest) % group_size]
    groups = np.concatenate([sorted_by_label[whole], mixed]).reshape(-1, group_size)
    return random.permutation(groups).reshape(-1)
