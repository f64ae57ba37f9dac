"""Records of the images that were handed out, by the hash of their bytes."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, delete, select

from service.storage.database import Database
from service.storage.tables import records
from service.storage.writer import Writer

PRUNED_AT_A_TIME: Final = 1000
DAY_SEC: Final = 86_400


@dataclass(frozen=True)
class Record:
    """What is known of an image.

    Attributes:
        sha256: Of the file's final bytes, 64 hexadecimal digits.
        kind: generation, variation, interpolation, augmentation, ...
        source_type: One of IPTC's digital source types, as an http URI.
        created: Unix seconds.
        model: "name:version", where a model generated it.
        model_hash: SHA-256 of the generator.
        seed: The seed that reproduces the image.
        category: What was requested.
        request_id: As in X-Request-Id and the log.
    """

    sha256: str
    kind: str
    source_type: str
    created: int
    model: str | None = None
    model_hash: str | None = None
    seed: int | None = None
    category: str | None = None
    request_id: str | None = None


def content_hash(data: bytes) -> str:
    """The hash that a file is recorded by."""
    return hashlib.sha256(data).hexdigest()


class Records:
    """The table of records."""

    def __init__(self, database: Database, writer: Writer) -> None:
        """Keep records in `database`, written by `writer`."""
        self._database: Final = database
        self._writer: Final = writer
        upsert = database.insert(records)
        # The same bytes again: the latest request counts, also for how long it is kept.
        self._upsert: Final = upsert.on_conflict_do_update(
            index_elements=[records.c.sha256],
            set_={c.name: upsert.excluded[c.name] for c in records.c if c.name != "sha256"},
        )

    def add(self, added: Sequence[Record]) -> None:
        """Note images; they are written within a moment. Takes microseconds, any thread."""
        rows = [{**asdict(record), "sha256": bytes.fromhex(record.sha256)} for record in added]
        self._writer.add(self._upsert, rows)

    def find(self, sha256: str) -> Record | None:
        """Look an image up; waits for the database, so never call it on the event loop.

        Raises:
            NotReady: The database can't be reached.
        """
        query = select(records).where(records.c.sha256 == bytes.fromhex(sha256))
        with self._database.failures_as_503():
            self._writer.flush()
            with self._database.reading() as connection:
                row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Record(**{**row, "sha256": sha256})


def prune_records(connection: Connection, days: int) -> bool:
    """Forget some of the records that are older than `days`; says whether there may be more."""
    before = int(time.time()) - days * DAY_SEC
    old = select(records.c.sha256).where(records.c.created < before).limit(PRUNED_AT_A_TIME)
    gone = connection.execute(delete(records).where(records.c.sha256.in_(old)))
    return gone.rowcount == PRUNED_AT_A_TIME
