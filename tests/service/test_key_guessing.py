"""Wrong keys: slowed down by address, logged with it, and nobody else is held up."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.api_keys import create_key, revoke_key
from service.access.guesses import FIRST_WAIT_SEC, FREE_REFUSALS, LONGEST_WAIT_SEC, Guesses
from service.model_store.registry import Registry

from .conftest import model_store
from .live import live_service
from .test_cli import COMMAND, free_port, serving

OPERATOR_KEY = "the-operators-own-key"
WRONG, SLOWED = "invalid_api_key", "too_many_wrong_keys"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, export: Path) -> Iterator[None]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)
        yield


@pytest.fixture(autouse=True)
def _busy_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP the first wait does not end before the test does."""
    if request.cls is None:
        monkeypatch.setattr("service.access.guesses.FIRST_WAIT_SEC", LONGEST_WAIT_SEC)


@pytest.fixture
def address(home: None) -> Iterator[str]:
    with live_service(api_key=OPERATOR_KEY) as found:
        yield found


def ask(address: str, key: str, source: str = "127.0.0.1", **headers: str) -> httpx.Response:
    """List the models with a key, from one of this machine's addresses."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=None) as client:
        return client.get(f"{address}/v1/models", headers={"x-api-key": key, **headers})


def guess(address: str, times: int, source: str = "127.0.0.1", **headers: str) -> list[str]:
    """The codes of the refusals of wrong keys."""
    return [code(ask(address, f"guess-{n}", source, **headers)) for n in range(times)]


def code(refused: httpx.Response) -> str:
    assert refused.status_code == 401
    found: str = refused.json()["error"]["code"]
    assert ("retry-after" in refused.headers) == (found == SLOWED)
    return found


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [one.fields for one in caplog.records if one.name == "service.audit"]  # type: ignore[attr-defined]


def test_guesses_are_slowed_and_logged_with_their_address(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert guess(address, 8, "127.0.0.2") == [WRONG] * 5 + [SLOWED] * 3
        refused = ask(address, OPERATOR_KEY, "127.0.0.2")  # the right one is not looked at either
        assert code(refused) == SLOWED
        assert int(refused.headers["retry-after"]) >= 1
        assert ask(address, OPERATOR_KEY, "127.0.0.3").status_code == 200  # elsewhere it is
    assert [one["event"] for one in events(caplog)] == ["key_refused"] * 5
    assert {one["address"] for one in events(caplog)} == {"127.0.0.2"}
    assert "guess-" not in caplog.text


def test_who_was_let_in_before_is_not_locked_out_by_others_of_the_address(address: str) -> None:
    assert ask(address, OPERATOR_KEY).status_code == 200
    assert guess(address, 7)[-1] == SLOWED
    assert ask(address, OPERATOR_KEY).status_code == 200


def test_nobody_waits_with_a_key_that_is_not_to_be_guessed(home: None, tmp_path: Path) -> None:
    """Else an old key in a script would keep all others of its address out after a restart."""
    path = tmp_path / "keys.json"
    created = create_key(path, "shop", ["generate"], None, None)
    random = "5f0b7ad1c29e48634b1f7e90d3a8c65213c7f9e20b4d86a1"
    with live_service(api_key=random, keys_file=str(path)) as address:
        assert guess(address, 7)[-1] == SLOWED
        assert ask(address, created).status_code == 200
        assert ask(address, random).status_code == 200
        assert code(ask(address, created[:-1])) == SLOWED


def test_a_right_key_after_wrong_ones_is_logged(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        guess(address, 3)
        for _ in range(2):
            assert ask(address, OPERATOR_KEY).status_code == 200
    (accepted,) = [e for e in events(caplog) if e["event"] == "key_accepted_after_refusals"]
    assert accepted == {**accepted, "key": "operator", "address": "127.0.0.1", "refusals": 3}


def test_no_key_at_all_is_no_guess(address: str) -> None:
    with httpx.Client(timeout=None) as client:
        assert {client.get(f"{address}/v1/models").status_code for _ in range(9)} == {401}
    assert ask(address, OPERATOR_KEY).status_code == 200


def test_nobody_but_a_trusted_proxy_says_who_the_client_is(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    codes = [code(ask(address, "guess", x_forwarded_for=f"10.0.0.{n}")) for n in range(7)]
    assert codes == [WRONG] * 5 + [SLOWED] * 2
    assert caplog.text.count("CATALOGAN_TRUSTED_PROXIES does not name") == 1


def test_behind_a_trusted_proxy_each_client_has_its_own_address(
    home: None, caplog: pytest.LogCaptureFixture
) -> None:
    with live_service(api_key=OPERATOR_KEY, trusted_proxies="127.0.0.1, 10.0.0.0/8") as address:
        # What a client makes up stands before what the proxies add, and one more is trusted.
        for n in range(7):
            chain = f"1.1.1.{n}, 198.51.100.7, 10.2.3.4"
            refused = ask(address, "guess", x_forwarded_for=chain)
            assert code(refused) == (WRONG if n < 5 else SLOWED)
        other = {"x_forwarded_for": "198.51.100.7, 198.51.100.8"}
        assert ask(address, OPERATOR_KEY, **other).status_code == 200
        # Of IPv6 a host has a whole /64.
        for n in range(7):
            refused = ask(address, "guess", x_forwarded_for=f"2001:db8::{n}")
            assert code(refused) == (WRONG if n < 5 else SLOWED)
        # Not trusted, and so nobody but itself.
        guess(address, 5, "127.0.0.9", x_forwarded_for="198.51.100.9")
        assert ask(address, OPERATOR_KEY, x_forwarded_for="198.51.100.9").status_code == 200
    found = {one["address"] for one in events(caplog)}
    assert found == {"198.51.100.7", "2001:db8::/64", "127.0.0.9"}


def test_keys_over_plain_http_are_warned_of(home: None, caplog: pytest.LogCaptureFixture) -> None:
    with live_service(api_key=OPERATOR_KEY, trusted_proxies="127.0.0.1") as address:
        ask(address, OPERATOR_KEY, x_forwarded_proto="https")
        assert "plain HTTP" not in caplog.text
        for _ in range(2):
            ask(address, OPERATOR_KEY, x_forwarded_proto="http")
        assert caplog.text.count("plain HTTP") == 1


def test_the_command_serves_others_with_a_warning_and_believes_no_forwarding(home: None) -> None:
    port = free_port()
    command = [*COMMAND, "serve", "--host", "0.0.0.0", "--port", str(port)]
    with serving(command, port, CATALOGAN_API_KEY=OPERATOR_KEY) as process:
        address = f"http://127.0.0.1:{port}"
        # Its first wait is a second, in which a busy machine may send nothing.
        made_up = {code(ask(address, "x", x_forwarded_for=f"10.0.0.{n}")) for n in range(12)}
        process.terminate()
        output = process.communicate()[0]
    assert made_up == {WRONG, SLOWED}
    assert "plain HTTP on 0.0.0.0" in output
    assert "a wrong API key came from 127.0.0.1" in output


def test_creation_and_revocation_are_logged_by_command_and_service(
    home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.access.keyring.LOOK_SEC", 0.0)
    path = tmp_path / "keys.json"
    create_key(path, "first", ["generate"], None, None)
    with live_service(keys_file=str(path)) as address, caplog.at_level(logging.INFO):
        caplog.clear()  # of the first key, where an earlier test left the level so low
        child = [sys.executable, "-m", "catalogan", "api-keys"]
        ran = subprocess.run(
            [*child, "create", "second", "--file", str(path)], capture_output=True, text=True
        )
        assert "service.audit: API key second was created" in ran.stderr
        assert "service.audit" not in ran.stdout
        assert ask(address, ran.stdout.strip()).status_code == 200
        path.write_text(path.read_text().replace('"generate"', '"train"', 1))
        ask(address, "")
        revoke_key(path, "second")
        ask(address, "")
    said = [one.getMessage() for one in caplog.records if one.name == "service.audit"]
    assert said[:2] == ["API key second was created", "API key first was changed"]
    assert said.count("API key second was revoked") == 2  # by revoke_key, and by the service


class TestGuesses:
    def test_each_wrong_key_waits_twice_as_long_up_to_a_limit(self) -> None:
        now = 1e6
        guesses = Guesses(lambda: now)
        waits = []
        for _ in range(40):
            guesses.refuse("a")
            waits.append(guesses.wait_sec("a", None))
            now += waits[-1]
        free = FREE_REFUSALS - 1
        assert waits[:free] == [0.0] * free
        assert waits[free : free + 3] == [FIRST_WAIT_SEC * n for n in (1, 2, 4)]
        assert waits[-1] == LONGEST_WAIT_SEC

    def test_an_own_key_does_not_reset_the_count(self) -> None:
        guesses = Guesses(lambda: 1e6)
        for _ in range(FREE_REFUSALS):
            guesses.refuse("a")
            guesses.accept("a", "mine")
        assert guesses.wait_sec("a", None) > 0
        assert guesses.wait_sec("a", "another") > 0
        assert guesses.wait_sec("a", "mine") == 0

    def test_they_are_forgotten_after_an_hour(self) -> None:
        now = 1e6
        guesses = Guesses(lambda: now)
        for _ in range(20):
            guesses.refuse("a")
        now += 3601
        assert guesses.refuse("a") == 1
        assert guesses.wait_sec("a", None) == 0

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.access.guesses.MAX_ADDRESSES", 10)
        guesses = Guesses()
        for n in range(1000):
            guesses.refuse(str(n))
        assert len(guesses._addresses) == 10
