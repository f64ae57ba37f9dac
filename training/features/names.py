"""The names of feature extractors; without torch, so that `--help` is quick."""

from typing import Literal

FeaturesName = Literal["efficientnet-lite2", "inception", "dinov2"]
