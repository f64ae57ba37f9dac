"""What a file holds beside its pixels is passed over, unless it is needed and sound.

Only what decides how pixels look comes through: colour profiles, orientation, transparency. A
file cut in its last bytes, after all pixels, is completed.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# Printers' profiles have up to some megabytes, text that matters a few kilobytes.
MAX_PROFILE_BYTES: Final = 4_000_000
_MAX_TEXT_BYTES: Final = 1_000_000
# Progressive JPEGs of common encoders have up to some dozens; each costs a whole decoding.
MAX_SCANS: Final = 100

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
# Texts in which an orientation may stand.
_ORIENTED: Final = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")

JPEG_END: Final = b"\xff\xd9"
# What would be read for missing data; it differs from what JPEG_END alone would be read for.
JPEG_PADDING: Final = b"\x55\xaa" * 64 + JPEG_END
_JPEG_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_NO_LENGTH: Final = {0x01, *range(0xD0, 0xDA)}


@dataclass(frozen=True)
class Pixels:
    """A file without what it doesn't need.

    Attributes:
        data: The file.
        icc_profile: Taken out of it; None = there is none, or it is still in `data`.
        scans: Times that a decoder goes through the pixels.
        ends: Whether it came with its end marker.
    """

    data: bytes
    icc_profile: bytes | None = None
    scans: int = 1
    ends: bool = True


def strip(data: bytes, image_format: str) -> Pixels:
    """Leave ancillary data out of a PNG or JPEG; other files stay as they are."""
    if image_format == "PNG":
        return _strip_png(data)
    return _strip_jpeg(data) if image_format == "JPEG" else Pixels(data)


def _strip_png(data: bytes) -> Pixels:
    profile = None
    parts: list[bytes | memoryview] = [_PNG_SIGNATURE]
    for kind, start, end in _png_chunks(data):
        body = memoryview(data)[start + 8 : end - 4]
        if kind == b"IEND":
            break
        if end > len(data):  # pixels that the file's end cuts, perhaps behind the last one
            checksum = zlib.crc32(body, zlib.crc32(kind)).to_bytes(4)
            parts += [len(body).to_bytes(4), kind, body, checksum]
        elif not kind[0] & 0x20 or kind == b"tRNS":  # of the pixels: a decoder judges it
            parts.append(data[start:end])
        elif kind in (b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt") and _is_sound(data, start, end):
            if kind == b"iCCP":
                profile = _inflate(bytes(body).partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
            elif kind == b"eXIf" or _is_orienting(kind, bytes(body)):
                parts.append(data[start:end])
    return Pixels(b"".join([*parts, _PNG_END]), profile)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk; of one that the file's end cuts, only if pixels are in."""
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if end <= len(data) or kind == b"IDAT":
            yield kind, at, end
        at = end


def _is_sound(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(data[start + 4 : end - 4]).to_bytes(4) == data[end - 4 : end]


def _is_orienting(kind: bytes, body: bytes) -> bool:
    """Whether a text may name the orientation, and is of a sane size."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _ORIENTED:
        return False
    if kind == b"zTXt":
        return _inflate(rest[1:], _MAX_TEXT_BYTES) is not None
    if kind == b"iTXt" and rest[:1] == b"\1":
        text = rest[2:].split(b"\0", 2)[-1]
        return _inflate(text, _MAX_TEXT_BYTES) is not None
    return len(rest) <= _MAX_TEXT_BYTES


def _inflate(packed: bytes, limit: int) -> bytes | None:
    """Decompress; None where it is damaged or grows over `limit`."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, limit + 1)
    except zlib.error:
        return None
    return text if text and len(text) <= limit else None


def _strip_jpeg(data: bytes) -> Pixels:
    parts, at = [data[:2]], 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            return Pixels(data)  # its decoder says what is wrong
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker in _NO_LENGTH:
            return Pixels(data)
        if marker == 0xDA:
            break
        if _is_needed(marker, data[at + 4 : end]):
            parts.append(data[at:end])
        at = end
    scans, ends = _count_scans(data, at)
    # A lone first byte of the end marker would be read as data.
    rest = data[at:] if ends else data[at:].removesuffix(b"\xff")
    return Pixels(b"".join([*parts, rest]), scans=scans, ends=ends)


def _is_needed(marker: int, body: bytes) -> bool:
    """Whether a segment before the first scan is needed to decode, and whole."""
    if not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # no APPn, no comment
        return True
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    if marker == 0xE1:
        return body.startswith((b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"))
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0") and len(body) > 14
    return marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12


def _count_scans(data: bytes, at: int) -> tuple[int, bool]:
    """Count the scans from the first on; also say whether the end marker comes."""
    scans = 0
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return scans, True
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            return scans, True
        if marker not in _NO_LENGTH:
            at += int.from_bytes(data[at : at + 2])
    return scans, False
