"""What a file says of its own origin, in XMP and in its C2PA manifest: read, not checked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from service.provenance.claim_signature import active_manifest
from service.provenance.containers import manifest_store, xmp_packets
from service.provenance.xmp import COMPOSITE, ENHANCED, NAMESPACE, SYNTHETIC

IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DESCRIPTION: Final = f"{RDF} Description"
_RESOURCE: Final = f"{RDF} resource"
_MAX_DEPTH: Final = 100
# How UTF-16 begins.
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")


@dataclass(frozen=True)
class Xmp:
    """What an XMP packet says.

    Attributes:
        source_type: One of IPTC's digital source types, as a URI; None = it says nothing.
        catalogan: Our properties by name, such as seed and model.
    """

    source_type: str | None
    catalogan: dict[str, str]


def read_xmp(data: bytes) -> Xmp | None:
    """Find the first XMP packet of a file that says what is wanted.

    Args:
        data: Any bytes.

    Returns:
        What it says; None where there is no packet that can be read.
    """
    found = None
    for xmp in _read_packets(data):
        if xmp.source_type or xmp.catalogan:
            return xmp
        found = found or xmp
    return found


def edited_source_type(photo: bytes) -> str:
    """What an edited image of `photo` is: an edit does not take the mark of a synthetic one.

    It is enough that one of its XMP packets says so, or its C2PA manifest. What only a photo
    behind it was makes it a composite.
    """
    said = [xmp.source_type for xmp in _read_packets(photo) if xmp.source_type in SYNTHETIC]
    if said:
        return str(said[0])
    store = manifest_store(photo) or b""
    active = active_manifest(store)
    for kind in SYNTHETIC:
        if active is not None and _names(active[1], kind):
            return kind
    return COMPOSITE if any(_names(store, kind) for kind in SYNTHETIC) else ENHANCED


def _names(manifest: bytes, kind: str) -> bool:
    """Whether a manifest holds an IPTC term; assertions are CBOR or JSON, texts in both plain."""
    term = kind.partition("://")[2].encode()  # http or https
    # No longer term, such as compositeWith..., ends like a shorter one: the slash is in it.
    return term in manifest


def _read_packets(data: bytes) -> Iterator[Xmp]:
    prefix = f"{NAMESPACE} "
    for packet in xmp_packets(data):
        said = _properties(packet)
        if said is not None:
            source_type = said.get(f"{IPTC} DigitalSourceType", "").replace("https:", "http:", 1)
            yield Xmp(
                source_type or None,
                {k.removeprefix(prefix): v for k, v in said.items() if k.startswith(prefix)},
            )


class _Refused(Exception):
    """The packet holds what no XMP has."""


@dataclass
class _Reading:
    """The properties of all rdf:Description, whatever wraps them; names are "NAMESPACE NAME"."""

    said: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.open) > _MAX_DEPTH:
            raise _Refused
        if name == _DESCRIPTION:
            self.said |= attributes
        elif self.open[-1:] == [_DESCRIPTION]:
            self.text.clear()
            if _RESOURCE in attributes:
                self.said[name] = attributes[_RESOURCE]
        self.open.append(name)

    def read(self, text: str) -> None:
        self.text.append(text)

    def end(self, name: str) -> None:
        self.open.pop()
        if self.open[-1:] == [_DESCRIPTION] and (text := "".join(self.text).strip()):
            self.said[name] = text

    def refuse(self, *_: object) -> None:
        raise _Refused


def _properties(packet: bytes) -> dict[str, str] | None:
    """Read a packet; of UTF-8 or, by its first bytes, UTF-16. None where it is no XML."""
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.read
    parser.StartDoctypeDeclHandler = reading.refuse  # its entities may expand without end
    try:
        parser.Parse(packet if packet[:2] in _WIDE else packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, _Refused, ValueError):
        return None
    return reading.said
