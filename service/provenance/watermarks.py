"""Whose watermark an image carries, of all models in the store."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.images import ImageError
from models.manifest import WATERMARK_DECODER_FILE as DECODER
from models.watermark import DECODER_NAMES, Found, find, payload
from service.errors import OperatorError
from service.inference.graphs import Graph
from service.inference.signatures import watermark_signatures
from service.model_store.registry import RegisteredModel, Registry

logger = logging.getLogger(__name__)

# Decoders that stay loaded, a few megabytes each; models that were exported together share one.
MAX_LOADED: Final = 4


@dataclass(frozen=True)
class Watermark:
    """A watermark that was found, and the model whose it is."""

    model: RegisteredModel
    found: Found


class Unreadable(Exception):
    """The image can't be decoded, or is too large to be."""


class WatermarkFinder:
    """Looks for the watermarks of all registered models; any number of threads may share one."""

    def __init__(self, registry: Registry, decode: Callable[[bytes], NDArray[np.uint8]]) -> None:
        """Load nothing yet.

        Args:
            registry: Has the models.
            decode: A file -> uint8 [height, width, 3]; raises ImageError.
        """
        self._registry: Final = registry
        self._decode: Final = decode
        self._loaded: dict[str, Graph] = {}
        # A search takes a core, and some copies of the photo: one at a time.
        self._turn: Final = threading.Lock()

    def find(self, data: bytes) -> tuple[bool, Watermark | None]:
        """Look for a mark; where there is none, this takes about a second.

        Returns:
            Whether any model has one, and the one that is in the image.

        Raises:
            Unreadable: It can't be decoded.
        """
        models = self._marking_models()
        if not models:
            return False, None
        try:
            pixels = self._decode(data)
        except ImageError as error:
            raise Unreadable(str(error)) from None
        with self._turn:
            return True, self._search(pixels, models)

    def _search(
        self, pixels: NDArray[np.uint8], models: Mapping[str, list[RegisteredModel]]
    ) -> Watermark | None:
        for decoder, its in models.items():
            try:
                graph = self._graph(decoder, its[0])
            except OperatorError as error:
                logger.error("the watermark of %s can't be looked for: %s", its[0].model_id, error)
                continue
            payloads = [payload(model.manifest.model_hash) for model in its]
            found = find(pixels, partial(_read, graph), payloads)
            if found is not None:
                return Watermark(its[found.index], found)
        return None

    def _marking_models(self) -> dict[str, list[RegisteredModel]]:
        """Models that have a watermark, by the hash of its decoder; of equal ones the first."""
        models: dict[str, dict[str, RegisteredModel]] = defaultdict(dict)
        for model in self._registry.list():
            if DECODER in model.manifest.files:
                decoder = model.manifest.files[DECODER].sha256
                models[decoder].setdefault(model.manifest.model_hash, model)
        return {decoder: list(its.values()) for decoder, its in models.items()}

    def _graph(self, decoder: str, model: RegisteredModel) -> Graph:
        if decoder not in self._loaded:
            data = model.read(DECODER)
            if len(self._loaded) >= MAX_LOADED:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[decoder] = Graph(data, watermark_signatures()[1])
        return self._loaded[decoder]


def _read(graph: Graph, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    return graph.run({DECODER_NAMES[0]: frames})
