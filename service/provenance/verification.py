"""Is an image from this service? Each layer of marks is checked, and says what it proves."""

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cryptography.x509.oid import NameOID
from pydantic import BaseModel, Field

from models.image_formats import describe_unaccepted, sniff_format
from models.watermark import PAYLOAD_BITS
from service.errors import NotReady, UnsupportedImage
from service.provenance.manifests import Manifest, made_by_us, read_manifest
from service.provenance.marker import DEVELOPMENT_FOLDER
from service.provenance.signing_keys import (
    CERTIFICATE_FILE,
    CERTIFICATE_SETTING,
    SigningKey,
    pem_of,
    read_certificates,
)
from service.provenance.watermarks import Unreadable, Watermark
from service.provenance.xmp import read_xmp
from service.settings import Settings, data_folder
from service.storage.records import Record

MAX_TEXT_CHARS: Final = 1000
_SEED: Final = re.compile("[0-9]{1,16}")

Verdict = Literal["ours", "tampered", "derived", "claimed", "unknown"]
Strength = Literal["proof", "evidence", "claim", "none"]
FindRecord = Callable[[str], Record | None]
# Whether any model has a watermark, and the one that is there.
FindWatermark = Callable[[bytes], tuple[bool, Watermark | None]]


class Claims(BaseModel):
    """What a layer says of the image."""

    source_type: Annotated[str | None, Field(description="IPTC's digital source type.")] = None
    model: Annotated[str | None, Field(description='"name:version"')] = None
    model_hash: str | None = None
    seed: int | None = None
    category: str | None = None
    truncation_psi: float | None = None
    photo_sha256: Annotated[str | None, Field(description="Of the photo behind it.")] = None
    created: Annotated[int | None, Field(description="Unix time.")] = None


class Signer(BaseModel):
    """Who signed, as the certificate names it."""

    organization: str | None
    common_name: str | None


class Layer(BaseModel):
    """One way in which an image may be known again."""

    layer: Annotated[str, Field(description="c2pa, record, watermark, xmp; more may come.")]
    status: Annotated[
        str,
        Field(
            description="c2pa: trusted, untrusted, tampered, unreadable, absent; record: found, "
            "absent, unavailable; watermark: found, absent, unavailable, unreadable; xmp: found, "
            "absent."
        ),
    ]
    strength: Annotated[
        Strength,
        Field(
            description="proof: can't be forged; evidence: only who has the model could; claim: "
            "anybody can write it."
        ),
    ]
    says: str
    claims: Claims | None = None
    signer: Signer | None = None


class Verification(BaseModel):
    """Response of POST /v1/verifications, and of `catalogan verify --json`."""

    object: Literal["verification"] = "verification"
    ours: Annotated[bool, Field(description="Proven, and intact.")]
    verdict: Annotated[
        Verdict,
        Field(
            description="ours: made by this service; tampered: made by it, changed since; derived: "
            "it carries a model's watermark, in a file that isn't known; claimed: it says so, "
            "unproven; unknown: nothing says so."
        ),
    ]
    sha256: Annotated[str, Field(description="Of the file.")]
    claims: Annotated[Claims, Field(description="Those of the strongest layer that has any.")]
    layers: Annotated[list[Layer], Field(description="Strongest first.")]


class Verifier:
    """Verifies files; any number of threads may share one."""

    def __init__(self, anchors: bytes, organization: str | None) -> None:
        """Trust signers.

        Args:
            anchors: PEM of the authorities whose signers are trusted.
            organization: Only its images are this service's; None = all signed under them.
        """
        self._anchors: Final = anchors
        self._organization: Final = organization

    def verify(
        self,
        data: bytes,
        find_record: FindRecord | None,
        find_watermark: FindWatermark | None = None,
    ) -> Verification:
        """Verify a file; a tenth of a second where it is signed, a second where nothing is found.

        Args:
            data: Any bytes.
            find_record: Looks a record up by the SHA-256; None = there are no records here.
            find_watermark: Looks for the watermarks of our models. It alone decodes the image,
                and is looked for only where nothing stronger speaks for it. None = not looked for.

        Raises:
            UnsupportedImage: It is no image of an accepted type.
        """
        kind = sniff_format(data)
        if kind is None:
            raise UnsupportedImage(
                f"this can't be verified: {describe_unaccepted(data)}", param="image"
            )
        sha256 = hashlib.sha256(data).hexdigest()
        manifest = read_manifest(data, f"image/{kind.lower()}", self._anchors)
        by_us = made_by_us(manifest, self._organization)
        layers = [
            _c2pa_layer(manifest, by_us),
            _record_layer(sha256, find_record),
            _xmp_layer(data),
        ]
        if not any(layer.strength == "proof" for layer in layers):
            layers.append(_watermark_layer(data, find_watermark))
        layers.sort(key=lambda layer: ("proof", "evidence", "claim", "none").index(layer.strength))
        verdict = _verdict(layers, tampered=by_us and manifest.status == "tampered")
        return Verification(
            ours=verdict == "ours",
            verdict=verdict,
            sha256=sha256,
            claims=next((one.claims for one in layers if one.claims), Claims()),
            layers=layers,
        )


