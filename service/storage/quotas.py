"""How many images each key has left, exact over all replicas on one database."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from sqlalchemy import BigInteger, Connection, bindparam, select, update

from service.access.api_keys import ApiKey
from service.storage.database import Database
from service.storage.tables import quotas


@dataclass(frozen=True)
class Quota:
    """A number of images in a UTC day or calendar month.

    Attributes:
        limit: Images.
        per: The period's kind.
        period: Which one it is now, such as 2026-11-24 or 2026-11.
        ends: When the next one begins.
    """

    limit: int
    per: Literal["day", "month"]
    period: str
    ends: datetime

    @classmethod
    def of(cls, key: ApiKey, now: datetime) -> "Quota | None":
        """The key's quota at the time `now`, UTC; None where it has none."""
        if key.quota is None:
            return None
        limit, _, per = key.quota.partition("/")
        today = now.date()
        if per == "day":
            return cls(int(limit), "day", today.isoformat(), _midnight(today + timedelta(1)))
        next_month = (today.replace(day=1) + timedelta(32)).replace(day=1)
        return cls(int(limit), "month", f"{today:%Y-%m}", _midnight(next_month))


class Quotas:
    """The table of what was taken."""

    def __init__(self, database: Database) -> None:
        """Count in `database`."""
        self._database: Final = database
        insert = database.insert(quotas)
        taken = quotas.c.pictures + insert.excluded.pictures
        # Looks and takes at once, so that of several only as many succeed as fit.
        self._take: Final = insert.on_conflict_do_update(
            index_elements=list(quotas.primary_key),
            set_={"pictures": taken},
            where=taken <= bindparam("limit", type_=BigInteger),
        ).returning(quotas.c.pictures)

    async def take(self, key_id: str, quota: Quota, pictures: int) -> bool:
        """Take images out of a quota; says whether there were as many left.

        Raises:
            NotReady: The database can't be reached.
        """
        if pictures > quota.limit:
            return False
        row = {
            "key_name": key_id,
            "period": quota.period,
            "pictures": pictures,
            "limit": quota.limit,
        }
        return await self._database.run(
            lambda connection: connection.execute(self._take, row).one_or_none() is not None
        )

    async def give_back(self, key_id: str, quota: Quota, pictures: int) -> None:
        """Put images back that were taken and not created.

        Raises:
            NotReady: The database can't be reached.
        """
        statement = (
            update(quotas)
            .where(quotas.c.key_name == key_id, quotas.c.period == quota.period)
            .values(pictures=quotas.c.pictures - pictures)
        )
        await self._database.run(lambda connection: connection.execute(statement))

    async def taken(self, period_by_id: dict[str, str]) -> dict[str, int]:
        """Images that were taken, by key's id, in the period given for each.

        Raises:
            NotReady: The database can't be reached.
        """
        query = select(quotas).where(quotas.c.period.in_(set(period_by_id.values())))

        def fetch(connection: Connection) -> dict[str, int]:
            return {
                row.key_name: row.pictures
                for row in connection.execute(query)
                if period_by_id.get(row.key_name) == row.period
            }

        return await self._database.run(fetch)


def utc_now() -> datetime:
    """The time that quotas go by."""
    return datetime.now(UTC)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
