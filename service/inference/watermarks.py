"""A model's watermark, laid over its images; service/provenance looks for it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.watermark import ENCODER_NAMES, PATTERN_PX, lay_over, payload, thumbnail
from service.inference.graphs import Graph


class Watermarker:
    """The encoder of a model's watermark. Safe to call from several threads at once."""

    def __init__(self, encoder: Graph, model_hash: str) -> None:
        """Take the loaded graph, and the hash that the model's bits follow from."""
        self._encoder: Final = encoder
        self._bits: Final = payload(model_hash).astype(np.float32)[np.newaxis]

    def mark(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mark an image, uint8 [height, width, channels]; a copy of the same shape.

        Raises:
            SessionError: The graph failed.
        """
        small = thumbnail(pixels, PATTERN_PX, PATTERN_PX)[np.newaxis]
        feeds = dict(zip(ENCODER_NAMES, (small, self._bits), strict=True))
        return lay_over(pixels, self._encoder.run(feeds)[0])
