"""Where image formats keep XMP packets and C2PA manifests: found, inflated within a bound."""

import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from service.provenance.bmff import manifest_stores, metadata_items

# Of all packets of a file together; one that is larger is left out.
MAX_XMP_BYTES: Final = 2_000_000
MAX_PACKETS: Final = 64
# A photo has a few hundred; a file of nothing but empty ones would take minutes.
MAX_BLOCKS: Final = 100_000
# Of the directories of one TIFF together: these may overlap, and lead round in a circle.
MAX_ENTRIES: Final = 2_000
_PNG_KEYWORDS: Final = (b"XML:com.adobe.xmp", b"Raw profile type xmp")
_STANDARD: Final = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED: Final = b"http://ns.adobe.com/xmp/extension/\0"
_MARKER: Final = re.compile(b"[^\xff]", re.DOTALL)
_JPEG_ENDS: Final = (0xDA, 0xD9)
_EXIF: Final = b"Exif\0\0"
_IRB: Final = b"Photoshop 3.0\0"
_IRB_XMP: Final = 0x0424
_TIFF_XMP: Final = 700
_TIFF_C2PA: Final = 0xCD41
_GIF_C2PA: Final = b"\x21\xff\x0bC2PA_GIF\x01\x00\x00"
# An XMP packet may stand anywhere in a file; so one begins in plain text, and so it ends.
_START: Final = b"<x:x"
_ENDS: Final = {b"<x:xmpmeta": b"</x:xmpmeta>", b"<x:xapmeta": b"</x:xapmeta>"}

Block = tuple[bytes, bytes]


def xmp_packets(data: bytes) -> Iterator[bytes]:
    """Yield a file's XMP packets, decompressed; damaged files are read as far as they can be.

    First those at the places that the format has for them, then whatever looks like one: TIFF,
    AVIF and GIF keep theirs in plain text, and other files may.

    Args:
        data: Any bytes.
    """
    left = MAX_XMP_BYTES
    # Places without a packet count, too: a file may have any number of them.
    for count, packet in enumerate(_placed_packets(data)):
        if count == MAX_PACKETS or len(packet) > left:
            break
        left -= len(packet)
        yield packet
    yield from _loose_packets(data)


def manifest_store(data: bytes) -> bytes | None:
    """Find a file's C2PA manifest store (JUMBF).

    Args:
        data: Any bytes.

    Returns:
        The store of an image of an accepted type; None where there is none, or more than one.
    """
    if data.startswith(b"\x89PNG"):
        stores = [chunk for _, chunk in _png_chunks(data, (b"caBX",))]
    elif data[:4] == b"RIFF":
        stores = [chunk for _, chunk in _riff_chunks(data, (b"C2PA",))]
    elif data.startswith(b"\xff\xd8"):
        stores = _jpeg_stores(data)
    elif data.startswith(b"GIF8"):
        start = data.find(_GIF_C2PA)
        stores = [] if start < 0 else [_sub_blocks(data, start + len(_GIF_C2PA))]
    elif data[4:8] == b"ftyp":
        stores = manifest_stores(data)
    else:
        stores = list(islice(_tiff_values(data, _TIFF_C2PA), 2))
    return stores[0] if len(stores) == 1 else None


def _placed_packets(data: bytes) -> Iterator[bytes]:
    """What is at each place for a packet; empty where there is none."""
    if data.startswith(b"\x89PNG"):
        for kind, chunk in _png_chunks(data, (b"eXIf", b"iTXt", b"zTXt", b"tEXt")):
            if kind == b"eXIf":
                yield from _tiff_packets(chunk)
            elif chunk.startswith(_PNG_KEYWORDS):
                yield _png_text(kind, chunk)
    elif data[:4] == b"RIFF":
        for kind, chunk in _riff_chunks(data, (b"XMP ", b"EXIF")):
            if kind == b"XMP ":
                yield chunk
            else:
                yield from _tiff_packets(chunk.removeprefix(_EXIF))
    elif data.startswith(b"\xff\xd8"):
        yield from _jpeg_packets(data)
    elif data[4:8] == b"ftyp":
        yield from _avif_packets(data)
    else:
        yield from _tiff_packets(data)


def _loose_packets(data: bytes) -> Iterator[bytes]:
    left, start = MAX_XMP_BYTES, data.find(_START)
    for _ in range(MAX_PACKETS):
        if start < 0:
            return
        end_mark = _ENDS.get(data[start : start + 10], b"")
        end = data.find(end_mark, start, start + left) if end_mark else -1
        if end >= 0:
            left -= end - start
            yield data[start : end + len(end_mark)]
        start = data.find(_START, max(start, end) + 1)


def _png_chunks(data: bytes, kinds: Sequence[bytes]) -> Iterator[Block]:
    at = 8
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind in kinds:
            yield kind, data[at + 8 : at + 8 + size]
        at += size + 12


