"""Responses kept for a day under the client's Idempotency-Key, to be replayed."""

import json
import time
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from service.settings import Settings
from service.storage.database import Database
from service.storage.tables import responses

KEPT_SEC: Final = 86_400
# What a request may take beyond its time limit until its claim counts as abandoned.
GRACE_SEC: Final = 10
PRUNED_AT_A_TIME: Final = 100


@dataclass(frozen=True)
class StoredResponse:
    """A response that was sent before."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """The right to serve a request, and to store its response.

    Attributes:
        key_id: Whose request it is.
        idempotency_key: The client's.
        request_sha256: Of everything that decides the response.
        owner: Tells the owner from one who takes an abandoned claim over.
    """

    key_id: str
    idempotency_key: str
    request_sha256: bytes
    owner: str


class Refusal(Enum):
    """Why there is neither a claim nor a response."""

    OTHER_REQUEST = "the key came with another request before: take a new one"
    IN_PROGRESS = "the first request with the key still runs"


class StoredResponses:
    """The table of stored responses."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Keep responses in `database`, within the bounds of `settings`."""
        self._database: Final = database
        self._lease_sec: Final = settings.request_timeout_sec + GRACE_SEC
        self._max_bytes: Final = settings.max_stored_answer_bytes
        self._max_total: Final = settings.max_stored_answers_bytes
        insert = database.insert(responses)
        abandoned = and_(
            responses.c.status.is_(None),
            responses.c.leased_until <= insert.excluded.created,
            responses.c.request_sha256 == insert.excluded.request_sha256,
        )
        self._insert: Final = insert.on_conflict_do_update(
            index_elements=list(responses.primary_key),
            set_={column.name: insert.excluded[column.name] for column in responses.c},
            where=or_(responses.c.created <= insert.excluded.created - KEPT_SEC, abandoned),
        ).returning(responses.c.owner)

    async def claim(
        self, key_id: str, idempotency_key: str, request_sha256: bytes
    ) -> Claim | StoredResponse | Refusal:
        """Claim a request, or learn what became of it.

        A claim whose owner died, or could not store a response, is taken over by the same request;
        another one is refused for as long as the key is kept.

        Raises:
            NotReady: The database can't be reached.
        """
        claim = Claim(key_id, idempotency_key, request_sha256, uuid.uuid4().hex)
        return await self._database.run(lambda connection: self._claim(connection, claim))

    async def store(self, claim: Claim, response: StoredResponse) -> bool:
        """Store a response; returns whether it was. Else the same request may run again.

        Raises:
            NotReady: The database can't be reached.
        """
        if len(response.body) > min(self._max_bytes, self._max_total):
            await self.release(claim)
            return False
        if await self._database.run(lambda connection: self._store(connection, claim, response)):
            return True
        await self.release(claim)
        return False

    async def release(self, claim: Claim) -> None:
        """Let the same request run again.

        Raises:
            NotReady: The database can't be reached.
        """
        statement = update(responses).where(_owned(claim)).values(leased_until=0)
        await self._database.run(lambda connection: connection.execute(statement))

    async def forget(self, claim: Claim) -> None:
        """Let any request have the key, as nothing came of this one.

        Raises:
            NotReady: The database can't be reached.
        """
        statement = delete(responses).where(_owned(claim))
        await self._database.run(lambda connection: connection.execute(statement))

    def _claim(self, connection: Connection, claim: Claim) -> Claim | StoredResponse | Refusal:
        now = int(time.time())
        row: dict[str, Any] = {
            "key_name": claim.key_id,
            "idempotency_key": claim.idempotency_key,
            "request_sha256": claim.request_sha256,
            "owner": claim.owner,
            "created": now,
            "leased_until": int(now + self._lease_sec),
            "bytes": 0,
            "status": None,
            "headers": None,
            "body": None,
        }
        if connection.execute(self._insert, row).one_or_none() is not None:
            return claim
        known = connection.execute(
            select(responses).where(
                responses.c.key_name == claim.key_id,
                responses.c.idempotency_key == claim.idempotency_key,
            )
        ).one_or_none()
        if known is None or (known.status is None and known.request_sha256 == claim.request_sha256):
            return Refusal.IN_PROGRESS  # or it was forgotten between the two statements
        if known.request_sha256 != claim.request_sha256:
            return Refusal.OTHER_REQUEST
        return StoredResponse(
            known.status, [tuple(pair) for pair in json.loads(known.headers)], known.body
        )

    def _store(self, connection: Connection, claim: Claim, response: StoredResponse) -> bool:
        if not _make_room(connection, claim.key_id, len(response.body), self._max_total):
            return False
        connection.execute(
            update(responses)
            .where(_owned(claim))
            .values(
                status=response.status,
                headers=json.dumps(response.headers),
                body=response.body,
                bytes=len(response.body),
            )
        )
        return True


def prune_responses(connection: Connection) -> bool:
    """Forget some of the responses that are older than a day; returns whether there may be more."""
    before = int(time.time()) - KEPT_SEC
    old = select(*responses.primary_key).where(responses.c.created < before).limit(PRUNED_AT_A_TIME)
    rows = connection.execute(old).all()
    for row in rows:
        _forget(connection, row)
    return len(rows) == PRUNED_AT_A_TIME


def _make_room(connection: Connection, key_id: str, size: int, limit: int) -> bool:
    """Forget responses until `size` bytes more of a key make no more than `limit` in all.

    The key that holds most makes room, its oldest first: whoever holds less than the others
    loses nothing to them. Returns False where that would be this key, and it holds nothing.
    """
    total = connection.execute(select(func.sum(responses.c.bytes))).scalar_one() or 0
    if total + size <= limit:
        return True
    by_key = select(responses.c.key_name, func.sum(responses.c.bytes)).where(responses.c.bytes > 0)
    rows = connection.execute(by_key.group_by(responses.c.key_name)).all()
    held = {name: int(bytes_) for name, bytes_ in rows}
    held[key_id] = held.get(key_id, 0) + size
    while sum(held.values()) > limit:
        largest = max(held, key=lambda name: (held[name], name == key_id))
        oldest = connection.execute(
            select(*responses.primary_key, responses.c.bytes)
            .where(responses.c.key_name == largest, responses.c.bytes > 0)
            .order_by(responses.c.created)
            .limit(1)
        ).one_or_none()
        if oldest is None:
            return False
        _forget(connection, oldest)
        held[largest] -= oldest.bytes
    return True


def _forget(connection: Connection, row: Any) -> None:
    connection.execute(
        delete(responses).where(
            responses.c.key_name == row.key_name,
            responses.c.idempotency_key == row.idempotency_key,
        )
    )


def _owned(claim: Claim) -> Any:
    return and_(
        responses.c.key_name == claim.key_id,
        responses.c.idempotency_key == claim.idempotency_key,
        responses.c.owner == claim.owner,
    )
