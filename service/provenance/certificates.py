"""Certificates that operators hand over: read, and checked for what they are to do."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.errors import SettingsError

CERTIFICATE_SETTING: Final = "CATALOGAN_SIGNING_CERTIFICATE"
ANCHORS_SETTING: Final = "CATALOGAN_TRUST_ANCHORS"

# What a signer's certificate may be for, by the C2PA specification; one is enough.
PURPOSES: Final = {
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"): "documentSigning",
    x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1"): "c2pa-kp-claimSigning",
}


def read_certificates(path: Path, setting: str) -> list[x509.Certificate]:
    """Read a PEM file of at least one certificate.

    Raises:
        SettingsError: It can't be read; names `setting`.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{setting}: {path}: {error.strerror or error}") from None
    except ValueError:
        raise SettingsError(f"{setting}: {path} holds no certificates in PEM") from None


def pem_of(certificates: Sequence[x509.Certificate]) -> bytes:
    """All of them in one file."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate may issue others, and so is no signer's."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return certificate.issuer == certificate.subject
    return constraints.value.ca


def organization_of(certificate: x509.Certificate) -> str | None:
    """The subject's organization, O; None where it is missing or blank."""
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return (str(names[0].value).strip() or None) if names else None


def check_signer(leaf: x509.Certificate, path: Path) -> None:
    """Refuse a certificate that can't be a signer's.

    Args:
        leaf: The first certificate of `path`.
        path: Named in errors.

    Raises:
        SettingsError: Says what it lacks.
    """
    purposes: Sequence[x509.ObjectIdentifier] = ()
    signs = authority = False
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            purposes = list(extension.value)
        elif isinstance(extension.value, x509.KeyUsage):
            signs = extension.value.digital_signature
        elif isinstance(extension.value, x509.BasicConstraints):
            authority = extension.value.ca
    first = f"{CERTIFICATE_SETTING}: the first certificate of {path}"
    if authority:
        raise SettingsError(f"{first} is an authority's: the signer's own must come first")
    if not signs:
        raise SettingsError(f"{first} lacks the key usage digitalSignature")
    if not set(purposes) & set(PURPOSES):
        wanted = " or ".join(PURPOSES.values())
        raise SettingsError(f"{first} lacks the extended key usage {wanted}")
    if not organization_of(leaf):
        raise SettingsError(
            f"{first} names no organization (O) in its subject: C2PA's readers show it as the "
            "signer; have it issued again with one"
        )


def check_chain(
    chain: Sequence[x509.Certificate], path: Path, anchors: Sequence[x509.Certificate]
) -> None:
    """Refuse a chain that readers can't follow from the signer to an authority.

    Args:
        chain: The certificates of `path`: the signer's, then each one's issuer. The root may be
            missing where there is an authority between.
        path: Named in errors.
        anchors: Authorities from elsewhere that may be the first one's issuer.

    Raises:
        SettingsError: One has expired, is not valid yet, or lacks its issuer.
    """
    _check_dates(chain, path)
    for place, (one, issuer) in enumerate(pairwise(chain), start=1):
        if one.issuer == one.subject:
            return
        if not _issued(one, issuer):
            raise SettingsError(_missing(place, one, path))
    if len(chain) == 1 and not any(_issued(chain[0], issuer) for issuer in anchors):
        raise SettingsError(_missing(1, chain[0], path))


def _issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _missing(place: int, one: x509.Certificate, path: Path) -> str:
    return (
        f"{CERTIFICATE_SETTING}: {path} lacks the authority that issued certificate {place}, "
        f"{one.issuer.rfc4514_string()}: append its certificate, so that the file has the "
        "signer's first, then each one's issuer"
    )


def _check_dates(chain: Sequence[x509.Certificate], path: Path) -> None:
    now = datetime.now(UTC)
    for place, certificate in enumerate(chain, start=1):
        which = f"{CERTIFICATE_SETTING}: certificate {place} of {path}"
        if certificate.not_valid_after_utc <= now:
            raise SettingsError(f"{which} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        if certificate.not_valid_before_utc > now:
            raise SettingsError(
                f"{which} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            )
