"""What the service keeps is its owner's alone, and files of keys that others reach are noticed."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from service.access.api_keys import create_key
from service.access.keyring import Keyring
from service.errors import SettingsError
from service.model_store.registry import Registry
from service.settings import load_settings
from service.storage.state import State

from .test_cli import COMMAND, free_port, serving

KEY = "the-operators-own-key"


@pytest.fixture(autouse=True)
def _open_umask(bento_home: Path) -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("known", [None, 0o755, 0o777])
def test_the_folder_that_register_made_is_private(
    export: Path, bento_home: Path, known: int | None
) -> None:
    folder = bento_home / "catalogan"
    if known is not None:  # by a version of before
        folder.mkdir(mode=known)
        (folder / "state.sqlite3").touch(mode=0o666)
    ran = subprocess.run([*COMMAND, "register", str(export)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    port = free_port()
    with serving([*COMMAND, "serve", "--port", str(port)], port):
        assert mode(folder) == 0o700
        database = {mode(file) for file in folder.iterdir() if "sqlite3" in file.name}
    assert database == {0o600}


def test_files_that_a_version_of_before_left_open_are_closed(tmp_path: Path) -> None:
    State(load_settings(data_dir=tmp_path)).close()
    for file in tmp_path.iterdir():
        file.chmod(0o666)
    code = f"import sqlite3; c = sqlite3.connect({str(tmp_path / 'state.sqlite3')!r}); "
    code += "c.execute('begin immediate'); c.execute('create table x (y)'); c.commit(); "
    code += "import os; os._exit(0)"  # with its -wal left behind
    subprocess.run([sys.executable, "-c", code], check=True)
    (tmp_path / "state.sqlite3-wal").chmod(0o666)
    state = State(load_settings(data_dir=tmp_path))
    assert {mode(file) for file in tmp_path.iterdir() if "sqlite3" in file.name} == {0o600}
    state.close()


@pytest.mark.parametrize("form", ["sqlite:///{path}", "sqlite:///file:{quoted}?mode=rwc&uri=true"])
def test_a_database_with_a_url_is_private_however_it_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / "the state.db"
    url = form.format(path=path, quoted=quote(str(path)))
    state = State(load_settings(state_url=url))
    assert mode(path) == 0o600
    assert mode(Path(f"{path}-wal")) == 0o600
    state.close()


def test_a_folder_that_the_operator_made_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    open_folder, new = tmp_path / "open", tmp_path / "deep" / "new"
    open_folder.mkdir(mode=0o755)
    State(load_settings(data_dir=open_folder)).close()
    assert f"others may look into {open_folder}: chmod 700" in caplog.text
    assert mode(open_folder) == 0o755  # it may have been meant
    assert mode(open_folder / "state.sqlite3") == 0o600
    caplog.clear()
    State(load_settings(data_dir=new)).close()
    assert mode(new) == 0o700
    assert not caplog.text


@pytest.mark.parametrize("setting", ["api_key_file", "keys_file"])
def test_files_of_keys_that_others_read_are_warned_of_and_that_they_write_refused(
    tmp_path: Path, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "keys"
    if setting == "keys_file":
        create_key(path, "shop", ["generate"], None, None)
    else:
        path.write_text(KEY)
    for private in (0o600, 0o440):
        path.chmod(private)
        Keyring(load_settings(**{setting: path}))
    assert not caplog.text
    path.chmod(0o644)
    Keyring(load_settings(**{setting: path}))
    assert f"CATALOGAN_{setting.upper()}: others may read {path} (mode 0644)" in caplog.text
    for shared in (0o606, 0o602):
        path.chmod(shared)
        with pytest.raises(SettingsError, match=f"CATALOGAN_{setting.upper()}: others may write"):
            Keyring(load_settings(**{setting: path}))


def test_a_file_that_became_writable_for_others_is_not_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.access.keyring.LOOK_SEC", 0.0)
    path = tmp_path / "keys.json"
    create_key(path, "shop", ["generate"], None, None)
    ring = Keyring(load_settings(keys_file=path))
    intruder = create_key(path, "intruder", ["admin"], None, None)
    path.chmod(0o666)
    with caplog.at_level(logging.ERROR):
        assert ring.find(intruder) is None
    assert "the keys stay as they were" in caplog.text


def test_keys_files_are_created_private(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "keys.json"
    create_key(path, "shop", ["generate"], None, None)
    assert mode(path.parent) == 0o700
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}


def test_the_registry_made_by_python_is_private_too(export: Path, bento_home: Path) -> None:
    Registry().register(export)
    State(load_settings()).close()
    assert mode(bento_home / "catalogan") == 0o700
