"""A key is its id, not its name: a name's next owner inherits nothing, and evicts nobody."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from service.access.api_keys import ApiKey, create_key, name_in, read_keys, revoke_key
from service.model_store.registry import Registry
from service.settings import Settings, load_settings
from service.storage.idempotency import Claim, Refusal, StoredResponse, StoredResponses
from service.storage.key_ids import move_counts
from service.storage.state import State
from service.storage.tables import quotas, responses, usage

from .conftest import running_service

URL = "/v1/images/generations"
TODAY = datetime.now(UTC).date()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def key_named(name: str, sha256: str = "ab" * 32, **more: Any) -> ApiKey:
    return ApiKey(name=name, sha256=sha256, scopes=frozenset({"generate"}), **more)


def test_an_id_tells_keys_of_one_name_apart_and_fits_its_column() -> None:
    ids = {key_named(name, digit * 64).id for name in ("a", "x" * 63) for digit in "01f"}
    assert len(ids) == 6
    assert max(map(len, ids)) == 64
    assert {name_in(one)[:1] for one in ids} == {"a", "x"}


@pytest.fixture
def renewed(
    state_environment: dict[str, str],
    bento_home: Path,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[TestClient, Callable[[], dict[str, str]]]]:
    """A service, and what gives the key `shop` anew and returns its headers."""
    monkeypatch.setattr("service.access.keyring.LOOK_SEC", 0.0)
    Registry().register(export)
    path = tmp_path / "keys.json"
    create_key(path, "boss", ["admin"], None, None)

    def renew() -> dict[str, str]:
        if any(key.name == "shop" for key in read_keys(path).keys):
            revoke_key(path, "shop")
        return {"x-api-key": create_key(path, "shop", ["generate"], "9/minute", "5/day")}

    with running_service(**state_environment, keys_file=str(path)) as client:
        yield client, renew


def test_a_recreated_key_inherits_nothing(
    renewed: tuple[TestClient, Callable[[], dict[str, str]]],
) -> None:
    client, renew = renewed
    answers = []
    for _ in range(2):
        headers = renew()
        sent = {"headers": headers | {"Idempotency-Key": "order-1"}, "json": {"n": 4}}
        answers += [client.post(URL, **sent), client.post(URL, **sent)]  # type: ignore[arg-type]
        own = client.get("/v1/usage", headers=headers).json()
        (counted,) = own["data"]
        assert (counted["key"], counted["requests"], counted["pictures"]) == ("shop", 2, 4)
        assert [one["left"] for one in own["quotas"]] == [1]
    assert [one.status_code for one in answers] == [200] * 4
    replayed = [one.headers.get("idempotency-replayed") for one in answers]
    assert replayed == [None, "true", None, "true"]
    assert [one.headers["x-ratelimit-remaining-requests"] for one in answers] == ["8", "7"] * 2


def used(key_name: str, day: Any, requests: int) -> dict[str, Any]:
    counts = {"requests": requests, "pictures": requests, "errors": 0}
    return {"key_name": key_name, "day": day, "kind": "generation", **counts}


def stored(key_name: str, idempotency_key: str, created: int) -> dict[str, Any]:
    return {
        "key_name": key_name,
        "idempotency_key": idempotency_key,
        "request_sha256": bytes(32),
        "owner": "before",
        "created": created,
        "leased_until": created,
        "bytes": 2,
        "status": 200,
        "headers": "[]",
        "body": b"hi",
    }


async def _claim(state: State, key_id: str, idempotency_key: str) -> Any:
    return await state.responses.claim(key_id, idempotency_key, bytes(32))


@pytest.mark.parametrize("age_days", [None, 400, 0])
@in_loop
async def test_a_database_of_before_is_its_keys(
    state_settings: Settings, age_days: int | None
) -> None:
    """Rows by name, as commit 5acf454 wrote them; a new key can't have caused old ones."""
    created = None if age_days is None else datetime.now(UTC) - timedelta(age_days, seconds=60)
    shop = key_named("shop", created=created)
    yesterday, now = TODAY - timedelta(1), int(time.time())
    state = State(state_settings)
    with state.database.engine.begin() as connection:
        rows = [used("shop", yesterday, 3), used("shop", TODAY, 4), used("operator", TODAY, 5)]
        rows += [used("gone", TODAY, 6), used(shop.id, TODAY, 10)]  # which a replica wrote
        connection.execute(insert(usage), rows)
        taken = {"key_name": "shop", "pictures": 7, "period": TODAY.isoformat()}
        connection.execute(insert(quotas), [taken])
        connection.execute(
            insert(responses),
            [stored("shop", "new", now), stored("shop", "old", now - 3600), stored("x", "y", now)],
        )
    for _ in range(2):  # each start does
        state.move_to_ids([shop])
    found = {
        (one.key_name, one.day): one.requests
        for one in await state.usage.between(yesterday, TODAY, None)
    }
    old = {("shop", yesterday): 3} if age_days == 0 else {(shop.id, yesterday): 3}
    others = {("operator", TODAY): 5, ("gone", TODAY): 6}
    assert found == {(shop.id, TODAY): 14, **old, **others}
    assert await state.quotas.taken({shop.id: TODAY.isoformat()}) == {shop.id: 7}
    assert isinstance(await _claim(state, shop.id, "new"), StoredResponse)
    assert isinstance(
        await _claim(state, shop.id, "old"), Claim if age_days == 0 else StoredResponse
    )
    # Whoever gets the name later has none of it, after another start too.
    heir = key_named("shop", "cd" * 32, created=datetime.now(UTC) + timedelta(seconds=1))
    state.move_to_ids([heir])
    if age_days != 0:
        assert await state.usage.between(yesterday, TODAY, heir.id) == []
    assert isinstance(await _claim(state, heir.id, "new"), Claim)
    state.close()


