"""What calls return: frozen, typed, with the service's names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

_FILE = {"json": "b64_json"}
_LIST = {"json": "data"}


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's bytes, just as the service returned them, marks included."""

    data: bytes = field(repr=False, metadata=_FILE)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it, over what is there; returns the path."""
        written = Path(path)
        written.write_bytes(self.data)
        return written


@dataclass(frozen=True, kw_only=True)
class StyleMixing:
    """The style mixing that reproduces an image."""

    coarse: int
    fine: int
    crossover: int


@dataclass(frozen=True, kw_only=True)
class GeneratedImage(File):
    """An image, and what reproduces it; `categories` where it was a mixture."""

    seed: int
    category: str
    categories: Mapping[str, float] | None = None
    style_mixing: StyleMixing | None = None


@dataclass(frozen=True, kw_only=True)
class VariedImage(File):
    """An image like a photo, and what reproduces it."""

    seed: int
    category: str
    strength: float
    photo_sha256: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a frame is: `share` of the way from its own seed to another.

    Of a photo, `to` is the hash, and so is `start`, which is None where a seed is left. Where
    there is a photo at either end, the other's category and truncation are named, too.
    """

    to: int | str
    share: float
    noise_seed: int
    start: str | None = field(default=None, metadata={"json": "from"})
    to_category: str | None = None
    to_truncation_psi: float | None = None


@dataclass(frozen=True, kw_only=True)
class Frame(File):
    """One frame of an interpolation."""

    seed: int
    category: str
    categories: Mapping[str, float] | None = None
    interpolation: Place
    photo_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class PhotoOnTheWay:
    """A photo that an interpolation leads through."""

    photo: str
    photo_sha256: str
    category: str


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """What is known of an augmented image; boxes as they were sent, in `format`."""

    label: Any
    format: str
    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[Any, ...] | None = None
    visible: tuple[float, ...]
    polygons: tuple[tuple[float, ...], ...]
    keypoints: tuple[tuple[tuple[float, ...], ...], ...]
    dropped: Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class AugmentedImage(File):
    """A variant of a photo, and exactly what was done to it.

    Attributes:
        photo: Index of the photo.
        mask: The photo's mask, PNG, taken the same way.
        matrix: 3 x 3, from photo pixels to image pixels.
        subject: How it was known, where it was requested.
        operations: As `replay` takes them.
    """

    photo: int
    photo_sha256: str
    mask: bytes | None = field(default=None, repr=False, metadata={"json": "mask_b64_json"})
    mask_sha256: str | None = None
    seed: int
    size: str
    matrix: tuple[tuple[float, ...], ...]
    subject: str | None = None
    operations: tuple[Mapping[str, Any], ...]
    annotations: Annotations | None = None

    def replay(self) -> dict[str, Any]:
        """What `augment(photos, replay=[...])` takes to reproduce the same pixels."""
        known = {
            "photo": self.photo,
            "photo_sha256": self.photo_sha256,
            "mask_sha256": self.mask_sha256,
            "seed": self.seed,
            "operations": list(self.operations),
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What holds for all images of a response from a model.

    `enlargement` is how a size above the model's own was reached: "none", "upscaler", "lanczos".
    """

    model: str
    model_hash: str
    output_format: str
    size: str
    enlargement: str = "none"


@dataclass(frozen=True, kw_only=True)
class Generation(_Made):
    """Generated images."""

    created: int
    truncation_psi: float
    images: tuple[GeneratedImage, ...] = field(metadata=_LIST)


@dataclass(frozen=True, kw_only=True)
class ValidationErrors:
    """Mean pixel errors of photos that the model was not trained on."""

    photos: int
    reconstruction: float
    nearest_photo: float
    mean_photo: float


@dataclass(frozen=True, kw_only=True)
class Variation(_Made):
    """Images like a photo.

    Where `reconstruction_error` is far above `validation_errors`, the model doesn't know such
    photos, and the images won't be like it.
    """

    created: int
    reconstruction_error: float
    validation_errors: ValidationErrors
    images: tuple[VariedImage, ...] = field(metadata=_LIST)


@dataclass(frozen=True, kw_only=True)
class Interpolation(_Made, File):
    """An animation, or a ZIP whose frames are `images`; one of an animation has none.

    `reconstruction_errors` are those of `photos`, which an animation of many leaves out.
    """

    category: str
    truncation_psi: float | None = None
    seeds: tuple[int, ...] | None = None
    waypoints: tuple[int | str, ...] | None = None
    photos: tuple[PhotoOnTheWay, ...] | None = None
    reconstruction_errors: tuple[float, ...] | None = None
    validation_errors: ValidationErrors | None = None
    frame_count: int
    loop: bool
    frame_duration_ms: int | None = None
    images: tuple[Frame, ...] = field(default=(), metadata=_LIST)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Variants of photos; `size` where all have the same."""

    created: int
    output_format: str
    size: str | None = None
    images: tuple[AugmentedImage, ...] = field(metadata=_LIST)


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What is known of a set before it comes."""

    model: str
    model_hash: str
    seed: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a layer says of an image."""

    source_type: str | None = None
    model: str | None = None
    model_hash: str | None = None
    seed: int | None = None
    category: str | None = None
    truncation_psi: float | None = None
    photo_sha256: str | None = None
    created: int | None = None


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed, as the certificate names it."""

    organization: str | None
    common_name: str | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One way to know an image again; `layer` is c2pa, record, watermark, xmp, ..."""

    layer: str
    status: str
    strength: str
    says: str
    claims: Claims | None = None
    signer: Signer | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Whether an image is the service's.

    `verdict` is ours, tampered, expired (unchanged, but its certificate has ended), derived (only
    the watermark is left), claimed or unknown.
    """

    ours: bool
    verdict: str
    sha256: str
    claims: Claims
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What says in a model's images that they are synthetic."""

    xmp: bool
    signed_by: str
    watermark: bool


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is served; `style_layers` None: no style mixing, `encoder`: photos vary.

    `size` is what it generates, `max_size` the largest that may be requested.
    """

    id: str
    version: str
    created: int
    owned_by: str
    model_hash: str
    default: bool
    categories: tuple[str, ...]
    synonyms: Mapping[str, Sequence[str]]
    size: str
    max_size: str
    channels: int
    truncation_psi: float
    style_layers: int | None
    encoder: bool
    licence: str
    marks: Marks


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """All models that are served."""

    models: tuple[Model, ...] = field(metadata=_LIST)


@dataclass(frozen=True, kw_only=True)
class UsageEntry:
    """One key's requests of one kind on one day (UTC)."""

    key: str
    date: date
    kind: str
    requests: int
    pictures: int
    errors: int


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one key has left; `resets_at` is Unix time."""

    key: str
    pictures: int
    per: str
    used: int
    left: int
    resets_at: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was requested, oldest first, and what is left."""

    entries: tuple[UsageEntry, ...] = field(metadata=_LIST)
    quotas: tuple[Quota, ...]
