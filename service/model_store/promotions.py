"""Which version of each model is served: a small JSON file, not the newest one by date."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.manifest import Name
from service.errors import RegistryError
from service.files import replace_text

# Rolling back further than this is a new promotion.
MAX_HISTORY: Final = 50

Version = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
History = Annotated[tuple[Version, ...], Field(min_length=1)]


class _PointerFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    # In the order of first promotion; each history ends with the version that is served.
    names: dict[Name, History] = Field(default_factory=dict)


class Promotions:
    """The pointer file. Reading takes no lock: writers replace the file as a whole."""

    def __init__(self, folder: Path) -> None:
        """Keep the pointer in `folder`, which the first write creates."""
        self._folder: Final = folder
        self.path: Final = folder / "promotions.json"

    def histories(self) -> dict[str, tuple[str, ...]]:
        """Promoted versions of each name, the one served last.

        Raises:
            RegistryError: The file can't be read or is damaged.
        """
        try:
            return dict(_PointerFile.model_validate_json(self.path.read_bytes()).names)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise RegistryError(
                f"{self.path} can't be read ({_summary(error)}): remove it and promote again"
            ) from error

    def identity(self) -> tuple[int, int, int] | None:
        """Changes whenever the file is written; None while there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def promote(self, name: str, version: str) -> None:
        """Serve `version` of `name` from now on; nothing changes if it is served already.

        Raises:
            RegistryError: The file can't be read or written.
        """
        with self._changing() as names:
            history = names.get(name, ())
            if not history or history[-1] != version:
                names[name] = (*history, version)[-MAX_HISTORY:]

    def rollback(self, name: str) -> str:
        """Serve what was served before.

        Returns:
            The version that is served now.

        Raises:
            RegistryError: Nothing was served before, or the file can't be read or written.
        """
        with self._changing() as names:
            history = names.get(name, ())
            if len(history) < 2:
                raise RegistryError(f"{name} has no earlier promotion to go back to")
            names[name] = history[:-1]
            return history[-2]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, tuple[str, ...]]]:
        with self.locked():
            names = self.histories()
            before = dict(names)
            yield names
            if names != before:
                self._write(_PointerFile(names=names))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing registry or pointer meanwhile.

        Raises:
            RegistryError: The folder can't be written to.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        except OSError as error:
            raise RegistryError(f"{self._folder} can't be written to: {error}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, content: _PointerFile) -> None:
        text = json.dumps(content.model_dump(mode="json"), indent=2) + "\n"
        try:
            # The service may run as another user than who promotes.
            replace_text(self.path, text, 0o644)
        except OSError as error:
            raise RegistryError(f"{self.path} can't be written: {error}") from error


def _summary(error: Exception) -> str:
    return f"{error.error_count()} errors" if isinstance(error, ValidationError) else str(error)
