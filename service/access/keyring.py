"""The keys that open the service now; a changed keys file is taken over by itself."""

import hmac
import logging
import time
from pathlib import Path
from typing import Final

from service.access import audit
from service.access.api_keys import LOCAL, OPERATOR, ApiKey, key_hash, parse_keys, read_keys
from service.access.secret_files import check_secret_file
from service.errors import SettingsError
from service.settings import Settings

logger = logging.getLogger(__name__)

LOOK_SEC: Final = 1.0


class Keyring:
    """All keys: CATALOGAN_API_KEY, and those of the keys file or CATALOGAN_KEYS."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys.

        Raises:
            SettingsError: The keys file can't be read or is damaged.
        """
        self.open: Final = not settings.has_keys
        self._path: Final = settings.keys_file
        self._fixed: dict[str, ApiKey] = {}
        if settings.api_key is not None:
            self._fixed[key_hash(settings.api_key.get_secret_value())] = OPERATOR
        if settings.keys is not None:
            listed = parse_keys(settings.keys.get_secret_value(), "CATALOGAN_KEYS")
            self._fixed |= {key.sha256: key for key in listed.keys}
        self._keys: dict[str, ApiKey] = self._fixed
        self._seen: tuple[int, int, int] | None = None
        self._looked = time.monotonic()
        if settings.api_key_file is not None:
            check_secret_file(settings.api_key_file, "CATALOGAN_API_KEY_FILE")
        if self._path is not None:
            self._seen = _identity(self._path)
            self._take(self._path)

    def find(self, key: str) -> ApiKey | None:
        """Look a key up, in a time that reveals nothing of the keys."""
        self._look()
        given, found = key_hash(key), None
        for known, entry in self._keys.items():
            if hmac.compare_digest(given, known):
                found = entry
        return found

    def all(self) -> list[ApiKey]:
        """All keys; where none is configured, what stands for whoever calls."""
        self._look()
        return [LOCAL] if self.open else list(self._keys.values())

    def _look(self) -> None:
        """Once a second at most, see whether the file was changed; take it over if it is sound."""
        now = time.monotonic()
        if self._path is None or now - self._looked < LOOK_SEC:
            return
        self._looked = now
        identity = _identity(self._path)
        if identity == self._seen:
            return
        self._seen = identity
        before = self._keys
        try:
            self._take(self._path)
        except SettingsError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("%d keys are taken from the keys file", len(self._keys) - len(self._fixed))
            _audit(before, self._keys)

    def _take(self, path: Path) -> None:
        check_secret_file(path, "CATALOGAN_KEYS_FILE")
        self._keys = {**{key.sha256: key for key in read_keys(path).keys}, **self._fixed}


def _audit(before: dict[str, ApiKey], after: dict[str, ApiKey]) -> None:
    """Log which keys came, went or changed."""
    for sha256 in before.keys() - after.keys():
        audit.key_revoked(before[sha256].name)
    for sha256 in after.keys() - before.keys():
        audit.key_created(after[sha256].name)
    for sha256 in after.keys() & before.keys():
        if after[sha256] != before[sha256]:
            audit.key_changed(after[sha256].name)


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
