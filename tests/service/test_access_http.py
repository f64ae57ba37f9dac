"""Scopes, rates, quotas and usage, over HTTP and on both kinds of database."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.app
import service.bento
from service.access.api_keys import ApiKey, create_key, revoke_key
from service.api.application import create_app
from service.api.endpoint import ENDPOINTS, LINKS, endpoint_at
from service.inference.generation import GeneratorSession
from service.model_store.registry import Registry
from service.storage.quotas import Quota

from .conftest import BACKSTOP_SEC, running_service
from .test_augmentations_http import photo
from .test_bad_requests import check

URL = "/v1/images/generations"
OPERATOR_KEY = "the-operators-own-key"


@dataclass
class Shop:
    """A running service, and the keys of its callers by name."""

    client: TestClient
    keys: dict[str, str]
    environment: dict[str, str]
    keys_file: Path

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}

    def generate(self, name: str, n: int = 1, **body: Any) -> Any:
        return self.client.post(URL, json={"n": n, **body}, headers=self.headers(name))

    def usage(self, name: str, query: str = "") -> Any:
        answer = self.client.get(f"/v1/usage{query}", headers=self.headers(name))
        assert answer.status_code == 200, answer.text
        return answer.json()


CALLERS = {
    "plain": (["generate"], None, None),
    "trainer": (["train"], None, None),
    "admin": (["admin"], None, None),
    "prometheus": (["metrics"], None, None),
    "slow": (["generate"], "3/minute", None),
    "poor": (["generate"], None, "20/day"),
    "monthly": (["generate", "train"], None, "5/month"),
}


only_sqlite = pytest.mark.parametrize("state_environment", ["sqlite"], indirect=True)


@pytest.fixture
def shop(
    state_environment: dict[str, str], bento_home: Path, export: Path, tmp_path: Path
) -> Iterator[Shop]:
    Registry().register(export)
    path = tmp_path / "keys.json"
    keys = {name: create_key(path, name, *what) for name, what in CALLERS.items()}
    environment = state_environment | {
        "keys_file": str(path),
        "api_key": OPERATOR_KEY,
        "max_pending_generations": "100",
    }
    with running_service(**environment) as client:
        yield Shop(client, keys | {"operator": OPERATOR_KEY}, environment, path)


@only_sqlite
def test_every_route_has_a_record_and_what_it_makes_is_counted(shop: Shop) -> None:
    document = shop.client.get("/v1/openapi.json", headers=shop.headers("plain")).json()
    makes = {path for path, operations in document["paths"].items() if "post" in operations}
    assert makes
    assert makes == {one.path for one in ENDPOINTS if one.kind is not None}
    routes = service.app.gateway._runtime and create_app(service.app.gateway._runtime).routes
    assert {one.path for one in ENDPOINTS} == {getattr(one, "path", None) for one in routes or ()}
    for path in makes - {"/v1/verifications"}:  # which only looks
        operation = document["paths"][path]["post"]
        assert "Idempotency-Key" in [one["name"] for one in operation["parameters"]]


@only_sqlite
def test_a_route_without_a_record_is_closed_to_every_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = service.app.create_app
    # What somebody might add and forget to list: below a record, beside one, and as its method.
    unlisted = [
        ("GET", "/v1/models/{model}/weights"),
        ("GET", "/v1/usage/everybody"),
        ("DELETE", "/v1/models/{model}"),
        ("POST", "/v1/models"),
        ("GET", "/v1/images/generations"),
        ("GET", "/v1/keys"),
        ("GET", "/"),
    ]

    def careless(runtime: Any) -> Any:
        app = create(runtime)
        for method, path in unlisted:
            app.add_api_route(path, lambda: "secret", methods=[method])
        return app

    monkeypatch.setattr(service.app, "create_app", careless)
    with running_service(**shop.environment) as client:
        for method, path in unlisted:
            url = path.replace("{model}", "shop")
            assert client.request(method, url).status_code == 401
            for name in shop.keys:
                refused = client.request(method, url, headers=shop.headers(name))
                assert check(refused, refused.status_code)["code"] in (
                    "not_found",
                    "method_not_allowed",
                )


def all_routes(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each method and path, those of mounted apps too."""
    for one in routes:
        path = prefix + getattr(one, "path", "")
        if children := getattr(one, "routes", None):
            yield from all_routes(children, path)
        for method in getattr(one, "methods", None) or ("GET", "POST"):
            yield method, path


