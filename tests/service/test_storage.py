"""The state's database: where it is, its migrations, and what is written to it."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from service.errors import NotReady, SettingsError
from service.settings import Settings, load_settings
from service.storage import database, mounts
from service.storage.database import Database, locate
from service.storage.migrate import LOCK
from service.storage.quotas import Quota
from service.storage.records import Record, content_hash, prune_records
from service.storage.state import State
from service.storage.tables import metadata, records

from ..processes import started
from .conftest import wait_for

RECORD = Record(
    sha256=content_hash(b"a picture"),
    kind="generation",
    source_type="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    created=int(time.time()),
    model="shop:abc",
    model_hash="f" * 64,
    seed=2**53 - 1,
    category="boxes",
    request_id="request-1",
)


@pytest.fixture
def state(state_settings: Settings) -> Any:
    opened = State(state_settings)
    yield opened
    opened.close()


def count_records(state: State) -> int:
    with state.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(records)).scalar_one()


def test_a_record_is_found_as_it_was_added(state: State) -> None:
    bare = Record(content_hash(b"b"), "augmentation", "http://example.org/type", RECORD.created)
    state.records.add([RECORD, bare])
    assert state.records.find(RECORD.sha256) == RECORD
    assert state.records.find(bare.sha256) == bare
    assert state.records.find(content_hash(b"another")) is None


def test_the_same_bytes_are_recorded_once_as_last_asked(state: State) -> None:
    later = replace(RECORD, created=RECORD.created + 9, request_id="request-2")
    state.records.add([RECORD])
    state.flush()
    state.records.add([RECORD, later])
    assert state.records.find(RECORD.sha256) == later
    assert count_records(state) == 1


def test_rows_are_written_soon_without_being_asked_for(state: State) -> None:
    state.records.add([RECORD])
    wait_for(lambda: count_records(state) > 0)


def test_closing_writes_what_is_pending(state_settings: Settings) -> None:
    first = State(state_settings)
    first.records.add([RECORD])
    first.close()
    second = State(state_settings)
    assert count_records(second) == 1
    second.close()


def test_old_records_are_forgotten(state: State) -> None:
    now = int(time.time())
    ages = {f"{day}": now - day * 86_400 for day in (0, 9, 11, 400)}
    made = [
        replace(RECORD, sha256=content_hash(name.encode()), created=t) for name, t in ages.items()
    ]
    state.records.add(made)
    state.flush()
    with state.database.engine.begin() as connection:
        assert not prune_records(connection, days=10)
    assert [state.records.find(one.sha256) is not None for one in made] == [
        True,
        True,
        False,
        False,
    ]


def test_tables_are_what_the_migrations_make(state: State) -> None:
    with state.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}


def _open(settings: Settings, started: Any, failures: Any) -> None:
    started.wait()
    try:
        State(settings).close()
    except BaseException as error:
        failures.put(repr(error))


def test_processes_that_start_at_once_migrate_once(state_settings: Settings) -> None:
    fork = multiprocessing.get_context("fork")
    started, failures = fork.Barrier(4), fork.Queue()
    starting = [
        fork.Process(target=_open, args=(state_settings, started, failures)) for _ in range(4)
    ]
    for process in starting:
        process.start()
    for process in starting:
        process.join()
        assert process.exitcode == 0
    assert failures.empty(), failures.get()
    State(state_settings).close()


@pytest.mark.parametrize("state_environment", ["postgresql"], indirect=True)
def test_who_starts_while_another_migrates_waits(state_environment: dict[str, str]) -> None:
    engine = create_engine(locate(state_environment["state_url"]))
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with engine.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        starting = pool.submit(lambda: State(load_settings(**state_environment)).close())
        wait_for(lambda: connection.execute(waiting).scalar_one() > 0)
        assert inspect(connection).get_table_names() == []
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        starting.result()
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused(state_settings: Settings) -> None:
    opened = State(state_settings)
    with opened.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(SettingsError, match="newer Catalogan"):
        State(state_settings)


WRITE_FOR_EVER = """
import itertools, time
from service.settings import load_settings
from service.storage.migrate import LOCK
from service.storage.quotas import Quota
from service.storage.records import Record, content_hash
from service.storage.state import State
state = State(load_settings())
for index in itertools.count():
    state.records.add([Record(content_hash(b"%d" % index), "generation", "u:t", int(time.time()))])
    if index % 50 == 49:
        state.flush()
        print(index, flush=True)
