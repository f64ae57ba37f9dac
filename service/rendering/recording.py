"""A record of each picture that is handed out, by the hash of its bytes."""

import time
from collections.abc import Sequence

from service.rendering.encoded_image import Finished
from service.storage.records import Record, Records
from service.telemetry.observation import current


def record(records: Records, kind: str, pictures: Sequence[Finished]) -> None:
    """Note a request's pictures, so that they are known again when their marks are gone.

    Args:
        records: Where to note them; takes microseconds.
        kind: generation, variation, ...
        pictures: As they are handed out, in whatever wrapping.
    """
    now, observed = int(time.time()), current()
    request_id = observed.request_id if observed is not None else None
    records.add([record_of(picture, kind, now, request_id) for picture in pictures])


def record_of(picture: Finished, kind: str, created: int, request_id: str | None = None) -> Record:
    """What is kept of a picture."""
    mark = picture.mark
    return Record(
        sha256=picture.sha256,
        kind=kind,
        source_type=mark.source_type,
        created=created,
        model=mark.model,
        model_hash=mark.model_hash,
        seed=mark.seed,
        category=mark.category,
        request_id=request_id,
    )
