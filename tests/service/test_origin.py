"""What a photo says of its own origin, wherever its format may keep that."""

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.provenance.bmff import metadata_items
from service.provenance.containers import MAX_XMP_BYTES, manifest_store, xmp_packets
from service.provenance.marker import read_development_key
from service.provenance.origin import edited_source_type, read_xmp
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys
from service.provenance.xmp import COMPOSITE, ENHANCED, GENERATED, Mark, xmp_packet

from .test_marks_http import photo

PACKET = xmp_packet(Mark(GENERATED, 7, "shop:1"))
BARE = PACKET[PACKET.index(b" <rdf:RDF") : PACKET.index(b"</x:xmpmeta>")]


def png_with(kind: bytes, chunk: bytes) -> bytes:
    """A PNG with one more chunk before its pixels."""
    data = photo()
    whole = struct.pack(">I", len(chunk)) + kind + chunk
    return data[:33] + whole + struct.pack(">I", zlib.crc32(kind + chunk)) + data[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo())).save(buffer, "JPEG")
    data = buffer.getvalue()
    added = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(one) + 2) + one for marker, one in segments
    )
    return data[:2] + added + data[2:]


def webp_with(kind: bytes, chunk: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo())).save(buffer, "WEBP")
    body = buffer.getvalue()[8:] + kind + struct.pack("<I", len(chunk)) + chunk
    body += b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_with(packet: bytes, order: str = "<") -> bytes:
    """No more than a directory with the tag: as in EXIF, too."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHHII", 1, 700, 1, len(packet), 26)
    return start + entry + struct.pack(order + "I", 0) + packet


def magick(packet: bytes) -> bytes:
    lines = packet.hex("\n", 36)
    return f"\nxmp\n{len(packet):8d}\n{lines}\n".encode()


def extended(packet: bytes) -> list[tuple[int, bytes]]:
    """A packet in two segments, the later one first."""
    head, half = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32, len(packet) // 2
    return [
        (0xE1, head + struct.pack(">II", len(packet), at) + part)
        for at, part in ((half, packet[half:]), (0, packet[:half]))
    ]


def photoshop(packet: bytes) -> bytes:
    other = b"8BIM" + struct.pack(">H", 0x0404) + b"\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    return (
        b"Photoshop 3.0\0" + other + b"8BIM\x04\x24\0\0" + struct.pack(">I", len(packet)) + packet
    )


def saved(kind: str) -> bytes:
    """As Pillow saves it."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo())).save(buffer, kind, xmp=PACKET, tiffinfo={700: PACKET})
    return buffer.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def avif_with(kind: bytes, said: bytes, content: bytes, version: int = 1) -> bytes:
    """No more than an item, in two extents: in the file (version 0), or within `meta`."""
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 7, 0) + kind + b"name\0" + said)
    ftyp, half = box(b"ftyp", b"avif\0\0\0\0avif"), len(content) // 2
    base = 0 if version else len(ftyp) + 8
    extents = struct.pack(">HIIII", 2, 0, half, half, len(content) - half)
    method = b"\0\1" if version else b""
    iloc = bytes([version, 0, 0, 0, 0x44, 0x40]) + struct.pack(">HH", 1, 7) + method
    iloc += struct.pack(">HI", 0, base) + extents
    items = box(b"iinf", struct.pack(">IH", 0, 1) + infe) + box(b"iloc", iloc)
    if version:
        return ftyp + box(b"meta", bytes(4) + items + box(b"idat", content))
    return ftyp + box(b"mdat", content) + box(b"meta", bytes(4) + items)


def deflated(packet: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(packet) + squeeze.flush()


RDF = b"application/rdf+xml\0"
XMP = b"XML:com.adobe.xmp\0"
PLACES: dict[str, Callable[[], bytes]] = {
    "iTXt": lambda: png_with(b"iTXt", XMP + b"\0\0\0\0" + PACKET),
    "iTXt, compressed": lambda: png_with(b"iTXt", XMP + b"\1\0\0\0" + zlib.compress(PACKET)),
    "iTXt, in a language": lambda: png_with(
        b"iTXt", XMP + b"\1\0de\0Herkunft\0" + zlib.compress(PACKET)
    ),
    "zTXt": lambda: png_with(b"zTXt", XMP + b"\0" + zlib.compress(PACKET)),
    "tEXt": lambda: png_with(b"tEXt", XMP + PACKET),
    "ImageMagick's zTXt": lambda: png_with(
        b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(magick(PACKET))
    ),
    "ImageMagick's tEXt": lambda: png_with(b"tEXt", b"Raw profile type xmp\0" + magick(PACKET)),
    "eXIf": lambda: png_with(b"eXIf", tiff_with(PACKET)),
    "eXIf in UTF-16": lambda: png_with(
        b"eXIf", tiff_with(PACKET.decode().encode("utf-16-be"), ">")
    ),
    "APP1": lambda: jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PACKET)),
    "APP1, extended": lambda: jpeg_with(*extended(PACKET)),
    "EXIF": lambda: jpeg_with((0xE1, b"Exif\0\0" + tiff_with(PACKET, ">"))),
    "EXIF in UTF-16": lambda: jpeg_with(
        (0xE1, b"Exif\0\0" + tiff_with(PACKET.decode().encode("utf-16")))
    ),
    "Photoshop": lambda: jpeg_with((0xED, photoshop(PACKET))),
    "WebP": lambda: webp_with(b"XMP ", PACKET),
    "WebP's EXIF": lambda: webp_with(b"EXIF", tiff_with(PACKET)),
    "WebP, without the wrapper": lambda: webp_with(b"XMP ", BARE + b"\0" * 9),
    "WebP in UTF-16": lambda: webp_with(b"XMP ", PACKET.decode().encode("utf-16-le")),
    "TIFF": lambda: saved("TIFF"),
    "AVIF": lambda: saved("AVIF"),
    "AVIF, compressed": lambda: avif_with(b"mime", RDF + b"deflate\0", zlib.compress(PACKET)),
    "AVIF, without a head": lambda: avif_with(b"mime", RDF + b"deflate\0", deflated(PACKET), 0),
    "AVIF in UTF-16": lambda: avif_with(b"mime", RDF, PACKET.decode().encode("utf-16"), 0),
    "AVIF's EXIF": lambda: avif_with(b"Exif", b"", bytes(4) + tiff_with(PACKET, ">")),
    "WEBP": lambda: saved("WEBP"),
}


