"""The names of files in a form, in the ways in which clients write them."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# RFC 8187: charset, language, and the name percent-encoded. Quoted values are stepped over.
_EXTENDED: Final = re.compile(
    rb"""
    ; \s* (?:
        filename\* \s* = \s* (?P<charset>[\w.-]*) ' [\w-]* ' (?P<name>[^;\s"]*)
        | [\w*-]+ \s* = \s* "(?:[^"\\]|\\.)*"
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What HTML's forms encode in a name, and nothing else; curl, requests and httpx do the same.
_FORM_ESCAPES: Final = re.compile("%(22|0A|0D)", re.IGNORECASE)


def extended_name(disposition: bytes) -> str | None:
    """The name that a Content-Disposition has as `filename*`; None where it has none.

    The standard of forms has no such parameter, but some clients send a name beyond ASCII so,
    alone or beside another. It is UTF-8 or Latin-1: no client chooses another codec.
    """
    for found in _EXTENDED.finditer(disposition):
        if found["name"] is not None:
            latin = found["charset"].lower() == b"iso-8859-1"
            return unquote_to_bytes(found["name"]).decode(
                "latin-1" if latin else "utf-8", "replace"
            )
    return None


def plain_name(name: str) -> str:
    """A name as its file has it, of what came as `filename`."""
    return _FORM_ESCAPES.sub(lambda found: chr(int(found[1], 16)), name)