@in_loop
async def test_replicas_that_start_at_once_move_rows_once(state_settings: Settings) -> None:
    shop = key_named("shop")
    first, second = State(state_settings), State(state_settings)
    with first.database.engine.begin() as connection:
        connection.execute(insert(usage), [used("shop", TODAY, 3)])
    with first.database.engine.begin() as connection:
        move_counts(first.database, connection, usage, shop)
        moved = asyncio.create_task(asyncio.to_thread(second.move_to_ids, [shop]))
        await asyncio.sleep(0.3)
        assert not moved.done()
    await moved
    (found,) = await first.usage.between(TODAY, TODAY, None)
    assert (found.key_name, found.requests) == (shop.id, 3)
    for state in (first, second):
        state.close()


def bounded(settings: Settings, limit: int) -> Settings:
    return settings.model_copy(update={"max_stored_answers_bytes": limit})


async def _store(kept: StoredResponses, key_id: str, name: str, size: int = 100) -> bool:
    claim = await kept.claim(key_id, name, bytes(32))
    assert isinstance(claim, Claim)
    return await kept.store(claim, StoredResponse(200, [], b"x" * size))


def held(state: State) -> dict[str, set[str]]:
    """Idempotency keys with a response, by the key that they are of."""
    found: dict[str, set[str]] = {}
    with state.database.reading() as connection:
        for row in connection.execute(select(responses).where(responses.c.status.is_not(None))):
            found.setdefault(row.key_name, set()).add(row.idempotency_key)
    return found


@in_loop
async def test_a_key_that_stores_much_evicts_its_own_responses(state_settings: Settings) -> None:
    state = State(bounded(state_settings, 1000))
    assert await _store(state.responses, "small", "first")
    for index in range(30):
        assert await _store(state.responses, "greedy", f"{index:02}")
    assert held(state) == {"small": {"first"}, "greedy": {f"{n}" for n in range(21, 30)}}
    # One that comes late gets its fair share of the room, of who holds most.
    for index in range(30):
        assert await _store(state.responses, "late", f"{index:02}")
    assert {key_id: len(names) for key_id, names in held(state).items()} == {
        "small": 1,
        "greedy": 5,
        "late": 4,
    }
    state.close()


@in_loop
async def test_what_only_others_could_make_room_for_is_not_stored(state_settings: Settings) -> None:
    state = State(bounded(state_settings, 1000))
    for index in range(4):
        assert await _store(state.responses, "many", str(index))
    assert not await _store(state.responses, "huge", "one", 700)
    assert held(state) == {"many": {"0", "1", "2", "3"}}
    assert isinstance(await state.responses.claim("huge", "one", bytes(32)), Claim)
    assert await state.responses.claim("huge", "one", bytes(32)) is Refusal.IN_PROGRESS
    state.close()


def test_the_keys_file_of_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "shop", ["generate"], None, None)
    fields = {"name", "sha256", "scopes", "created"}
    assert set(json.loads(path.read_text())["keys"][0]) == fields
    assert load_settings(keys_file=path).has_keys
