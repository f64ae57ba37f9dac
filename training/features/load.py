"""Loads feature extractors by name."""

from pathlib import Path

from training.features.extractor import FeatureExtractor, LiteFeatures
from training.features.names import FeaturesName


def load_extractor(
    name: FeaturesName = "efficientnet-lite2", *, device: str = "cpu", weights: Path | None = None
) -> FeatureExtractor:
    """Load the extractor of that name; nothing is downloaded.

    Args:
        name: Which network's features.
        device: A torch device's name.
        weights: File of Inception's or DINOv2's weights; by default the cache of the package
            that downloads them.

    Raises:
        WeightsError: The weights, or the package that runs them, are missing, or they are not
            the expected ones.
    """
    # Imported late, since they are seldom used.
    if name == "inception":
        from training.features.inception import InceptionFeatures

        return InceptionFeatures(device, weights)
    if name == "dinov2":
        from training.features.dinov2 import DinoFeatures

        return DinoFeatures(device, weights)
    return LiteFeatures(device)
