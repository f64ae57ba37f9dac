"""A model's watermark: laid over its pictures, and looked for in any."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.watermark import (
    DECODER_NAMES,
    ENCODER_NAMES,
    PATTERN_PX,
    Found,
    find,
    lay_over,
    payload,
    thumbnail,
)
from service.inference.graphs import Graph


class Watermarker:
    """The two graphs of a model's watermark. Safe to call from several threads at once."""

    def __init__(self, encoder: Graph, decoder: Graph, model_hash: str) -> None:
        """Take loaded graphs, and the hash that the model's bits are made of."""
        self._encoder: Final = encoder
        self._decoder: Final = decoder
        self._payload: Final = payload(model_hash)

    def mark(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mark a picture, uint8 [height, width, channels]; a copy of the same shape.

        Raises:
            SessionError: The graph failed.
        """
        feeds = {
            ENCODER_NAMES[0]: thumbnail(pixels, PATTERN_PX, PATTERN_PX)[np.newaxis],
            ENCODER_NAMES[1]: self._payload.astype(np.float32)[np.newaxis],
        }
        return lay_over(pixels, self._encoder.run(feeds)[0])

    def find(self, pixels: NDArray[np.uint8]) -> Found | None:
        """Look for this model's mark in a picture, uint8 [height, width, channels].

        Raises:
            SessionError: The graph failed.
        """
        return find(pixels, self._read, [self._payload])

    def _read(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._decoder.run({DECODER_NAMES[0]: frames})
