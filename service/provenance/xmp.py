"""What a file says of its origin in XMP, in the words of IPTC."""

import re
from dataclasses import dataclass
from typing import Final
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
        manifest: The first photo's own manifest, as of `kept_manifest`.
    """

    source_type: str
    seed: int
    model: str | None = None
    model_hash: str | None = None
    category: str | None = None
    parameters: str | None = None
    truncation_psi: float | None = None
    photos: tuple[str, ...] = ()
    manifest: bytes | None = None

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