@only_sqlite
def test_no_route_of_the_composed_app_is_open_without_a_scope_or_a_reason(shop: Shop) -> None:
    runtime = service.app.gateway._runtime
    assert runtime is not None
    ours = set(all_routes(create_app(runtime).routes))
    bentoml = set(all_routes(service.bento.asgi_app().routes))  # type: ignore[attr-defined]
    assert {path for _, path in bentoml} >= {"/livez", "/readyz", "/schema.json", "/docs.json"}
    open_to_all = {path for _, path in bentoml if path in service.bento.PROBES}
    for_any_key = {"/v1/models", "/v1/models/{model}", "/v1/usage", "/v1/openapi.json"}
    for method, path in ours | bentoml:
        url = path.replace("{model}", "shop").replace("{path:path}", "x") or "/"
        found = shop.client.request(method, url).status_code
        if path in open_to_all:
            assert found in (200, 405), (method, path)
            continue
        if path == LINKS.path:  # its signature is the key
            assert found == 404 if method == "GET" else 405, (method, path)
            continue
        assert found == 401, (method, path)
        headers = shop.headers("prometheus")  # opens nothing but /metrics
        found = shop.client.request(method, url, headers=headers).status_code
        if (method, path) in ours and path in for_any_key | {"/metrics"}:
            assert found == 200, (method, path)
        elif (method, path) in ours and path != "/v1/verifications":
            assert found == 403, f"{path} needs no scope: give its record one, or list it here"
        else:
            assert found in (400, 404, 405), (method, path)


def test_a_record_is_of_its_path_alone() -> None:
    assert endpoint_at(URL) is not None
    assert endpoint_at("/v1/models/shop:1") is not None
    for path in (
        URL + "/abc",
        URL + "x",
        URL + "/",
        URL + "\n",
        "/v1/models/",
        "/v1/models/a/b",
        "",
    ):
        assert endpoint_at(path) is None


@only_sqlite
def test_a_key_opens_what_its_scopes_say(shop: Shop) -> None:
    for path in (one.path for one in ENDPOINTS if one.scope == "generate"):
        error = check(shop.client.post(path, headers=shop.headers("trainer")), 403)
        assert error["code"] == "missing_scope"
        assert error["type"] == "permission_error"
        assert "generate" in error["message"]
    for name in ("plain", "operator", "monthly"):
        assert shop.generate(name).status_code == 200
    for name in shop.keys:
        assert shop.client.get("/v1/models", headers=shop.headers(name)).status_code == 200
    files = {"image": photo()}
    for name in ("trainer", "admin", "plain"):  # to verify is free
        verified = shop.client.post("/v1/verifications", files=files, headers=shop.headers(name))
        assert verified.json()["verdict"] == "unknown"
    check(shop.client.post("/v1/verifications", files=files), 401)
    refused = shop.client.post(
        "/v1/images/augmentations", files=files, headers=shop.headers("admin")
    )
    check(refused, 403)


