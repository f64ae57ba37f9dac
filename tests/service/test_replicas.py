"""Two service processes on one PostgreSQL: what must hold over both, holds."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.api_keys import create_key
from service.model_store.registry import Registry

from .conftest import model_store, wait_for
from .test_cli import COMMAND, free_port, serving

pytestmark = pytest.mark.slow

URL = "/v1/images/generations"


@dataclass
class Replicas:
    """Two processes, a client of each, and keys by name."""

    processes: list["subprocess.Popen[str]"]
    clients: list[httpx.Client]
    keys: dict[str, str]
    restart: Any

    def post(self, replica: int, key: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        headers = {"x-api-key": self.keys[key], **headers}
        return self.clients[replica].post(URL, json=body, headers=headers)


@pytest.fixture(scope="module")
def replicas(
    postgres_of_module: str, tmp_path_factory: pytest.TempPathFactory, export: Path
) -> Iterator[Replicas]:
    keys_file = tmp_path_factory.mktemp("keys") / "keys.json"
    quotas = {"poor": "20/day", "idempotent": "10/month", "killed": "100000/day"}
    keys = {name: create_key(keys_file, name, ["generate"], None, q) for name, q in quotas.items()}
    environment = {
        "CATALOGAN_STATE_URL": postgres_of_module,
        "CATALOGAN_KEYS_FILE": str(keys_file),
        "CATALOGAN_MAX_PENDING_GENERATIONS": "100",
    }
    with model_store(tmp_path_factory.mktemp("bentoml")), ExitStack() as stack:
        Registry().register(export)

        def start() -> tuple["subprocess.Popen[str]", httpx.Client]:
            port = free_port()
            process = stack.enter_context(
                serving([*COMMAND, "serve", "--port", str(port)], port, **environment)
            )
            client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None)
            return process, stack.enter_context(client)

        with ThreadPoolExecutor(2) as pool:  # both migrate at once
            started = [one.result() for one in [pool.submit(start) for _ in range(2)]]
        yield Replicas([p for p, _ in started], [c for _, c in started], keys, start)


def test_fifty_at_once_on_two_replicas_share_one_quota(replicas: Replicas) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: replicas.post(i % 2, "poor", {}), range(50)))
    assert sorted(one.status_code for one in answers) == [200] * 20 + [429] * 30
    for client in replicas.clients:
        headers = {"x-api-key": replicas.keys["poor"]}
        (quota,) = client.get("/v1/usage", headers=headers).json()["quotas"]
        assert quota["left"] == 0


def test_an_answer_of_one_replica_is_given_again_by_the_other(replicas: Replicas) -> None:
    headers = {"Idempotency-Key": "shared"}
    first = replicas.post(0, "idempotent", {"n": 2}, **headers)
    second = replicas.post(1, "idempotent", {"n": 2}, **headers)
    assert first.status_code == 200
    assert second.headers["idempotency-replayed"] == "true"
    assert first.content == second.content
    assert replicas.post(1, "idempotent", {"n": 3}, **headers).status_code == 409


def test_the_same_request_at_once_on_both_is_made_once(replicas: Replicas) -> None:
    def ask(index: int) -> httpx.Response:
        return replicas.post(index % 2, "idempotent", {"n": 5}, **{"Idempotency-Key": "at-once"})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    made = [one for one in answers if one.status_code == 200]
    assert {one.status_code for one in answers} <= {200, 409}
    assert sum("idempotency-replayed" not in one.headers for one in made) == 1
    assert len({one.content for one in made}) == 1
    headers = {"x-api-key": replicas.keys["idempotent"]}
    (quota,) = replicas.clients[0].get("/v1/usage", headers=headers).json()["quotas"]
    assert quota["used"] <= 7


def test_a_killed_replica_loses_no_quota_and_no_stored_answer(replicas: Replicas) -> None:
    process, client = replicas.restart()
    headers = {"x-api-key": replicas.keys["killed"]}
    answered: list[tuple[int, bytes]] = []

    def ask(index: int) -> None:
        keyed = {**headers, "Idempotency-Key": f"killed-{index}"}
        try:
            answer = client.post(URL, json={}, headers=keyed)
        except httpx.HTTPError:
            return
        if answer.status_code == 200:
            answered.append((index, answer.content))

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, index) for index in range(4000)]
        wait_for(lambda: len(answered) >= 40)
        os.kill(process.pid, signal.SIGKILL)
        for one in asked:
            one.cancel()
    for index, content in answered:
        replayed = replicas.post(0, "killed", {}, **{"Idempotency-Key": f"killed-{index}"})
        assert replayed.headers["idempotency-replayed"] == "true"
        assert replayed.content == content
    (quota,) = replicas.clients[0].get("/v1/usage", headers=headers).json()["quotas"]
    # What was being made when it died stays taken: a quota is never exceeded.
    assert len(answered) <= quota["used"] <= len(answered) + 4
