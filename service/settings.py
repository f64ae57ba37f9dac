"""Settings of the service, read once from the environment (`CATALOGAN_...`)."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError

MIN_KEY_CHARS: Final = 8
MAX_REQUEST_TIMEOUT_SEC: Final = 600


def available_cpus() -> int:
    """Cores that this process may use: its affinity, and its container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        limit = max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores or 1
    return min(cores or 1, limit)


class Settings(BaseSettings):
    """Everything that an operator can set; each field is `CATALOGAN_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="CATALOGAN_", frozen=True, env_ignore_empty=True, extra="ignore"
    )

    model: Annotated[
        str | None, Field(description="Model served to who names none; else the first promoted.")
    ] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    container: bool = False
    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=available_cpus)
    intra_op_threads: Annotated[int, Field(ge=1, le=256)] = 1
    max_pending_generations: Annotated[int, Field(ge=1, le=10_000)] = 32
    max_pending_interpolations: Annotated[int, Field(ge=1, le=1_000)] = 4
    max_pending_uploads: Annotated[int, Field(ge=1, le=1_000)] = 8
    max_pending_datasets: Annotated[int, Field(ge=1, le=100)] = 2
    max_dataset_pictures: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    request_timeout_sec: Annotated[float, Field(gt=0, le=MAX_REQUEST_TIMEOUT_SEC)] = 60.0
    shutdown_timeout_sec: Annotated[int, Field(ge=0, le=3600)] = 20
    max_json_bytes: Annotated[int, Field(ge=1_000)] = 1_000_000
    max_upload_bytes: Annotated[int, Field(ge=1_000)] = 25_000_000
    max_upload_pixels: Annotated[int, Field(ge=1_000)] = 40_000_000
    max_loaded_models: Annotated[int, Field(ge=1, le=100)] = 3
    poll_interval_sec: Annotated[float, Field(gt=0, le=3600)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _read_key_file(cls, values: Any) -> Any:
        path = values.get("api_key_file") if isinstance(values, dict) else None
        if not path:
            return values
        if values.get("api_key"):
            raise ValueError("set CATALOGAN_API_KEY or CATALOGAN_API_KEY_FILE, not both")
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"CATALOGAN_API_KEY_FILE can't be read: {error}") from error
        return {**values, "api_key": key}

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.api_key is None:
            return self
        key = self.api_key.get_secret_value()
        if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"the API key must have at least {MIN_KEY_CHARS} printable ASCII characters "
                "without blanks"
            )
        return self


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` win over it, None means not given.

    Raises:
        SettingsError: Names the variable at fault; never shows a key.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        problems = [
            f"{'CATALOGAN_' + str(e['loc'][0]).upper() + ': ' if e['loc'] else ''}{e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("; ".join(problems)) from None


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings, host: str | None) -> None:
    """Refuse to serve others without a key.

    Args:
        settings: The service's settings.
        host: The address that is listened on; None where it is not known.

    Raises:
        SettingsError: No key, and a container or an address that others reach.
    """
    if settings.api_key is not None:
        return
    way_out = "set CATALOGAN_API_KEY (or CATALOGAN_API_KEY_FILE)"
    if settings.container:
        raise SettingsError(f"a container serves others than this machine: {way_out}")
    if host is not None and not is_loopback(host):
        raise SettingsError(f"{host} is reachable from outside this machine: {way_out}")
