"""Which images make up a set: their numbers, categories and seeds, and the shards of it."""

import hashlib
import heapq
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.inference.generation import SEED_LIMIT

# 2**14 categories, more than a manifest may have, of 2**39 seeds each fill the 2**53 seeds.
SEEDS_PER_CATEGORY: Final = 2**39
_RESERVED: Final = re.compile("(con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One image of a set.

    Attributes:
        number: From 1 on, over the whole set.
        category: Index into the manifest's categories.
        seed: What, with the category, reproduces the image.
    """

    number: int
    category: int
    seed: int


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `of` parts of a set, from 1 on."""

    index: int = 1
    of: int = 1

    @property
    def suffix(self) -> str:
        """What files about a part have in their names; nothing for the whole."""
        return "" if self.of == 1 else f"-{self.index:05d}-of-{self.of:05d}"

    def numbers(self, total: int, unit: int = 1) -> range:
        """The numbers that are in this part; the parts of a set follow on each other.

        Args:
            total: Images of the whole set.
            unit: So many images stay together.
        """
        units = -(-total // unit)
        first = units * (self.index - 1) // self.of * unit
        end = min(units * self.index // self.of * unit, total)
        return range(first + 1, end + 1)


def first_seed(base: int, category: int) -> int:
    """Seed of a category's first image; its next one has the next seed, modulo 2**53.

    It depends on nothing but its arguments, so a set that is requested again with more
    images begins with the same ones. Within a set no seed occurs twice: each category
    has a stretch of its own. SHA-256 keeps the sets of near base seeds apart.
    """
    digest = hashlib.sha256(f"catalogan dataset {base}".encode()).digest()
    start = int.from_bytes(digest[:8], "big")
    return (start + category * SEEDS_PER_CATEGORY) % SEED_LIMIT


def all_items(counts: Mapping[int, int], base: int, first: int = 1) -> Iterator[Item]:
    """Give the images of a set in order, each interval with the categories in proportion.

    So any interval can be trained on as it comes, without shuffling. The time to the first one
    grows with the categories, not with the images before it.

    Args:
        counts: Images by index of category.
        base: The set's seed.
        first: Number of the first one to give.
    """
    seeds = {category: first_seed(base, category) for category in counts}
    done = _done_before(counts, first)
    spread = heapq.merge(
        *(_spread(category, counts[category], done[category]) for category in sorted(counts))
    )
    for number, (_, category, index) in enumerate(spread, 1 + sum(done.values())):
        if number >= first:
            yield Item(number, category, (seeds[category] + index) % SEED_LIMIT)


def _done_before(counts: Mapping[int, int], first: int) -> dict[int, int]:
    """How many images of each category surely come before the image `first`: almost all.

    They are those up to a place on the way; rounding adds at most half an image a category.
    """
    total = sum(counts.values())
    place = max(first - 1 - len(counts), 0)  # of `total`
    return {
        category: min((2 * count * place + total) // (2 * total), count)
        for category, count in counts.items()
    }


def folder_names(categories: Sequence[str]) -> list[str]:
    """A safe name for each category, the same in every set of a model.

    Letters, digits, "-" and "_" only, at most 60 of them; no two are equal where letter case
    doesn't count, and none is a name that Windows keeps for itself.
    """
    taken: set[str] = set()
    names = []
    for index, category in enumerate(categories):
        slug = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", category))[:60].strip("-")
        name = slug or "category"
        while name.casefold() in taken or _RESERVED.fullmatch(name):
            name = f"{name[:60]}-{index}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _spread(category: int, count: int, done: int) -> Iterator[tuple[float, int, int]]:
    """Places of a category's images on a way from 0 to 1, without the first ones."""
    return (((2 * index + 1) / (2 * count), category, index) for index in range(done, count))
