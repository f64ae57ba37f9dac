"""Signed links: what a path may ask of the service without a key, for an hour."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from service.settings import Settings

LIFETIME_SEC: Final = 3_600
# Of what else the key may once sign, nothing can stand for a link.
_PURPOSE: Final = b"catalogan image link\0"


class Links:
    """Signs and reads links; where the operator wants none, there are none."""

    def __init__(self, settings: Settings) -> None:
        """Take key and address from `settings`."""
        self._key: Final = (
            settings.link_key.get_secret_value().encode() if settings.link_key else None
        )
        self._address: Final = (settings.public_url or "").rstrip("/")

    @property
    def enabled(self) -> bool:
        """Whether responses may hold links."""
        return self._key is not None

    def sign(self, path: str, content: Mapping[str, Any]) -> str:
        """A URL under `path` that stands for `content` until it expires."""
        expiring = {**content, "expires": int(time.time()) + LIFETIME_SEC}
        payload = json.dumps(expiring, ensure_ascii=False, separators=(",", ":")).encode()
        return f"{self._address}{path}{_text(payload)}.{_text(self._signature(payload))}"

    def read(self, link: str) -> dict[str, Any] | None:
        """What a link stands for; None where it is another's, was changed, or has expired."""
        payload, _, signature = (_bytes(part) for part in link.partition("."))
        if self._key is None or payload is None or signature is None:
            return None
        if not hmac.compare_digest(signature, self._signature(payload)):
            return None
        content: dict[str, Any] = json.loads(payload)
        return content if content.pop("expires") > time.time() else None

    def _signature(self, payload: bytes) -> bytes:
        return hmac.digest(self._key or b"", _PURPOSE + payload, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes | None:
    """What `_text` wrote so, and nothing else."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if _text(data) == text else None