"""


def test_kill_loses_nothing_that_was_committed(state_settings: Settings) -> None:
    environment = {**os.environ, "CATALOGAN_DATA_DIR": str(state_settings.data_dir)}
    if state_settings.state_url is not None:
        environment["CATALOGAN_STATE_URL"] = state_settings.state_url.get_secret_value()
    command = [sys.executable, "-c", WRITE_FOR_EVER]
    with started(command, env=environment, stdout=subprocess.PIPE) as writing:
        assert writing.stdout is not None
        committed = [int(writing.stdout.readline()) for _ in range(20)]
        writing.send_signal(signal.SIGKILL)
        committed += [int(line) for line in writing.stdout]
    state = State(state_settings)
    for index in range(committed[-1] + 1):
        assert state.records.find(content_hash(b"%d" % index)) is not None
    state.close()


def test_a_database_that_is_away_is_503_and_rows_wait(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    with state.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE records RENAME TO elsewhere"))
    state.records.add([RECORD])
    with pytest.raises(SQLAlchemyError):
        state.flush()
    with pytest.raises(NotReady):
        state.records.find(RECORD.sha256)
    wait_for(lambda: "tried again" in caplog.text)
    assert RECORD.sha256 not in caplog.text
    assert "request-1" not in caplog.text
    with state.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO records"))
    assert state.records.find(RECORD.sha256) == RECORD


@pytest.mark.parametrize("bad", [{"category": "lone \ud800"}, {"kind": None}, {"seed": 2**63}])
def test_a_row_that_can_not_be_written_holds_nothing_up(
    state: State, caplog: pytest.LogCaptureFixture, bad: dict[str, Any]
) -> None:
    rows = [replace(RECORD, sha256=content_hash(b"%d" % index)) for index in range(3)]
    state.records.add([rows[0], replace(rows[1], **bad), rows[2]])
    assert [state.records.find(row.sha256) for row in rows] == [rows[0], None, rows[2]]
    assert caplog.text.count("a row is lost") == 1
    assert rows[1].sha256 not in caplog.text


def test_more_than_fits_into_memory_is_lost_and_said(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.storage.writer.MAX_PENDING", 5)
    monkeypatch.setattr("service.storage.writer.INTERVAL_SEC", 60.0)
    state.records.add([RECORD])  # wakes the thread, which now waits
    rows = [replace(RECORD, sha256=content_hash(b"%d" % index)) for index in range(9)]
    state.records.add(rows)
    assert "rows are lost" in caplog.text
    assert 5 <= count_records_after_flush(state) <= 6


def count_records_after_flush(state: State) -> int:
    state.flush()
    return count_records(state)


def test_reading_waits_for_no_writer(state: State) -> None:
    state.records.add([RECORD])
    state.flush()
    with state.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM records"))
        assert count_records(state) == 1


def test_what_was_read_first_may_be_written_after(state: State) -> None:
    """SQLite would refuse it, had another written in between."""
    state.records.add([RECORD])
    state.flush()
    with state.database.engine.begin() as connection:
        connection.execute(select(records)).all()
        state.usage.count("a", "generation", 1, failed=False)
        another = threading.Thread(target=state.flush)
        another.start()
        another.join(0.5)
        connection.execute(update(records).values(kind="changed"))
    another.join()
    found = state.records.find(RECORD.sha256)
    assert found is not None
    assert found.kind == "changed"


def test_a_locked_database_fails_all_that_wait_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TIMEOUT_SEC", 0.5)
    with closing(State(load_settings(data_dir=tmp_path))) as state:
        quota = Quota(10, "day", "2026-11-27", datetime.now(UTC))
        locking = sqlite3.connect(tmp_path / database.FILE, isolation_level=None)

        async def take() -> None:
            with pytest.raises(NotReady) as caught:
                await state.quotas.take("shop", quota, 1)
            assert caught.value.headers["Retry-After"]

        async def take_many() -> None:
            await asyncio.gather(*(take() for _ in range(40)))

        with closing(locking):
            locking.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            asyncio.run(take_many())
            assert time.monotonic() - started < 10  # not 40 times its half a second
            locking.execute("ROLLBACK")
        assert asyncio.run(state.quotas.take("shop", quota, 1))


MOUNTED = """\
/dev/sda1 / ext4 rw 0 0
server:/share /mnt/my\\040share nfs4 rw 0 0
/dev/sdb1 /mnt/my\\040share/disk ext4 rw 0 0
//server/share /srv cifs rw 0 0
me@host: /home fuse.sshfs rw 0 0
/dev/sdc1 /usb fuseblk rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/tmp /tmp nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/state.sqlite3", None),
        ("/mnt/my share/state.sqlite3", "nfs4"),
        ("/mnt/my share/disk/state.sqlite3", None),
        ("/mnt/my shared/state.sqlite3", None),
        ("/srv/a/b/state.sqlite3", "cifs"),
        ("/home/state.sqlite3", "fuse.sshfs"),
        ("/usb/state.sqlite3", None),
        ("/tmp/state.sqlite3", "nfs"),
    ],
)
def test_a_network_file_system_is_named(
    path: str,
    kind: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "mounts").write_text(MOUNTED)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    mounts.warn_of_shared(Path(path))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (kind is not None)
    if kind is not None:
        assert all(part in said[0] for part in (path, f"({kind})", "CATALOGAN_DATA_DIR"))


