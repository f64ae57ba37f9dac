"""Whether one of our own keys signed a manifest's claim: by the key, whatever its certificate says.

c2pa says whether a signature fits the certificate that came with it, and whether an authority
issued that. Who is behind it, only the key says: an authority issues certificates to strangers,
too, and names repeat.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from service.provenance.bmff import boxes

_CLAIMS: Final = ("c2pa.claim.v2", "c2pa.claim")
_SIGNATURE: Final = "c2pa.signature"
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
# Ours are far smaller; larger ones are nobody's whom we know, and would take seconds.
_MAX_STORE_BYTES: Final = 4_000_000
_MAX_SIGNATURE_BYTES: Final = 100_000
_MAX_DEPTH: Final = 16


def active_manifest(store: bytes) -> tuple[str, bytes] | None:
    """Return the label and the content of a store's active manifest, which is its last.

    Args:
        store: A C2PA manifest store; any bytes.

    Returns:
        None where there is none, or where labels repeat, so that readers may differ.
    """
    if len(store) > _MAX_STORE_BYTES:
        return None
    found = [one for content in _superboxes(store) for one in _labelled(content)]
    labels = [label for label, _ in found]
    return found[-1] if len(set(labels)) == len(labels) > 0 else None


def is_signed_by(store: bytes, label: str, keys: Sequence[PublicKeyTypes]) -> bool:
    """Whether one of `keys` signed the active manifest's claim.

    Args:
        store: A C2PA manifest store; any bytes.
        label: The manifest that is meant: False where it is not the active one.
        keys: Those that are known.
    """
    active = active_manifest(store)
    if active is None or active[0] != label:
        return False
    parts = list(_labelled(active[1]))
    claims = [content for name, content in parts if name in _CLAIMS]
    signatures = [content for name, content in parts if name == _SIGNATURE]
    if (len(claims), len(signatures)) != (1, 1) or len(signatures[0]) > _MAX_SIGNATURE_BYTES:
        return False
    try:
        protected, signature = _read_cose(_cbor(signatures[0]))
        signed = b"\x84" + _cbor_bytes(b"Signature1", 3) + protected + b"\x40"
        signed += _cbor_bytes(_cbor(claims[0]), 2)
    except (ValueError, IndexError):
        return False
    return any(_verifies(key, signature, signed) for key in keys)


def _superboxes(data: bytes) -> Iterator[bytes]:
    return (content for kind, content in boxes(data) if kind == b"jumb")


def _labelled(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The superboxes in a superbox, by the label in their description box."""
    for inner in _superboxes(content):
        kind, description = next(boxes(inner), (b"", b""))
        if kind == b"jumd":  # UUID of 16 bytes, toggles, label
            yield description[17:].split(b"\0", 1)[0].decode("utf-8", "replace"), inner


def _cbor(superbox: bytes) -> bytes:
    return next(content for kind, content in [*boxes(superbox), (b"cbor", b"")] if kind == b"cbor")


def _read_cose(data: bytes) -> tuple[bytes, bytes]:
    """A COSE_Sign1's protected header, as it is encoded, and its signature.

    Raises:
        ValueError, IndexError: It is none.
    """
    at = 1 if data[0] == 0xD2 else 0
    if data[at] != 0x84:
        raise ValueError
    ends = [at + 1]
    for _ in range(4):
        ends.append(_cbor_end(data, ends[-1]))
    protected, signature = data[ends[0] : ends[1]], data[ends[3] : ends[4]]
    if protected[0] >> 5 != 2 or signature[0] >> 5 != 2:
        raise ValueError
    _, start = _cbor_head(signature, 0)
    return protected, signature[start:]


def _cbor_head(data: bytes, at: int) -> tuple[int, int]:
    """The argument of the item at a place, and where its content starts."""
    short = data[at] & 31
    if short < 24:
        return short, at + 1
    if short > 27:
        raise ValueError
    size = 1 << (short - 24)
    if at + 1 + size > len(data):
        raise ValueError
    return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def _cbor_end(data: bytes, at: int, depth: int = 0) -> int:
    """Where the item at a place ends; of indefinite lengths none is known."""
    if depth > _MAX_DEPTH:
        raise ValueError
    kind = data[at] >> 5
    argument, end = _cbor_head(data, at)
    if kind in (2, 3):
        end += argument
    elif kind in (4, 5, 6):
        for _ in range({4: argument, 5: 2 * argument, 6: 1}[kind]):
            end = _cbor_end(data, end, depth + 1)
    if end > len(data):
        raise ValueError
    return end


def _cbor_bytes(content: bytes, kind: int) -> bytes:
    """A string, of bytes (2) or of text (3)."""
    size = len(content)
    if size < 24:
        return bytes([kind << 5 | size]) + content
    width = next(one for one in range(4) if size < 1 << (8 << one))
    return bytes([kind << 5 | 24 + width]) + size.to_bytes(1 << width, "big") + content


def _verifies(key: PublicKeyTypes, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            half = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * half:
                return False
            numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(_HASHES[key.curve.name]))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, rsa.RSAPublicKey):
            mask = padding.MGF1(hashes.SHA256())
            key.verify(signature, signed, padding.PSS(mask, 32), hashes.SHA256())
        else:
            return False
    except (InvalidSignature, KeyError):
        return False
    return True
