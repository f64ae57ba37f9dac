"""What earlier versions counted by a key's name becomes its id's.

Versions until November 2026 knew keys by their names, so that a key created again under a
revoked one's name went on with its usage, quota and stored responses.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, and_, delete, exists, update

from service.access.api_keys import ApiKey
from service.storage.database import Database
from service.storage.tables import quotas, responses, usage

_COUNTS: Final = {usage: ("requests", "pictures", "errors"), quotas: ("pictures",)}


def move_to_ids(database: Database, keys: Iterable[ApiKey]) -> None:
    """Move the rows that are under names to the ids of the keys that have these names now.

    What is older than such a key was another's, and stays where no key looks. Replicas of an
    earlier version may still write meanwhile: what they count is added at the next start.
    """
    with database.engine.begin() as connection:
        for key in keys:
            if key.id != key.name:
                for table in _COUNTS:
                    move_counts(database, connection, table, key)
                _move_responses(connection, key)


def move_counts(database: Database, connection: Connection, table: Table, key: ApiKey) -> None:
    """Move the rows of one table, in the transaction of `connection`."""
    named = and_(table.c.key_name == key.name, _since(table, key.created))
    # First of all: of replicas that start at once, one gets the rows and the others none.
    rows = connection.execute(delete(table).where(named).returning(*table.c)).mappings().all()
    if not rows:
        return
    upsert = database.insert(table)
    added = {name: table.c[name] + upsert.excluded[name] for name in _COUNTS[table]}
    connection.execute(
        upsert.on_conflict_do_update(index_elements=list(table.primary_key), set_=added),
        [{**row, "key_name": key.id} for row in rows],
    )


def _move_responses(connection: Connection, key: ApiKey) -> None:
    named = responses.c.key_name == key.name
    if key.created is not None:
        named = and_(named, responses.c.created >= int(key.created.timestamp()))
    there = responses.alias()
    moved = exists().where(
        there.c.key_name == key.id, there.c.idempotency_key == responses.c.idempotency_key
    )
    connection.execute(update(responses).where(named, ~moved).values(key_name=key.id))


def _since(table: Table, created: datetime | None) -> Any:
    """The rows that a key of that age can have caused."""
    day = date.min if created is None else created.astimezone(UTC).date()
    if table is usage:
        return usage.c.day >= day
    return quotas.c.period >= f"{day:%Y-%m}"  # "2026-11" sorts before "2026-11-01"
