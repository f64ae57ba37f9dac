"""An export's manifest: the contract between training and service.

An export is a directory that holds `generator.onnx`, `manifest.json`, `preview.png` and, for
people, `README.md`. For fine-tuning it has `weights.safetensors`: float16 tensors
`generator.<name>` (the averaged generator) and `discriminator.<name>`, which a service stores
but never loads; earlier exports have them in float32.
This module defines the manifest's fields; it needs neither torch nor ONNX Runtime.

The ONNX graph takes four float32 inputs and returns one output, for a batch of any size N:

    z               [N, z_dim]             standard normal latents
    category        [N, len(categories)]   weights that sum to 1; one-hot for one category
    truncation_psi  [N]                    1 = full variety, 0 = the category's mean image
    noise           [N, noise_dim]         standard normal; fine detail of every layer
    images          [N, channels, height, width]   nominally in [-1, 1], to be clamped

A fifth input may be left out, and is then zero:

    style_offset    [N or 1, num_ws, w_dim]        added to each layer's style after truncation

Up to three more graphs belong to an export. `mapping.onnx` returns the style w [N, w_dim] of z,
category and truncation_psi: differences of w serve as offsets that mix and interpolate styles.
`encoder.onnx` takes photos as images [N, channels, height, width] in [-1, 1] and category, and
returns the style_offset from which, with truncation_psi 0, the generator reproduces them.
`upscaler.onnx` takes images [N, channels, height, width] in [-1, 1] and returns them as `upscaled`
[N, channels, factor * height, factor * width], nominally in [-1, 1], to be clamped; the factor
is the manifest's.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA_VERSION: Final = 1
GENERATOR_FILE: Final = "generator.onnx"
MANIFEST_FILE: Final = "manifest.json"
PREVIEW_FILE: Final = "preview.png"
# Older exports have none of these five.
CARD_FILE: Final = "README.md"
WEIGHTS_FILE: Final = "weights.safetensors"
MAPPING_FILE: Final = "mapping.onnx"
ENCODER_FILE: Final = "encoder.onnx"
UPSCALER_FILE: Final = "upscaler.onnx"
WATERMARK_ENCODER_FILE: Final = "watermark_encoder.onnx"
WATERMARK_DECODER_FILE: Final = "watermark_decoder.onnx"
WATERMARK_FILES: Final = (WATERMARK_ENCODER_FILE, WATERMARK_DECODER_FILE)
# What a watermark has to reach before images are marked by default: the fraction found after each
# single treatment, and false marks per image. What is left after all treatments in a row is
# measured and reported, but no condition.
ALL_TREATMENTS: Final = "crop to 80 %, half the size, JPEG 70"
WATERMARK_FOUND: Final = 0.99
WATERMARK_FALSE_POSITIVES: Final = 1e-6
INPUT_NAMES: Final = ("z", "category", "truncation_psi", "noise")
OUTPUT_NAME: Final = "images"
STYLE_OFFSET_NAME: Final = "style_offset"  # input of the generator, output of the encoder
MAPPING_INPUT_NAMES: Final = ("z", "category", "truncation_psi")
MAPPING_OUTPUT_NAME: Final = "w"
ENCODER_INPUT_NAMES: Final = ("images", "category")
UPSCALER_INPUT_NAMES: Final = (OUTPUT_NAME,)
UPSCALER_OUTPUT_NAME: Final = "upscaled"
# Of single values, which may leave [-1, 1]. In int8 a single value may be anywhere: there
# LOSS_FLOOR_DB judges whole images.
PARITY_TOLERANCE: Final[dict[str, float]] = {"fp32": 1e-4, "fp16": 3e-2, "int8": 4.0}
# The least PSNR of a lower precision's images against those in float32 of the same seeds.
LOSS_FLOOR_DB: Final[dict[str, float]] = {"fp16": 45.0, "int8": 28.0}
# Defaults of a new export. Noise carries the photos' texture: without it the kernel distance of
# clothes is four times as large (docs/decisions/0006).
SERVED_TRUNCATION_PSI: Final = 0.7
SERVED_NOISE_SCALE: Final = 1.0
# Per category; a prompt's words are looked up among all names of all categories.
MAX_SYNONYMS: Final = 50
# The largest graph that the registry takes: a 512 px generator has about 120 MB in fp32.
MAX_GENERATOR_BYTES: Final = 1_000_000_000
# Generator and discriminator together.
MAX_WEIGHTS_BYTES: Final = 2 * MAX_GENERATOR_BYTES

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Category = Annotated[str, Field(min_length=1, max_length=200)]
Synonyms = Annotated[tuple[Category, ...], Field(max_length=MAX_SYNONYMS)]


class ManifestError(ValueError):
    """An export's files do not agree with its manifest; the message names the file."""