def open_verifier(settings: Settings, key: SigningKey | None = None) -> Verifier:
    """Set up a verifier that knows the operator's own images.

    Args:
        settings: Name the certificate that signs, and further anchors.
        key: That signs now, where it is not that of the settings.

    Raises:
        SettingsError: A certificate can't be read.
    """
    anchors = key.anchors if key is not None else b""
    organization = key.organization if key is not None else None
    path = settings.signing_certificate
    if key is None and path is None:
        created = data_folder(settings) / DEVELOPMENT_FOLDER / CERTIFICATE_FILE
        path = created if created.exists() else None
    if key is None and path is not None:
        leaf, *above = read_certificates(path, CERTIFICATE_SETTING)
        anchors += pem_of(above)
        names = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        organization = str(names[0].value) if names else None
    if settings.trust_anchors is not None:
        anchors += pem_of(read_certificates(settings.trust_anchors, "CATALOGAN_TRUST_ANCHORS"))
    return Verifier(anchors, organization)


def _verdict(layers: list[Layer], *, tampered: bool) -> Verdict:
    if any(layer.strength == "proof" for layer in layers):
        return "ours"
    if tampered:
        return "tampered"
    if any(layer.strength == "evidence" for layer in layers):
        return "derived"
    claimed = any(
        layer.claims is not None and (layer.claims.model or layer.claims.seed is not None)
        for layer in layers
    )
    return "claimed" if claimed else "unknown"


_C2PA_SAYS: Final = {
    "trusted": "Intact, and signed by a signer that is trusted here.",
    "untrusted": "Intact, but anybody may have signed it: the signer is not trusted here.",
    "tampered": "The file is not what was signed: it was changed since.",
    "unreadable": "There is a manifest, but it can't be read.",
    "absent": "No manifest; saving an image again takes it away.",
}


def _c2pa_layer(manifest: Manifest, by_us: bool) -> Layer:
    read = manifest.claims is not None
    says = _C2PA_SAYS[manifest.status]
    if manifest.status == "trusted" and not by_us:
        says += " It is not this service's."
    proven = by_us and manifest.status == "trusted"
    return Layer(
        layer="c2pa",
        status=manifest.status,
        strength="proof" if proven else "claim" if read else "none",
        says=says,
        claims=_claims(manifest.claims) if manifest.claims else None,
        signer=Signer(organization=manifest.organization, common_name=manifest.common_name)
        if read
        else None,
    )


def _record_layer(sha256: str, find_record: FindRecord | None) -> Layer:
    try:
        record = find_record(sha256) if find_record is not None else None
    except NotReady:
        find_record, record = None, None
    if find_record is None:
        says = "Records can't be looked up here and now."
        return Layer(layer="record", status="unavailable", strength="none", says=says)
    if record is None:
        says = "No record of these very bytes; one changed byte makes another file."
        return Layer(layer="record", status="absent", strength="none", says=says)
    says = "The service noted these very bytes when it handed them out."
    claims = Claims.model_validate(record, from_attributes=True)
    return Layer(layer="record", status="found", strength="proof", says=says, claims=claims)


def _watermark_layer(data: bytes, find_watermark: FindWatermark | None) -> Layer:
    def layer(status: str, says: str, **more: Any) -> Layer:
        return Layer(layer="watermark", status=status, says=says, **{"strength": "none", **more})

    try:
        known, watermark = (False, None) if find_watermark is None else find_watermark(data)
    except Unreadable as error:
        return layer("unreadable", f"It can't be looked at: {error}.")
    if not known:
        return layer("unavailable", "No model here has a watermark.")
    if watermark is None:
        return layer("absent", "None of this service's models marked it, or too much was changed.")
    model, found = watermark.model, watermark.found
    says = (
        f"Made from an image of this model: {PAYLOAD_BITS - found.errors} of {PAYLOAD_BITS} bits "
        "are its own, by chance in one image of a million at most."
    )
    claims = Claims(model=model.model_id, model_hash=model.manifest.model_hash)
    return layer("found", says, strength="evidence", claims=claims)


def _xmp_layer(data: bytes) -> Layer:
    xmp = read_xmp(data)
    if xmp is None or not (xmp.source_type or xmp.catalogan):
        says = "No XMP that names an origin; saving an image again may take it away."
        return Layer(layer="xmp", status="absent", strength="none", says=says)
    own = xmp.catalogan
    seed = own.get("seed", "")
    said = {
        "source_type": xmp.source_type,
        "model": own.get("model"),
        "model_sha256": own.get("modelSha256"),
        "category": own.get("category"),
        "photo_sha256": own.get("photoSha256"),
        "seed": int(seed) if _SEED.fullmatch(seed) else None,
    }
    says = "Anybody can write or copy this: by itself it proves nothing."
    return Layer(layer="xmp", status="found", strength="claim", says=says, claims=_claims(said))


def _claims(said: Mapping[str, Any]) -> Claims:
    """Take what has the type that it should have; strangers may have written anything."""
    texts = {
        name: value[:MAX_TEXT_CHARS]
        for name in ("source_type", "model", "category", "photo_sha256")
        if isinstance(value := said.get(name), str)
    }
    model_hash, seed = said.get("model_sha256"), said.get("seed")
    psi: Any = said.get("truncation_psi")
    return Claims(
        **texts,
        model_hash=model_hash[:MAX_TEXT_CHARS] if isinstance(model_hash, str) else None,
        seed=seed if type(seed) is int and abs(seed) < 2**63 else None,
        truncation_psi=float(psi) if type(psi) in (int, float) and abs(psi) < 1e6 else None,
        created=_unix_time(said.get("created")),
    )


def _unix_time(text: Any) -> int | None:
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None
