"""API keys: created once, kept as hashes in a small JSON file.

A key is 256 random bits, so its plain SHA-256 is as hard to turn back as a salted one.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.validation import problems
from service.access import audit
from service.errors import SettingsError
from service.files import replace_text
from service.settings import RATE_PATTERN

# So that scanners for secrets know one when they see it.
PREFIX: Final = "catalogan_"
MAX_KEYS: Final = 1000

# Between a key's name, which can't have one, and what tells it from others of that name.
_ID_MARK: Final = "~"

Scope = Literal["generate", "train", "admin", "metrics"]
SCOPES: Final[tuple[Scope, ...]] = ("generate", "train", "admin", "metrics")


class ApiKey(BaseModel):
    """One key and what it may do.

    Attributes:
        name: Stands in usage and logs for whoever has the key.
        sha256: Of the key.
        scopes: What it opens.
        rate: Requests, as "60/minute"; None = as many as it likes.
        quota: Images, as "1000/day" or "20000/month"; None = as many as it likes.
        created: When it was created.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    rate: Annotated[str | None, Field(pattern=RATE_PATTERN)] = None
    quota: Annotated[str | None, Field(pattern=r"^[1-9][0-9]{0,11}/(day|month)$")] = None
    created: datetime | None = None

    @property
    def id(self) -> str:
        """What the state knows the key by: another key of the same name is another caller.

        It begins with the name, for usage that outlives the key, and has at most 64 characters.
        """
        if self.name in TAKEN_NAMES:
            return self.name
        return f"{self.name[:47]}{_ID_MARK}{self.sha256[:16]}"


class KeyList(BaseModel):
    """What a keys file, or CATALOGAN_KEYS, holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = {key.name for key in self.keys}
        if taken := sorted(names & TAKEN_NAMES):
            raise ValueError(f"the name {taken[0]} is taken")
        if len(names) < len(self.keys) or len({k.sha256 for k in self.keys}) < len(self.keys):
            raise ValueError("a name or a hash occurs twice")
        return self


# Who has CATALOGAN_API_KEY, and who calls from this machine where no key is configured.
OPERATOR: Final = ApiKey(name="operator", sha256="0" * 64, scopes=frozenset(SCOPES))
LOCAL: Final = ApiKey(name="local", sha256="0" * 64, scopes=frozenset(SCOPES))
# In logs, whoever follows a signed link.
BY_LINK: Final = ApiKey(name="link", sha256="0" * 64, scopes=frozenset(("generate",)))
# In usage and logs, whoever verifies an image without a key, where the operator lets anybody.
ANYBODY: Final = "anybody"
TAKEN_NAMES: Final = frozenset({OPERATOR.name, LOCAL.name, ANYBODY})


def keyless(rate: str) -> ApiKey:
    """What stands for all who come without a key; it opens nothing that needs a scope."""
    return ApiKey.model_construct(name=ANYBODY, sha256="0" * 64, scopes=frozenset(), rate=rate)


def name_in(key_id: str) -> str:
    """The name of the key that has or had this id."""
    return key_id.partition(_ID_MARK)[0]


def key_hash(key: str) -> str:
    """SHA-256 of a key, hexadecimal; whatever a client sent has one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def parse_keys(text: bytes | str, source: str) -> KeyList:
    """Read what a keys file holds.

    Raises:
        SettingsError: It is damaged; names `source` and the place, and shows nothing of it.
    """
    try:
        return KeyList.model_validate_json(text)
    except ValidationError as error:
        first = problems(error)[0]
        raise SettingsError(
            f"{source} is no list of keys: {first.place or 'it'}: {first.message}"
        ) from None


def read_keys(path: Path) -> KeyList:
    """Read a keys file.

    Raises:
        SettingsError: It can't be read or is damaged.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the keys file can't be read: {error}") from None
    return parse_keys(text, str(path))


def create_key(
    path: Path, name: str, scopes: Iterable[str], rate: str | None, quota: str | None
) -> str:
    """Create a key and add its hash to the file at `path`, which is created if need be.

    Returns:
        The key, which nobody will see again.

    Raises:
        SettingsError: The name is taken or something is malformed; the file is as it was.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    fields = {
        "name": name,
        "sha256": key_hash(key),
        "scopes": sorted(set(scopes)),
        "rate": rate,
        "quota": quota,
        "created": datetime.now(UTC).replace(microsecond=0),
    }
    try:
        created = ApiKey.model_validate(fields)
    except ValidationError as error:
        first = problems(error)[0]
        field = first.place.partition(".")[0].replace("scopes", "scope")  # as the option is called
        raise SettingsError(f"{field}: {first.message}") from None

    def add(known: KeyList) -> tuple[ApiKey, ...]:
        if name in TAKEN_NAMES or any(one.name == name for one in known.keys):
            raise SettingsError(
                f"the name {name} is taken: revoke that key first, or choose another"
            )
        if len(known.keys) == MAX_KEYS:
            raise SettingsError(f"{path} holds {MAX_KEYS} keys already")
        return (*known.keys, created)

    _change(path, add, missing_ok=True)
    audit.key_created(name)
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file at `path`.

    Raises:
        SettingsError: No key has that name; the file is as it was.
    """

    def remove(known: KeyList) -> tuple[ApiKey, ...]:
        left = tuple(one for one in known.keys if one.name != name)
        if len(left) == len(known.keys):
            raise SettingsError(f"{path} holds no key {name}")
        return left

    _change(path, remove)
    audit.key_revoked(name)


def _change(
    path: Path, change: Callable[[KeyList], tuple[ApiKey, ...]], *, missing_ok: bool = False
) -> None:
    """Replace the file as a whole, one writer at a time; only its owner can read it."""
    try:
        if missing_ok:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(f"{path}.lock", "a", opener=_open_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = KeyList() if missing_ok and not path.exists() else read_keys(path)
            text = KeyList(keys=change(known)).model_dump_json(indent=2, exclude_none=True)
            replace_text(path, text + "\n", 0o600)
    except OSError as error:
        raise SettingsError(f"the keys file can't be written: {error}") from None


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
