"""Settings of the service, read once from the environment (`CATALOGAN_...`)."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.images import ImageLimits
from models.validation import problems
from service.errors import SettingsError
from service.key_strength import key_bits

LogFormat = Literal["text", "json"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MIN_KEY_CHARS: Final = 16
# As key_bits estimates them; 24 random hexadecimal digits have more.
MIN_KEY_BITS: Final = 60
MIN_LINK_KEY_CHARS: Final = 32
RATE_PATTERN: Final = r"^[1-9][0-9]{0,8}/minute$"
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


_NEW_KEY: Final = "`openssl rand -hex 32` prints a good one"


def _written(pattern: str, example: str) -> AfterValidator:
    """A check that a text is written as an example is; None is not checked."""

    def check(value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"write it as {example}")
        return value

    return AfterValidator(check)


class Settings(BaseSettings):
    """Everything that an operator can set; each field is `CATALOGAN_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="CATALOGAN_",
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    model: Annotated[
        str | None, Field(description="Model served to who names none; else the first promoted.")
    ] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the generator; auto takes CUDA where it works."""
    api_key: SecretStr | None = None
    """The operator's own key, which may do everything; hard to guess."""
    api_key_file: Path | None = None
    """A file that holds it, instead."""
    keys: SecretStr | None = None
    """What a keys file would hold, where there can be none."""
    keys_file: Path | None = None
    """Of `catalogan api-keys`; changes are taken over within a second."""
    trusted_proxies: Annotated[
        str | None,
        Field(description="Addresses or networks, by commas; their X-Forwarded-For is believed."),
    ] = None
    container: bool = False
    """Set in the container, which without a key does not start."""
    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=available_cpus)
    """Threads that generate on a CPU, augment and encode; else the cores."""
    intra_op_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Of ONNX Runtime, in each worker."""
    max_pending_generations: Annotated[int, Field(ge=1, le=10_000)] = 128
    """Waiting and served at a time; 429 beyond."""
    max_pending_interpolations: Annotated[int, Field(ge=1, le=1_000)] = 4
    """Waiting and served at a time; 429 beyond."""
    max_pending_uploads: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Requests with photos, once these have come; 429 beyond."""
    max_pending_datasets: Annotated[int, Field(ge=1, le=100)] = 2
    """Streamed at a time; 429 beyond."""
    max_dataset_pictures: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """In a labelled set or shard; 400 beyond."""
    request_timeout_sec: Annotated[float, Field(gt=0, le=MAX_REQUEST_TIMEOUT_SEC)] = 60.0
    """For a request's work; 504 after it."""
    shutdown_timeout_sec: Annotated[int, Field(ge=0, le=3600)] = 20
    """In which requests may end after SIGTERM."""
    log_format: LogFormat = "text"
    """Lines for people, or JSON objects."""
    max_queue_wait_sec: Annotated[
        float,
        Field(gt=0, le=MAX_REQUEST_TIMEOUT_SEC, description="For a worker; 429 after it."),
    ] = 30.0
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Open at a time; the one that waited longest makes room."""
    keep_alive_timeout_sec: Annotated[int, Field(ge=1, le=3600)] = 75
    """Between two requests of a connection."""
    head_timeout_sec: Annotated[
        float, Field(gt=0, le=3600, description="For a request's line and headers.")
    ] = 10.0
    body_timeout_sec: Annotated[
        float, Field(gt=0, le=3600, description="For a body, and 1 s more a kilobyte of it.")
    ] = 20.0
    send_timeout_sec: Annotated[
        float, Field(gt=0, le=3600, description="In which a client must read 1 kB a second.")
    ] = 30.0
    max_json_bytes: Annotated[int, Field(ge=1_000)] = 1_000_000
    """Of a body without photos; 413 beyond."""
    max_upload_bytes: Annotated[int, Field(ge=1_000)] = 25_000_000
    """Of a photo, and of a form with photos; 413 beyond."""
    max_upload_pixels: Annotated[int, Field(ge=1_000)] = 40_000_000
    """Of a photo, by its header; 413 beyond."""
    max_loaded_models: Annotated[int, Field(ge=1, le=100)] = 3
    """In memory at a time."""
    poll_interval_sec: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Between two looks for a promotion."""
    state_url: SecretStr | None = None
    """Of the database; else SQLite in the data folder."""
    data_dir: Path | None = None
    """The data folder; else `$BENTOML_HOME/catalogan`."""
    marks: Annotated[
        Literal["signed", "unsigned", "off"],
        Field(description="XMP and a signed C2PA manifest; XMP alone; or nothing in the files."),
    ] = "signed"
    watermark: Annotated[
        Literal["proven", "on", "off"],
        Field(description="Invisible, of models that have one; proven: if it held in tests."),
    ] = "proven"
    signing_certificate: Annotated[
        Path | None, Field(description="PEM; the signer's first, then those above it.")
    ] = None
    signing_key: Annotated[Path | None, Field(description="PEM, without a password.")] = None
    trust_anchors: Annotated[
        Path | None,
        Field(description="PEM: authorities that are trusted, and signers whose images are ours."),
    ] = None
    timestamp_url: Annotated[
        str | None,
        Field(description="RFC 3161 authority, called for each image."),
        _written("https?://.+", "http://tsa.example"),
    ] = None
    model_aliases: Annotated[
        str | None,
        Field(description="NAME=MODEL,...: what clients that can't be changed call models."),
        _written(r"[^=,\s]+=[^=,\s]+(,[^=,\s]+=[^=,\s]+)*", "gpt-image-1=shop,dall-e-3=shop"),
    ] = None
    round_sizes: Annotated[
        bool,
        Field(description="Whether a size becomes the nearest that the model gives; or a 400."),
    ] = False
    public_url: Annotated[
        str | None,
        Field(description="Of this service, for links to images."),
        _written(r"https?://[^\s?#]+", "https://images.example"),
    ] = None
    link_key: Annotated[
        SecretStr | None, Field(description="Signs links; the same on all replicas.")
    ] = None
    open_metrics: Annotated[
        bool, Field(description="Whether /metrics needs no key, where others do.")
    ] = False
    open_verification: Annotated[
        str | None,
        Field(description="Of verifications without a key, as `60/minute`."),
        _written(RATE_PATTERN, "60/minute"),
    ] = None
    record_days: Annotated[int, Field(ge=1, le=36_500)] = 730
    """For which images are known again by their record."""
    max_stored_answer_bytes: Annotated[
        int, Field(ge=0, description="Of one response to a request with an Idempotency-Key.")
    ] = 8_000_000
    max_stored_answers_bytes: Annotated[
        int, Field(ge=0, description="Of all together; the key that holds most makes room.")
    ] = 256_000_000

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

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key; also where a keys file holds none any more."""
        return any((self.api_key, self.keys, self.keys_file))

    @property
    def aliases(self) -> dict[str, str]:
        """Models by the names that clients may use in place of theirs."""
        pairs = (self.model_aliases or "").split(",") if self.model_aliases else []
        return dict(pair.split("=") for pair in pairs)

    @property
    def image_limits(self) -> ImageLimits:
        """What decoding an upload may cost."""
        return ImageLimits(max_bytes=self.max_upload_bytes, max_pixels=self.max_upload_pixels)

    @model_validator(mode="after")
    def _refuse_two_key_lists(self) -> Self:
        if self.keys is not None and self.keys_file is not None:
            raise ValueError("set CATALOGAN_KEYS or CATALOGAN_KEYS_FILE, not both")
        return self

    @model_validator(mode="after")
    def _refuse_half_a_key(self) -> Self:
        if (self.signing_certificate is None) != (self.signing_key is None):
            raise ValueError("set CATALOGAN_SIGNING_CERTIFICATE and CATALOGAN_SIGNING_KEY together")
        return self

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """The proxies whose forwarding headers are believed."""
        listed = (self.trusted_proxies or "").split(",")
        return tuple(ipaddress.ip_network(one.strip(), strict=False) for one in listed if one)

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: str | None) -> str | None:
        for one in (value or "").split(","):
            try:
                ipaddress.ip_network(one.strip() or "::1", strict=False)
            except ValueError:
                raise ValueError(
                    f"{one.strip()} is no address or network such as 10.0.0.0/8"
                ) from None
        return value

    @field_validator("link_key")
    @classmethod
    def _check_link_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_LINK_KEY_CHARS:
            raise ValueError(f"must have at least {MIN_LINK_KEY_CHARS} characters: {_NEW_KEY}")
        return value

    @model_validator(mode="after")
    def _refuse_half_a_link(self) -> Self:
        if (self.public_url is None) != (self.link_key is None):
            raise ValueError("set CATALOGAN_PUBLIC_URL and CATALOGAN_LINK_KEY together")
        return self

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.api_key is None:
            return self
        key = self.api_key.get_secret_value()
        if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"the API key must have at least {MIN_KEY_CHARS} printable ASCII characters "
                f"without blanks: {_NEW_KEY}"
            )
        if key_bits(key) < MIN_KEY_BITS:
            raise ValueError(f"the API key is too easy to guess: {_NEW_KEY}")
        return self


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` win over it, None means not set.

    Raises:
        SettingsError: Names the variable at fault; never shows a key.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        found = [
            f"CATALOGAN_{one.place.partition('.')[0].upper()}: {one.message}"
            if one.place
            else one.message
            for one in problems(error)
        ]
        raise SettingsError("; ".join(found)) from None
