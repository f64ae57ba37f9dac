"""How hard a key that somebody made up is to guess."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise


def key_bits(key: str) -> float:
    """Estimate the entropy of a key in bits, by how its characters vary.

    A repetition counts once; of characters and the steps between them what varies less counts,
    so that runs as 123456 have none. Words of a dictionary are not known.
    """
    once = key[: (key + key).index(key, 1)]
    steps = [ord(after) - ord(before) for before, after in pairwise(once)]
    return len(once) * min(_entropy_bits(once), _entropy_bits(steps))


def _entropy_bits(values: Sequence[Hashable]) -> float:
    """Shannon entropy of one value."""
    fractions = [count / len(values) for count in Counter(values).values()]
    return -sum(fraction * math.log2(fraction) for fraction in fractions)
