"""Where a set's files go: a ZIP or tar that is written as it is sent, or a directory.

All are written once from front to end. What must wait until the end, ZIP's directory and the
files about all images, is kept compressed: a few ten bytes for each image.

ZIP: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3 and 4.5.3. The standard library's writer could
not be used: on a stream it leaves sizes out of the local headers, which programs that unpack
as they read need of stored files, and keeps half a kilobyte for each file.
"""

import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

_UINT16: Final = 0xFFFF
_UINT32: Final = 0xFFFFFFFF
_STORED: Final = 0
_UTF8: Final = 0x800
_DESCRIPTOR_FOLLOWS: Final = 0x8
_VERSION: Final = 20
_VERSION_ZIP64: Final = 45
# 1 January 1980, the earliest that ZIP can hold: equal sets give equal archives.
_DATE: Final = (1 << 5) | 1
_UNIX: Final = 3
_MODE: Final = 0o100644 << 16


class Spool:
    """Bytes that are wanted later, kept compressed."""

    def __init__(self) -> None:
        self._compressor: zlib._Compress | None = zlib.compressobj(6)
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Add to the end; not after `blocks`."""
        assert self._compressor is not None
        self._keep(self._compressor.compress(data))

    def blocks(self) -> Iterator[bytes]:
        """Give all bytes, in blocks; any number of times."""
        if self._compressor is not None:
            self._keep(self._compressor.flush())
            self._compressor = None
        decompressor = zlib.decompressobj()
        for part in self._parts:
            if data := decompressor.decompress(part):
                yield data

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)


class Sink(Protocol):
    """Takes files one after the other; each call returns the archive's next bytes."""

    def begin(self, name: str, size: int | None = None, crc: int | None = None) -> bytes:
        """Begin a file; None = not known yet."""

    def write(self, data: bytes) -> bytes:
        """Add to the file."""

    def end(self) -> bytes:
        """End the file."""

    def close(self) -> Iterator[bytes]:
        """End the archive."""


def add(sink: Sink, name: str, data: bytes) -> bytes:
    """Add a whole file; returns the archive's next bytes."""
    return b"".join((sink.begin(name, len(data), zlib.crc32(data)), sink.write(data), sink.end()))


def add_blocks(sink: Sink, name: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Add a file that `blocks` yields, the same each time; returns the archive's next bytes."""
    size = crc = 0
    for block in blocks():
        size += len(block)
        crc = zlib.crc32(block, crc)
    yield sink.begin(name, size, crc)
    for block in blocks():
        yield sink.write(block)
    yield sink.end()


class Tar:
    """A POSIX tar; sizes must be known."""

    _size = 0

    def begin(self, name: str, size: int | None = None, crc: int | None = None) -> bytes:
        """A header; names that don't fit it go into one of their own."""
        assert size is not None, "tar wants the size first"
        info = tarfile.TarInfo(name)
        info.size = self._size = size
        return info.tobuf(tarfile.PAX_FORMAT)

    def write(self, data: bytes) -> bytes:
        """The bytes themselves."""
        return data

    def end(self) -> bytes:
        """Fill the last block."""
        return bytes(-self._size % tarfile.BLOCKSIZE)

    def close(self) -> Iterator[bytes]:
        """Two empty blocks."""
        yield bytes(2 * tarfile.BLOCKSIZE)


class Zip:
    """A ZIP of stored files: images are compressed already."""

    def __init__(self) -> None:
        self._directory: Final = Spool()
        self._directory_size = 0
        self._files = 0
        self._offset = 0

    def begin(self, name: str, size: int | None = None, crc: int | None = None) -> bytes:
        """A local header; a file of unknown size has it behind its end, in 64 bits."""
        self._name, self._start = name.encode(), self._offset
        self._size = self._crc = 0
        self._described = size is None
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if self._described else b""
        sizes = (_UINT32 if size is None else size,) * 2
        version = _VERSION_ZIP64 if self._described else _VERSION
        header = (version, self._flags, _STORED, 0, _DATE, crc or 0, *sizes)
        lengths = (len(self._name), len(extra))
        fixed = struct.pack("<4s5H3L2H", b"PK\3\4", *header, *lengths)
        return self._passed(fixed + self._name + extra)

    def write(self, data: bytes) -> bytes:
        """The bytes themselves."""
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)
        return self._passed(data)

    def end(self) -> bytes:
        """What was not known when the file began."""
        described = b""
        if self._described:
            sizes = (self._size, self._size)
            described = self._passed(struct.pack("<4sLQQ", b"PK\7\x08", self._crc, *sizes))
        record = self._record()
        self._directory.write(record)
        self._directory_size += len(record)
        self._files += 1
        return described

    def close(self) -> Iterator[bytes]:
        """The directory of all files, and its end."""
        start = self._offset
        yield from self._directory.blocks()
        size, files = self._directory_size, self._files
        if files >= _UINT16 or size >= _UINT32 or start >= _UINT32:
            versions = (_VERSION_ZIP64, _VERSION_ZIP64)
            counts = (0, 0, files, files, size, start)
            yield struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, *versions, *counts)
            yield struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
        files, size, start = min(files, _UINT16), min(size, _UINT32), min(start, _UINT32)
        yield struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, files, files, size, start, 0)

    @property
    def _flags(self) -> int:
        return _UTF8 | (_DESCRIPTOR_FOLLOWS if self._described else 0)

    def _record(self) -> bytes:
        """The file's entry in the directory; numbers over 32 bits stand in an extra field."""
        wide = [number for number in (self._size, self._size, self._start) if number >= _UINT32]
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        version = _VERSION_ZIP64 if wide or self._described else _VERSION
        version_fields = (version, _UNIX, version, 0, self._flags, _STORED, 0, _DATE, self._crc)
        size, start = min(self._size, _UINT32), min(self._start, _UINT32)
        lengths = (len(self._name), len(extra))
        rest = (size, size, *lengths, 0, 0, 0, _MODE, start)
        return struct.pack("<4s4B4H3L5H2L", b"PK\1\2", *version_fields, *rest) + self._name + extra

    def _passed(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data


class Directory:
    """A directory; returns no bytes."""

    _file: BinaryIO

    def __init__(self, folder: Path) -> None:
        """Write below `folder`."""
        self._folder: Final = folder

    def begin(self, name: str, size: int | None = None, crc: int | None = None) -> bytes:
        """Open the file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")
        return b""

    def write(self, data: bytes) -> bytes:
        """Write to it."""
        self._file.write(data)
        return b""

    def end(self) -> bytes:
        """Close it."""
        self._file.close()
        return b""

    def close(self) -> Iterator[bytes]:
        """Nothing is left to do."""
        yield b""