class _Record(BaseModel):
    # Fields that a later minor version adds are ignored, so that old services load it.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FileRecord(_Record):
    """Size in bytes and SHA-256 of one file of the export."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class ParityCertificate(_Record):
    """How far ONNX Runtime's output differs from torch's on the trained weights."""

    max_abs_error: Annotated[
        float, Field(ge=0, description="Over images in [-1, 1], or the encoder's offsets.")
    ]
    tolerance: Annotated[float, Field(gt=0)]
    truncation_psi: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    categories: Annotated[int, Field(ge=1, description="How many categories were compared.")]
    torch_version: str
    onnxruntime_version: str


class ImageLoss(_Record):
    """How far a lower precision's images differ from those in float32 of the same seeds.

    Measured on uint8 images as they are served; a step is 1 of 255.
    """

    truncation_psi: Annotated[float, Field(ge=0, le=1)]
    noise_scale: Annotated[float, Field(ge=0, le=1)]
    pictures: Annotated[int, Field(ge=1, description="Compared, of all categories in turn.")]
    mean_steps: Annotated[float, Field(ge=0, description="Mean absolute difference.")]
    max_steps: Annotated[float, Field(ge=0, description="Largest difference of one value.")]
    psnr_db: Annotated[
        float | None, Field(description="Of the mean squared error; None where nothing differs.")
    ]
    worst_psnr_db: Annotated[
        float | None, Field(description="Of the image that differs most; None as above.")
    ]


class Comparison(_Record):
    """One error of three images that stand in for a photo; the mean over all photos."""

    reconstruction: Annotated[float, Field(ge=0, description="Encoded and generated again.")]
    nearest_photo: Annotated[
        float, Field(ge=0, description="Training photo of the category nearest in pixels.")
    ]
    mean_photo: Annotated[float, Field(ge=0, description="Mean of its training photos.")]


class ReconstructionErrors(_Record):
    """How well an encoder's reconstructions stand in for photos that were not trained on."""

    photos: Annotated[int, Field(ge=1, description="Validation photos that were compared.")]
    pixel_mse: Annotated[Comparison, Field(description="Pixels in [-1, 1].")]
    feature_distance: Annotated[
        Comparison, Field(description="Euclidean, on the features that evaluation uses.")
    ]


class EncoderRecord(_Record):
    """Training and measured quality of the export's encoder."""

    nimg: Annotated[int, Field(ge=0, description="Photos shown to it in training.")]
    parity: ParityCertificate
    errors: ReconstructionErrors


class EnlargedDistances(_Record):
    """Kernel distances of enlarged images to validation photos of the upscaler's size."""

    upscaler: Annotated[float, Field(description="Of images that the upscaler enlarged.")]
    lanczos: Annotated[float, Field(description="Of the same ones, resized by Lanczos.")]


class UpscalerRecord(_Record):
    """Training and measured quality of the export's upscaler."""

    factor: Annotated[Literal[2, 4], Field(description="How much longer each side becomes.")]
    nimg: Annotated[int, Field(ge=0, description="Crops of photos shown to it in training.")]
    parity: ParityCertificate
    judged: Annotated[int, Field(ge=1, description="Validation photos, and generated images.")]
    photos: Annotated[
        EnlargedDistances, Field(description="Of validation photos that were downscaled.")
    ]
    generated: Annotated[EnlargedDistances, Field(description="Of generated images.")]


class WatermarkDetection(_Record):
    """How often the mark is found after a treatment of marked images, such as JPEG."""

    treatment: str
    pictures: Annotated[int, Field(ge=1, description="How many were marked and treated.")]
    found: Annotated[float, Field(ge=0, le=1, description="Fraction in which the mark is found.")]
    bits_right: Annotated[float, Field(ge=0, le=1, description="At the right position.")]


class WatermarkRecord(_Record):
    """Training and measured reliability of the export's watermark."""

    nimg: Annotated[int, Field(ge=0, description="Photos shown to it in training.")]
    dataset_hash: Sha256
    psnr_db: Annotated[float, Field(description="Of the marked image that changed most.")]
    detections: tuple[WatermarkDetection, ...]
    unmarked: Annotated[
        int, Field(ge=0, description="Readings of images without a mark, each compared with ...")
    ]
    payloads: Annotated[int, Field(ge=0, description="... so many random payloads.")]
    false_positives: Annotated[
        float, Field(ge=0, description="Per image, from these, over all positions of a crop.")
    ]
    max_abs_error: Annotated[
        float, Field(ge=0, description="Of ONNX Runtime against torch, logits and patterns.")
    ]

    @property
    def proven(self) -> bool:
        """Whether it is reliable enough to mark images by default."""
        single = (one.found for one in self.detections if one.treatment != ALL_TREATMENTS)
        found = min(single, default=0.0)
        return found >= WATERMARK_FOUND and self.false_positives <= WATERMARK_FALSE_POSITIVES