def _png_text(kind: bytes, chunk: bytes) -> bytes:
    """The packet in a text chunk, compressed or not, or in ImageMagick's hexadecimal."""
    keyword, _, rest = chunk.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # after the language and the keyword in it
    elif packed:
        rest = rest[1:]
    text = _inflated(rest) if packed else rest
    if keyword.startswith(b"Raw"):
        # "\nxmp\n   LENGTH\nHEX": the digits are all that follows the length.
        fields = text.split(None, 2)
        try:
            text = bytes.fromhex(fields[2].decode("ascii")) if len(fields) == 3 else b""
        except ValueError:
            return b""
    return text


def _inflated(packed: bytes, window: int = zlib.MAX_WBITS) -> bytes:
    """Decompress as far as it can be and may be; nothing where it is larger than a packet may."""
    inflate = zlib.decompressobj(window)
    try:
        text = inflate.decompress(packed, MAX_XMP_BYTES)
    except zlib.error:
        return b""
    return b"" if inflate.unconsumed_tail else text


def _avif_packets(data: bytes) -> Iterator[bytes]:
    for item in metadata_items(data, MAX_XMP_BYTES):
        if item.kind == "Exif":  # after how far it is to the TIFF in it
            start = 4 + int.from_bytes(item.content[:4], "big")
            yield from _tiff_packets(item.content[start:])
        elif item.encoding == "deflate":  # of zlib, or without its head
            yield _inflated(item.content) or _inflated(item.content, -zlib.MAX_WBITS)
        elif not item.encoding:
            yield item.content


def _riff_chunks(data: bytes, kinds: Sequence[bytes]) -> Iterator[Block]:
    at = 12
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            return
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in kinds:
            yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments before the first scan, where metadata is."""
    at = 2
    for _ in range(MAX_BLOCKS):
        found = _MARKER.search(data, at)  # after any padding
        if found is None or found.start() == at or found[0][0] in _JPEG_ENDS:
            return
        at, marker = found.start() - 1, found[0][0]
        if at + 4 > len(data):
            return
        (size,) = struct.unpack_from(">H", data, at + 2)
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + max(2, size)


def _jpeg_packets(data: bytes) -> Iterator[bytes]:
    extended: dict[bytes, dict[int, bytes]] = {}
    resources = []
    for marker, segment in _jpeg_segments(data):
        if marker == 0xE1 and segment.startswith(_STANDARD):
            yield segment[len(_STANDARD) :]
        elif marker == 0xE1 and segment.startswith(_EXTENDED):
            # GUID of 32 bytes, the whole length, this part's offset, the part.
            part = segment[len(_EXTENDED) :]
            offset = int.from_bytes(part[36:40], "big")
            extended.setdefault(part[:32], {})[offset] = part[40:]
        elif marker == 0xE1 and segment.startswith(_EXIF):
            yield from _tiff_packets(segment[len(_EXIF) :])
        elif marker == 0xED and segment.startswith(_IRB):
            resources.append(segment[len(_IRB) :])
    for parts in extended.values():
        yield b"".join(parts[offset] for offset in sorted(parts))
    yield from _photoshop_packets(b"".join(resources))


def _photoshop_packets(resources: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(MAX_BLOCKS):
        if resources[at : at + 4] != b"8BIM" or at + 12 > len(resources):
            return
        (kind,) = struct.unpack_from(">H", resources, at + 4)
        name = 1 + resources[at + 6]
        at += 6 + name + name % 2
        if at + 4 > len(resources):
            return
        (size,) = struct.unpack_from(">I", resources, at)
        if kind == _IRB_XMP:
            yield resources[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def _jpeg_stores(data: bytes) -> list[bytes]:
    """JUMBF boxes, which segments repeat the head of and share the content of."""
    boxes: dict[bytes, io.BytesIO] = {}
    for marker, segment in _jpeg_segments(data):
        if marker != 0xEB or segment[:2] != b"JP":
            continue
        instance, part = segment[2:4], segment[8:]
        if instance in boxes:
            boxes[instance].write(part[8:])
        else:
            boxes[instance] = io.BytesIO()
            boxes[instance].write(part)
    stores = [box.getvalue() for box in boxes.values()]
    return [store for store in stores if b"c2pa" in store[:64]]


def _sub_blocks(data: bytes, at: int) -> bytes:
    parts = []
    for _ in range(MAX_BLOCKS):
        if at >= len(data) or not data[at]:
            break
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)


def _tiff_packets(data: bytes) -> Iterator[bytes]:
    yield b""
    yield from _tiff_values(data, _TIFF_XMP)


def _tiff_values(data: bytes, wanted: int) -> Iterator[bytes]:
    """The values of a tag of bytes, in all directories of a classic or a big TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return
    big = data[2:4] in (b"+\0", b"\0+")
    count, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    left = MAX_ENTRIES
    while left > 0:
        try:
            (entries,) = struct.unpack_from(order + count, data, at)
            at += struct.calcsize(order + count)
            left -= 1 + entries
            for _ in range(min(entries, MAX_ENTRIES)):
                tag, _, size, value = struct.unpack_from(order + entry, data, at)
                at += struct.calcsize(order + entry)
                if tag == wanted:
                    yield data[value : value + size]
            (at,) = struct.unpack_from(order + offset, data, at)
        except (struct.error, OverflowError):  # the latter of an offset beyond 2^63
            return
        if at == 0:
            return
