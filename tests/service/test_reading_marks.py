"""Marks read from files that nobody meant us well with."""

import io
import json
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from PIL import Image

from service.provenance.containers import MAX_XMP_BYTES
from service.provenance.manifests import parse_report, read_manifest
from service.provenance.marker import read_development_key
from service.provenance.origin import edited_source_type, read_xmp
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys
from service.provenance.verification import Verifier
from service.provenance.xmp import COMPOSITE, ENHANCED, GENERATED, Mark, xmp_packet

from ..hostile_files import circling_tiff, crowded_avif, png_chunk
from .test_marks_http import photo

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
ELEMENTS = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:any="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:c="urn:catalogan:xmp:1"><any:DigitalSourceType>%s</any:DigitalSourceType>
<c:seed>12</c:seed></rdf:Description></rdf:RDF></x:xmpmeta>"""
BOMB = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><x>&c;</x></x:xmpmeta>"""


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> ManifestSigner:
    folder = tmp_path_factory.mktemp("keys") / "made"
    create_development_keys(folder, "Shop Inc")
    return ManifestSigner(read_development_key(folder))


def verifier_of(signer: ManifestSigner) -> Verifier:
    return Verifier(signer.key.anchors, x509.load_pem_x509_certificates(signer.key.chain)[:1])


def signed(signer: ManifestSigner, kind: str) -> bytes:
    mark, buffer = Mark(GENERATED, 7, "shop:1", "f" * 64, "mugs"), io.BytesIO()
    options = {} if kind == "GIF" else {"xmp": xmp_packet(mark)}
    Image.open(io.BytesIO(photo())).save(buffer, kind, **options)
    return signer.sign(buffer.getvalue(), f"image/{kind.lower()}", mark)


def test_xmp_as_other_programs_write_it() -> None:
    xmp = read_xmp(b"junk" + ELEMENTS % GENERATED.encode() + b"junk")
    assert xmp is not None
    assert (xmp.source_type, xmp.catalogan) == (GENERATED, {"seed": "12"})


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x:xmpmeta",
        b"<x:xmpmeta></x:xmpmeta>",
        b"<x:xmpmeta \xff\x00</x:xmpmeta>",
        BOMB,
        b"<x:xmpmeta" + b" " * MAX_XMP_BYTES + b"</x:xmpmeta>",
    ],
)
def test_packets_that_say_nothing(packet: bytes) -> None:
    xmp = read_xmp(b"\x89PNG" + packet)
    assert xmp is None or xmp.source_type is None


def test_a_broken_packet_does_not_hide_the_next() -> None:
    xmp = read_xmp(BOMB + b"<x:xmpmeta></x:xmpmeta>" + ELEMENTS % COMPOSITE.encode())
    assert xmp is not None
    assert xmp.source_type == COMPOSITE


def test_many_and_deep_packets_come_to_an_end() -> None:
    """A reader that tried each of them to the file's end would take days."""
    assert read_xmp(b"<x:xmpmeta" * 2_000_000) is None
    deep = b"<a>" * 14_000 + b"</a>" * 14_000
    read_xmp(b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + deep + b"</x:xmpmeta>")


PNG = b"\x89PNG\r\n\x1a\n"
HEXADECIMAL = b"Raw profile type xmp\0\0" + zlib.compress(b"a b " + bytes(MAX_XMP_BYTES - 9), 9)


