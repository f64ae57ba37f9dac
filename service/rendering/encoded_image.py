"""An encoded image and what is said of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from service.provenance.xmp import Mark


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image and what is said of it.

    Attributes:
        data: The file.
        metadata: Said beside it.
        mark: Said in it.
        sha256: Of the file, hex; computed where it is encoded, not on the event loop.
        mask: A PNG, if it has one.
    """

    data: bytes
    metadata: Mapping[str, Any]
    mark: Mark
    sha256: str
    mask: bytes | None = None

    @classmethod
    def of(
        cls, data: bytes, metadata: Mapping[str, Any], mark: Mark, mask: bytes | None = None
    ) -> Self:
        """Put an encoded image together with what is said of it."""
        return cls(data, metadata, mark, hashlib.sha256(data).hexdigest(), mask)
