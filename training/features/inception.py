"""Inception features through torch-fidelity, from local weights.

Nothing is downloaded here. Only a Frechet distance on these features is called FID.
"""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.features.efficientnet_lite import WeightsError
from training.features.extractor import ExtractorInfo, FeatureExtractor, to_rgb_tensor

WEIGHTS_NAME: Final = "weights-inception-2015-12-05-6726825d.pth"
# The release's name ends in the first digits of its SHA-256.
WEIGHTS_SHA256_PREFIX: Final = "6726825d"
_WEIGHTS_URL: Final = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}"
)
_DIMENSIONS: Final = 2048
_INPUT_PX: Final = 299
_BATCH: Final = 32


class InceptionFeatures(FeatureExtractor):
    """torch-fidelity's Inception v3, pool features."""

    def __init__(self, device: str = "cpu", weights: Path | None = None) -> None:
        """Load the weights.

        Args:
            device: A torch device's name.
            weights: The weights file; by default the one in torch hub's cache.

        Raises:
            WeightsError: The package or the file is missing, or the file is another one.
        """
        super().__init__(device, _BATCH)
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
        digest = _checked_digest(path)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise WeightsError(
                f"--features inception needs torch-fidelity ({error}): pip install torch-fidelity"
            ) from error
        self.info = ExtractorInfo(
            name="torch-fidelity inception-v3-compat",
            sha256=digest,
            dimensions=_DIMENSIONS,
            input_px=_INPUT_PX,
            provenance="Inception v3 of 2015-12-05, trained on ImageNet; Apache-2.0.",
            frechet_name="FID",
        )
        self._network = FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(_DIMENSIONS)], feature_extractor_weights_path=str(path)
        ).to(self._device)

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        # The network resizes images itself, and FID depends on how.
        pixels = ((to_rgb_tensor(images) + 1) * 127.5).round().to(torch.uint8)
        pooled: Tensor
        (pooled,) = self._network(pixels.to(self._device))
        return pooled


def _checked_digest(path: Path) -> str:
    """Hash the weights file and check that it is the release's."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"--features inception found no weights at {path} ({error.strerror}): download "
            f"{_WEIGHTS_URL} to that path, or use the default features"
        ) from error
    if not digest.startswith(WEIGHTS_SHA256_PREFIX):
        raise WeightsError(
            f"{path} is not {WEIGHTS_NAME} (its SHA-256 is {digest}): download {_WEIGHTS_URL}"
        )
    return digest
