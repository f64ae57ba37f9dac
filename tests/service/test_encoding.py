"""Encoded pictures: pixels survive, and marks can be read back from the files' bytes."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from service.provenance.marker import Marker
from service.provenance.xmp import ENHANCED, GENERATED, NAMESPACE, Mark, xmp_packet
from service.rendering.encoding import Encoding, OutputFormat, encode_image

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
OURS = f"{{{NAMESPACE}}}"
HOSTILE = Mark(GENERATED, 2**53 - 1, 'sh"op:1', "f" * 64, "<&'\"> \x00\ud800 日本\n")


def read_xmp(data: bytes) -> dict[str, str]:
    """Find the packet as any reader of XMP does, by scanning, and parse it."""
    start, end = data.index(b"<x:xmpmeta"), data.index(b"</x:xmpmeta>") + len(b"</x:xmpmeta>")
    (description,) = ET.fromstring(data[start:end]).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    return description.attrib


def encode(
    pixels: np.ndarray, output_format: OutputFormat, mark: Mark, quality: int | None = None
) -> bytes:
    return encode_image(pixels, Encoding(Marker(xmp=True), output_format, quality), mark)


def picture(channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 20, channels), dtype=np.uint8)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_marks_can_be_read_back(output_format: OutputFormat, channels: int) -> None:
    data = encode(picture(channels), output_format, HOSTILE)
    found = read_xmp(data)
    assert found[IPTC + "DigitalSourceType"] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert found[OURS + "seed"] == "9007199254740991"
    assert found[OURS + "model"] == found[IPTC + "AISystemVersionUsed"] == 'sh"op:1'
    assert found[OURS + "modelSha256"] == "f" * 64
    assert found[OURS + "category"] == "<&'\"> \ufffd\ufffd 日本\n"
    assert Image.open(io.BytesIO(data)).size == (20, 12)


@pytest.mark.parametrize("output_format", FORMATS)
def test_pillow_finds_the_packet_where_the_format_keeps_it(output_format: OutputFormat) -> None:
    image = Image.open(io.BytesIO(encode(picture(3), output_format, Mark(ENHANCED, 1))))
    image.load()
    packet = image.info["xmp"]
    assert packet == xmp_packet(Mark(ENHANCED, 1))
    assert read_xmp(packet)[IPTC + "DigitalSourceType"].endswith("/algorithmicallyEnhanced")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("output_format", "quality"), [("png", None), ("png", 3), ("webp", 100)])
def test_lossless_formats_keep_every_pixel(
    output_format: OutputFormat, quality: int | None, channels: int
) -> None:
    pixels = picture(channels)
    image = Image.open(io.BytesIO(encode(pixels, output_format, HOSTILE, quality)))
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    kept = np.asarray(image.convert(mode)).reshape(pixels.shape)
    np.testing.assert_array_equal(kept, pixels)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_quality_buys_fidelity(output_format: OutputFormat) -> None:
    sizes = [len(encode(picture(3), output_format, HOSTILE, q)) for q in (0, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_jpeg_shows_transparency_over_white() -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    image = Image.open(io.BytesIO(encode(pixels, "jpeg", HOSTILE)))
    assert np.asarray(image).min() > 250


@pytest.mark.parametrize("output_format", FORMATS)
def test_equal_pictures_are_equal_bytes(output_format: OutputFormat) -> None:
    assert encode(picture(3), output_format, HOSTILE) == encode(picture(3), output_format, HOSTILE)