@pytest.mark.parametrize(
    "data",
    [
        PNG + png_chunk(b"zTXt", HEXADECIMAL) * 3_000,
        PNG + png_chunk(b"eXIf", circling_tiff()) * 500,
        b"\xff\xd8" + (b"\xff\xe1\x2f\x00Exif\0\0" + circling_tiff())[:0x2F02] * 500,
        crowded_avif(30_000, 1, bytes(4) + circling_tiff()),
        crowded_avif(1_000, 60, bytes(4) + circling_tiff()),
        crowded_avif(1, 1_000, bytes(2_000_000)),
        crowded_avif(1, 50, bytes(2_000_000)),
        b"<x:xmpmeta><y>" + b"a<b/>" * 390_000 + b"</y></x:xmpmeta>",
        b"GIF89a\x21\xff\x0bC2PA_GIF\x01\x00\x00" + b"\x01a" * 10_000_000,
    ],
    ids=["hexadecimal", "exif", "app1", "items", "both", "extents", "overlap", "text", "blocks"],
)
def test_crowded_files_are_read_in_little_time_and_memory(data: bytes) -> None:
    """These took minutes, or many times their size; none says anything."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        assert edited_source_type(data) == ENHANCED
        spent, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spent < 3
    assert peak < 30_000_000


@pytest.mark.parametrize("kind", [GENERATED, COMPOSITE])
def test_edits_keep_what_a_photo_says_of_its_origin(kind: str) -> None:
    assert edited_source_type(ELEMENTS % kind.encode()) == kind
    assert edited_source_type(ELEMENTS % ENHANCED.encode()) == ENHANCED
    assert edited_source_type(b"a photo") == ENHANCED


def test_a_reader_that_dies_is_an_unreadable_manifest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signer: ManifestSigner
) -> None:
    data = signed(signer, "PNG")
    for program in ("import os; os.abort()", "while True: pass", "print('[')", "x = [0] * 10**12"):
        (tmp_path / "reader.py").write_text(program)
        monkeypatch.setattr("service.provenance.manifests.READER", tmp_path / "reader.py")
        monkeypatch.setattr("service.provenance.manifests.TIMEOUT_SEC", 1)
        assert read_manifest(data, "image/png", b"").status == "unreadable"


def test_the_reader_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CATALOGAN_API_KEY", "a secret of ours")
    (tmp_path / "reader.py").write_text(
        f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(str(dict(os.environ)))"
    )
    monkeypatch.setattr("service.provenance.manifests.READER", tmp_path / "reader.py")
    read_manifest(b"c2pa", "image/png", b"")
    assert "secret" not in (tmp_path / "seen").read_text()


def test_a_photos_manifest_that_can_not_be_taken_over_is_left_out(signer: ManifestSigner) -> None:
    mark = Mark(GENERATED, 7, "shop:1", photos=("a" * 64,), manifest=b"no archive")
    data = signer.sign(photo(), "image/png", mark)
    assert not signer.failing
    assert verifier_of(signer).verify(data, None).ours


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off_files(signer: ManifestSigner, kind: str) -> None:
    data = signed(signer, kind)
    verifier = verifier_of(signer)
    assert verifier.verify(data, None).ours
    for share in (0.3, 0.9):
        assert not verifier.verify(data[: int(len(data) * share)], None).ours


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite bytes; mostly where the manifest is."""
    spoiled = bytearray(data)
    at = data.find(b"jumb")
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(max(12, len(spoiled)))
        if at >= 0 and rng.random() < 0.8:
            place = min(len(spoiled) - 1, max(12, at + rng.randint(-60, 3500)))
        place = min(place, len(spoiled) - 1)
        match rng.randrange(5):
            case 0:
                spoiled[place] ^= 1 << rng.randrange(8)
            case 1:
                spoiled[place : place + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"]
                )
            case 2:
                del spoiled[place : place + rng.randint(1, 200)]
            case 3:
                spoiled[place:place] = spoiled[place : place + rng.randint(1, 2000)]
            case 4:
                spoiled[place : place + 8] = rng.randbytes(8)
    return bytes(spoiled)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_thousands_of_spoiled_files(signer: ManifestSigner, kind: str) -> None:
    """c2pa reads each, in one process: a crash or a hang would end this test's child."""
    data, rng = signed(signer, kind), random.Random(kind)
    files = [mutate(data, rng) for _ in range(2_000)]
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from read_manifest import read\n"
        "for line in sys.stdin:\n"
        "    one = json.loads(line)\n"
        "    found = read(bytes.fromhex(one['data']), one['media'], one['anchors'])\n"
        "    print(json.dumps(found))\n"
    )
    folder = Path(__file__).parents[2] / "service" / "provenance"
    asked = "".join(
        json.dumps(
            {
                "data": file.hex(),
                "media": f"image/{kind.lower()}",
                "anchors": signer.key.anchors.decode(),
            }
        )
        + "\n"
        for file in files
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        input=asked,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(files)
    found = [parse_report(answer) for answer in answers]
    assert len({one.status for one in found}) > 2
    # What is trusted has the pixels and says what was signed: only padding may have changed.
    genuine = verifier_of(signer).verify(data, None).claims
    for file, one in zip(files, found, strict=True):
        if one.status == "trusted" and (pixels := _pixels(file)) is not None:
            np.testing.assert_array_equal(pixels, _pixels(data))
            assert one.claims is not None
            assert one.claims["seed"] == genuine.seed
            assert read_xmp(file) == read_xmp(data)


def _pixels(data: bytes) -> np.ndarray | None:
    """None where nobody will see a picture, as with a chunk's wrong checksum."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError):
        return None
