"""Files that cost far more than they tell, and files whose pixels are sound and the rest is not."""

import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from models import image_colour
from models.av1_sizes import has_grid, stream_sizes
from models.image_checks import Reason
from models.images import ImageError, ImageLimits, decode_image, measure_image, open_image

from ..hostile_files import (
    encoded,
    lying_avif,
    png_chunk,
    scanned_jpeg,
    staged_png,
    staged_profile,
    tiled_tiff,
    with_chunk,
)
from .test_images import noise, rgb16_png, rgb16_tiff, scene

CHEAP_SEC = 2.0


def reason(data: bytes) -> Reason:
    with pytest.raises(ImageError) as caught:
        open_image(data)
    return caught.value.reason


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (scanned_jpeg, "too_costly"),
        (tiled_tiff, "too_costly"),
        (lying_avif, "undecodable"),
    ],
)
def test_what_a_file_claims_is_checked_before_it_is_decoded(
    make: Callable[..., bytes], expected: Reason
) -> None:
    data = make(60_000) if make is scanned_jpeg else make()
    begun = time.process_time()
    assert reason(data) == expected
    assert time.process_time() - begun < CHEAP_SEC


def test_a_profile_of_many_stages_is_passed_over() -> None:
    data = staged_png()
    begun = time.process_time()
    assert (decode_image(data) == [90, 120, 150]).all()
    assert time.process_time() - begun < CHEAP_SEC


def test_honest_profiles_scans_and_tiles_stay_welcome() -> None:
    assert np.abs(decode_image(staged_png(4)).astype(int) - [90, 120, 150]).max() > 30  # applied
    assert decode_image(scanned_jpeg(60)).shape == (64, 64, 3)
    assert decode_image(tiled_tiff(16, 256)).shape == (16, 16, 3)
    jpeg = encoded(scene(), "JPEG")
    # An end marker within an APPn segment, and scans behind the image, are no part of it.
    late = jpeg + b"\xff\xda" * 60_000
    assert (decode_image(late) == decode_image(jpeg)).all()


def test_profiles_that_are_kept_take_little_memory() -> None:
    image_colour._kept_transform.cache_clear()
    large = staged_profile(2) + bytes(3_000_000)
    for index in range(40):
        profile = staged_profile(2) + bytes(index)
        assert decode_image(encoded(scene(), "PNG", icc_profile=profile)).shape == (32, 48, 3)
    for index in range(3):
        decode_image(with_chunk(encoded(scene(), "PNG"), b"iCCP", packed(large + bytes(index))))
    kept = image_colour._kept_transform.cache_info()
    assert kept.currsize <= 8
    # No profile of megabytes is among the keys.
    assert kept.misses <= 41


def packed(text: bytes, name: bytes = b"x") -> bytes:
    return name + b"\0\0" + zlib.compress(text, 9)


PNG = encoded(scene(), "PNG")
HUGE = bytes(40_000_000)
SOUND = [
    ("zTXt", packed(HUGE)),
    ("iCCP", packed(HUGE)),
    ("iCCP", b"no zero"),
    ("zTXt", packed(HUGE, b"XML:com.adobe.xmp")),
    ("iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(HUGE)),
    ("gAMA", b""),
    ("gAMA", bytes(3)),
    ("pHYs", bytes(2)),
    ("cHRM", bytes(31)),
    ("sRGB", b""),
    ("sRGB", bytes(9)),
    ("tIME", b"\1"),
    ("bKGD", b""),
    ("acTL", bytes(8)),
    ("fcTL", bytes(3)),
]


@pytest.mark.parametrize(("name", "body"), SOUND, ids=[f"{n}-{len(b)}" for n, b in SOUND])
def test_ancillary_chunks_never_cost_the_pixels(name: str, body: bytes) -> None:
    data = with_chunk(PNG, name.encode(), body)
    assert (decode_image(data) == decode_image(PNG)).all()


@pytest.mark.parametrize("name", [b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"gAMA"])
def test_a_wrong_checksum_of_an_ancillary_chunk_never_costs_the_pixels(name: bytes) -> None:
    chunk = bytearray(png_chunk(name, b"Comment\0hello"))
    chunk[-1] ^= 255
    data = PNG[:33] + bytes(chunk) + PNG[33:]
    assert (decode_image(data) == decode_image(PNG)).all()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


JPEG = encoded(noise(), "JPEG")


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF\0"),
        (0xE0, b"JFIF"),
        (0xE0, b""),
        (0xEE, b"Adobe"),
        (0xEE, b"Adobe\0\0"),
        (0xE1, b"Exif\0"),
        (0xE1, b"Exif\0\0"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0"),
        (0xED, b"Photoshop 3.0\x008BIM"),
        (0xFE, b""),
    ],
)
def test_short_segments_of_a_jpeg_never_cost_the_pixels(marker: int, body: bytes) -> None:
    data = JPEG[:2] + segment(marker, body) + JPEG[2:]
    assert (decode_image(data) == decode_image(JPEG)).all()


