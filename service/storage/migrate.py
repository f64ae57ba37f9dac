"""Bringing a database to the version of this code, whoever else starts at the same time."""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, text

from service.errors import SettingsError

logger = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parent / "migrations"
# Any number that no other program on the same database takes.
LOCK: Final = 0x0CA7A106A4


def migrate(engine: Engine) -> None:
    """Apply the migrations that are missing, all or none of them.

    Of several processes that start at once, one works and the others wait: PostgreSQL has an
    advisory lock for that, and SQLite begins each of our transactions with its write lock.

    Raises:
        SettingsError: The database is of a newer version.
    """
    # It logs each step of its own, even of being imported.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        if MigrationContext.configure(connection).get_current_revision() == newest:
            return
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except (CommandError, ResolutionError) as error:
            raise SettingsError(
                f"the state's database is of a newer Catalogan ({error}): start that one, or "
                "set CATALOGAN_STATE_URL to another database"
            ) from error
    logger.info("the state's database is migrated to version %s", newest)
