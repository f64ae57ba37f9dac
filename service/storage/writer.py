"""Rows that need not be there before the response: written soon, many at a time."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Executable

from service.storage.database import FAILURES, Database, cause, is_data_error

logger = logging.getLogger(__name__)

INTERVAL_SEC: Final = 0.2
RETRY_SEC: Final = 2.0
CHORES_SEC: Final = 3600
# About 50 MB; while the database is away, more than this is lost.
MAX_PENDING: Final = 100_000

Row = Mapping[str, Any]
# One step of cleaning up; says whether there is more to do.
Chore = Callable[[Connection], bool]


class Writer:
    """A thread that writes what it receives within `INTERVAL_SEC`."""

    def __init__(self, database: Database, chores: Sequence[Chore] = ()) -> None:
        """Start the thread.

        Args:
            database: Where to write.
            chores: Done at the start and every hour.
        """
        self._database: Final = database
        self._chores: Final = chores
        self._pending: dict[Executable, list[Row]] = {}
        self._lock: Final = threading.Lock()
        self._writing: Final = threading.Lock()
        self._awake: Final = threading.Event()
        self._stopping: Final = threading.Event()
        self._failing = False
        self._thread: Final = threading.Thread(target=self._work, name="state-writer", daemon=True)
        self._thread.start()

    def add(self, statement: Executable, rows: Sequence[Row]) -> None:
        """Have `statement` executed for each of `rows`, in any order; returns at once."""
        with self._lock:
            pending = self._pending.setdefault(statement, [])
            room = MAX_PENDING - len(pending)
            pending.extend(rows[:room])
        if room < len(rows):
            logger.error("%d rows are lost: the state's database is away", len(rows) - room)
        self._awake.set()

    def flush(self) -> None:
        """Write what is pending now.

        Raises:
            SQLAlchemyError, OSError: It can't be written; it stays pending.
        """
        with self._writing:
            with self._lock:
                taken, self._pending = self._pending, {}
            try:
                if taken:
                    self._write(taken)
            except FAILURES:
                with self._lock:
                    for statement, rows in self._pending.items():
                        taken.setdefault(statement, []).extend(rows)
                    self._pending = taken
                raise

    def stop(self) -> None:
        """Write what is pending, and end."""
        self._stopping.set()
        self._awake.set()
        self._thread.join()
        if not self._try(self.flush):
            logger.error("what was not written yet is lost")

    def _write(self, batches: Mapping[Executable, Sequence[Row]]) -> None:
        try:
            with self._database.engine.begin() as connection:
                for statement, rows in batches.items():
                    connection.execute(statement, rows)
        except Exception as error:
            if not is_data_error(error):
                raise
            self._write_one_by_one(batches)

    def _write_one_by_one(self, batches: Mapping[Executable, Sequence[Row]]) -> None:
        """Leave out what can't be written, which would else hold up all that follows."""
        for statement, rows in batches.items():
            for row in rows:
                try:
                    with self._database.engine.begin() as connection:
                        connection.execute(statement, row)
                except Exception as error:
                    if not is_data_error(error):
                        raise
                    logger.error("a row is lost: %s", cause(error))

    def _work(self) -> None:
        chores_at = time.monotonic()
        while not self._stopping.is_set():
            awake = self._awake.wait(CHORES_SEC / 10)
            if time.monotonic() >= chores_at:
                chores_at = time.monotonic() + CHORES_SEC
                self._try(self._do_chores)
            if awake:
                self._stopping.wait(INTERVAL_SEC)
                self._awake.clear()
                if not self._try(self.flush):
                    self._awake.set()
                    self._stopping.wait(RETRY_SEC)

    def _do_chores(self) -> None:
        for chore in self._chores:
            more = True
            while more and not self._stopping.is_set():
                with self._database.engine.begin() as connection:
                    more = chore(connection)

    def _try(self, work: Callable[[], None]) -> bool:
        """Do it; log the first failure of a row of them."""
        try:
            work()
        except FAILURES as error:
            if not self._failing:
                logger.error("the state can't be written, and is tried again: %s", cause(error))
            self._failing = True
            return False
        if self._failing:
            logger.info("the state is written again")
        self._failing = False
        return True
