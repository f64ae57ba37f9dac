"""AVIF's boxes: where it keeps XMP, EXIF and a C2PA manifest store."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

# A photo has a few dozen; a file of nothing but empty ones would take minutes.
MAX_BOXES: Final = 100_000
_MAX_ITEMS: Final = 1_000
# Pieces of an item; they may have no size, in a file of some bytes.
_MAX_EXTENTS: Final = 64
_C2PA: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_XMP_TYPE: Final = b"application/rdf+xml"


@dataclass(frozen=True)
class Item:
    """A piece of metadata.

    Attributes:
        kind: "mime" of XMP, or "Exif".
        encoding: Of its content, such as "deflate"; empty = none.
        content: Its bytes.
    """

    kind: str
    encoding: str
    content: bytes


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each box, of AVIF or of JUMBF."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:  # to the end
            size = len(data) - at
        if size < head:
            return
        yield kind, data[at + head : at + size]
        at += size


def manifest_stores(data: bytes) -> list[bytes]:
    """What is in C2PA's boxes: version and flags, purpose, an offset of 8 bytes, the store."""
    found = []
    for kind, content in boxes(data):
        if kind == b"uuid" and content.startswith(_C2PA):
            purpose, _, rest = content[20:].partition(b"\0")
            if purpose == b"manifest":
                found.append(rest[8:])
    return found


def metadata_items(data: bytes, limit: int) -> Iterator[Item]:
    """Yield the items that hold XMP or EXIF; damaged ones are left out.

    Args:
        data: An AVIF file; any bytes.
        limit: Bytes of an item; a larger one is left out.
    """
    meta = next((content for kind, content in boxes(data) if kind == b"meta"), b"")
    parts = dict(boxes(meta[4:]))
    try:
        places = _places(parts.get(b"iloc", b""))
    except IndexError:
        return
    sources = {0: data, 1: parts.get(b"idat", b"")}
    entries = _entries(parts.get(b"iinf", b""))
    for number, kind, encoding in islice(entries, _MAX_ITEMS):
        method, extents = places.get(number, (0, []))
        source = sources.get(method, b"")
        # Extents may overlap: they are added up before any is copied.
        ranges = [range(len(source))[at : at + size if size else None] for at, size in extents]
        if 0 < sum(map(len, ranges)) <= limit:
            pieces = [source[one.start : one.stop] for one in ranges]
            yield Item(kind, encoding, b"".join(pieces))


def _entries(iinf: bytes) -> Iterator[tuple[int, str, str]]:
    """Number, kind and encoding of the items that are wanted."""
    for _, entry in boxes(iinf[6 if iinf[:1] == b"\0" else 8 :]):
        wide = entry[:1] == b"\3"
        number, rest = int.from_bytes(entry[4 : 8 if wide else 6], "big"), entry[8 if wide else 6 :]
        kind, texts = rest[2:6], rest[6:].split(b"\0")
        if kind == b"Exif":
            yield number, "Exif", ""
        elif kind == b"mime" and texts[1:2] == [_XMP_TYPE]:
            yield number, "mime", b"".join(texts[2:3]).decode("ascii", "replace")


def _places(iloc: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Of each item how it is stored, and offset and length of its extents.

    Raises:
        IndexError: The box is cut off, or has an item in more pieces than any encoder makes.
    """
    version = iloc[0]
    reader = _Reader(iloc, 4)
    sizes = reader.take(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    places = {}
    for _ in range(min(reader.take(wide), _MAX_ITEMS)):
        number = reader.take(wide)
        method = reader.take(2) & 15 if version else 0
        reader.take(2)  # another file's number
        base = reader.take(base_size)
        extents, count = [], reader.take(2)
        if count > _MAX_EXTENTS:
            raise IndexError
        for _ in range(count):
            reader.take(index_size)
            extents.append((base + reader.take(offset_size), reader.take(length_size)))
        places[number] = (method, extents)
    return places


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data: Final = data
        self._at = at

    def take(self, size: int) -> int:
        """The next number, of so many bytes."""
        if self._at + size > len(self._data):
            raise IndexError
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at], "big")
