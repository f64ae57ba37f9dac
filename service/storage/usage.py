"""What each key requested and got, by day and kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, select

from service.storage.database import Database
from service.storage.tables import quotas, usage
from service.storage.writer import Writer

# A year, and what a yearly statement needs.
USAGE_DAYS: Final = 400


@dataclass(frozen=True)
class Used:
    """What one key did on one UTC day.

    Attributes:
        key_name: The id of the key whose it was.
        day: UTC.
        kind: generation, variation, interpolation, augmentation, ...
        requests: All that came, errors too.
        images: Those that were created, without replayed responses.
        errors: Requests that ended in a status of 400 or more.
    """

    key_name: str
    day: date
    kind: str
    requests: int
    pictures: int
    errors: int


class Usage:
    """The table of usage."""

    def __init__(self, database: Database, writer: Writer) -> None:
        """Count in `database`, written by `writer`."""
        self._database: Final = database
        self._writer: Final = writer
        upsert = database.insert(usage)
        self._upsert: Final = upsert.on_conflict_do_update(
            index_elements=list(usage.primary_key),
            set_={
                name: usage.c[name] + upsert.excluded[name]
                for name in ("requests", "pictures", "errors")
            },
        )

    def count(self, key_id: str, kind: str, pictures: int, *, failed: bool) -> None:
        """Count one request; it is written within a moment. Takes microseconds."""
        row = {
            "key_name": key_id,
            "day": datetime.now(UTC).date(),
            "kind": kind,
            "requests": 1,
            "pictures": pictures,
            "errors": int(failed),
        }
        self._writer.add(self._upsert, [row])

    async def between(self, first: date, last: date, key_id: str | None) -> Sequence[Used]:
        """What was counted from `first` to `last`, oldest first.

        Args:
            first: UTC day.
            last: UTC day, which belongs to it.
            key_id: Whose; None = everybody's.

        Raises:
            NotReady: The database can't be reached.
        """
        query = select(usage).where(usage.c.day.between(first, last))
        if key_id is not None:
            query = query.where(usage.c.key_name == key_id)
        query = query.order_by(usage.c.day, usage.c.key_name, usage.c.kind)

        def fetch(connection: Connection) -> list[Used]:
            return [Used(**row) for row in connection.execute(query).mappings()]

        await self._database.in_thread(self._writer.flush)
        return await self._database.run(fetch)


def prune_usage(connection: Connection) -> bool:
    """Forget usage older than `USAGE_DAYS`, and quotas that are over; there never is more."""
    oldest = datetime.now(UTC).date() - timedelta(USAGE_DAYS)
    connection.execute(delete(usage).where(usage.c.day < oldest))
    # "2026-11" sorts before "2026-11-01": what is compared is at least two months old.
    over = (datetime.now(UTC).date() - timedelta(62)).isoformat()
    connection.execute(delete(quotas).where(quotas.c.period < over))
    return False
