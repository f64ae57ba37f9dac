"""A record of each image that is handed out, by the hash of its bytes."""

import time
from collections.abc import Sequence

from service.rendering.encoded_image import EncodedImage
from service.storage.records import Record, Records
from service.telemetry.observation import current


def record(records: Records, kind: str, images: Sequence[EncodedImage]) -> None:
    """Note a request's images, so that they are known again when their marks are gone.

    Args:
        records: Where to note them; takes microseconds.
        kind: generation, variation, ...
        images: As they are handed out, in whatever wrapping.
    """
    now, observed = int(time.time()), current()
    request_id = observed.request_id if observed is not None else None
    records.add([record_of(image, kind, now, request_id) for image in images])


def record_of(
    image: EncodedImage, kind: str, created: int, request_id: str | None = None
) -> Record:
    """What is kept of an image."""
    mark = image.mark
    return Record(
        sha256=image.sha256,
        kind=kind,
        source_type=mark.source_type,
        created=created,
        model=mark.model,
        model_hash=mark.model_hash,
        seed=mark.seed,
        category=mark.category,
        request_id=request_id,
    )