def test_orientation_in_text_is_still_found() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for name, body in (
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        assert open_image(with_chunk(PNG, name, body)).size == (32, 48)


@pytest.mark.parametrize("progressive", [False, True])
def test_files_cut_behind_their_last_pixel_are_read_and_others_are_not(progressive: bool) -> None:
    jpeg = encoded(noise(), "JPEG", progressive=progressive)
    png = encoded(noise(), "PNG")
    for data, harmless in ((jpeg, 2), (png, 16)):
        whole = decode_image(data)
        for cut in (1, harmless):
            assert (decode_image(data[:-cut]) == whole).all(), cut
        for cut in (harmless + 30, len(data) // 2):
            assert reason(data[:-cut]) == "undecodable", cut


def test_streams_of_every_kind_of_avif_are_measured() -> None:
    image = scene((200, 100), "RGBA")
    still = encoded(image, "AVIF")
    moving = encoded(image, "AVIF", save_all=True, append_images=[image.rotate(180)])
    for data in (still, moving, encoded(image.convert("L"), "AVIF")):
        assert set(stream_sizes(data)) == {(200, 100)}
        assert not has_grid(data)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(still[:400])
        for at in rng.integers(0, len(damaged), size=3):
            damaged[at] = rng.integers(256)
        with suppress(ValueError, IndexError):
            stream_sizes(bytes(damaged))


def test_measuring_a_webp_takes_no_memory_for_its_pixels() -> None:
    image = scene((300, 200), "RGBA")
    for options in ({"lossless": True}, {"lossless": False}, {"exif": Image.Exif()}):
        assert measure_image(encoded(image, "WEBP", **options)) == (300, 200)
    assert measure_image(encoded(image.convert("RGB"), "WEBP")) == (300, 200)


def grey_tiff(bits: int, photometric: int, samples: bytes, sample_format: int = 1) -> bytes:
    """32 x 32 px in one strip."""
    tags = [
        (256, 3, 1, 32),
        (257, 3, 1, 32),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 3, 1, 32),
        (279, 4, 1, len(samples)),
        (339, 3, 1, sample_format),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + ifd + bytes(4)


@pytest.mark.parametrize(
    ("bits", "dtype", "white"),
    [(16, "<u2", 65_535), (16, "<u2", 4_095), (32, "<u4", 2**32 - 1), (32, "<u4", 65_535)],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_deep_grey_of_any_kind_keeps_its_brightness(
    bits: int, dtype: str, white: int, inverted: bool
) -> None:
    if inverted and bits == 32:
        return  # named below
    ramp = np.linspace(0, white, 32 * 32).reshape(32, 32)
    data = grey_tiff(bits, 0 if inverted else 1, ramp.astype(dtype).tobytes())
    expected = ramp * 255 / white
    pixels = decode_image(data)[..., 0].astype(float)
    assert np.abs(pixels - (255 - expected if inverted else expected)).max() <= 1


def test_a_deep_tiff_that_is_not_read_is_named() -> None:
    with pytest.raises(ImageError, match="TIFF") as caught:
        decode_image(grey_tiff(32, 0, bytes(4 * 32 * 32)))
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("make", [rgb16_png, rgb16_tiff])
def test_colours_of_12_bits_in_16_are_named(make: Callable[..., bytes]) -> None:
    dark = make((8, 10, 15))
    with pytest.raises(ImageError, match="12") as caught:
        decode_image(dark)
    assert caught.value.reason == "undecodable"
    assert (decode_image(make((0, 0, 0))) == 0).all()  # black is black at any depth


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "raw"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"IIU\0\x18\0\0\0", "raw"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"\xef\xbb\xbf <?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"<!doctype html><html>", "web page"),
        (b"PK\3\4", "ZIP"),
        (b"", "empty"),
        (b"hello", "none of"),
    ],
)
def test_other_formats_are_named_with_what_to_do(data: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told) as caught:
        decode_image(data)
    assert caught.value.reason == "not_an_image"


def test_a_raw_file_in_tiff_s_clothes_is_no_small_photo() -> None:
    preview = Image.new("RGB", (160, 120))
    for tag, value in ((254, 1), (50706, b"\1\4\0\0")):
        data = encoded(preview, "TIFF", tiffinfo={tag: value})
        with pytest.raises(ImageError, match="raw") as caught:
            decode_image(data)
        assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp_of_any_mode_is_read(mode: str) -> None:
    source = scene(mode=mode)
    difference = decode_image(encoded(source, "BMP")).astype(int) - np.asarray(
        source.convert("RGB"), dtype=int
    )
    assert np.abs(difference).max() <= 1


def test_a_bmp_larger_than_allowed_is_refused_by_its_header() -> None:
    data = bytearray(encoded(scene(), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(ImageError) as caught:
        decode_image(bytes(data), limits=ImageLimits())
    assert caught.value.reason == "too_many_pixels"
