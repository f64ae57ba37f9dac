"""The database: where it is, how it is opened, and how the event loop gets at it."""

import asyncio
import fcntl
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from service.data_folder import writable_data_folder
from service.errors import NotReady, SettingsError
from service.files import keep_private
from service.settings import Settings
from service.storage.migrate import migrate
from service.storage.mounts import warn_of_shared
from service.storage.tls import tls_arguments

logger = logging.getLogger(__name__)

FILE: Final = "state.sqlite3"
# SQLite has one writer at a time: more threads would only wait for each other.
THREADS: Final = {"sqlite": 1, "postgresql": 8}
TIMEOUT_SEC: Final = 5
FAILURES: Final = (SQLAlchemyError, OSError)

Result = TypeVar("Result")
Upsert = sqlite.Insert | postgresql.Insert


class Database:
    """One database, and the threads that wait for it."""

    def __init__(self, url: URL, temporary: "tempfile.TemporaryDirectory[str] | None" = None):
        """Connect to `url` and migrate it.

        Args:
            url: With a driver that is installed; see `locate`.
            temporary: A folder that ends with the database.

        Raises:
            SettingsError: It can't be reached, opened or migrated; never shows a password.
        """
        self._temporary: Final = temporary
        self.engine: Final = _engine(url)
        self.is_postgresql: Final = self.engine.dialect.name == "postgresql"
        self._threads: Final = ThreadPoolExecutor(
            THREADS[self.engine.dialect.name], thread_name_prefix="state"
        )
        try:
            with _only_starter(url):
                migrate(self.engine)
        except FAILURES as error:
            self.close()
            raise SettingsError(
                f"the state's database can't be used: {cause(error)}; see CATALOGAN_STATE_URL "
                "and CATALOGAN_DATA_DIR"
            ) from None
        except SettingsError:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only reads, whoever writes."""
        with self.engine.connect() as connection:
            yield connection.execution_options(reading=True)

    @contextmanager
    def failures_as_503(self) -> Iterator[None]:
        """Tell the log why the database fails, and the client that it does.

        Raises:
            NotReady: It does.
        """
        try:
            yield
        except FAILURES as error:
            logger.error("the state's database fails: %s", cause(error))
            raise NotReady(
                "the state's database can't be reached", code="state_unavailable", retry_after_sec=5
            ) from None

    def insert(self, table: Table) -> Upsert:
        """An INSERT that can say what to do on conflict, in this database's dialect."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work` in a transaction on a thread of the database's own.

        Raises:
            NotReady: The database can't be reached.
        """

        def transact() -> Result:
            with self.engine.begin() as connection:
                return work(connection)

        return await self.in_thread(transact)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do what waits for the database on a thread of its own.

        While it is locked, all that wait for a thread fail with the first, not one after another.

        Raises:
            NotReady: The database can't be reached.
        """
        handed_over = time.monotonic()

        def begin() -> Result:
            if time.monotonic() - handed_over > TIMEOUT_SEC:
                raise TimeoutError(f"others have waited for it for {TIMEOUT_SEC} s")
            return work()

        with self.failures_as_503():
            return await asyncio.get_running_loop().run_in_executor(self._threads, begin)

    def close(self) -> None:
        """Let go of connections and threads."""
        self._threads.shutdown()
        self.engine.dispose()
        if self._temporary is not None:
            self._temporary.cleanup()


def open_database(settings: Settings) -> Database:
    """Open the database that the settings name.

    By default it is a SQLite file in the data folder, which by default is the folder `catalogan`
    beside the registered models. Where that folder is read-only, what is kept lasts as long as
    the process, and the log says so; a folder or URL that the operator named must work.

    Raises:
        SettingsError: See `Database`.
    """
    if settings.state_url is not None:
        return Database(locate(settings.state_url.get_secret_value()))
    folder = writable_data_folder(settings)
    if folder is not None:
        return Database(URL.create("sqlite+pysqlite", database=str(folder / FILE)))
    logger.warning(
        "the folder for data can't be written to: records, usage and quotas are kept only until "
        "the service ends; set CATALOGAN_DATA_DIR or CATALOGAN_STATE_URL"
    )
    temporary = tempfile.TemporaryDirectory(prefix="catalogan-")
    url = URL.create("sqlite+pysqlite", database=str(Path(temporary.name) / FILE))
    return Database(url, temporary)