@only_sqlite
def test_anybody_may_verify_where_the_operator_lets_them(shop: Shop) -> None:
    files = {"image": photo()}
    where = "/v1/verifications"
    open_to_all = {**shop.environment, "open_verification": "3/minute"}
    with running_service(**open_to_all) as client:
        for left in ("2", "1", "0"):
            answer = client.post(where, files=files)
            assert answer.json()["verdict"] == "unknown"
            assert answer.headers["x-ratelimit-remaining-requests"] == left
        refused = client.post(where, files=files)
        assert check(refused, 429)["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) >= 1
        # Nothing else is open, a key that is given must be right, and has its own rate.
        for path in (URL, "/v1/images/augmentations", where + "/1", "/v1/datasets"):
            check(client.post(path, json={}), 401)
        for path in ("/v1/models", "/v1/usage", "/metrics", where):
            check(client.get(path), 401 if path != where else 405)
        check(client.post(where, files=files, headers={"x-api-key": "a-wrong-one"}), 401)
        for _ in range(4):
            verified = client.post(where, files=files, headers=shop.headers("plain"))
            assert verified.json()["verdict"] == "unknown"
        usage = client.get("/v1/usage", headers=shop.headers("admin")).json()["data"]
    (counted,) = [one for one in usage if one["key"] == "anybody"]
    assert counted["kind"] == "verification"
    assert (counted["requests"], counted["errors"]) == (4, 1)


@only_sqlite
def test_only_the_scope_metrics_opens_metrics(shop: Shop) -> None:
    for name in shop.keys:
        answer = shop.client.get("/metrics", headers=shop.headers(name))
        if name in ("prometheus", "operator"):
            assert "catalogan_pictures_total" in answer.text
        else:
            assert "metrics" in check(answer, 403)["message"]
    check(shop.generate("prometheus"), 403)


@only_sqlite
def test_a_rate_is_kept_and_told(shop: Shop) -> None:
    answers = [shop.generate("slow") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    told = [one.headers["x-ratelimit-remaining-requests"] for one in answers]
    assert told == ["2", "1", "0", "0"]
    assert {one.headers["x-ratelimit-limit-requests"] for one in answers} == {"3"}
    assert check(answers[3], 429)["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert answers[3].headers["x-ratelimit-reset-requests"].endswith("s")
    bad = shop.client.post(URL, json={"n": 0}, headers=shop.headers("slow"))
    assert bad.status_code == 429
    assert "x-ratelimit-limit-requests" not in shop.generate("plain").headers
    # Looking is free.
    assert shop.client.get("/v1/usage", headers=shop.headers("slow")).status_code == 200


def test_of_fifty_at_once_twenty_fit_the_quota(shop: Shop) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: shop.generate("poor"), range(50)))
    assert sorted(one.status_code for one in answers) == [200] * 20 + [429] * 30
    refused = next(one for one in answers if one.status_code == 429)
    assert check(refused, 429)["code"] == "quota_exceeded"
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0) + timedelta(1)
    left_sec = (midnight - datetime.now(UTC)).total_seconds()
    assert int(refused.headers["retry-after"]) == pytest.approx(left_sec, abs=60)
    (quota,) = shop.usage("poor")["quotas"]
    assert (quota["used"], quota["left"], quota["per"]) == (20, 0, "day")
    assert shop.generate("plain").status_code == 200


def test_a_quota_counts_pictures_and_survives_a_restart(shop: Shop) -> None:
    assert shop.generate("monthly", n=4).status_code == 200
    assert shop.generate("monthly", n=2).status_code == 429
    with running_service(**shop.environment) as restarted:
        shop.client = restarted
        assert shop.usage("monthly")["quotas"][0]["left"] == 1
        assert shop.generate("monthly", n=2).status_code == 429
        files = {"image": photo()}
        headers = shop.headers("monthly")
        url = "/v1/images/augmentations"
        assert restarted.post(url, files=files, headers=headers).status_code == 200
        assert restarted.post(url, files=files, headers=headers).status_code == 429
        assert shop.usage("monthly")["quotas"][0]["left"] == 0


@only_sqlite
def test_more_than_the_whole_quota_is_refused_at_first(shop: Shop) -> None:
    check(shop.generate("monthly", n=6), 429)
    assert shop.usage("monthly")["quotas"][0]["used"] == 0


def test_what_fails_is_given_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(GeneratorSession, "render", broken)
        assert shop.generate("monthly", n=5).status_code == 500
    assert shop.generate("monthly", n=5, category="spoons").status_code == 400
    assert shop.generate("monthly", n=5, model="none").status_code == 404
    assert shop.usage("monthly")["quotas"][0]["used"] == 0
    assert shop.generate("monthly", n=5).status_code == 200


@only_sqlite
def test_what_takes_too_long_is_given_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    with running_service(**shop.environment, request_timeout_sec="0.3") as client:
        shop.client = client
        with monkeypatch.context() as patch:
            patch.setattr(GeneratorSession, "render", lambda *_: release.wait(BACKSTOP_SEC) and [])
            check(shop.generate("monthly", n=5), 504)
            release.set()
        assert shop.usage("monthly")["quotas"][0]["used"] == 0


