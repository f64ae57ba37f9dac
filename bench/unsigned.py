"""What two signed files have in common, if they are the same picture."""

import hashlib
import struct

# Holds the C2PA manifest, whose times and ids differ between equal pictures.
SIGNATURE_CHUNK = b"caBX"


def unsigned_sha256(png: bytes) -> str:
    """SHA-256 of a PNG without its signature.

    Raises:
        ValueError: There is none.
    """
    digest, signed, at = hashlib.sha256(png[:8]), False, 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind == SIGNATURE_CHUNK:
            signed = True
        else:
            digest.update(png[at : at + 12 + length])
        at += 12 + length
    if not signed:
        raise ValueError("the picture is not signed")
    return digest.hexdigest()
