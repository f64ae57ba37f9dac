"""How the fuzz targets of files change them."""

import zlib

import atheris

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's mutation; most PNGs get right checksums again, to get past the first check."""
    changed = atheris.Mutate(data, max_size)
    return _with_checksums(changed) if changed.startswith(PNG_HEAD) and seed % 8 else changed


def _with_checksums(data: bytes) -> bytes:
    parts, at = [PNG_HEAD], len(PNG_HEAD)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join([*parts, data[at:]])
