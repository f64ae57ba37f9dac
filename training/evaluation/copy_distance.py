"""Distance from an image to the training photo that it is most like.

It is the geometric mean of two distances. Pretrained features recognise the content wherever it is
in the image, but noise, blur and recompression move them as far as another product does. Small
images compared pixel by pixel, over shifts of a few pixels, hardly change with those. An image is
a copy if both distances are small.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.features.extractor import to_rgb_tensor
from training.metrics.distances import Features

_SHIFTED_PX: Final = 32  # the size at which images are shifted, by a pixel each way
_COMPARED_PX: Final = 8  # the size at which pixels are compared
# Images compared at a time, so that memory grows only with the number of photos.
_BLOCK: Final = 64
_EPSILON: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest training photo of each of some images.

    Attributes:
        distances: [N], 0 for a photo itself, about 1 for unrelated ones.
        rows: [N], the photos' rows in the dataset.
        mirrored: [N], whether the photo is nearest when mirrored.
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


class TrainingPhotos:
    """All training photos, unmirrored and mirrored."""

    def __init__(
        self,
        rows: NDArray[np.int64],
        upright: Features,
        mirrored: Features,
        photos: list[NDArray[np.uint8]],
    ) -> None:
        """Prepare the photos for comparisons.

        Args:
            rows: Their rows in the dataset [N].
            upright: Features of the unmirrored photos [N, D], N of 1 or more.
            mirrored: Features of the same photos mirrored left to right, [N, D].
            photos: The photos themselves, in parts [n, height, width, channels].
        """
        self._rows = rows
        self._directions = _unit(torch.from_numpy(np.concatenate([upright, mirrored])).float())
        planes = torch.cat([_unshifted(part) for part in photos])
        self._pixels = torch.cat([_unit_pixels(planes), _unit_pixels(planes.flip(3))])

    def nearest(self, images: NDArray[np.uint8], features: Features) -> Nearest:
        """Find the nearest training photo of each image.

        Args:
            images: [N, height, width, channels].
            features: Features of the images, [N, D].
        """
        found = [
            self._nearest(images[start : start + _BLOCK], features[start : start + _BLOCK])
            for start in range(0, len(images), _BLOCK)
        ]
        distances, positions = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        mirrored, photos = np.divmod(positions, len(self._rows))
        return Nearest(
            distances=distances.astype(np.float64),
            rows=self._rows[photos],
            mirrored=mirrored.astype(np.bool_),
        )

    def _nearest(self, images: NDArray[np.uint8], features: Features) -> tuple[Tensor, Tensor]:
        directions = _unit(torch.from_numpy(np.asarray(features)).float())
        by_features = _squared_distances(directions, self._directions)
        planes = functional.pad(_unshifted(images), (1, 1, 1, 1), mode="replicate")
        by_pixels = torch.full_like(by_features, torch.inf)
        for down in range(3):
            for right in range(3):
                moved = planes[:, :, down : down + _SHIFTED_PX, right : right + _SHIFTED_PX]
                distances = _squared_distances(_unit_pixels(moved), self._pixels)
                torch.minimum(by_pixels, distances, out=by_pixels)
        nearest = (by_features * by_pixels).min(dim=1)
        return nearest.values.pow(0.25), nearest.indices  # geometric mean of both distances


def _unshifted(images: NDArray[np.uint8]) -> Tensor:
    """Images of any size -> [N, 3, _SHIFTED_PX, _SHIFTED_PX]."""
    return to_rgb_tensor(images, _SHIFTED_PX)


def _unit_pixels(planes: Tensor) -> Tensor:
    """Planes [N, 3, H, W] -> pixels [N, 3 * 64] without mean lightness and contrast."""
    pixels = functional.adaptive_avg_pool2d(planes, _COMPARED_PX).flatten(1)
    return _unit(pixels - pixels.mean(dim=1, keepdim=True))


def _unit(rows: Tensor) -> Tensor:
    """Rows [N, D] of length 1."""
    return functional.normalize(rows, dim=1, eps=_EPSILON)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between rows of length 1, [N, D] and [M, D] -> [N, M]; 0 to 4."""
    return (2 - 2 * a @ b.t()).clamp_min(0)
