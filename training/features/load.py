"""Which networks' features an evaluation can use, by name."""

from pathlib import Path

from training.features.extractor import FeatureExtractor, LiteFeatures
from training.features.names import FeaturesName


def load_extractor(
    name: FeaturesName = "efficientnet-lite2", *, device: str = "cpu", weights: Path | None = None
) -> FeatureExtractor:
    """The extractor of that name; nothing is downloaded.

    Args:
        name: Which network's features.
        device: A torch device's name.
        weights: File of Inception's or DINOv2's weights; by default where their own
            packages keep what they once downloaded.

    Raises:
        WeightsError: The weights, or the package that runs them, are not there, or they
            are not the expected ones.
    """
    # Imported late: few need them.
    if name == "inception":
        from training.features.inception import InceptionFeatures

        return InceptionFeatures(device, weights)
    if name == "dinov2":
        from training.features.dinov2 import DinoFeatures

        return DinoFeatures(device, weights)
    return LiteFeatures(device)
