"""Every kind of image that a catalogue or an upload may contain, and files that are none."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from models.image_formats import ACCEPTED_FORMATS
from models.images import (
    MAX_PIXELS,
    ImageError,
    ImageLimits,
    decode_image,
    measure_image,
    open_image,
    sniff_format,
)

ORANGE = (230, 120, 40)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(size: tuple[int, int] = (48, 32), mode: str = "RGB") -> Image.Image:
    """Smooth, and different in each corner."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([40 + 180 * x, 200 - 150 * y, 60 + 120 * x * y], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def flat(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (32, 32), colour)


def centre(data: bytes, **options: object) -> list[int]:
    pixels = decode_image(data, **options)
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()


def refused(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits=ImageLimits(**limits))
    assert str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", ACCEPTED_FORMATS)
def test_each_accepted_format_gives_the_scene(kind: str) -> None:
    source = scene()
    pixels = decode_image(encoded(source, kind))
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - np.asarray(source)).mean()
    assert difference < (12 if kind == "GIF" else 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    source = scene()
    image = source
    for step in stored:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encoded(image, kind, exif=exif))
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels.astype(int) - np.asarray(source)).mean() < 4


def test_damaged_exif_does_not_cost_the_photo() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert decode_image(data).shape == (32, 48, 3)


def test_grey_16_bit_keeps_its_brightness() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(encoded(Image.fromarray(ramp), kind))
        assert np.abs(pixels[..., 0] - ramp / 257.0).max() <= 1, kind


def rgb16_png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    """16 bits per channel, which Pillow reads but does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    row = b"\0" + struct.pack(">3H", *(c * 257 for c in colour)) * size
    header = struct.pack(">IIBBBBB", size, size, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * size))
        + chunk(b"IEND", b"")
    )


def rgb16_tiff(colour: tuple[int, int, int], size: int = 32) -> bytes:
    """Little-endian, one strip, 16 bits per channel."""
    pixels = struct.pack("<3H", *(c * 257 for c in colour)) * size * size
    extra = struct.pack("<3H", 16, 16, 16)
    tags = [
        (256, 3, 1, size),
        (257, 3, 1, size),
        (258, 3, 3, 8 + len(pixels)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, size),
        (279, 4, 1, len(pixels)),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    start = 8 + len(pixels) + len(extra)
    return b"II*\0" + struct.pack("<I", start) + pixels + extra + ifd + b"\0\0\0\0"


@pytest.mark.parametrize("make", [rgb16_png, rgb16_tiff])
def test_colour_16_bit(make: object) -> None:
    assert np.abs(np.array(centre(make(ORANGE))) - ORANGE).max() <= 1  # type: ignore[operator]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 3e6])
def test_float_tiff_of_any_range(white: float) -> None:
    ramp = np.linspace(0, white, 32 * 32, dtype=np.float32).reshape(32, 32)
    ramp[0, 0] = np.nan
    pixels = decode_image(encoded(Image.fromarray(ramp), "TIFF"))
    assert pixels[-1, -1].tolist() == [255, 255, 255]
    assert abs(int(pixels[16, 0, 0]) - 128) <= 1


def test_lab_tiff() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(flat(ORANGE), to_lab)
    assert np.abs(np.array(centre(encoded(lab, "TIFF"))) - ORANGE).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_neither_inverted_nor_refused(kind: str) -> None:
    # Pillow writes the Adobe marker, with inverted values, into a CMYK JPEG.
    data = encoded(flat(ORANGE).convert("CMYK"), kind)
    assert np.abs(np.array(centre(data)) - ORANGE).max() <= 6
    assert np.abs(np.array(centre(data, channels=4)) - (*ORANGE, 255)).max() <= 6


def swapped_profile() -> bytes:
    """An RGB profile with a gamma of 1: applying it brightens the middle tones."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        at = profile.index(name)
        offset = int.from_bytes(profile[at + 4 : at + 8])
        profile[offset : offset + 12] = b"curv" + bytes(4) + struct.pack(">I", 0)
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_icc_profile_is_applied(mode: str) -> None:
    grey = flat((128, 128, 128))
    image = grey.quantize(2) if mode == "P" else grey.convert(mode)
    value = centre(encoded(image, "PNG", icc_profile=swapped_profile()))
    assert np.abs(np.array(value) - 188).max() <= 2  # linear 0.5 is 188 in sRGB


