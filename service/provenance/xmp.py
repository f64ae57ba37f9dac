"""What a file says of its origin in XMP, in the words of IPTC: written and read."""

import re
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED: Final = SOURCE_TYPES + "trainedAlgorithmicMedia"
COMPOSITE: Final = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
ENHANCED: Final = SOURCE_TYPES + "algorithmicallyEnhanced"
# Images of which at least a part was generated.
SYNTHETIC: Final = (GENERATED, COMPOSITE)
NAMESPACE: Final = "urn:catalogan:xmp:1"
_NOT_XML: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


@dataclass(frozen=True)
class Mark:
    """What an image says of its origin.

    Attributes:
        source_type: One of IPTC's digital source types, as an http URI.
        seed: The seed that reproduces the image.
        model: "name:version", where a model generated it.
        model_hash: SHA-256 of the generator.
        category: What was requested.
        parameters: What else fixes the image, JSON.
        truncation_psi: How far from the mean image it may be.
        photos: SHA-256, hex, of the uploaded photos that it is based on; the nearest first.
    """

    source_type: str
    seed: int
    model: str | None = None
    model_hash: str | None = None
    category: str | None = None
    parameters: str | None = None
    truncation_psi: float | None = None
    photos: tuple[str, ...] = ()

    @property
    def photo_sha256(self) -> str | None:
        """Of the nearest photo."""
        return self.photos[0] if self.photos else None

    @property
    def generated(self) -> bool:
        """Whether a model generated all of it; else it is an edited photo."""
        return self.model is not None


def xmp_packet(mark: Mark) -> bytes:
    """Write `mark` as an XMP packet, UTF-8. Equal marks give equal bytes."""
    properties = {
        "Iptc4xmpExt:DigitalSourceType": mark.source_type,
        "Iptc4xmpExt:AISystemUsed": "Catalogan" if mark.model else None,
        "Iptc4xmpExt:AISystemVersionUsed": mark.model,
        "catalogan:seed": str(mark.seed),
        "catalogan:model": mark.model,
        "catalogan:modelSha256": mark.model_hash,
        "catalogan:category": mark.category,
        "catalogan:photoSha256": mark.photo_sha256,
        "catalogan:recipe": mark.parameters,
        "catalogan:truncationPsi": None
        if mark.truncation_psi is None
        else f"{mark.truncation_psi}",
    }
    attributes = "".join(
        f"\n    {name}={quoteattr(_xml_text(value))}" for name, value in properties.items() if value
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about=""\n'
        '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
        f'    xmlns:catalogan="{NAMESPACE}"{attributes}/>\n'
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    ).encode()


def _xml_text(value: str) -> str:
    """Replace characters that XML 1.0 can't hold, escaped or not."""
    return _NOT_XML.sub("\ufffd", value)


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
    """Find the first XMP packet of a file that says what is wanted.

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
    """What an edited image of `photo` is: an edit does not take the mark of a synthetic one."""
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
