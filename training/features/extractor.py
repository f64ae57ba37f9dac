"""The feature extractor that evaluations use by default.

A Frechet distance on these features is not FID, and is never called that.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.features.efficientnet_lite import (
    LITE_SHA256,
    LiteName,
    load_efficientnet_lite,
    normalize,
)
from training.records import Record

INPUT_PX: Final = 224
FEATURE_DIM: Final = 1280
# Images in a forward pass; the fixed number keeps the order of sums. Four fit a CPU's cache;
# with eight, each image takes a fifth longer.
_CPU_BATCH: Final = 4
_GPU_BATCH: Final = 64


class ExtractorInfo(Record):
    """Description of the features that a report's numbers are based on."""

    name: str
    sha256: str
    dimensions: int
    input_px: int
    provenance: str
    frechet_name: str


class FeatureExtractor(ABC):
    """Images in, feature vectors out; the same image gives the same vector.

    Attributes:
        info: Its description for reports.
    """

    info: ExtractorInfo

    def __init__(self, device: str | torch.device, batch_size: int) -> None:
        self._device, self._batch_size = torch.device(device), batch_size

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features of images.

        Args:
            images: uint8 [N, height, width, 1 | 3 | 4]; alpha is blended over white.

        Returns:
            float32 [N, info.dimensions].
        """
        features = np.empty((len(images), self.info.dimensions), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self._batch_size):
                part = slice(start, start + self._batch_size)
                features[part] = self._features(images[part]).cpu().numpy()
        return features

    @abstractmethod
    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        """Features [n, info.dimensions] of one batch."""


class LiteFeatures(FeatureExtractor):
    """EfficientNet-Lite2's pooled features: the default.

    The projected discriminator is trained on another network's features, those of Lite0.
    """

    network: ClassVar[LiteName] = "lite2"
    info = ExtractorInfo(
        name="efficientnet-lite2",
        sha256=LITE_SHA256["lite2"],
        dimensions=FEATURE_DIM,
        input_px=INPUT_PX,
        provenance=(
            "EfficientNet-Lite2, trained on ImageNet by its authors; Apache-2.0. Mean of the "
            f"last feature map, of images scaled to {INPUT_PX} x {INPUT_PX} pixels."
        ),
        frechet_name="Frechet distance on EfficientNet-Lite2",
    )

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Load the weights on to `device`.

        Raises:
            WeightsError: They are not installed, or not the expected ones.
        """
        on_cpu = torch.device(device).type == "cpu"
        super().__init__(device, _CPU_BATCH if on_cpu else _GPU_BATCH)
        network = load_efficientnet_lite(self.network).to(self._device)
        self._network = network.to(memory_format=torch.channels_last)

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        batch = normalize(to_rgb_tensor(images, INPUT_PX, self._device))
        pooled: Tensor = self._network(batch.contiguous(memory_format=torch.channels_last))
        return pooled


def to_rgb_tensor(
    images: NDArray[np.uint8], size_px: int | None = None, device: str | torch.device = "cpu"
) -> Tensor:
    """Convert images to a network's input.

    Args:
        images: uint8 [N, height, width, channels]; 1 = grey, 3 = RGB, 4 = RGB and alpha.
        size_px: Side of the square that the images are scaled to, bicubic with antialiasing;
            None leaves their size.
        device: Where they are scaled.

    Returns:
        float32 [N, 3, height, width] in [-1, 1]; transparency over white.

    Raises:
        ValueError: Another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"expected uint8 [N, height, width, 1 | 3 | 4], got {images.dtype} {images.shape}"
        )
    # A copy, since the dataset's memory map is read-only and torch tensors can't be.
    x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 255
    if x.shape[1] == 4:
        x = x[:, :3] * x[:, 3:] + (1 - x[:, 3:])
    if size_px is not None and x.shape[2:] != (size_px, size_px):
        size = (size_px, size_px)
        x = functional.interpolate(
            x.contiguous(), size, mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
    return x.expand(-1, 3, -1, -1) * 2 - 1
