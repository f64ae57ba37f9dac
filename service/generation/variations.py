"""A photo -> images like it: its style, found by the encoder, and others near it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.manifest import ENCODER_FILE, GeneratorManifest
from service.decoding.processes import DecodingProcesses
from service.decoding.uploads import fit_upload
from service.errors import BadRequest
from service.generation.categories import find_category
from service.generation.output import ImageEncoder
from service.generation.requests import VariationRequest
from service.inference.generation import GeneratorSession, ImageSpec, consecutive_seeds
from service.rendering.encoded_image import EncodedImage

# Trying a category costs one encoding and one image.
MAX_TRIED_CATEGORIES: Final = 32


@dataclass(frozen=True)
class FittedPhoto:
    """A photo as the model sees it.

    Attributes:
        pixels: uint8 [height, width, channels].
        sha256: Of the file, hex.
    """

    pixels: NDArray[np.uint8]
    sha256: str


@dataclass(frozen=True)
class Inverted:
    """A photo, seen by the model.

    Attributes:
        category: Index of the category that it was taken for.
        style_offset: What generates it, [num_ws, w_dim].
        error: Mean squared error of its reconstruction, pixels in [-1, 1].
    """

    category: int
    style_offset: NDArray[np.float32]
    error: float


def candidate_categories(requested: str | None, manifest: GeneratorManifest) -> Sequence[int]:
    """The categories that a photo may be of: the requested one, or all.

    Raises:
        BadRequest: The model has no encoder, the category is unknown, or there are too many
            to try.
    """
    if ENCODER_FILE not in manifest.files:
        raise BadRequest(
            f"this model was exported without {ENCODER_FILE}, so it can't look at photos: "
            "`catalogan train-encoder` its run and export it again",
            param="model",
            code="no_encoder",
        )
    if requested is not None:
        return [find_category(requested, manifest.categories)]
    if len(manifest.categories) > MAX_TRIED_CATEGORIES:
        raise BadRequest(
            f"say which category the photo is of: the model has {len(manifest.categories)}, and "
            f"only up to {MAX_TRIED_CATEGORIES} are tried",
            param="category",
            code="missing_field",
        )
    return range(len(manifest.categories))


def fit_photo(
    data: bytes, manifest: GeneratorManifest, param: str, decoding: DecodingProcesses
) -> FittedPhoto:
    """Decode an upload and fit it to a model; errors as of `fit_upload`."""
    pixels = fit_upload(data, decoding, manifest, param)
    return FittedPhoto(pixels, hashlib.sha256(data).hexdigest())


def inversion_jobs(
    session: GeneratorSession, photo: FittedPhoto, categories: Sequence[int]
) -> list[Callable[[], Inverted]]:
    """One job for each category that a photo may be of."""
    return [partial(_invert, session, photo.pixels, category) for category in categories]


def nearest(tried: Sequence[Inverted]) -> Inverted:
    """The best of what `inversion_jobs` returned; of equal ones the first."""
    return min(tried, key=lambda inverted: inverted.error)


def variation_jobs(
    session: GeneratorSession,
    inverted: Inverted,
    request: VariationRequest,
    encoder: ImageEncoder,
    photo: FittedPhoto,
) -> list[Callable[[], list[EncodedImage]]]:
    """Split images into jobs of the largest batch that pays on the session's device."""
    specs = [
        ImageSpec(seed, inverted.category, request.strength, inverted.style_offset)
        for seed in request.seeds or consecutive_seeds(request.seed, request.count)
    ]
    parameters = {"strength": request.strength, "photo_sha256": photo.sha256}
    vary = partial(_vary, session, encoder=encoder, parameters=parameters, photos=(photo.sha256,))
    return [partial(vary, part) for part in session.batches(specs)]


def error_metadata(inverted: Inverted, manifest: GeneratorManifest) -> dict[str, Any]:
    """How far the model is from the photo, and from photos that it should know."""
    return {
        "reconstruction_error": inverted.error,
        "validation_errors": validation_errors(manifest),
    }


def validation_errors(manifest: GeneratorManifest) -> dict[str, Any]:
    """How far the model is from photos that it should know, as `ValidationErrors`."""
    assert manifest.encoder is not None  # the manifest lists one if there is one
    errors = manifest.encoder.errors
    return {"photos": errors.photos, **errors.pixel_mse.model_dump()}


def _invert(session: GeneratorSession, photo: NDArray[np.uint8], category: int) -> Inverted:
    offset = session.encode(photo, category)
    # Any seed generates it; a fixed one makes the error depend on the photo alone.
    (generated,) = session.render([ImageSpec(0, category, 0.0, offset)])
    difference = (generated.astype(np.float64) - photo) / 127.5
    return Inverted(category, offset, float(np.mean(difference**2)))


def _vary(
    session: GeneratorSession,
    specs: Sequence[ImageSpec],
    encoder: ImageEncoder,
    parameters: Mapping[str, Any],
    photos: tuple[str, ...],
) -> list[EncodedImage]:
    return [
        encoder.encode(pixels, spec, parameters, photos)
        for spec, pixels in zip(
            specs, session.render(specs, encoder.presentation.upscaled), strict=True
        )
    ]
