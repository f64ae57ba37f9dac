"""All that the service remembers, opened and closed as one."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from service.access.api_keys import ApiKey
from service.errors import SettingsError
from service.settings import Settings
from service.storage.database import FAILURES, cause, open_database
from service.storage.idempotency import StoredResponses, prune_responses
from service.storage.key_ids import move_to_ids
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

    def move_to_ids(self, keys: Iterable[ApiKey]) -> None:
        """Give these keys what earlier versions counted by their names.

        Raises:
            SettingsError: The database fails.
        """
        try:
            move_to_ids(self.database, keys)
        except FAILURES as error:
            raise SettingsError(f"the state's database can't be used: {cause(error)}") from None

    def flush(self) -> None:
        """Write what is pending now."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending, and let go of the database."""
        self._writer.stop()
        self.database.close()
