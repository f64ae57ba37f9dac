"""Small files that cost decoders far more than their size tells, made anew."""

import io
import struct
import zlib

from PIL import Image, ImageCms

JPEG_SCAN = b"\xff\xda"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """Put a chunk behind the header."""
    return png[:33] + png_chunk(name, body) + png[33:]


def staged_profile(stages: int) -> bytes:
    """An RGB profile whose colours go through so many stages, each the same one."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132])
    # Three curves of one segment each: y = x.
    curve = b"curf" + bytes(4) + struct.pack(">HH", 1, 0)
    curve += b"parf" + bytes(4) + struct.pack(">HHffff", 0, 0, 1.0, 1.0, 0.0, 0.0)
    places = struct.pack(">II", 36, len(curve)) * 3
    stage = b"cvst" + bytes(4) + struct.pack(">HH", 3, 3) + places + curve
    at = 16 + 8 * stages
    tag = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, stages)
    tag += struct.pack(">II", at, len(stage)) * stages + stage
    table_end = 132 + 12 * count
    moved = bytearray(profile[:table_end])
    for entry in range(132, table_end, 12):
        moved[entry + 4 : entry + 8] = (
            int.from_bytes(profile[entry + 4 : entry + 8]) + 12
        ).to_bytes(4)
    moved[128:132] = (count + 1).to_bytes(4)
    body = profile[table_end:]
    body += bytes(-len(body) % 4)
    moved += b"D2B0" + struct.pack(">II", table_end + 12 + len(body), len(tag)) + body + tag
    moved[0:4] = len(moved).to_bytes(4)
    moved[8:12] = b"\x04\x40\0\0"
    return bytes(moved)


def staged_png(stages: int = 120_000) -> bytes:
    """A PNG with such a profile: some kilobytes, minutes of work."""
    png = encoded(Image.new("RGB", (32, 32), (90, 120, 150)), "PNG")
    return with_chunk(png, b"iCCP", b"x\0\0" + zlib.compress(staged_profile(stages), 9))


def scanned_jpeg(scans: int, side_px: int = 64) -> bytes:
    """A progressive JPEG that goes over its pixels again and again."""
    jpeg = encoded(Image.new("L", (side_px, side_px), 90), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(JPEG_SCAN) : -2]
    return jpeg[:-2] + last * (scans - jpeg.count(JPEG_SCAN)) + jpeg[-2:]


def tiled_tiff(side_px: int = 16, tile_px: int = 46_336) -> bytes:
    """A TIFF whose one tile is far larger than its image, in a few packed bytes."""
    packed = zlib.compress(bytes(min(tile_px**2, 100_000)))
    tags = [
        (256, 4, 1, side_px),
        (257, 4, 1, side_px),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, tile_px),
        (323, 4, 1, tile_px),
        (324, 4, 1, 8),
        (325, 4, 1, len(packed)),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + ifd + bytes(4)


def lying_avif(stated_px: int = 64, side_px: int = 2_000) -> bytes:
    """An AVIF that states another size than its stream has."""
    avif = encoded(Image.new("RGB", (side_px, side_px), "red"), "AVIF", speed=10)
    at = avif.index(b"ispe") + 8
    return avif[:at] + struct.pack(">II", stated_px, stated_px) + avif[at + 8 :]


def circling_tiff(entries: int = 1_000) -> bytes:
    """A TIFF whose only directory is followed by itself."""
    directory = struct.pack("<H", entries) + struct.pack("<HHII", 1, 1, 1, 0) * entries
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8) + bytes(16)


def bmff_box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def crowded_avif(items: int, extents: int, content: bytes) -> bytes:
    """An AVIF of many EXIF items, which are all the same one, stored in pieces that overlap."""
    iloc = struct.pack(">BxxxHHHHHH", 1, 0x4400, 1, 1, 1, 0, extents)
    iloc += struct.pack(">II", 0, len(content)) * extents
    entry = bmff_box(b"infe", struct.pack(">BxxxHH4sx", 2, 1, 0, b"Exif"))
    iinf = bytes(4) + struct.pack(">H", items % 65_536) + entry * items
    parts = ((b"iloc", iloc), (b"iinf", iinf), (b"idat", content))
    meta = bytes(4) + b"".join(bmff_box(*part) for part in parts)
    return bmff_box(b"ftyp", b"avif\0\0\0\0avif") + bmff_box(b"meta", meta)
