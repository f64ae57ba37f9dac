"""Features of product views, which propose near duplicates.

EfficientNet-Lite0 on a small input: about 4 ms per photo on one thread.
"""

from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.features.efficientnet_lite import load_efficientnet_lite, normalize
from training.photos.product_view import HOLE
from training.photos.threads import run_in_threads

_FEATURE_DIM: Final = 1280
_INPUT_PX: Final = 96
_BATCH: Final = 8


@cache
def load_network() -> nn.Module:
    """Load the network; raises `WeightsError`."""
    return load_efficientnet_lite("lite0").to(memory_format=torch.channels_last)


def view_features(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute features [N, 1280] of views [N, VIEW_PX, VIEW_PX, 4], with white background."""
    network = load_network()
    features = np.empty((len(pixels), _FEATURE_DIM), np.float32)

    def compute(rows: slice) -> None:
        with torch.inference_mode():
            features[rows] = network(_network_input(pixels[rows])).numpy()

    run_in_threads(compute, len(pixels), _BATCH)
    return features


def _network_input(pixels: NDArray[np.uint8]) -> Tensor:
    product = np.where(pixels[..., 3:] >= HOLE, pixels[..., :3], 255)
    images = torch.from_numpy(product).permute(0, 3, 1, 2).float() / 127.5 - 1
    enlarged = functional.interpolate(
        images, (_INPUT_PX, _INPUT_PX), mode="bilinear", align_corners=False
    )
    return normalize(enlarged).contiguous(memory_format=torch.channels_last)