@pytest.mark.parametrize("place", PLACES)
def test_xmp_is_found_wherever_a_format_keeps_it(place: str) -> None:
    data = PLACES[place]()
    found = read_xmp(data)
    assert found is not None
    assert (found.source_type, found.catalogan["seed"]) == (GENERATED, "7")
    assert edited_source_type(data) == GENERATED


def test_an_avif_of_a_real_encoder_is_read_by_its_items() -> None:
    assert [item.content for item in metadata_items(saved("AVIF"), MAX_XMP_BYTES)] == [PACKET]


def test_a_uri_may_be_a_resource_or_https() -> None:
    for value in (
        f'<i:DigitalSourceType rdf:resource="{COMPOSITE}"/>',
        f"<i:DigitalSourceType>{COMPOSITE.replace('http:', 'https:')}</i:DigitalSourceType>",
    ):
        packet = (
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
            'xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><rdf:Description>'
            f"{value}</rdf:Description></rdf:RDF>"
        )
        assert edited_source_type(webp_with(b"XMP ", packet.encode())) == COMPOSITE


def test_a_packet_before_it_does_not_hide_the_mark() -> None:
    innocent = xmp_packet(Mark(ENHANCED, 1))
    data = png_with(b"iTXt", XMP + b"\1\0\0\0" + zlib.compress(PACKET))
    hidden = data[:33] + png_with(b"iTXt", XMP + b"\0\0\0\0" + innocent)[33:-12] + data[33:]
    assert edited_source_type(hidden) == GENERATED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_manifest_says_it_where_no_xmp_does(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("keys") / "made"
    create_development_keys(folder, "Shop Inc")
    signer, buffer = ManifestSigner(read_development_key(folder)), io.BytesIO()
    Image.open(io.BytesIO(photo())).save(buffer, kind)
    # More than a segment of JPEG, or a block of GIF, can hold.
    long = "x" * 70_000
    for source_type in (GENERATED, COMPOSITE, ENHANCED):
        mark = Mark(source_type, 7, "shop:1", category=long)
        data = signer.sign(buffer.getvalue(), f"image/{kind.lower()}", mark)
        assert manifest_store(data) is not None
        assert edited_source_type(data) == source_type


def test_bombs_and_endless_files_come_to_an_end() -> None:
    bomb = zlib.compress(b" " * 50_000_000, 1)
    many = photo()[:33] + (b"\0\0\0\0tEXt" + bytes(4)) * 300_000
    loop = b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + bytes(20)
    for data in (
        png_with(b"iTXt", XMP + b"\1\0\0\0" + bomb),
        png_with(b"zTXt", XMP + b"\0" + bomb),
        avif_with(b"mime", RDF + b"deflate\0", bomb),
        box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + box(b"free", b"") * 300_000),
        many,
        loop,
        b"\xff\xd8" + b"\xff\xe1\0\2" * 300_000,
        b"\xff\xd8" + b"\xff" * 10_000_000,
        tiff_with(b"")[:10] + struct.pack("<HHII", 700, 1, 2**32 - 1, 0) * 999 + bytes(9),
    ):
        begun = time.process_time()
        assert sum(len(one) for one in xmp_packets(data)) <= 2 * MAX_XMP_BYTES
        assert edited_source_type(data) == ENHANCED
        assert manifest_store(data) is None
        assert time.process_time() - begun < 3


def test_damaged_files_are_read_as_far_as_they_go() -> None:
    rng = np.random.default_rng(0)
    for place, make in PLACES.items():
        data = make()
        for _ in range(40):
            spoiled = bytearray(data[: rng.integers(len(data))])
            for at in rng.integers(len(spoiled), size=4) if spoiled else ():
                spoiled[at] = rng.integers(256)
            assert edited_source_type(bytes(spoiled)) in (GENERATED, ENHANCED), place
            manifest_store(bytes(spoiled))


def test_a_directory_beyond_all_files_is_no_directory() -> None:
    big = b"II+\0\b\0\0\0" + (2**64 - 1).to_bytes(8, "little")
    assert not any(xmp_packets(big + bytes(64)))
    assert manifest_store(big + bytes(64)) is None


def test_pillow_writes_what_is_read() -> None:
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_itxt("XML:com.adobe.xmp", PACKET.decode(), zip=True)
    Image.open(io.BytesIO(photo())).save(buffer, "PNG", pnginfo=info)
    assert edited_source_type(buffer.getvalue()) == GENERATED