def test_icc_keeps_alpha() -> None:
    image = flat((128, 128, 128, 77), "RGBA")
    value = centre(encoded(image, "PNG", icc_profile=swapped_profile()), channels=4)
    assert value[3] == 77
    assert abs(value[0] - 188) <= 2


@pytest.mark.parametrize(
    "profile", [b"broken", b"\0" * 4000, swapped_profile()[:200]], ids=["text", "zeros", "cut"]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_broken_profile_is_passed_over(mode: str, profile: bytes) -> None:
    image = flat((90, 90, 90)).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "L") else "PNG"
    value = centre(encoded(image, kind, icc_profile=profile))
    assert np.abs(np.array(value) - 90).max() <= 3


def test_profile_of_another_colour_space_is_passed_over() -> None:
    value = centre(encoded(flat((90, 90, 90)).convert("L"), "PNG", icc_profile=swapped_profile()))
    assert value == [90, 90, 90]


def test_srgb_profile_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert centre(encoded(flat(ORANGE), "PNG", icc_profile=srgb)) == list(ORANGE)


def transparent(mode: str) -> bytes:
    """Left half orange, right half fully transparent."""
    image = flat((*ORANGE, 255), "RGBA")
    image.paste((0, 0, 0, 0), (16, 0, 32, 32))
    if mode == "RGBA":
        return encoded(image)
    if mode == "LA":
        return encoded(image.convert("LA"))
    if mode in ("P", "GIF"):
        palette = Image.new("P", (32, 32), 0)
        palette.putpalette([*ORANGE, 0, 0, 0])
        palette.paste(1, (16, 0, 32, 32))
        return encoded(palette, "PNG" if mode == "P" else "GIF", transparency=1)
    keyed = flat(ORANGE)
    keyed.paste((1, 2, 3), (16, 0, 32, 32))
    return encoded(keyed, transparency=(1, 2, 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB with a key", "GIF"])
def test_transparency_lies_over_the_background(mode: str) -> None:
    data = transparent(mode)
    pixels = decode_image(data, background="#1040f0")
    assert pixels[16, 28].tolist() == [16, 64, 240]
    straight = decode_image(data, channels=4)
    assert straight[16, 28, 3] == 0
    assert straight[16, 4, 3] == 255
    if mode != "LA":
        assert straight[16, 4, :3].tolist() == list(ORANGE)


def test_partial_transparency_blends() -> None:
    value = centre(encoded(flat((0, 0, 0, 128), "RGBA")), background="white")
    assert value == [127, 127, 127]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_mode_to_any_channels(mode: str, channels: int) -> None:
    image = Image.new("I;16", (32, 24)) if mode == "I;16" else scene((32, 24), "RGB").convert(mode)
    pixels = decode_image(encoded(image), channels=channels)  # type: ignore[arg-type]
    assert pixels.shape == (24, 32, channels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_several(kind: str) -> None:
    others = [flat((0, 0, 255)), flat((0, 255, 0))]
    data = encoded(flat(ORANGE), kind, save_all=True, append_images=others)
    assert np.abs(np.array(centre(data)) - ORANGE).max() <= 8


def test_phone_photo_with_a_second_image_inside() -> None:
    data = encoded(scene((1024, 1024)), "MPO", save_all=True, append_images=[flat(ORANGE)])
    assert decode_image(data).shape == (1024, 1024, 3)
    assert open_image(data, reduce_to_px=300).size == (512, 512)


def test_jpeg_reduction_never_goes_below_the_requested_size() -> None:
    data = encoded(scene((800, 1200)), "JPEG", quality=95)
    assert open_image(data).size == (800, 1200)
    assert open_image(data, reduce_to_px=400).size == (400, 600)
    assert open_image(data, reduce_to_px=401).size == (800, 1200)
    assert open_image(data, reduce_to_px=2000).size == (800, 1200)
    reduced = np.asarray(open_image(data, reduce_to_px=100), dtype=int)
    expected = np.asarray(scene((800, 1200)).resize((100, 150), Image.Resampling.BOX))
    assert np.abs(reduced - expected).mean() < 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello, this is text" * 100,
        b"<!doctype html><html><body>404</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n" + bytes(200),
        b"BM, the German car maker" + bytes(200),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
        b"PK\3\4" + bytes(100),
    ],
    ids=["empty", "nul", "text", "html", "svg", "pdf", "text after BM", "heic", "zip"],
)
def test_what_is_no_accepted_image(data: bytes) -> None:
    assert refused(data) == "not_an_image"
    assert sniff_format(data) is None


def noise(size: int = 64) -> Image.Image:
    """Does not compress, so that half of the file is about half of the image."""
    return Image.effect_noise((size, size), 90).convert("RGB").filter(ImageFilter.SHARPEN)


@pytest.mark.parametrize("kind", ACCEPTED_FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    cut = data[: max(16, int(len(data) * share))]
    assert refused(cut, min_side_px=1) == "undecodable"


@pytest.mark.parametrize("kind", ACCEPTED_FORMATS)
def test_no_damage_raises_anything_else(kind: str) -> None:
    data = encoded(noise(32), kind)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), size=4):
            damaged[at] = rng.integers(256)
        try:
            pixels = decode_image(bytes(damaged), limits=ImageLimits(max_pixels=1_000_000))
        except ImageError as error:
            assert error.reason in {  # noqa: PT017
                "undecodable",
                "not_an_image",
                "too_many_pixels",
                "too_small",
            }
        else:
            assert pixels.ndim == 3