def test_the_start_looks_at_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mounts").write_text("server:/ / nfs rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    State(load_settings(data_dir=tmp_path)).close()
    State(load_settings(state_url=f"sqlite:///{tmp_path}/other.sqlite3")).close()
    assert [name in caplog.text for name in (database.FILE, "other.sqlite3")] == [True, True]


@pytest.mark.parametrize("state_environment", ["postgresql"], indirect=True)
def test_connections_that_the_server_ended_are_made_anew(state: State) -> None:
    others = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with state.database.reading() as first, state.database.reading() as second:
        first.execute(text("SELECT 1"))
        ended = second.execute(text(others)).scalar_one()
        first.invalidate()
    assert ended >= 1
    state.records.add([RECORD])
    assert state.records.find(RECORD.sha256) == RECORD


def test_work_fails_as_503(state: State) -> None:
    with pytest.raises(NotReady) as caught:
        asyncio.run(state.database.run(lambda c: c.execute(text("SELECT nonsense"))))
    assert caught.value.code == "state_unavailable"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root:secret@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+x://h",
    ],
)
def test_other_urls_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(SettingsError, match="CATALOGAN_STATE_URL") as caught:
        locate(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    settings = load_settings(state_url="postgresql://user:secret@127.0.0.1:1/db")
    with pytest.raises(SettingsError, match="CATALOGAN_STATE_URL") as caught:
        State(settings)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tls_is_asked_for_as_libpq_does() -> None:
    settings = load_settings(state_url="postgresql://u@127.0.0.1:1/db?sslmode=sometimes")
    with pytest.raises(SettingsError, match="sslmode"):
        State(settings)


class TestFolder:
    def test_the_default_is_beside_the_models(self, bento_home: Path) -> None:
        State(load_settings()).close()
        assert sqlite3.connect(bento_home / "catalogan" / "state.sqlite3").close() is None
        assert (bento_home / "catalogan").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("known", [False, True])
    def test_nobody_else_reads_it(self, tmp_path: Path, known: bool) -> None:
        if known:  # of before, when its mode followed the umask
            (tmp_path / "state.sqlite3").touch(mode=0o644)
        before = os.umask(0)
        try:
            state = State(load_settings(data_dir=tmp_path))
            state.records.add([RECORD])
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
            state.close()
        finally:
            os.umask(before)
        assert "state.sqlite3-wal" in modes
        assert {mode for name, mode in modes.items() if "sqlite3" in name} == {0o600}

    def test_a_read_only_default_warns_once_and_keeps_it_in_a_temporary_folder(
        self, bento_home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (bento_home / "catalogan").write_text("no folder")
        with caplog.at_level(logging.WARNING):
            state = State(load_settings())
        state.records.add([RECORD])
        assert state.records.find(RECORD.sha256) == RECORD
        assert caplog.text.count("CATALOGAN_DATA_DIR") == 1
        folder = Path(str(state.database.engine.url.database)).parent
        assert folder.is_dir()
        state.close()
        assert not folder.exists()

    def test_a_named_folder_must_be_writable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(SettingsError, match="CATALOGAN_DATA_DIR"):
            State(load_settings(data_dir=tmp_path / "file"))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(SettingsError, match="can't be used"):
        State(load_settings(data_dir=tmp_path))


def test_parameters_stay_out_of_errors(state: State) -> None:
    database: Database = state.database
    with (
        pytest.raises(Exception, match="nonsense") as caught,
        database.engine.begin() as connection,
    ):
        connection.execute(text("SELECT nonsense, :given"), {"given": "private"})
    assert "private" not in str(caught.value)