def locate(text: str) -> URL:
    """Read a database URL, and choose the driver.

    Raises:
        SettingsError: It is no URL of SQLite or PostgreSQL.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError("CATALOGAN_STATE_URL: no database URL") from None
    match url.drivername:
        case "sqlite" if url.database not in (None, "", ":memory:"):
            return url.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres" | "postgresql+pg8000":
            return url.set(drivername="postgresql+pg8000")
    raise SettingsError(
        "CATALOGAN_STATE_URL: must begin with postgresql:// or with sqlite:/// and a path"
    )


def _touch_private(file: Path) -> None:
    """Let nobody else read a file from the moment on that it is there."""
    try:
        file.touch(mode=0o600)
    except OSError:  # nowhere: SQLite says more
        logger.debug("%s can't be created", file)
    keep_private(file)


def _engine(url: URL) -> Engine:
    # Statements' parameters are stored responses and names: they don't belong into logs.
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        warn_of_shared(Path(str(url.database).removeprefix("file:")))
        if "uri" not in url.query:  # then it is the file's name
            _touch_private(Path(str(url.database)))
        engine = create_engine(url, connect_args={"timeout": TIMEOUT_SEC}, **options)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments = {"timeout": TIMEOUT_SEC, "application_name": "catalogan", **tls_arguments(url)}
    url = url.difference_update_query(["sslmode", "sslrootcert"])
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_size=THREADS["postgresql"],
        max_overflow=2,
        pool_pre_ping=True,
        pool_timeout=TIMEOUT_SEC,
        **options,
    )
    event.listen(engine, "handle_error", _distrust_connection)
    return engine


def _distrust_connection(context: ExceptionContext) -> None:
    """Drop a connection after any error but one that the server reported.

    A value that the driver can't send leaves it in the middle of a message: later statements
    would seem to succeed and do nothing.
    """
    if not isinstance(context.sqlalchemy_exception, DBAPIError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say
    # What a URL calls it, SQLite knows; its other files may be of a version that left them open.
    for _number, _name, file in connection.execute("PRAGMA database_list").fetchall():
        for suffix in ("", "-wal", "-shm") if file else ():
            keep_private(Path(file + suffix))
    # Survives the process's end by any signal; a power cut may take the last moments.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock first: a transaction that takes it later may be refused."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def _only_starter(url: URL) -> Iterator[None]:
    """Let one process at a time create a SQLite file: its first change of mode can't wait."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    # Beside the database, also where SQLite's own kind of URL names it.
    file = Path(f"{str(url.database).removeprefix('file:')}.lock")
    _touch_private(file)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_data_error(error: BaseException) -> bool:
    """Whether a value is at fault, and not the database: trying again would not help."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError) or _sqlstate(error)[:2] in ("22", "23")
    # What drivers raise themselves, as of text that is no Unicode.
    return isinstance(error, ValueError | OverflowError | StatementError)


def cause(error: BaseException) -> str:
    """The driver's own words, without the statement."""
    original = getattr(error, "orig", None) or error
    fields = _postgresql_fields(error)
    words = fields.get("M", "") if fields else " ".join(str(original).split())
    return words[:300] or type(original).__name__


def _sqlstate(error: DBAPIError) -> str:
    return _postgresql_fields(error).get("C", "")


def _postgresql_fields(error: BaseException) -> dict[str, str]:
    """The server's message as the driver reports it, by PostgreSQL's letters; else nothing."""
    original = getattr(error, "orig", None)
    first = original.args[0] if original is not None and original.args else None
    return first if isinstance(first, dict) else {}