def png_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(flat(ORANGE)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert refused(png_claiming(side, side)) == "too_many_pixels"


def test_pillow_stands_in_the_way_of_no_cap_up_to_ours() -> None:
    side = int(MAX_PIXELS**0.5)
    data = png_claiming(side, side)  # too little data: refused, but not for its size
    assert refused(data, max_pixels=MAX_PIXELS) == "undecodable"


def test_caps_are_inclusive() -> None:
    data = encoded(scene((40, 20)))
    limits = {"max_bytes": len(data), "max_pixels": 800, "min_side_px": 20}
    assert decode_image(data, limits=ImageLimits(**limits)).shape == (20, 40, 3)
    assert refused(data, **(limits | {"max_bytes": len(data) - 1})) == "too_many_bytes"
    assert refused(data, **(limits | {"max_pixels": 799})) == "too_many_pixels"
    assert refused(data, **(limits | {"min_side_px": 21})) == "too_small"


def test_measuring_reads_the_header_only() -> None:
    data = encoded(scene((40, 20)))
    assert measure_image(data[:60]) == (40, 20)
    limits = {"max_bytes": len(data), "max_pixels": 800, "min_side_px": 20}
    assert measure_image(data, limits=ImageLimits(**limits)) == (40, 20)
    for name, value, reason in (
        ("max_bytes", len(data) - 1, "too_many_bytes"),
        ("max_pixels", 799, "too_many_pixels"),
        ("min_side_px", 21, "too_small"),
    ):
        with pytest.raises(ImageError) as raised:
            measure_image(data, limits=ImageLimits(**(limits | {name: value})))
        assert raised.value.reason == reason
    for junk, reason in ((b"junk", "not_an_image"), (data[:12], "undecodable")):
        with pytest.raises(ImageError) as raised:
            measure_image(junk)
        assert raised.value.reason == reason


def test_decoding_in_threads_leaves_the_filters_of_warnings_alone() -> None:
    data, before = encoded(scene()), list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: decode_image(data), range(400)))
    assert warnings.filters == before


def test_pillows_advice_about_large_images_is_not_heard() -> None:
    """In a process of its own, as pytest sets its own filters."""
    code = """
import io, sys
from PIL import Image
from models.images import measure_image, ImageLimits
file = io.BytesIO()
Image.new("1", (10_000, 10_000)).save(file, "PNG")
print(measure_image(file.getvalue(), limits=ImageLimits(max_pixels=150_000_000)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(10000, 10000)\n"
    assert done.stderr == ""
