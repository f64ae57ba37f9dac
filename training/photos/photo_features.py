"""Features of one photo, by which its near duplicates are looked for.

EfficientNet-Lite0 on a small input: its 2 to 10 ms are part of each photo's decoding. One
photo at a time on one thread, so that neither the order of decoding nor the number of
processes changes a number.
"""

from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from training.features.efficientnet_lite import load_efficientnet_lite, normalize

FEATURE_DIM: Final = 1280
_INPUT_PX: Final = 128


@cache
def load_network() -> nn.Module:
    """The network, loaded once in each process; raises `WeightsError`."""
    return load_efficientnet_lite("lite0").to(memory_format=torch.channels_last)


def photo_features(rgb: Image.Image) -> NDArray[np.float32]:
    """Features [FEATURE_DIM] of a photo of any size, mode RGB, stretched to a square."""
    small = rgb.resize((_INPUT_PX, _INPUT_PX), Image.Resampling.LANCZOS, reducing_gap=2.0)
    levels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
    images = normalize(levels.float() / 127.5 - 1)
    with torch.inference_mode():
        features: NDArray[np.float32] = load_network()(
            images.contiguous(memory_format=torch.channels_last)
        )[0].numpy()
    return features
