"""How near enlarged images come to photos of the larger size, beside Lanczos'."""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.manifest import EnlargedDistances
from models.upscaler import Upscaler
from training.features.extractor import FeatureExtractor
from training.learning.loader import to_float
from training.learning.recorder import to_pixels
from training.metrics.distances import Features, kernel_distance
from training.upscaling.crops import Images, resize

_BATCH: Final = 16
# An enlarged photo is nearer to its own original than to any other photo: each half of the photos
# is compared with the originals of the other half, over so many ways to halve them.
_HALVINGS: Final = 10

# Small images -> large ones.
Enlarge = Callable[[Images], Images]


def enlarge_by(upscaler: Upscaler) -> Enlarge:
    """Enlarge uint8 images [N, H, W, C] as the exported graph does, where the upscaler is."""
    device = next(upscaler.parameters()).device

    def enlarge(images: Images) -> Images:
        with torch.inference_mode():
            parts = [
                to_pixels(upscaler(to_float(torch.from_numpy(part).to(device))))
                for part in np.split(images, range(_BATCH, len(images), _BATCH))
            ]
        return np.concatenate(parts)

    return enlarge


def judge(
    enlarge: Enlarge, photos: Images, generated: Images, extractor: FeatureExtractor
) -> tuple[EnlargedDistances, EnlargedDistances]:
    """Compare photos with small photos and generated images that were enlarged.

    Args:
        enlarge: The upscaler.
        photos: Validation photos of the larger size, uint8 [N, H, W, C], N of 4 or more.
        generated: Generated images of the smaller size, uint8 [N, h, w, C].
        extractor: Of a network that the upscaler was not trained with.

    Returns:
        Of photos that were made small, and of generated images.
    """
    height, width = photos.shape[1:3]
    small = resize(photos, (generated.shape[2], generated.shape[1]))
    known = extractor(photos)

    def by_lanczos(images: Images) -> Images:
        return resize(images, (width, height))

    def of_photos(way: Enlarge) -> float:
        return distance_between_halves(known, extractor(way(small)))

    def of_generated(way: Enlarge) -> float:
        return kernel_distance(known, extractor(way(generated)))

    return (
        EnlargedDistances(upscaler=of_photos(enlarge), lanczos=of_photos(by_lanczos)),
        EnlargedDistances(upscaler=of_generated(enlarge), lanczos=of_generated(by_lanczos)),
    )


def distance_between_halves(originals: Features, changed: Features) -> float:
    """Mean kernel distance of half of the rows of `changed` from the other half of `originals`.

    Args:
        originals: [N, D], N of 4 or more.
        changed: [N, D]; row i was made of row i.
    """
    random, half = np.random.default_rng(0), len(originals) // 2
    distances = []
    for _ in range(_HALVINGS):
        order: NDArray[np.int64] = random.permutation(len(originals))
        first, second = order[:half], order[half : 2 * half]
        distances.append(kernel_distance(originals[first], changed[second]))
    return float(np.mean(distances))
