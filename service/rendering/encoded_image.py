"""An encoded image and what is said of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.provenance.xmp import Mark


@dataclass(frozen=True)
class Finished:
    """An encoded picture and what is said of it.

    Attributes:
        data: The file.
        facts: Said beside it.
        mark: Said in it.
        sha256: Of the file, hex; made where it is encoded, not on the event loop.
        mask: A PNG, if it has one.
    """

    data: bytes
    facts: Mapping[str, Any]
    mark: Mark
    sha256: str
    mask: bytes | None = None


def finish(
    data: bytes, facts: Mapping[str, Any], mark: Mark, mask: bytes | None = None
) -> Finished:
    """Put an encoded picture together with what is said of it."""
    return Finished(data, facts, mark, hashlib.sha256(data).hexdigest(), mask)
