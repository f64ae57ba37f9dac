"""Painted pixels -> a shaped, marked and encoded picture with its facts."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.manifest import GeneratorManifest
from models.watermark import MIN_SIDE_PX
from service.generation.categories import category_name, mixture_facts
from service.inference.generation import GeneratorSession, PictureSpec
from service.inference.watermarks import Watermarker
from service.provenance.marker import Marker
from service.provenance.xmp import GENERATED, Mark
from service.rendering.encoded_image import Finished, finish
from service.rendering.encoding import Encoding, OutputFormat, encode_image
from service.rendering.presentation import Presentation, present
from service.telemetry.observation import stage


@dataclass(frozen=True)
class Finishing:
    """How a request's pictures are finished.

    Attributes:
        model_id: "name:version".
        manifest: The model's.
        encoding: Format and quality.
        presentation: Size and background.
        watermark: Laid over each picture that is large enough; None = none is.
    """

    model_id: str
    manifest: GeneratorManifest
    encoding: Encoding
    presentation: Presentation
    watermark: Watermarker | None = None

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
        """Finish a model's pictures, with the marks that the operator wants."""
        return cls(
            model_id,
            session.manifest,
            Encoding(marker, output_format, quality),
            presentation,
            marker.watermark_of(session),
        )

    def facts(self) -> dict[str, Any]:
        """What holds for all pictures."""
        return {
            "created": int(time.time()),
            "model": self.model_id,
            "model_hash": self.manifest.model_hash,
            "output_format": self.encoding.output_format,
            "size": self.presentation.size,
        }

    def finish(
        self,
        pixels: NDArray[np.uint8],
        spec: PictureSpec,
        recipe: Mapping[str, Any] | None = None,
        photos: tuple[str, ...] = (),
    ) -> Finished:
        """Finish one picture.

        Args:
            pixels: uint8 [height, width, channels], as painted.
            spec: What was painted.
            recipe: What beside the spec's seed, category and truncation fixed it; goes into
                facts and mark.
            photos: As of a Mark.
        """
        known = self.manifest.categories
        category = category_name(spec.category, known)
        recipe = {**mixture_facts(spec.category, known), **(recipe or {})}
        mark = self.mark(spec, category, recipe, photos)
        with stage("encode"):
            shown = present(pixels, self.presentation)
            if self.watermark is not None and min(shown.shape[:2]) >= MIN_SIDE_PX:
                shown = self.watermark.mark(shown)
            data = encode_image(shown, self.encoding, mark)
        return finish(data, {"seed": spec.seed, "category": category, **recipe}, mark)

    def mark(
        self,
        spec: PictureSpec,
        category: str,
        recipe: Mapping[str, Any],
        photos: tuple[str, ...] = (),
    ) -> Mark:
        """What a picture, or an animation, says of its origin."""
        return Mark(
            GENERATED,
            spec.seed,
            self.model_id,
            self.manifest.model_hash,
            category,
            json.dumps(recipe, ensure_ascii=False) if recipe else None,
            spec.truncation_psi,
            photos,
        )
