"""What a file's C2PA manifest says, and what its signature is worth."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from models.images import sniff_format
from service.provenance.claim_signature import is_signed_by
from service.provenance.containers import manifest_store
from service.provenance.signing import ASSERTION, GENERATOR, ingredient

READER: Final = Path(__file__).with_name("read_manifest.py")
TIMEOUT_SEC: Final = 20
# A photo's own manifest goes into each image that is made of it.
MAX_KEPT_BYTES: Final = 100_000
# Whatever holds a manifest holds one of these.
_TRACES: Final = (b"c2pa", b"C2PA_GIF", b"jumb")
# What the reader gets of our environment: no settings, no secrets.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")

_SIGNED: Final = "claimSignature.validated"
_TRUSTED: Final = "signingCredential.trusted"
_CHANGED: Final = (".mismatch", "assertion.missing", "assertion.undeclared")
_ENDED: Final = (".expired", ".outsideValidity")
# Failures that say something of the signer alone, not of the file.
_CREDENTIAL: Final = ("signingCredential.", "timeStamp.", "claimSignature.outsideValidity")

Status = Literal["trusted", "untrusted", "expired", "tampered", "unreadable", "absent"]


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        status: trusted = intact, by one of our keys or under one of our anchors; untrusted =
            intact, signed by anybody; expired = intact, but the certificate has ended and no
            time stamp says that it was signed before; tampered = the file is not what was
            signed; unreadable = damaged, or against C2PA's rules.
        own: Whether one of our keys signed it, whatever its status.
        label: Its name in the file.
        generator: Who says that it made the image.
        organization: The signer's, as its certificate names it.
        common_name: The signer's.
        claims: Our assertion, and the action's digitalSourceType and time; of any type, for
            anybody may have signed them.
    """

    status: Status
    own: bool = False
    label: str = ""
    generator: str | None = None
    organization: str | None = None
    common_name: str | None = None
    claims: dict[str, Any] | None = None


def read_manifest(
    data: bytes, media_type: str, anchors: bytes, keys: Sequence[PublicKeyTypes] = ()
) -> Manifest:
    """Read and check a file's manifest.

    Args:
        data: Any bytes.
        media_type: What they are, or pretend to be.
        anchors: PEM of the authorities that are trusted.
        keys: Our own.
    """
    if not any(trace in data for trace in _TRACES):
        return Manifest("absent")
    store = manifest_store(data) or b""
    report = _report(data, store, {"media_type": media_type, "anchors": anchors.decode()})
    manifest = parse_report(report)
    # The very store that c2pa has checked: another in the same file is not looked at.
    own = _SIGNED in _codes(report) and is_signed_by(store, manifest.label, keys)
    own = own and manifest.generator == GENERATOR
    revoked = any("revoked" in code for code in _codes(report))
    intact = own and manifest.status == "untrusted" and not revoked
    return replace(manifest, own=own, status="trusted" if intact else manifest.status)


def kept_manifest(photo: bytes, *, generated: bool) -> bytes | None:
    """Pack an uploaded photo's own manifest, so that images that are made of it can name it.

    Args:
        photo: An image of an accepted type.
        generated: Whether those images are generated; else they are the photo, edited.

    Returns:
        An archive for `ManifestSigner.sign`; None where the photo has no manifest, or one that is
        large, unreadable or of another file.
    """
    store, kind = manifest_store(photo), sniff_format(photo)
    if store is None or kind is None or len(store) > MAX_KEPT_BYTES:
        return None
    requested = {
        "media_type": f"image/{kind.lower()}",
        "anchors": "",
        "ingredient": ingredient(0, generated),
    }
    report = _report(photo, store, requested)
    if parse_report(report).status not in ("trusted", "untrusted", "expired"):
        return None
    archive = base64.b64decode(report.get("archive", ""))
    return archive if 0 < len(archive) <= 2 * MAX_KEPT_BYTES else None


def _report(data: bytes, store: bytes, requested: Mapping[str, Any]) -> Any:
    """What the reader says, in a process that may crash or hang; {"error"} where it did."""
    head = json.dumps({"ingredient": None, **requested, "store": len(store)})
    try:
        done = subprocess.run(  # noqa: S603 - Catalogan's own program
            [sys.executable, "-P", str(READER)],
            input=b"".join((head.encode(), b"\n", store, data)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            timeout=TIMEOUT_SEC,
            check=True,
        )
        return json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        return {"error": str(error)}


def parse_report(report: Any) -> Manifest:
    """What the reader's report means."""
    if report == {}:
        return Manifest("absent")
    if not isinstance(report, dict) or not isinstance(report.get("manifest"), dict):
        return Manifest("unreadable")
    manifest = report["manifest"]
    generators = manifest.get("claim_generator_info") or [{}]
    signature = manifest.get("signature_info") or {}
    listed = reversed(manifest.get("assertions") or [])
    assertions = {str(one.get("label")): one.get("data") for one in listed}
    own = assertions.get(ASSERTION)
    return Manifest(
        status=_status(report["state"], _codes(report), report["failures"]),
        label=str(manifest.get("label")),
        generator=generators[0].get("name"),
        organization=signature.get("issuer"),
        common_name=signature.get("common_name"),
        claims={**_last_action(assertions), **(own if isinstance(own, dict) else {})},
    )


def _codes(report: Any) -> Sequence[str]:
    return report.get("codes", []) if isinstance(report, dict) else []


def _status(state: str, codes: Sequence[str], failures: Sequence[str]) -> Status:
    """What C2PA's codes for the active manifest come to; a change weighs more than an end."""
    if state == "Trusted":
        return "trusted"
    if any(code.endswith(_CHANGED) for code in failures):
        return "tampered"
    if any(not code.startswith(_CREDENTIAL) for code in failures) or _SIGNED not in codes:
        return "unreadable"
    if any(code.endswith(_ENDED) for code in failures):
        return "expired"
    # Whatever else is wrong is wrong with a photo that went in.
    return "trusted" if not failures and _TRUSTED in codes else "untrusted"


def _last_action(assertions: dict[str, Any]) -> dict[str, Any]:
    data = next((assertions[k] for k in assertions if k.startswith("c2pa.actions")), None)
    actions = data.get("actions") if isinstance(data, dict) else None
    if not isinstance(actions, list) or not actions or not isinstance(actions[-1], dict):
        return {}
    return {"source_type": actions[-1].get("digitalSourceType"), "created": actions[-1].get("when")}
