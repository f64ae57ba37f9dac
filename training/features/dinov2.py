"""DINOv2 features through timm, from local weights: nothing is downloaded here."""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.features.efficientnet_lite import WeightsError
from training.features.extractor import ExtractorInfo, FeatureExtractor, to_rgb_tensor

_MODEL: Final = "vit_small_patch14_dinov2.lvd142m"
_REPOSITORY: Final = f"timm/{_MODEL}"
_FILE: Final = "model.safetensors"
_DIMENSIONS: Final = 384
_INPUT_PX: Final = 224
_BATCH: Final = 16


class DinoFeatures(FeatureExtractor):
    """The class token of DINOv2's small vision transformer."""

    def __init__(self, device: str = "cpu", weights: Path | None = None) -> None:
        """Load the weights.

        Args:
            device: A torch device's name.
            weights: The model's safetensors file; by default the one in timm's cache.

        Raises:
            WeightsError: The file is missing or is of another network.
        """
        super().__init__(device, _BATCH)
        path = weights or _cached_by_timm()
        try:
            with safe_open(path, framework="numpy"):  # other formats can contain code
                pass
            network: Any = timm.create_model(
                _MODEL,
                pretrained=True,
                pretrained_cfg_overlay={"file": str(path)},
                num_classes=0,
                img_size=_INPUT_PX,
            )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]  # the rest may list hundreds of layers
            raise WeightsError(
                f"{path} holds no weights of {_REPOSITORY} ({reason}): download its {_FILE}"
            ) from error
        self.info = ExtractorInfo(
            name="dinov2-small",
            sha256=digest,
            dimensions=_DIMENSIONS,
            input_px=_INPUT_PX,
            provenance="DINOv2 ViT-S/14, trained on LVD-142M by its authors; Apache-2.0.",
            frechet_name="Frechet distance on DINOv2",
        )
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._mean, self._deviation = (
            torch.tensor(network.default_cfg[name], device=self._device).view(3, 1, 1)
            for name in ("mean", "std")
        )

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        levels = (to_rgb_tensor(images, _INPUT_PX).to(self._device) + 1) / 2
        pooled: Tensor = self._network((levels - self._mean) / self._deviation)
        return pooled


def _cached_by_timm() -> Path:
    """Find the weights in timm's cache, where they are once timm has used the network."""
    path = try_to_load_from_cache(_REPOSITORY, _FILE)
    if not isinstance(path, str):
        raise WeightsError(
            f"--features dinov2 found no weights in timm's cache: load {_MODEL} by timm once, or "
            f"download {_FILE} of {_REPOSITORY} and name it by --feature-weights"
        )
    return Path(path)
