"""Idempotency-Key: one answer for one request, over HTTP and on both kinds of database."""

import base64
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

import service.app
from service.access.api_keys import create_key
from service.errors import NotReady
from service.inference.generation import GeneratorSession
from service.model_store.registry import Registry
from service.storage.idempotency import KEPT_SEC, StoredResponses, prune_responses
from service.storage.tables import responses

from .conftest import BACKSTOP_SEC, Held, running_service
from .test_augmentations_http import mask_file, photo
from .test_bad_requests import check

URL = "/v1/images/generations"
AUGMENT = "/v1/images/augmentations"


@pytest.fixture
def environment(
    state_environment: dict[str, str], bento_home: Path, export: Path, tmp_path: Path
) -> dict[str, str]:
    Registry().register(export)
    keys = tmp_path / "keys.json"
    for name in ("one", "two"):
        (tmp_path / name).write_text(create_key(keys, name, ["generate"], None, "50/day"))
    return state_environment | {"keys_file": str(keys)}


@pytest.fixture
def client(environment: dict[str, str], tmp_path: Path) -> Iterator[TestClient]:
    with running_service(**environment) as client:
        client.headers["x-api-key"] = (tmp_path / "one").read_text()
        yield client


only_sqlite = pytest.mark.parametrize("state_environment", ["sqlite"], indirect=True)


def post(client: TestClient, key: str = "key-1", url: str = URL, **options: Any) -> Any:
    headers = {"Idempotency-Key": key, **options.pop("headers", {})}
    return client.post(url, headers=headers, **options)


def used(client: TestClient) -> int:
    pictures = client.get("/v1/usage").json()["quotas"][0]["used"]
    assert isinstance(pictures, int)
    return pictures


def database() -> Any:
    runtime = service.app.gateway._runtime
    assert runtime is not None
    return runtime.state.database


def count_answers() -> int:
    with database().reading() as connection:
        count: int = connection.execute(select(func.count()).select_from(responses)).scalar_one()
        return count


def same(first: Any, second: Any) -> None:
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert first.headers["content-type"] == second.headers["content-type"]


def test_the_same_request_gets_the_same_answer_and_costs_nothing(client: TestClient) -> None:
    # Without a seed, two requests would give different pictures.
    first, second = post(client, json={"n": 2}), post(client, json={"n": 2})
    assert first.status_code == 200
    same(first, second)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert used(client) == 2
    (entry,) = client.get("/v1/usage").json()["data"]
    assert (entry["requests"], entry["pictures"], entry["errors"]) == (2, 2, 0)
    assert post(client, "key-2", json={"n": 2}).content != first.content


def test_answers_outlive_a_restart(environment: dict[str, str], tmp_path: Path) -> None:
    got = []
    for _ in range(2):
        with running_service(**environment) as client:
            client.headers["x-api-key"] = (tmp_path / "one").read_text()
            got.append(post(client, json={}))
    same(*got)


@only_sqlite
def test_bare_pictures_and_archives_are_given_again(client: TestClient) -> None:
    for key, accept in (("a", "image/png"), ("b", "image/webp"), ("c", "application/zip")):
        options = {"headers": {"Accept": accept}, "json": {}}
        first, second = post(client, key, **options), post(client, key, **options)
        assert first.headers["content-type"] == accept
        same(first, second)
        named = {k: v for k, v in first.headers.items() if k.startswith("x-catalogan")}
        assert {k: v for k, v in second.headers.items() if k.startswith("x-catalogan")} == named


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (URL, {"json": {"n": 1, "seed": 2}}),
        (URL, {"json": {"n": 1, "seed": 1}, "headers": {"Accept": "image/png"}}),
        (URL + "?x=1", {"json": {"n": 1, "seed": 1}}),
        (AUGMENT, {"files": {"image": photo()}}),
    ],
)
@only_sqlite
def test_another_request_with_the_key_is_409(
    client: TestClient, url: str, options: dict[str, Any]
) -> None:
    assert post(client, json={"n": 1, "seed": 1}).status_code == 200
    error = check(post(client, url=url, **options), 409, "Idempotency-Key")
    assert error["code"] == "idempotency_key_reused"
    assert post(client, json={"n": 1, "seed": 1}).headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "body",
    [
        b'{"n":1, "seed":1}',
        b'{ "seed": 1,\n"n": 1 }',
        b'{"seed": 1, "n": 1, "size": null, "truncation_psi": null}',
    ],
)
@only_sqlite
def test_blanks_order_and_nulls_make_no_other_request(client: TestClient, body: bytes) -> None:
    first = post(client, content=b'{"n":1,"seed":1}', headers={"Content-Type": "application/json"})
    again = post(client, content=body, headers={"Content-Type": "application/json"})
    same(first, again)


