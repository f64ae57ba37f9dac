"""What a file says of its origin in XMP, found without decoding it."""

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from service.marks.marking import ENHANCED, NAMESPACE, SYNTHETIC

IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MAX_PACKET_BYTES: Final = 100_000
MAX_PACKETS: Final = 4
_START: Final = b"<x:xmpmeta"
_END: Final = b"</x:xmpmeta>"


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
    """Find the first XMP packet of a file that says what we ask for.

    Packets are found by their wrapper, as the XMP specification has it for files of any kind, so
    damaged files are read as far as they can be.

    Args:
        data: Any bytes.

    Returns:
        What it says; None where there is no packet in plain UTF-8.
    """
    found = None
    start = data.find(_START)
    for _ in range(MAX_PACKETS):
        if start < 0:
            break
        end = data.find(_END, start, start + MAX_PACKET_BYTES)
        if end >= 0:
            xmp = _parse(data[start : end + len(_END)])
            if xmp is not None and (xmp.source_type or xmp.catalogan):
                return xmp
            found = found or xmp
        start = data.find(_START, start + 1)
    return found


def edited_source_type(photo: bytes) -> str:
    """What an edited picture of `photo` is: an edit does not take the mark of a synthetic one."""
    xmp = read_xmp(photo)
    return xmp.source_type if xmp and xmp.source_type in SYNTHETIC else ENHANCED


def _parse(packet: bytes) -> Xmp | None:
    try:
        # It begins with its root element, so no DTD can come whose entities expand without end.
        root = ElementTree.fromstring(packet)  # noqa: S314
    except (ElementTree.ParseError, ValueError):
        return None
    properties: dict[str, str] = {}
    for description in root.iter(f"{{{RDF}}}Description"):
        properties |= description.attrib
        properties |= {one.tag: (one.text or "").strip() for one in description if len(one) == 0}
    prefix = f"{{{NAMESPACE}}}"
    return Xmp(
        properties.get(f"{{{IPTC}}}DigitalSourceType"),
        {k.removeprefix(prefix): v for k, v in properties.items() if k.startswith(prefix)},
    )
