"""Keys that images are signed with: created for development, or read from the operator's files."""

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.errors import SettingsError
from service.provenance.certificates import (
    CERTIFICATE_SETTING,
    check_chain,
    check_signer,
    organization_of,
    pem_of,
    read_certificates,
)

CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"
ROOT_FILE: Final = "root.pem"
MAX_NAME_CHARS: Final = 64  # X.520's bound
DEVELOPMENT_DAYS: Final = 3650
# Clocks of machines differ.
BACKDATED: Final = timedelta(hours=1)

KEY_SETTING: Final = "CATALOGAN_SIGNING_KEY"


@dataclass(frozen=True)
class SigningKey:
    """What images are signed with.

    Attributes:
        algorithm: In the words of c2pa.
        chain: PEM of the signer's certificate and those between it and the root.
        private_key: PEM, PKCS #8.
        anchors: PEM of the chain's authorities: who verifies images trusts them.
        organization: The signer's, as its certificate names it.
        expires: When the first certificate of the chain does.
    """

    algorithm: str
    chain: bytes
    private_key: bytes = field(repr=False)
    anchors: bytes
    organization: str
    expires: datetime


def create_development_keys(folder: Path, organization: str) -> None:
    """Create a root and a signer's certificate under it, and forget the root's key.

    Writes certificate.pem (the signer's and the root's), key.pem (the signer's, for its owner
    alone) and root.pem. Without the root's key nobody can ever sign under this root but the one
    signer.

    Args:
        folder: Created if missing.
        organization: Named in both certificates.

    Raises:
        FileExistsError: One of the files is there already.
        OSError: They can't be written.
        ValueError: The organization can't be written into a certificate.
    """
    if not 1 <= len(organization) <= MAX_NAME_CHARS or not organization.isprintable():
        raise ValueError(f"must have 1 to {MAX_NAME_CHARS} printable characters")
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = _name(organization, "Catalogan development root")
    signer_name = _name(organization, "Catalogan development signer")
    root = _certificate(root_name, root_name, root_key, root_key, signer=False)
    leaf = _certificate(signer_name, root_name, key, root_key, signer=True)
    pems = [one.public_bytes(Encoding.PEM) for one in (leaf, root)]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (CERTIFICATE_FILE, KEY_FILE, ROOT_FILE):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(folder / KEY_FILE, private, 0o600)
    _write_new(folder / ROOT_FILE, pems[1], 0o644)
    _write_new(folder / CERTIFICATE_FILE, b"".join(pems), 0o644)


def find_development_keys(folder: Path) -> Path:
    """Return the folder of this service's own keys; create them at the first start.

    Raises:
        OSError: They can't be written.
    """
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".keys-") as aside:
            created = Path(aside) / "keys"
            create_development_keys(created, "Catalogan development")
            try:
                created.rename(folder)  # at once: another process may start now, too
            except OSError:
                if not folder.exists():
                    raise
    return folder


def read_signing_key(
    certificate_path: Path, key_path: Path, anchors: Sequence[x509.Certificate] = ()
) -> SigningKey:
    """Read and check what the operator signs with.

    Args:
        certificate_path: PEM, the signer's certificate first, then those above it.
        key_path: PEM of its private key, without a password.
        anchors: Further authorities that are known, which may be above the chain.

    Raises:
        SettingsError: They can't be read, don't fit each other, or can't sign images; names
            the setting at fault.
    """
    key = _read_private_key(key_path)
    algorithm = _algorithm(key)
    chain = read_certificates(certificate_path, CERTIFICATE_SETTING)
    leaf = chain[0]
    if leaf.public_key().public_bytes(*_PUBLIC) != key.public_key().public_bytes(*_PUBLIC):
        raise SettingsError(
            f"{KEY_SETTING}: {key_path} is not the key of the first certificate in "
            f"{certificate_path}"
        )
    check_signer(leaf, certificate_path)
    check_chain(chain, certificate_path, anchors)
    return SigningKey(
        algorithm=algorithm,
        chain=pem_of([one for one in chain if one is leaf or one.issuer != one.subject]),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        anchors=pem_of(chain[1:]),
        organization=organization_of(leaf) or "",
        expires=min(one.not_valid_after_utc for one in chain),
    )


def _read_private_key(path: Path) -> PrivateKeyTypes:
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{KEY_SETTING}: {path}: {error.strerror or error}") from None
    # The group may read: that is how orchestrators hand secrets to one container's user.
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise SettingsError(
            f"{KEY_SETTING}: {path} can be read or written by others (mode "
            f"{stat.S_IMODE(mode):04o}): chmod 600 it, or mount the secret with mode 0440"
        )
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise SettingsError(f"{KEY_SETTING}: {path} is locked by a password") from None
    except ValueError:
        raise SettingsError(f"{KEY_SETTING}: {path} holds no private key in PEM") from None


def _algorithm(key: PrivateKeyTypes) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in curves:
            return curves[key.curve.name]
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise SettingsError(
        f"{KEY_SETTING}: must be a key of ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 bits)"
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    signer: bool,
) -> x509.Certificate:
    """A signer's certificate, else an authority's that has no other below it."""
    now = datetime.now(UTC)
    public, issuer_public = key.public_key(), issuer_key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=DEVELOPMENT_DAYS))
        .add_extension(
            x509.BasicConstraints(ca=not signer, path_length=None if signer else 0), True
        )
        .add_extension(_key_usage(signer), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), False)
    )
    if signer:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(signer: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signer,
        key_cert_sign=not signer,
        crl_sign=not signer,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


_PUBLIC: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
