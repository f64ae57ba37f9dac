"""Named lists of operations; docs/augmentation.md shows them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from service.augmentation.operations.geometry import (
    Canvas,
    Crop,
    Flip,
    Perspective,
    Rotate,
    Scale,
    Shear,
    Translate,
)
from service.augmentation.operations.scenery import Background
from service.augmentation.operations.tones import Colours, Gamma, Greyscale, WhiteBalance
from service.augmentation.operations.traces import Blur, Cutout, Jpeg, Noise, Shadow, Sharpen

AnyOperation = Annotated[
    Flip
    | Rotate
    | Scale
    | Translate
    | Shear
    | Crop
    | Perspective
    | Canvas
    | Colours
    | WhiteBalance
    | Gamma
    | Greyscale
    | Blur
    | Sharpen
    | Noise
    | Shadow
    | Jpeg
    | Cutout
    | Background,
    Field(discriminator="name"),
]
PolicyName = Literal["light", "strong", "marketplace", "scan"]

# How another photographer might have taken the photo.
_LIGHT: Final[Sequence[AnyOperation]] = (
    Flip(name="flip"),
    Rotate(name="rotate", degrees=(-7, 7)),
    Crop(name="crop", scale=(0.85, 1)),
    Colours(name="colour"),
    WhiteBalance(name="white_balance", kelvin=(5800, 7400)),
    Gamma(name="gamma", gamma=(0.9, 1.12)),
)
# Far from the photo, still recognisable: for training recognisers.
_STRONG: Final[Sequence[AnyOperation]] = (
    Flip(name="flip"),
    Rotate(name="rotate", degrees=(-25, 25)),
    Scale(name="scale", factor=(0.75, 1.25)),
    Translate(name="translate"),
    Shear(name="shear", x_degrees=(-10, 10), y_degrees=(-4, 4), probability=0.5),
    Perspective(name="perspective", strength=(0.03, 0.15), probability=0.5),
    Colours(
        name="colour",
        brightness=(0.7, 1.25),
        contrast=(0.7, 1.3),
        saturation=(0.5, 1.5),
        hue_degrees=(-15, 15),
    ),
    WhiteBalance(name="white_balance", kelvin=(4600, 10_000), tint=(-0.06, 0.06)),
    Gamma(name="gamma", gamma=(0.7, 1.4)),
    Greyscale(name="greyscale", probability=0.05),
    Shadow(name="shadow", probability=0.3),
    Blur(name="blur", radius_px=(0.3, 2), probability=0.3),
    Noise(name="noise", sigma=(0.005, 0.04), probability=0.5),
    Cutout(name="cutout", probability=0.4),
    Jpeg(name="jpeg", quality=(35, 90), probability=0.5),
)
# As marketplaces require main images: the product alone, whole, large, on pure white. Never
# mirrored, so that lettering stays readable.
_MARKETPLACE: Final[Sequence[AnyOperation]] = (
    Rotate(name="rotate", degrees=(-2, 2)),
    Canvas(aspect="1:1", fit="subject", fill=(0.83, 0.87), background="white"),
    Colours(name="colour", brightness=(0.97, 1.06), contrast=(0.97, 1.08), saturation=(0.97, 1.08)),
    Gamma(name="gamma", gamma=(0.92, 1.05)),
    Background(name="background", fills=["white"]),
)
# As if printed and laid on a scanner or photographed: for labels and documents. Never mirrored.
_SCAN: Final[Sequence[AnyOperation]] = (
    Rotate(name="rotate", degrees=(-3, 3)),
    Perspective(name="perspective", strength=(0, 0.03)),
    Colours(name="colour", brightness=(0.9, 1.05), contrast=(0.75, 1), saturation=(0.05, 0.5)),
    WhiteBalance(name="white_balance", kelvin=(5200, 7200)),
    Gamma(name="gamma", gamma=(0.85, 1.2)),
    Shadow(name="shadow", strength=(0.08, 0.25), softness=(0.4, 1), probability=0.7),
    Blur(name="blur", radius_px=(0.3, 0.9)),
    Noise(name="noise", sigma=(0.008, 0.025)),
    Jpeg(name="jpeg", quality=(30, 75)),
)
POLICIES: Final[Mapping[PolicyName, Sequence[AnyOperation]]] = {
    "light": _LIGHT,
    "strong": _STRONG,
    "marketplace": _MARKETPLACE,
    "scan": _SCAN,
}
DEFAULT_POLICY: Final[PolicyName] = "light"


def with_canvas(operations: Sequence[AnyOperation], canvas: Canvas) -> Sequence[AnyOperation]:
    """Put what was set of `canvas` in place of what the operations' own canvas says.

    Where they have none, it comes last.
    """
    changes = {name: getattr(canvas, name) for name in canvas.model_fields_set - {"name"}}
    if "size" in changes or "aspect" in changes:
        changes = {"size": None, "aspect": None, **changes}
    changed = [
        operation.model_copy(update=changes) if isinstance(operation, Canvas) else operation
        for operation in operations
    ]
    has_one = any(isinstance(operation, Canvas) for operation in operations)
    return changed if has_one else [*operations, canvas]
