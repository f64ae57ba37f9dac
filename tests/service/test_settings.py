"""Settings from the environment, and the refusal to serve strangers without a key."""

import base64
import random
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.exposure import check_exposure, is_loopback
from service.settings import Settings, available_cpus, load_settings

pytestmark = pytest.mark.usefixtures("bento_home")


def test_defaults_hold_without_any_variable() -> None:
    settings = load_settings()
    assert settings.api_key is None
    assert settings.workers == available_cpus() >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEVICE", "gpu"),
        ("WORKERS", "0"),
        ("REQUEST_TIMEOUT_SEC", "nan"),
        ("MAX_UPLOAD_BYTES", "many"),
        ("POLL_INTERVAL_SEC", "-1"),
    ],
)
def test_errors_name_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CATALOGAN_{name}", value)
    with pytest.raises(SettingsError, match=f"CATALOGAN_{name}"):
        load_settings()


@pytest.mark.parametrize(
    "key", ["short", "with blank, but long", "tab\tinside-but-long", "schlüssel-9f2c41d07be8"]
)
def test_bad_keys_are_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("CATALOGAN_API_KEY", key)
    with pytest.raises(SettingsError, match="API key must have") as caught:
        load_settings()
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        *("1234567890123456", "31415926535897", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        *("abcdefghijklmnopqrstuvwxyz", "abc1abc1abc1abc1abc1", "password12345678"),
    ],
)
def test_keys_that_are_easy_to_guess_are_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="openssl rand -hex 32") as caught:
        load_settings(api_key=key)
    assert key not in str(caught.value)


def test_random_keys_of_96_bits_are_taken() -> None:
    chance = random.Random(0)
    for _ in range(200):
        digits, letters = chance.randbytes(12).hex(), base64.b64encode(chance.randbytes(15))
        for key in (digits, letters.decode()):
            assert load_settings(api_key=key).api_key is not None


def test_keys_stay_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGAN_API_KEY", "geheimnis-9f2c41d07be85a63")
    assert "geheimnis" not in repr(load_settings())


def test_a_key_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("key-of-the-file-9f2c41d0\n")
    monkeypatch.setenv("CATALOGAN_API_KEY_FILE", str(file))
    key = load_settings().api_key
    assert key is not None
    assert key.get_secret_value() == "key-of-the-file-9f2c41d0"
    monkeypatch.setenv("CATALOGAN_API_KEY", "another-key-9f2c41d07be8")
    with pytest.raises(SettingsError, match="not both"):
        load_settings()
    monkeypatch.delenv("CATALOGAN_API_KEY")
    file.unlink()
    with pytest.raises(SettingsError, match="CATALOGAN_API_KEY_FILE can't be read"):
        load_settings()


def test_an_empty_key_file_is_no_key_but_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("\n")
    monkeypatch.setenv("CATALOGAN_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError, match="at least 16"):
        load_settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_exposure(Settings(), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_addresses_need_one(host: str) -> None:
    with pytest.raises(SettingsError, match="set CATALOGAN_API_KEY"):
        check_exposure(Settings(), host)
    check_exposure(load_settings(api_key="long-enough-9f2c41d07be8"), host)


def test_a_container_needs_one_even_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGAN_CONTAINER", "1")
    with pytest.raises(SettingsError, match=r"container.*set CATALOGAN_API_KEY"):
        check_exposure(load_settings(), "127.0.0.1")
