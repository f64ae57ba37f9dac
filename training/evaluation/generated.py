"""Images of a generator for a dataset's labels: whose categories they are, and in what order."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import category_index


class EvaluationError(ValueError):
    """An evaluation that can't be done; the message says why and the way out."""


class Sampler(Protocol):
    """A generator of images: a run or an export."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that labels index."""

    def sample(
        self,
        labels: NDArray[np.int64],
        *,
        seed: int,
        truncation_psi: float = 1.0,
        noise_scale: float = 1.0,
    ) -> NDArray[np.uint8]:
        """Pictures [N, height, width, channels] of categories[labels], fixed by `seed`.

        Evaluation asks in batches, each under its own seed: the evaluation's plus the number
        of images before the batch.
        """


class GeneratedImages:
    """A sampler's images, a batch at a time.

    Attributes:
        matched: Dataset label -> sampler label, for the names that both know.
        unmatched: Names of the sampler's other categories.
    """

    def __init__(
        self, sampler: Sampler, categories: tuple[str, ...], *, seed: int, batch_size: int
    ) -> None:
        """Match the sampler's categories with the dataset's.

        Raises:
            EvaluationError: They have no name in common.
        """
        self._sampler, self._seed, self._batch_size = sampler, seed, batch_size
        self.matched = _matched_labels(sampler.categories, categories)
        known = set(self.matched.values())
        self.unmatched = tuple(n for i, n in enumerate(sampler.categories) if i not in known)

    def batches(
        self,
        labels: NDArray[np.int64],
        *,
        truncation_psi: float,
        noise_scale: float = 1.0,
        first: int = 0,
    ) -> Iterator[NDArray[np.uint8]]:
        """Images for the dataset's `labels`.

        Images number `first` and on: other numbers, other images.
        """
        requested = np.asarray([self.matched[int(label)] for label in labels], dtype=np.int64)
        for start in range(0, len(requested), self._batch_size):
            batch = requested[start : start + self._batch_size]
            images = self._sampler.sample(
                batch,
                seed=self._seed + first + start,
                truncation_psi=truncation_psi,
                noise_scale=noise_scale,
            )
            if len(images) != len(batch):
                raise EvaluationError(f"requested {len(batch)} images, got {len(images)}")
            yield images


def _matched_labels(model: tuple[str, ...], dataset: tuple[str, ...]) -> dict[int, int]:
    """Dataset label -> model label, for the names that both know."""
    found = {label: category_index(name, model) for label, name in enumerate(dataset)}
    matched = {label: index for label, index in found.items() if index is not None}
    if not matched:
        raise EvaluationError(
            f"the model's categories ({', '.join(model)}) and the dataset's "
            f"({', '.join(dataset)}) have no name in common: evaluate on the catalogue that "
            "the model was trained on, or rename its folders"
        )
    return matched
