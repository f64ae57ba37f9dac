"""Which format a file's first bytes indicate, and what to do with one that is not read."""

from typing import Final

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP")

_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
# Sizes of the header that follows the 14 bytes of a BMP file: "BM" alone may begin any text.
_BMP_HEADERS: Final = (12, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
}
RAW_ADVICE: Final = "a camera's raw file; export it as JPEG, TIFF or PNG first"
# First bytes -> what it is, and what to do.
_NOT_READ: Final = {
    b"\xff\x0a": "JPEG XL, which is not read; convert it to JPEG, PNG or AVIF",
    b"\0\0\0\x0cJXL ": "JPEG XL, which is not read; convert it to JPEG, PNG or AVIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000, which is not read; convert it to JPEG or PNG",
    b"\xff\x4f\xff\x51": "JPEG 2000, which is not read; convert it to JPEG or PNG",
    b"8BPS": "a Photoshop document; export its flattened image as PNG, TIFF or JPEG",
    b"%PDF": "a PDF; export its page or photo as PNG or JPEG",
    b"%!PS": "PostScript; export it as PNG",
    b"\xc5\xd0\xd3\xc6": "PostScript; export it as PNG",
    b"FUJIFILMCCD-RAW": RAW_ADVICE,
    b"IIRO": RAW_ADVICE,
    b"IIRS": RAW_ADVICE,
    b"MMOR": RAW_ADVICE,
    b"IIU\0": RAW_ADVICE,
    b"FOVb": RAW_ADVICE,
    b"\0MRM": RAW_ADVICE,
    b"\0\0\1\0": "an icon; save it as PNG",
    b"PK\3\4": "a ZIP archive; send the photos in it one by one",
}


def sniff_format(data: bytes) -> str | None:
    """Which of ACCEPTED_FORMATS the first bytes indicate; None = none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _AVIF_BRANDS & _brands(data):  # also where it is only among the compatible ones
        return "AVIF"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[:4] == b"II*\0" and data[8:10] == b"CR":  # Canon's raw file, in TIFF's clothes
        return None
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in a WebP's header, for which Pillow would allocate whole images; or 0.

    The extended format's (VP8X), else those of its one lossless (VP8L) or lossy (VP8) image.
    """

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], "little")

    if data[12:16] == b"VP8X":
        return number(24, 3) + 1, number(27, 3) + 1
    if data[12:16] == b"VP8L":
        return (number(21, 4) & 0x3FFF) + 1, (number(21, 4) >> 14 & 0x3FFF) + 1
    return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF


def describe_unaccepted(data: bytes) -> str:
    """What a file is that `sniff_format` does not know, and what to do with it."""
    if not data:
        return "an empty file"
    brands = _brands(data)
    if brands & _HEIC_BRANDS:
        return (
            "HEIC, which is not read; convert it to JPEG, or have the iPhone take JPEGs: "
            "Settings, Camera, Formats, Most Compatible"
        )
    if b"crx " in brands or (data[:4] == b"II*\0" and data[8:10] == b"CR"):
        return RAW_ADVICE
    if brands:
        return "a video; save one of its frames as JPEG or PNG"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "an SVG drawing; export it as PNG in the size that you need"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps an error's; check the address that it was fetched from"
    known = (text for signature, text in _NOT_READ.items() if data.startswith(signature))
    return next(known, f"none of {', '.join(ACCEPTED_FORMATS)}")


def _brands(data: bytes) -> set[bytes]:
    """Brands of a file in boxes, the major one first; none where it is no such file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
