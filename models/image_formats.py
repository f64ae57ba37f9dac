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
_JPEG_ADVICE: Final = "which is not read; convert it to JPEG or PNG"
# First bytes -> what it is.
_NOT_READ: Final = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"FUJIFILMCCD-RAW": "raw",
    b"IIRO": "raw",
    b"IIRS": "raw",
    b"MMOR": "raw",
    b"IIU\0": "raw",
    b"FOVb": "raw",
    b"\0MRM": "raw",
    b"\0\0\1\0": "icon",
    b"PK\3\4": "ZIP",
}
RAW_ADVICE: Final = "a camera's raw file; export it as JPEG, TIFF or PNG first"
_ADVICE: Final = {
    "empty": "an empty file",
    "HEIC": (
        "HEIC, which is not read; convert it to JPEG, or have the iPhone take JPEGs: Settings, "
        "Camera, Formats, Most Compatible"
    ),
    "JPEG XL": f"JPEG XL, {_JPEG_ADVICE}",
    "JPEG 2000": f"JPEG 2000, {_JPEG_ADVICE}",
    "PSD": "a Photoshop document; export its flattened image as PNG, TIFF or JPEG",
    "PDF": "a PDF; export its page or photo as PNG or JPEG",
    "PostScript": "PostScript; export it as PNG",
    "SVG": "an SVG drawing; export it as PNG in the size that you need",
    "raw": RAW_ADVICE,
    "video": "a video; save one of its frames as JPEG or PNG",
    "icon": "an icon; save it as PNG",
    "ZIP": "a ZIP archive; unpack the photos in it",
    "HTML": "a web page, perhaps an error's; check the address that it was fetched from",
    "unknown": f"none of {', '.join(ACCEPTED_FORMATS)}",
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
    return _ADVICE[format_name(data)]


def format_name(data: bytes) -> str:
    """One of ACCEPTED_FORMATS, or the common name of one that is not read, or "unknown"."""
    return sniff_format(data) or _unaccepted_name(data)


def _unaccepted_name(data: bytes) -> str:
    if not data:
        return "empty"
    brands = _brands(data)
    if brands & _HEIC_BRANDS:
        return "HEIC"
    if b"crx " in brands or data[:4] == b"II*\0":
        return "raw"
    if brands:
        return "video"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    known = (name for signature, name in _NOT_READ.items() if data.startswith(signature))
    return next(known, "unknown")


def _brands(data: bytes) -> set[bytes]:
    """Brands of a file in boxes, the major one first; none where it is no such file."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
