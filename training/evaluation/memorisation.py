"""Checks whether the generator reproduces its training photos.

Photos that it never saw set the threshold: a generated image is too near if its distance
to the nearest training photo is no larger than the 1 % quantile of the validation photos'
distances to theirs. A generator as good as the photographer has 1 % of such images.

Training may mirror photos, so a copy may be mirrored: every training photo is
compared both ways (training/evaluation/copy_distance.py).

Comparing three samples (training, held out, generated) follows Meehan, Chaudhuri and Dasgupta
2020, arXiv 2004.05675. Theirs is a test over all images; this counts the nearest ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.evaluation.copy_distance import Nearest
from training.evaluation.record import Memorisation, NearestPhoto

QUANTILE: Final = 0.01
KEPT_PAIRS: Final = 12
_CHANCE: Final = 0.95
# A threshold below this fraction of the validation photos' median distance results from near
# duplicates of training photos: with 341 photos of clothes and 117 rendered ones it was 0.55 to
# 0.67 of the median, and nine in ten JPEG copies are nearer than a third.
_BLINDED: Final = 1 / 3


@dataclass(frozen=True, kw_only=True)
class NearPair:
    """A generated image and its nearest training photo."""

    distance: float
    row: int  # of the photo, in the dataset
    mirrored: bool  # the photo is nearest when mirrored
    too_near: bool
    label: int  # category that was requested
    image: NDArray[np.uint8]  # [height, width, channels]


class MemorisationCheck:
    """Counts images that are too near to a training photo, and stores the nearest pairs."""

    def __init__(self, validation: Nearest, train_count: int) -> None:
        """Set the threshold from the validation photos.

        Args:
            validation: Nearest training photos of one or more photos never trained on.
            train_count: Number of photos that the generator was trained on.
        """
        self._train_count: Final = train_count
        held_out = validation.distances
        # An expected fraction of k / (M + 1) lies below the k-th smallest of M distances,
        # whatever the distribution; with fewer than 99 photos even k = 1 is more than 1 %.
        self.expected_share: Final = max(QUANTILE, 1 / (len(held_out) + 1))
        self.threshold: Final = float(np.quantile(held_out, self.expected_share, method="weibull"))
        # A validation photo's number and a training photo's row, if they are so alike that
        # copies can't be distinguished from photos never seen; None = they can.
        self.twins: Final = self._twins(validation)
        self._validation_count: Final = len(held_out)
        self._generated_count = 0
        self._too_near = 0
        self._pairs: dict[int, NearPair] = {}

    def add(self, images: NDArray[np.uint8], nearest: Nearest, labels: NDArray[np.int64]) -> None:
        """Add a batch of generated images.

        Args:
            images: uint8 [N, height, width, channels].
            nearest: Their nearest training photos.
            labels: [N], categories that were requested.
        """
        distances = nearest.distances
        self._generated_count += len(distances)
        self._too_near += int((distances <= self.threshold).sum())
        # Only the nearest can be stored, so stop at the first that is too far.
        for i in np.argsort(distances, kind="stable"):
            pair = NearPair(
                distance=float(distances[i]),
                row=int(nearest.rows[i]),
                mirrored=bool(nearest.mirrored[i]),
                too_near=bool(distances[i] <= self.threshold),
                label=int(labels[i]),
                image=images[i].copy(),
            )
            if len(self._pairs) >= KEPT_PAIRS and pair.distance >= self.pairs()[-1].distance:
                break
            known = self._pairs.get(pair.row)
            if known is None or pair.distance < known.distance:
                self._pairs[pair.row] = pair
                self._pairs = {kept.row: kept for kept in self.pairs()[:KEPT_PAIRS]}

    def _twins(self, validation: Nearest) -> tuple[int, int] | None:
        """Near duplicates in validation and training that make the check unreliable, if any."""
        if self.threshold > _BLINDED * np.median(validation.distances):
            return None
        number = int(validation.distances.argmin())
        return number, int(validation.rows[number])

    @property
    def share(self) -> float:
        """Fraction of the generated images that are too near."""
        return self._too_near / max(self._generated_count, 1)

    @property
    def chance_share(self) -> float:
        """Fraction that 95 of 100 generators without copies don't exceed, with these counts.

        The threshold comes from few validation photos, so the fraction varies even without
        copies. Its distribution is beta-binomial, since the threshold is an order statistic.
        """
        from scipy.stats import betabinom  # half a second, for this alone

        k = self.expected_share * (self._validation_count + 1)
        count = max(self._generated_count, 1)
        return float(betabinom.ppf(_CHANCE, count, k, self._validation_count + 1 - k)) / count

    def pairs(self) -> list[NearPair]:
        """Return the nearest pairs, nearest first; each training photo has at most one."""
        return sorted(self._pairs.values(), key=lambda pair: pair.distance)

    def record(
        self, names: tuple[str, ...], paths: Callable[[Sequence[int]], list[str]]
    ) -> Memorisation:
        """Summarise the check for a report.

        Args:
            names: Category names that labels index.
            paths: Returns the paths of photos by their rows.
        """
        pairs = self.pairs()
        return Memorisation(
            train_count=self._train_count,
            validation_count=self._validation_count,
            generated_count=self._generated_count,
            threshold=self.threshold,
            share=self.share,
            expected_share=self.expected_share,
            chance_share=self.chance_share,
            nearest=tuple(
                NearestPhoto(
                    category=names[pair.label],
                    photo=path,
                    mirrored=pair.mirrored,
                    distance=pair.distance,
                    too_near=pair.too_near,
                )
                for pair, path in zip(pairs, paths([pair.row for pair in pairs]), strict=True)
            ),
        )