def test_usage_is_counted_by_key_day_and_kind(shop: Shop) -> None:
    shop.generate("plain", n=3)
    shop.generate("plain", n=2)
    shop.generate("plain", n=11)
    shop.client.post(
        "/v1/images/augmentations",
        files={"image": photo()},
        data={"n": "2"},
        headers=shop.headers("plain"),
    )
    shop.generate("poor", n=3)
    shop.client.post(URL, json={}, headers=shop.headers("trainer"))
    today = datetime.now(UTC).date().isoformat()
    plain = [
        entry("plain", today, "augmentation", 1, 2, 0),
        entry("plain", today, "generation", 3, 5, 1),
    ]
    poor = [entry("poor", today, "generation", 1, 3, 0)]
    trainer = [entry("trainer", today, "generation", 1, 0, 1)]
    assert shop.usage("plain") == {"object": "list", "data": plain, "quotas": []}
    assert shop.usage("poor")["data"] == poor
    assert shop.usage("poor")["quotas"][0] | {"resets_at": 0} == {
        "key": "poor",
        "pictures": 20,
        "per": "day",
        "used": 3,
        "left": 17,
        "resets_at": 0,
    }
    for admin in ("admin", "operator"):
        everything = shop.usage(admin)
        assert everything["data"] == plain + poor + trainer
        assert [one["key"] for one in everything["quotas"]] == ["monthly", "poor"]
    tomorrow = (datetime.now(UTC).date() + timedelta(1)).isoformat()
    assert shop.usage("plain", f"?from={tomorrow}")["data"] == []
    assert shop.usage("plain", f"?from={today}&to={tomorrow}")["data"] == plain
    assert shop.usage("plain", "?to=2020-01-01")["data"] == []
    assert shop.usage("plain", "?to=0001-01-01")["data"] == []


def entry(key: str, day: str, kind: str, requests: int, pictures: int, errors: int) -> Any:
    return {
        "key": key,
        "date": day,
        "kind": kind,
        "requests": requests,
        "pictures": pictures,
        "errors": errors,
    }


@only_sqlite
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("from=20261124", "from"),
        ("to=1700000000", "to"),
        ("to=2026-02-30", "to"),
        ("to=", "to"),
        ("to=0000-01-01", "to"),
        ("from=2026-02-02&to=2026-02-01", None),
        ("key=plain", "key"),
    ],
)
def test_bad_days_are_400(shop: Shop, query: str, param: str | None) -> None:
    answer = shop.client.get(f"/v1/usage?{query}", headers=shop.headers("plain"))
    assert "first" not in check(answer, 400, param)["message"]


@only_sqlite
def test_a_revoked_key_is_refused_by_the_running_service(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.access.keyring.LOOK_SEC", 0.0)
    new = create_key(shop.keys_file, "new", ["generate"], None, None)
    shop.keys["new"] = new
    assert shop.generate("new").status_code == 200
    revoke_key(shop.keys_file, "new")
    check(shop.generate("new"), 401)


@only_sqlite
def test_neither_keys_nor_hashes_are_logged(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in shop.keys:
            headers = shop.headers(name) | {"Idempotency-Key": f"idempotent-{name}"}
            shop.client.post(URL, json={}, headers=headers)
            shop.client.get("/v1/usage", headers={"x-api-key": shop.keys[name]})
        wrong = {"Authorization": f"Bearer {shop.keys['plain'][:-2]}"}
        assert shop.client.post(URL, json={}, headers=wrong).status_code == 401
    assert "generations" in caplog.text
    hashes = [one["sha256"] for one in json.loads(shop.keys_file.read_text())["keys"]]
    for private in (*shop.keys.values(), *hashes, shop.keys["plain"][:-2], "idempotent-"):
        assert private not in caplog.text


@only_sqlite
def test_a_database_that_fails_stops_quotas_but_not_others(shop: Shop) -> None:
    runtime = service.app.gateway._runtime
    assert runtime is not None
    with runtime.state.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE quotas RENAME TO elsewhere")
    refused = check(shop.generate("poor"), 503)
    assert refused["code"] == "state_unavailable"
    assert shop.generate("plain").status_code == 200
    with runtime.state.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO quotas")
    assert shop.generate("poor").status_code == 200


@pytest.mark.parametrize(
    ("quota", "now", "period", "ends"),
    [
        ("5/day", "2026-12-31T23:59:59", "2026-12-31", "2027-01-01"),
        ("5/month", "2026-12-31T23:59:59", "2026-12", "2027-01-01"),
        ("5/month", "2028-01-30T00:00:00", "2028-01", "2028-02-01"),
        ("5/month", "2028-02-29T00:00:00", "2028-02", "2028-03-01"),
        ("5/day", "2028-02-28T12:00:00", "2028-02-28", "2028-02-29"),
    ],
)
def test_periods_end_at_midnight(quota: str, now: str, period: str, ends: str) -> None:
    key = ApiKey(name="a", sha256="0" * 64, scopes=frozenset({"generate"}), quota=quota)
    told = Quota.of(key, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert told is not None
    assert (told.period, told.ends) == (period, datetime.fromisoformat(ends).replace(tzinfo=UTC))
