"""What a file's C2PA manifest says, and what its signature is worth."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from service.provenance.signing import ASSERTION, GENERATOR

READER: Final = Path(__file__).with_name("read_manifest.py")
TIMEOUT_SEC: Final = 20
# Whatever holds a manifest holds one of these.
_TRACES: Final = (b"c2pa", b"C2PA_GIF", b"jumb")
# What the reader is notified of of our environment: no settings, no secrets.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")

Status = Literal["trusted", "untrusted", "tampered", "unreadable", "absent"]


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        status: trusted = intact, under one of our anchors; untrusted = intact, signed by
            anybody; tampered = the file is not what was signed.
        anchored: Whether the signer is under one of our anchors, also of a tampered file.
        generator: Who says that it made the image.
        organization: The signer's, as its certificate names it.
        common_name: The signer's.
        claims: Our assertion, and the action's digitalSourceType and time; of any type, for
            anybody may have signed them.
    """

    status: Status
    anchored: bool = False
    generator: str | None = None
    organization: str | None = None
    common_name: str | None = None
    claims: dict[str, Any] | None = None


def read_manifest(data: bytes, media_type: str, anchors: bytes) -> Manifest:
    """Read and check a file's manifest, in a process that may crash or hang.

    Args:
        data: Any bytes.
        media_type: What they are, or pretend to be.
        anchors: PEM of the authorities that are trusted.
    """
    if not any(trace in data for trace in _TRACES):
        return Manifest("absent")
    requested = json.dumps({"media_type": media_type, "anchors": anchors.decode("ascii")})
    try:
        done = subprocess.run(  # noqa: S603 - Catalogan's own program
            [sys.executable, "-P", str(READER)],
            input=requested.encode() + b"\n" + data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            timeout=TIMEOUT_SEC,
            check=True,
        )
        return parse_report(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError, OSError):
        return Manifest("unreadable")


def parse_report(report: Any) -> Manifest:
    """What the reader's report means."""
    if report == {}:
        return Manifest("absent")
    if not isinstance(report, dict) or not isinstance(report.get("manifest"), dict):
        return Manifest("unreadable")
    manifest, codes = report["manifest"], report["codes"]
    states: dict[str, Status] = {"Trusted": "trusted", "Valid": "untrusted"}
    generators = manifest.get("claim_generator_info") or [{}]
    signature = manifest.get("signature_info") or {}
    listed = reversed(manifest.get("assertions") or [])
    assertions = {str(one.get("label")): one.get("data") for one in listed}
    own = assertions.get(ASSERTION)
    return Manifest(
        status=states.get(report["state"], "tampered"),
        anchored="signingCredential.trusted" in codes and "claimSignature.validated" in codes,
        generator=generators[0].get("name"),
        organization=signature.get("issuer"),
        common_name=signature.get("common_name"),
        claims={**_last_action(assertions), **(own if isinstance(own, dict) else {})},
    )


def _last_action(assertions: dict[str, Any]) -> dict[str, Any]:
    data = next((assertions[k] for k in assertions if k.startswith("c2pa.actions")), None)
    actions = data.get("actions") if isinstance(data, dict) else None
    if not isinstance(actions, list) or not actions or not isinstance(actions[-1], dict):
        return {}
    return {"source_type": actions[-1].get("digitalSourceType"), "created": actions[-1].get("when")}


def made_by_us(manifest: Manifest, organization: str | None) -> bool:
    """Whether a manifest says, by a trusted signer, that this operator's Catalogan made it.

    Args:
        manifest: Of the file.
        organization: The operator's, as its certificate names it; None = any under the anchors.
    """
    own = manifest.generator == GENERATOR and organization in (None, manifest.organization)
    return manifest.anchored and own
