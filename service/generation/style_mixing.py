"""Two images' styles in one: the outline of one seed, the surface of another."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.manifest import MAPPING_FILE, GeneratorManifest
from service.errors import BadRequest
from service.generation.requests import StyleMixing
from service.inference.generation import GeneratorSession, ImageSpec


@dataclass(frozen=True)
class Mixing:
    """Whose style the layers from `crossover` on take.

    Attributes:
        fine: Seed of that style.
        crossover: Index of a layer, 0 to num_ws; at num_ws nothing is mixed.
    """

    fine: int
    crossover: int

    def parameters(self, coarse: int) -> dict[str, Any]:
        """The request's field that reproduces the image of the seed `coarse`."""
        return {"style_mixing": {"coarse": coarse, "fine": self.fine, "crossover": self.crossover}}


def layers_of_styles(manifest: GeneratorManifest, param: str | None) -> int:
    """Number of layers that take a style of their own.

    Raises:
        BadRequest: The export has no mapping.onnx; `param` is the field that needs it.
    """
    if manifest.num_ws is None or MAPPING_FILE not in manifest.files:
        raise BadRequest(
            f"this model was exported without {MAPPING_FILE}, so its styles can't be reached: "
            "its run must be exported again",
            param=param,
            code="no_mapping",
        )
    return manifest.num_ws


def choose_mixing(requested: StyleMixing, manifest: GeneratorManifest) -> Mixing:
    """Resolve the crossover.

    Raises:
        BadRequest: The model can't mix styles, or has fewer layers.
    """
    layers = layers_of_styles(manifest, "style_mixing")
    crossover = layers // 2 if requested.crossover is None else requested.crossover
    if crossover > layers:
        raise BadRequest(
            f"this model has {layers} layers with a style: send 0 to {layers}",
            param="style_mixing.crossover",
        )
    return Mixing(requested.fine, crossover)


def mix_styles(session: GeneratorSession, spec: ImageSpec, mixing: Mixing) -> ImageSpec:
    """Give the fine layers of an image another seed's style; its noise stays its own.

    Raises:
        SessionError: The mapping failed.
    """
    change = session.style(replace(spec, seed=mixing.fine)) - session.style(spec)
    offset = np.zeros((session.manifest.num_ws or 0, change.size), dtype=np.float32)
    offset[mixing.crossover :] = change
    return replace(spec, style_offset=offset)
