"""Is an image from this service? Each layer of marks is checked, and says what it proves."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from models.image_formats import describe_unaccepted, sniff_format
from models.watermark import PAYLOAD_BITS
from service.data_folder import data_folder
from service.errors import NotReady, UnsupportedImage
from service.provenance.certificates import (
    ANCHORS_SETTING,
    CERTIFICATE_SETTING,
    is_authority,
    pem_of,
    read_certificates,
)
from service.provenance.layers import Claims, Layer, Signer, Verdict, Verification
from service.provenance.manifests import Manifest, read_manifest
from service.provenance.marker import DEVELOPMENT_FOLDER
from service.provenance.origin import read_xmp
from service.provenance.signing_keys import CERTIFICATE_FILE, SigningKey
from service.provenance.watermarks import Unreadable, Watermark
from service.settings import Settings
from service.storage.records import Record

logger = logging.getLogger(__name__)

MAX_TEXT_CHARS: Final = 1000
_SEED: Final = re.compile("[0-9]{1,16}")

FindRecord = Callable[[str], Record | None]
# Whether any model has a watermark, and the one that is there.
FindWatermark = Callable[[bytes], tuple[bool, Watermark | None]]


class Verifier:
    """Verifies files; any number of threads may share one."""

    def __init__(self, anchors: bytes, own: Sequence[x509.Certificate]) -> None:
        """Trust signers, and know one's own.

        Args:
            anchors: PEM of the authorities whose signers are trusted.
            own: This service's signers: what their keys signed is this service's.
        """
        self._anchors: Final = anchors
        self._keys: Final = [one.public_key() for one in own]

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
        manifest = read_manifest(data, f"image/{kind.lower()}", self._anchors, self._keys)
        layers = [
            _c2pa_layer(manifest),
            _record_layer(sha256, find_record),
            _xmp_layer(data),
        ]
        if not any(layer.strength == "proof" for layer in layers):
            layers.append(_watermark_layer(data, find_watermark))
        layers.sort(key=lambda layer: ("proof", "evidence", "claim", "none").index(layer.strength))
        verdict = _verdict(layers, manifest)
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
    path = settings.signing_certificate
    if key is None and path is None:
        created = data_folder(settings) / DEVELOPMENT_FOLDER / CERTIFICATE_FILE
        path = created if created.exists() else None
    known: list[x509.Certificate] = []
    if key is not None:
        known += x509.load_pem_x509_certificates(key.chain + key.anchors)
    elif path is not None:
        known += read_certificates(path, CERTIFICATE_SETTING)
    if settings.trust_anchors is not None:
        known += read_certificates(settings.trust_anchors, ANCHORS_SETTING)
    own = [one for one in known if not is_authority(one)]
    if known and not own:
        logger.warning(
            "%s names authorities alone: what their signers sign is trusted, but no image is this "
            "service's; add your signers' certificates",
            ANCHORS_SETTING,
        )
    return Verifier(pem_of([one for one in known if is_authority(one)]), own)


def _verdict(layers: list[Layer], manifest: Manifest) -> Verdict:
    if any(layer.strength == "proof" for layer in layers):
        return "ours"
    if manifest.own and manifest.status == "tampered":
        return "tampered"
    if manifest.own and manifest.status == "expired":
        return "expired"
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
    "expired": "Unchanged since it was signed, but the signer's certificate has ended, and no time "
    "stamp that is trusted here says that it was signed before.",
    "tampered": "The file is not what was signed: it was changed since.",
    "unreadable": "There is a manifest, but it is damaged or against C2PA's rules.",
    "absent": "No manifest; saving an image again takes it away.",
}


def _c2pa_layer(manifest: Manifest) -> Layer:
    read = manifest.claims is not None
    says = _C2PA_SAYS[manifest.status]
    if manifest.status == "trusted":
        says += " It is this service's." if manifest.own else " It is not this service's."
    proven = manifest.own and manifest.status == "trusted"
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