class GeneratorManifest(_Record):
    """Everything that a service, or a person, needs to know about an exported generator."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    created: datetime
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=10_000)]
    synonyms: Annotated[
        dict[Category, Synonyms],
        Field(description="Other names by category, for prompts. Older exports have none."),
    ] = Field(default_factory=dict)
    width: Annotated[int, Field(ge=8, le=4096)]
    height: Annotated[int, Field(ge=8, le=4096)]
    channels: Literal[1, 3, 4]
    z_dim: Annotated[int, Field(ge=1, le=4096)]
    noise_dim: Annotated[int, Field(ge=0, le=50_000_000)]
    truncation_psi: Annotated[
        float, Field(ge=0, le=1, description="Default where a request sets none.")
    ] = 0.7
    num_ws: Annotated[int | None, Field(ge=1, le=100, description="Layers that take a style.")] = (
        None
    )
    w_dim: Annotated[int | None, Field(ge=1, le=4096, description="Length of a style.")] = None
    noise_scale: Annotated[
        float, Field(ge=0, le=1, description="Scale of the noise, which is fine grain.")
    ] = 1.0
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    opset: Annotated[int, Field(ge=1)]
    preset: str
    nimg: Annotated[int, Field(ge=0, description="Real images shown to the discriminator.")]
    dataset_hash: Sha256
    training: dict[str, Any] = Field(default_factory=dict)
    masking: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    licence: str = "unspecified"
    author: str = "unspecified"
    data: Annotated[str, Field(description="Where the photos are from, and their licence.")] = (
        "unspecified"
    )
    parity: ParityCertificate
    losses: Annotated[
        tuple[ImageLoss, ...],
        Field(description="Of a lower precision, in full variety and as served; fp32 has none."),
    ] = ()
    encoder: EncoderRecord | None = None
    upscaler: UpscalerRecord | None = None
    watermark: WatermarkRecord | None = None
    files: dict[str, FileRecord]

    @field_validator("categories")
    @classmethod
    def _unique(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(categories)) != len(categories):
            raise ValueError("categories must be unique")
        return categories

    @model_validator(mode="after")
    def _synonyms_name_one_category(self) -> "GeneratorManifest":
        check_synonyms(self.synonyms, self.categories)
        return self

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            if not name or name.startswith(".") or "/" in name or "\\" in name:
                raise ValueError(f"file name {name!r} must be plain, without folders")
        if GENERATOR_FILE not in files:
            raise ValueError(f"{GENERATOR_FILE} is not listed")
        return files

    @model_validator(mode="after")
    def _styles_are_described(self) -> "GeneratorManifest":
        if (self.num_ws is None) != (self.w_dim is None):
            raise ValueError("num_ws and w_dim go together")
        if (self.encoder is None) != (ENCODER_FILE not in self.files):
            raise ValueError(f"encoder and {ENCODER_FILE} go together")
        if (self.upscaler is None) != (UPSCALER_FILE not in self.files):
            raise ValueError(f"upscaler and {UPSCALER_FILE} go together")
        if {self.watermark is not None} != {file in self.files for file in WATERMARK_FILES}:
            raise ValueError(f"watermark and {' and '.join(WATERMARK_FILES)} go together")
        if self.num_ws is None and {ENCODER_FILE, MAPPING_FILE} & self.files.keys():
            raise ValueError(f"{ENCODER_FILE} and {MAPPING_FILE} need num_ws and w_dim")
        return self

    @property
    def model_hash(self) -> str:
        """SHA-256 of the generator: with a seed it fixes the pixels."""
        return self.files[GENERATOR_FILE].sha256

    def verify_files(self, read: Callable[[str], bytes]) -> None:
        """Check that each listed file has the bytes that were exported.

        Args:
            read: Returns a file's content by its plain name.

        Raises:
            ManifestError: A file's size or SHA-256 differs.
        """
        for name, record in self.files.items():
            data = read(name)
            if len(data) != record.bytes or hashlib.sha256(data).hexdigest() != record.sha256:
                raise ManifestError(
                    f"{name} is not the file that was exported (size or SHA-256 differs): "
                    "export the run again"
                )


def category_index(name: str, categories: Iterable[str]) -> int | None:
    """Position of `name` among `categories`, ignoring letter case and surrounding blanks."""
    wanted = name.strip().casefold()
    return next((i for i, known in enumerate(categories) if known.casefold() == wanted), None)


def name_words(text: str) -> tuple[str, ...]:
    """The words by which names are compared, without letter case and simple English plurals."""
    return tuple(_singular(word) for word in re.findall(r"\w+", text.casefold().replace("_", " ")))


def check_synonyms(synonyms: Mapping[str, Sequence[str]], categories: Sequence[str]) -> None:
    """Check that each synonym belongs to one existing category only.

    Raises:
        ValueError: The message names the synonym and the categories.
    """
    known = {name: f"the category {name!r}" for name in categories}
    taken = {name_words(name): (name, what) for name, what in known.items()}
    for category, others in synonyms.items():
        if category not in known:
            raise ValueError(
                f"synonyms of {category[:60]!r}, which is no category; known are "
                + ", ".join(name[:40] for name in categories[:12])
            )
        for synonym in others:
            words = name_words(synonym)
            if not words:
                raise ValueError(f"the synonym {synonym[:60]!r} of {category!r} has no word in it")
            owner, what = taken.setdefault(words, (category, f"a synonym of {category!r}"))
            if owner != category:
                raise ValueError(
                    f"{synonym!r}, a synonym of {category!r}, is {what}, too, where letter case "
                    "and plurals don't count"
                )


def _singular(word: str) -> str:
    """Fold simple plurals: mugs, boxes, dresses, batteries; leaves dress and bus alone."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
