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


def seed_for(seed: int, purpose: Purpose, position: int = 0) -> int:
    """A 63-bit seed that is well mixed over all three numbers."""
    state = np.random.SeedSequence([seed, int(purpose), position]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def generator_for(
    seed: int, purpose: Purpose, position: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device`, seeded by seed_for."""
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, position))


def epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order in which pass `epoch` over `length` photos takes them."""
    generator = np.random.default_rng(seed_for(seed, Purpose.ORDER, epoch))
    return generator.permutation(length)