@only_sqlite
def test_json_in_a_form_has_blanks_and_order_too(client: TestClient) -> None:
    sent = [
        '[{"name": "rotate", "degrees": [1, 2]}]',
        '[ {"degrees":[1,2],"name":"rotate"} ]',
        '[{"name": "rotate", "degrees": [1, 3]}]',
    ]
    got = [
        post(client, url=AUGMENT, files={"image": photo()}, data={"operations": text, "seed": "1"})
        for text in sent
    ]
    same(*got[:2])
    check(got[2], 409, "Idempotency-Key")


def form(boundary: str, n: int) -> dict[str, Any]:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="n"\r\n\r\n{n}\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + photo()
        + b"\r\n",
    ]
    content = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return {
        "content": content,
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


@only_sqlite
def test_a_form_is_the_same_whatever_its_boundary(client: TestClient) -> None:
    first = post(client, url=AUGMENT, **form("first", 2))
    assert first.status_code == 200, first.text
    same(first, post(client, url=AUGMENT, **form("second", 2)))
    check(post(client, url=AUGMENT, **form("first", 1)), 409, "Idempotency-Key")
    other = {"files": {"image": photo((17, 9))}, "data": {"n": "2"}}
    check(post(client, url=AUGMENT, **other), 409, "Idempotency-Key")


@only_sqlite
def test_a_form_whose_files_are_of_other_fields_is_another(client: TestClient) -> None:
    sent = [("image", ("a.png", photo())), ("mask", ("b.png", mask_file()))]
    moved = [("image", file) for _, file in sent]
    assert post(client, url=AUGMENT, files=sent).status_code == 200
    check(post(client, url=AUGMENT, files=moved), 409, "Idempotency-Key")


def test_keys_of_different_callers_are_different(client: TestClient, tmp_path: Path) -> None:
    first = post(client, json={})
    other = {"x-api-key": (tmp_path / "two").read_text()}
    second = post(client, json={"n": 2}, headers=other)
    assert second.status_code == 200
    assert second.content != first.content


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä".encode("latin-1"), "\x7f"])
@only_sqlite
def test_malformed_keys_are_400(client: TestClient, key: Any) -> None:
    check(post(client, key, json={}), 400, "Idempotency-Key")
    assert used(client) == 0


def test_one_of_many_at_once_is_made(client: TestClient, held: Held) -> None:
    with ThreadPoolExecutor(12) as pool:
        first = pool.submit(post, client, json={})
        assert held.begun.wait(BACKSTOP_SEC)
        others = list(pool.map(lambda _: post(client, json={}), range(10)))
        held.release.set()
        for refused in others:
            error = check(refused, 409, "Idempotency-Key")
            assert error["code"] == "idempotency_in_progress"
            assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status_code == 200
    same(first.result(), post(client, json={}))
    assert held.painted == [1]
    assert used(client) == 1


def test_an_abandoned_claim_is_taken_over_by_the_same_request(client: TestClient) -> None:
    """As a replica leaves it that was killed while it made the pictures."""
    post(client, json={"seed": 1})
    forget = update(responses).values(status=None, headers=None, body=None, bytes=0)
    with database().engine.begin() as connection:
        connection.execute(forget.values(leased_until=int(time.time()) + 3600))
    refused = check(post(client, json={"seed": 1}), 409, "Idempotency-Key")
    assert refused["code"] == "idempotency_in_progress"
    with database().engine.begin() as connection:
        connection.execute(forget.values(leased_until=int(time.time())))
    other = check(post(client, json={"seed": 2}), 409, "Idempotency-Key")
    assert other["code"] == "idempotency_key_reused"
    again = post(client, json={"seed": 1})
    assert again.status_code == 200
    assert "idempotency-replayed" not in again.headers


def test_a_day_later_the_key_is_new(client: TestClient) -> None:
    post(client, json={"seed": 1})
    with database().engine.begin() as connection:
        connection.execute(update(responses).values(created=responses.c.created - KEPT_SEC))
    answer = post(client, json={"seed": 2})
    assert answer.status_code == 200
    assert "idempotency-replayed" not in answer.headers


@only_sqlite
def test_what_failed_leaves_the_key_unused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(GeneratorSession, "render", broken)
        check(post(client, json={"n": 2}), 500)
    answer = post(client, json={"n": 2})
    assert answer.status_code == 200
    assert "idempotency-replayed" not in answer.headers
    assert post(client, "rest", json={"n": 10}).status_code == 200
    for key in ("a", "b", "c"):
        assert post(client, key, json={"n": 10}).status_code == 200
    for _ in range(2):
        refused = post(client, "over", json={"n": 10})
        check(refused, 429)
        assert "idempotency-replayed" not in refused.headers
    assert used(client) == 42
    assert post(client, "over", json={"n": 1}).status_code == 200


@only_sqlite
def test_a_mended_request_may_take_the_key(client: TestClient) -> None:
    for key, wrong in (("a", {"category": "spoons"}), ("b", {"model": "none"}), ("c", {"n": 11})):
        for _ in range(2):
            refused = post(client, key, json=wrong)
            assert refused.status_code in (400, 404)
            assert "idempotency-replayed" not in refused.headers
        first = post(client, key, json={})
        assert first.status_code == 200
        same(first, post(client, key, json={}))
        error = post(client, key, json=wrong).json()["error"]
        assert error["param"] == ("n" if key == "c" else "Idempotency-Key")
    assert used(client) == 3


@only_sqlite
def test_a_large_answer_is_given_and_said_not_to_be_kept(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with running_service(**environment, max_stored_answer_bytes="100") as client:
        client.headers["x-api-key"] = (tmp_path / "one").read_text()
        for _ in range(2):
            answer = post(client, json={"seed": 1})
            assert answer.status_code == 200
            assert base64.b64decode(answer.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")
            assert answer.headers["idempotency-stored"] == "false"
            assert "idempotency-replayed" not in answer.headers
        check(post(client, json={"seed": 2}), 409, "Idempotency-Key")
        assert used(client) == 2


def test_the_oldest_answers_make_room(environment: dict[str, str], tmp_path: Path) -> None:
    with running_service(**environment, max_stored_answers_bytes="6000") as client:
        client.headers["x-api-key"] = (tmp_path / "one").read_text()
        size = len(post(client, "key-0", json={"seed": 1}).content)
        assert 1000 < size < 3000
        for index in range(1, 7):
            with database().engine.begin() as connection:
                connection.execute(update(responses).values(created=responses.c.created - 10))
            post(client, f"key-{index}", json={"seed": 1})
        with database().reading() as connection:
            total = connection.execute(select(func.sum(responses.c.bytes))).scalar_one()
        assert size <= total <= 6000
        replayed = [
            "idempotency-replayed" in post(client, f"key-{index}", json={"seed": 1}).headers
            for index in (6, 0)
        ]
        assert replayed == [True, False]


def test_old_answers_are_pruned(client: TestClient) -> None:
    for index in range(3):
        post(client, f"key-{index}", json={})
    with database().engine.begin() as connection:
        aged = update(responses).where(responses.c.idempotency_key == "key-1")
        connection.execute(aged.values(created=responses.c.created - KEPT_SEC - 1))
        assert not prune_responses(connection)
    assert count_answers() == 2


@only_sqlite
def test_an_answer_that_can_not_be_stored_is_given(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> bool:
        raise NotReady("away")

    monkeypatch.setattr(StoredResponses, "store", away)
    answer = post(client, json={})
    assert answer.status_code == 200
    assert answer.headers["idempotency-stored"] == "false"


@only_sqlite
def test_gets_need_no_key_and_pictures_are_not_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/v1/models", headers={"Idempotency-Key": "a b"}).status_code == 200
    with caplog.at_level(logging.DEBUG):
        picture = post(client, json={}).json()["data"][0]["b64_json"]
        post(client, json={})
    assert picture[40:80] not in caplog.text
