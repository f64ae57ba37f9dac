"""Sizes of the AV1 streams in an AVIF file, read without decoding.

The container states one size and the streams theirs; a decoder allocates for the streams'.
"""

from collections.abc import Iterator
from typing import Final

Size = tuple[int, int]

_MAX_UNITS: Final = 1000
_SEQUENCE_HEADER: Final = 1
_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def stream_sizes(data: bytes) -> list[Size]:
    """Width and height of each AV1 stream of an AVIF file, of a sequence the first frame's.

    Raises:
        ValueError: Its boxes or streams are malformed; also IndexError.
    """
    streams = [*_item_data(data, b"av01"), *_first_samples(data)]
    return [size for stream in streams for size in _sequence_sizes(stream)]


def has_grid(data: bytes) -> bool:
    """Whether the image is put together from several streams; errors as of `stream_sizes`."""
    return next(_item_data(data, b"grid"), None) is not None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of each box."""
    at = 0
    while at + 8 <= len(data):
        size, start = int.from_bytes(data[at : at + 4]), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        end = len(data) if size == 0 else at + size
        if end < start:
            raise ValueError("a box is smaller than its header")
        yield bytes(data[at + 4 : at + 8]), data[start:end]
        at = end


def _item_data(data: bytes, wanted: bytes) -> Iterator[memoryview]:
    """Data of each item of one type in the file's `meta` box."""
    meta = dict(_boxes(memoryview(data))).get(b"meta")
    if meta is None:
        return
    parts = dict(_boxes(meta[4:]))
    kinds = dict(_item_types(parts.get(b"iinf", memoryview(b""))))
    sources = (memoryview(data), parts.get(b"idat", memoryview(b"")))
    taken = 0
    for item, method, extents in _locations(parts.get(b"iloc", memoryview(b""))):
        if kinds.get(item) == wanted:
            taken += sum(end - start for start, end in extents)
            if taken > 2 * len(data):
                raise ValueError("its items overlap")
            yield memoryview(b"".join(sources[method][start:end] for start, end in extents))


def _item_types(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    start = 6 if len(iinf) and iinf[0] == 0 else 8
    for kind, entry in _boxes(iinf[start:]):
        if kind == b"infe" and entry[0] >= 2:
            width = 2 if entry[0] == 2 else 4
            item = int.from_bytes(entry[4 : 4 + width])
            yield item, bytes(entry[6 + width : 10 + width])


def _locations(iloc: memoryview) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Item, 0 = in the file or 1 = in `idat`, and [start, end) of each extent."""
    if not len(iloc):
        return
    at, version = 4, iloc[0]

    def number(width: int) -> int:
        nonlocal at
        if at + width > len(iloc):
            raise ValueError("iloc is cut off")
        at += width
        return int.from_bytes(iloc[at - width : at])

    sizes = number(2)
    offset_size, length_size, base_size, index_size = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)  # data reference
        base = number(base_size)
        extents = []
        for _ in range(number(2)):
            if version in (1, 2):
                number(index_size)
            start = base + number(offset_size)
            extents.append((start, start + number(length_size)))
        yield item, method, extents


def _first_samples(data: bytes) -> list[memoryview]:
    """The first sample of each AV1 track."""
    found = []
    pending = [box for kind, box in _boxes(memoryview(data)) if kind == b"moov"]
    while pending:
        children = dict[bytes, memoryview]()
        for kind, box in _boxes(pending.pop()):
            children[kind] = box
            if kind in _CONTAINERS:
                pending.append(box)
        sizes, offsets = children.get(b"stsz"), children.get(b"stco", children.get(b"co64"))
        if sizes is None or offsets is None or children.get(b"stsd", b"")[12:16] != b"av01":
            continue
        width = 4 if b"stco" in children else 8
        start = int.from_bytes(offsets[8 : 8 + width])
        size = int.from_bytes(sizes[4:8]) or int.from_bytes(sizes[12:16])
        found.append(memoryview(data)[start : start + size])
    return found


def _sequence_sizes(stream: memoryview) -> Iterator[Size]:
    """The size that each sequence header of a stream of open bitstream units states."""
    at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(stream):
            return
        header = stream[at]
        at += 2 if header & 4 else 1
        length = len(stream) - at
        if header & 2:
            length, at = _leb128(stream, at)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _read_size(_Bits(stream[at : at + min(length, 256)]))
        at += length
    raise ValueError("too many units in a stream")


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a unit's length does not end")


class _Bits:
    """Reads numbers of so many bits."""

    def __init__(self, data: memoryview) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise ValueError("a sequence header is cut off")
        return self._value >> self._left & (1 << bits) - 1


def _read_size(bits: _Bits) -> Size:
    """Width and height in a sequence header (AV1 specification, 5.5.1)."""
    bits.read(4)  # profile, still picture
    if bits.read(1):  # the short form
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):  # equal intervals, whose length is a number of unknown width
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros if zeros < 32 else 0)
        if bits.read(1):  # decoder model
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)
