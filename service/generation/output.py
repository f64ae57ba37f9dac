"""Generated pixels -> a shaped, marked and encoded image with its metadata."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.manifest import GeneratorManifest
from models.watermark import MIN_SIDE_PX
from service.generation.categories import category_name, mixture_metadata
from service.inference.generation import GeneratorSession, ImageSpec
from service.inference.watermarks import Watermarker
from service.provenance.marker import Marker
from service.provenance.xmp import GENERATED, Mark
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import Encoding, OutputFormat, encode_image
from service.rendering.presentation import Presentation, present
from service.telemetry.observation import stage


@dataclass(frozen=True)
class ImageEncoder:
    """How a request's images are shaped, marked and encoded.

    Attributes:
        model_id: "name:version".
        manifest: The model's.
        encoding: Format and quality.
        presentation: Size and background.
        watermark: Laid over each image that is large enough; None = none is.
        photo_manifest: As of a Mark.
    """

    model_id: str
    manifest: GeneratorManifest
    encoding: Encoding
    presentation: Presentation
    watermark: Watermarker | None = None
    photo_manifest: bytes | None = None

    @classmethod
    def of_model(
        cls,
        marker: Marker,
        model_id: str,
        session: GeneratorSession,
        presentation: Presentation,
        output_format: OutputFormat = "png",
        quality: int | None = None,
    ) -> Self:
        """Encode a model's images, with the marks that the operator wants."""
        return cls(
            model_id,
            session.manifest,
            Encoding(marker, output_format, quality),
            presentation,
            marker.watermark_of(session),
        )

    def metadata(self) -> dict[str, Any]:
        """What holds for all images."""
        return {
            "created": int(time.time()),
            "model": self.model_id,
            "model_hash": self.manifest.model_hash,
            "output_format": self.encoding.output_format,
            "size": self.presentation.size,
            "enlargement": self.presentation.enlargement,
        }

    def encode(
        self,
        pixels: NDArray[np.uint8],
        spec: ImageSpec,
        parameters: Mapping[str, Any] | None = None,
        photos: tuple[str, ...] = (),
    ) -> EncodedImage:
        """Encode one image.

        Args:
            pixels: uint8 [height, width, channels], as generated.
            spec: What was generated.
            parameters: What beside the spec's seed, category and truncation fixed it; goes into
                metadata and mark.
            photos: As of a Mark.
        """
        known = self.manifest.categories
        category = category_name(spec.category, known)
        parameters = {**mixture_metadata(spec.category, known), **(parameters or {})}
        mark = self.mark(spec, category, parameters, photos)
        with stage("encode"):
            shown = present(pixels, self.presentation)
            if self.watermark is not None and min(shown.shape[:2]) >= MIN_SIDE_PX:
                shown = self.watermark.mark(shown)
            data = encode_image(shown, self.encoding, mark)
        return EncodedImage.of(data, {"seed": spec.seed, "category": category, **parameters}, mark)

    def mark(
        self,
        spec: ImageSpec,
        category: str,
        parameters: Mapping[str, Any],
        photos: tuple[str, ...] = (),
    ) -> Mark:
        """What an image, or an animation, says of its origin."""
        return Mark(
            GENERATED,
            spec.seed,
            self.model_id,
            self.manifest.model_hash,
            category,
            json.dumps(parameters, ensure_ascii=False) if parameters else None,
            spec.truncation_psi,
            photos,
            self.photo_manifest,
        )
