"""All that the service remembers, opened and closed as one."""

from functools import partial
from typing import Final

from service.settings import Settings
from service.storage.database import open_database
from service.storage.idempotency import StoredResponses, prune_responses
from service.storage.quotas import Quotas
from service.storage.records import Records, prune_records
from service.storage.usage import Usage, prune_usage
from service.storage.writer import Chore, Writer


class State:
    """The state, over one database."""

    def __init__(self, settings: Settings) -> None:
        """Open the database that `settings` name.

        Raises:
            SettingsError: It can't be used.
        """
        self.database: Final = open_database(settings)
        chores: list[Chore] = [
            partial(prune_records, days=settings.record_days),
            prune_usage,
            prune_responses,
        ]
        self._writer: Final = Writer(self.database, chores)
        self.records: Final = Records(self.database, self._writer)
        self.usage: Final = Usage(self.database, self._writer)
        self.quotas: Final = Quotas(self.database)
        self.responses: Final = StoredResponses(self.database, settings)

    def flush(self) -> None:
        """Write what is pending now."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending, and let go of the database."""
        self._writer.stop()
        self.database.close()
