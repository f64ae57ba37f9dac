"""Does the generator show its training photos again?

Photos that it never saw set the measure: a generated image is too near when its distance
to the nearest training photo is no larger than the 1 % quantile of the validation photos'
distances to theirs. A generator as good as the photographer has 1 % of such images.

Training may mirror images, so that a copy may come mirrored: every training photo is
compared both ways (training/evaluation/copy_distance.py).

Source of the three samples (training, held out, generated): Meehan, Chaudhuri and Dasgupta
2020, arXiv 2004.05675. Theirs is a test over all images; this counts the nearest ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from training.evaluation.copy_distance import Nearest
from training.evaluation.record import Memorisation, NearestPhoto

QUANTILE: Final = 0.01
KEPT_PAIRS: Final = 12
_CHANCE: Final = 0.95
# A threshold under this share of the validation photos' median distance comes of twins of
# training photos: of 341 photos of clothes and 117 rendered ones it was 0.55 to 0.67 of the
# median, and nine in ten of JPEG copies are nearer than a third.
_BLINDED: Final = 1 / 3


@dataclass(frozen=True, kw_only=True)
class NearPair:
    """A generated image and its nearest training photo."""

    distance: float
    row: int  # of the photo, in the dataset
    mirrored: bool  # the photo is nearest when mirrored
    too_near: bool
    label: int  # what was requested of the generator
    image: NDArray[np.uint8]  # [height, width, channels]


class MemorisationCheck:
    """Counts images that are too near to a training photo, and keeps the nearest."""

    def __init__(self, validation: Nearest, train_count: int) -> None:
        """Find how near validation photos come.

        Args:
            validation: Of photos never trained on, one or more.
            train_count: Photos that the generator was trained on.
        """
        self._train_count: Final = train_count
        held_out = validation.distances
        # The k-th smallest of M distances has an expected share of k / (M + 1) below it,
        # whatever the distribution; under 99 photos even k = 1 is more than 1 %.
        self.expected_share: Final = max(QUANTILE, 1 / (len(held_out) + 1))
        self.threshold: Final = float(np.quantile(held_out, self.expected_share, method="weibull"))
        # A validation photo's number and a training photo's row, where so like each other that
        # copies can't be distinguished from photos never seen; None = they can.
        self.twins: Final = self._twins(validation)
        self._validation_count: Final = len(held_out)
        self._generated_count = 0
        self._too_near = 0
        self._pairs: dict[int, NearPair] = {}

    def add(self, images: NDArray[np.uint8], nearest: Nearest, labels: NDArray[np.int64]) -> None:
        """Take a batch of generated images.

        Args:
            images: uint8 [N, height, width, channels].
            nearest: Their nearest training photos.
            labels: [N], what was requested of the generator.
        """
        distances = nearest.distances
        self._generated_count += len(distances)
        self._too_near += int((distances <= self.threshold).sum())
        # The nearest alone can enter the kept pairs; the rest are not looked at.
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
        """The nearest validation photo's number and its twin's row, if that blinds the check."""
        if self.threshold > _BLINDED * np.median(validation.distances):
            return None
        number = int(validation.distances.argmin())
        return number, int(validation.rows[number])

    @property
    def share(self) -> float:
        """Share of the generated images that are too near."""
        return self._too_near / max(self._generated_count, 1)

    @property
    def chance_share(self) -> float:
        """What 95 of 100 honest generators stay at or under, with as many images and photos.

        The threshold comes from few validation photos, so that the share of an honest
        generator varies: beta-binomial, the threshold being an order statistic.
        """
        k = self.expected_share * (self._validation_count + 1)
        count = max(self._generated_count, 1)
        return float(betabinom.ppf(_CHANCE, count, k, self._validation_count + 1 - k)) / count

    def pairs(self) -> list[NearPair]:
        """The nearest pairs, nearest first; of each training photo its nearest image only."""
        return sorted(self._pairs.values(), key=lambda pair: pair.distance)

    def record(
        self, names: tuple[str, ...], paths: Callable[[Sequence[int]], list[str]]
    ) -> Memorisation:
        """What a report says.

        Args:
            names: Of the categories that labels index.
            paths: Gives the paths of photos by their rows.
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
