"""API keys: the file, its commands, taking changes over, and rates."""

import hmac
import json
import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from catalogan import app
from service.access import keyring as keyring_module
from service.access.api_keys import ApiKey, create_key, key_hash, parse_keys, read_keys, revoke_key
from service.access.keyring import Keyring
from service.access.rates import Rates
from service.errors import SettingsError
from service.exposure import check_exposure
from service.settings import load_settings

OPERATOR_KEY = "the-operators-own-key"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyring looks at its file whenever it is asked."""
    monkeypatch.setattr(keyring_module, "LOOK_SEC", 0.0)


def run(*arguments: object, **environment: str) -> Any:
    return CliRunner().invoke(app, ["api-keys", *map(str, arguments)], env=environment)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(path: Path) -> None:
    made = run("create", "shop", "--file", path, "--rate", "60/minute", "--quota", "20/day")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith("catalogan_")
    assert len(key) == len("catalogan_") + 43
    assert key not in path.read_text()
    (entry,) = read_keys(path).keys
    assert entry.sha256 == key_hash(key)
    assert (entry.scopes, entry.rate, entry.quota) == ({"generate"}, "60/minute", "20/day")
    assert path.stat().st_mode & 0o777 == 0o600
    listed = run("list", CATALOGAN_KEYS_FILE=str(path)).output
    assert "shop" in listed
    assert "60/minute" in listed
    assert entry.sha256 not in run("list", "--json", "--file", path).output


def test_scopes_are_given_one_by_one(path: Path) -> None:
    run("create", "both", "--file", path, "--scope", "train", "--scope", "admin")
    assert read_keys(path).keys[0].scopes == {"train", "admin"}
    (fact,) = json.loads(run("list", "--json", "--file", path).output)
    assert fact["scopes"] == ["admin", "train"]


def test_a_revoked_key_is_gone(path: Path) -> None:
    create_key(path, "one", ["generate"], None, None)
    create_key(path, "two", ["generate"], None, None)
    assert run("revoke", "one", "--file", path).exit_code == 0
    assert [key.name for key in read_keys(path).keys] == ["two"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "one"),
        ("create", "operator"),
        ("create", "local"),
        ("create", "anybody"),
        ("create", "no name"),
        ("create", ""),
        ("create", "x" * 64),
        ("create", "new", "--scope", "everything"),
        ("create", "new", "--rate", "60"),
        ("create", "new", "--rate", "0/minute"),
        ("create", "new", "--quota", "10/year"),
        ("create", "new", "--quota", "-1/day"),
        ("revoke", "new"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(path: Path, arguments: tuple[str, ...]) -> None:
    create_key(path, "one", ["generate"], None, None)
    before = path.read_bytes()
    result = run(*arguments, "--file", path)
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "catalogan" / "keys.json"
    assert run("revoke", "one", "--file", path).exit_code == 2
    assert not path.parent.exists()
    assert run("create", "one", "--file", path).exit_code == 0
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [key.name for key in read_keys(path).keys] == ["one"]


def test_a_wrong_scope_is_named_as_the_option_is(path: Path) -> None:
    output = run("create", "new", "--scope", "everything", "--file", path).output
    assert output.startswith("error: scope: ")
    assert "generate" in output


@pytest.mark.parametrize("command", ["list", "revoke x"])
def test_a_missing_file_is_one_line(path: Path, command: str) -> None:
    result = run(*command.split(), "--file", path)
    assert result.exit_code == 2
    assert "keys.json" in result.output


def _create(path: Path, name: str) -> None:
    create_key(path, name, ["generate"], None, None)


def test_keys_made_at_once_are_all_there(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    making = [fork.Process(target=_create, args=(path, f"key{index}")) for index in range(8)]
    for process in making:
        process.start()
    for process in making:
        process.join(30)
    assert {key.name for key in read_keys(path).keys} == {f"key{index}" for index in range(8)}


HASHES = [key_hash(name) for name in ("a", "b")]


@pytest.mark.parametrize(
    "keys",
    [
        "nonsense",
        "[]",
        '{"keys": [{"name": "a"}]}',
        json.dumps({"keys": [{"name": "a", "sha256": "secret", "scopes": ["generate"]}]}),
        json.dumps({"keys": [{"name": "a", "sha256": HASHES[0], "scopes": []}]}),
        json.dumps({"keys": [{"name": "a", "sha256": HASHES[0], "scopes": ["generate"], "x": 1}]}),
        json.dumps({"keys": [{"name": "a", "sha256": h, "scopes": ["train"]} for h in HASHES]}),
        json.dumps(
            {"keys": [{"name": n, "sha256": HASHES[0], "scopes": ["train"]} for n in ("a", "b")]}
        ),
        json.dumps({"keys": [{"name": "operator", "sha256": HASHES[0], "scopes": ["admin"]}]}),
    ],
)
def test_a_damaged_list_is_refused_without_showing_it(keys: str) -> None:
    with pytest.raises(SettingsError, match="CATALOGAN_KEYS") as caught:
        parse_keys(keys, "CATALOGAN_KEYS")
    assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError):
        Keyring(load_settings(keys=keys))


def test_all_kinds_of_keys_open(path: Path) -> None:
    key = create_key(path, "shop", ["generate"], None, None)
    ring = Keyring(load_settings(api_key=OPERATOR_KEY, keys_file=path))
    found, operator = ring.find(key), ring.find(OPERATOR_KEY)
    assert found is not None
    assert found.name == "shop"
    assert operator is not None
    assert operator.scopes == {"generate", "train", "admin", "metrics"}
    assert ring.find(key[:-1]) is None
    assert ring.find("") is None
    assert ring.find(key_hash(key)) is None
    listed = Keyring(load_settings(keys=path.read_text()))
    assert listed.find(key) == found
    assert not listed.open
    with pytest.raises(SettingsError, match="not both"):
        load_settings(keys=path.read_text(), keys_file=path)


@pytest.mark.usefixtures("patient")
def test_a_changed_file_is_taken_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = create_key(path, "first", ["generate"], None, None)
    ring = Keyring(load_settings(keys_file=path))
    with caplog.at_level(logging.INFO):
        second = create_key(path, "second", ["generate"], None, None)
        assert ring.find(second)
        revoke_key(path, "first")
        assert ring.find(first) is None
        revoke_key(path, "second")
        assert ring.find(second) is None
    assert not ring.open
    assert "0 keys are taken from the keys file" in caplog.text
    assert first not in caplog.text


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("damage", ["broken", None])
def test_a_broken_file_leaves_the_keys_as_they_were(
    path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = create_key(path, "shop", ["generate"], None, None)
    whole = path.read_text()
    ring = Keyring(load_settings(keys_file=path))
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    assert ring.find(key)
    assert ring.find(key)
    assert caplog.text.count("the keys stay as they were") == 1
    path.write_text(whole.replace("generate", "train"))
    found = ring.find(key)
    assert found is not None
    assert found.scopes == {"train"}


def test_the_file_is_not_looked_at_for_each_request(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key(path, "shop", ["generate"], None, None)
    ring = Keyring(load_settings(keys_file=path))
    looks: list[Path] = []
    monkeypatch.setattr(keyring_module, "_identity", looks.append)
    monkeypatch.setattr(keyring_module, "LOOK_SEC", 3600.0)
    for _ in range(100):
        assert ring.find(key)
    assert looks == []


def test_all_hashes_are_compared_in_constant_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [create_key(path, f"key{index}", ["generate"], None, None) for index in range(3)]
    ring = Keyring(load_settings(keys_file=path, api_key=OPERATOR_KEY))
    compare, compared = hmac.compare_digest, []

    def watched(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for given in (keys[0], keys[2], "wrong", OPERATOR_KEY):
        compared.clear()
        ring.find(given)
        assert sorted(other for _, other in compared) == sorted(
            key_hash(key) for key in (*keys, OPERATOR_KEY)
        )
        assert {one for one, _ in compared} == {key_hash(given)}


def test_a_keys_file_lets_others_in_even_when_it_is_empty(path: Path) -> None:
    path.write_text('{"keys": []}')
    check_exposure(load_settings(keys_file=path), "0.0.0.0")
    assert not Keyring(load_settings(keys_file=path)).open
    with pytest.raises(SettingsError):
        check_exposure(load_settings(), "0.0.0.0")


def shop(rate: str | None) -> ApiKey:
    return ApiKey(name="shop", sha256="0" * 64, scopes=frozenset({"generate"}), rate=rate)


class TestRates:
    def test_a_bucket_empties_and_fills(self) -> None:
        now = 1000.0
        rates = Rates(lambda: now)
        told = [rates.take(shop("3/minute")) for _ in range(4)]
        assert [one and one.remaining for one in told] == [2, 1, 0, 0]
        assert [one and one.wait_sec for one in told] == [0, 0, 0, pytest.approx(20)]
        assert told[0] is not None
        assert told[0].headers == {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-reset-requests": "20.00s",
        }
        now += 19.9
        refused = rates.take(shop("3/minute"))
        assert refused is not None
        assert refused.wait_sec > 0
        now += 0.2
        passed = rates.take(shop("3/minute"))
        assert passed is not None
        assert passed.wait_sec == 0
        now += 1e6
        rested = rates.take(shop("3/minute"))
        assert rested is not None
        assert rested.remaining == 2

    def test_keys_have_buckets_of_their_own(self) -> None:
        rates = Rates(lambda: 0.0)
        for name in ("a", "b"):
            key = shop("1/minute").model_copy(update={"name": name})
            allowance = rates.take(key)
            assert allowance is not None
            assert allowance.wait_sec == 0
        assert rates.take(shop(None)) is None

    def test_a_changed_rate_holds_at_once(self) -> None:
        rates = Rates(lambda: 0.0)
        for _ in range(5):
            rates.take(shop("5/minute"))
        raised = rates.take(shop("10/minute"))
        assert raised is not None
        assert (raised.wait_sec, raised.remaining) == (0, 4)


def test_reading_while_it_is_written_never_fails(path: Path) -> None:
    create_key(path, "first", ["generate"], None, None)
    child = os.fork()
    if child == 0:
        for index in range(40):
            create_key(path, f"key{index}", ["generate"], None, None)
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert read_keys(path).keys[0].name == "first"
    assert len(read_keys(path).keys) == 41
