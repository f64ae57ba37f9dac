"""One catalogue with everything that goes wrong in catalogues, prepared once."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.dataset import PreparedDataset
from training.photos.catalogue import PrepareReport, prepare_dataset
from training.photos.options import PrepareOptions

from ...hostile_files import tiled_tiff

NEWLINE = "line\nbreak.png"
UNICODE = "Größe ☕ 名.png"
NO_UTF8 = b"caf\xe9.png"


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + chunk(b"IEND", b"")
    )


def add_files(cups: Path, good: list[Path]) -> None:
    data = good[0].read_bytes()
    (cups / "truncated.png").write_bytes(data[: len(data) // 2])
    (cups / "text.jpg").write_text("not an image\n" * 50)
    (cups / "page.webp").write_text("<!doctype html><title>404</title>")
    (cups / "empty.png").touch()
    (cups / "bomb.png").write_bytes(bomb())
    (cups / "tiles.tif").write_bytes(tiled_tiff())
    (cups / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (cups / ".DS_Store").write_bytes(b"\0" * 100)
    (cups / "wrong-ending.txt").write_bytes(good[1].read_bytes()[:-12])  # without its end
    Image.new("RGB", (9, 400)).save(cups / "narrow.png")
    shutil.copy(good[0], cups / "same-bytes.png")
    with Image.open(good[1]) as image:
        image.save(cups / "same-pixels.webp", lossless=True)


def add_names(cups: Path, draw_image: object) -> None:
    for seed, name in enumerate((NEWLINE.encode(), UNICODE.encode(), NO_UTF8)):
        draw_image(50 + seed).save(cups / os.fsdecode(name))  # type: ignore[operator]


def add_links_and_pipes(root: Path, cups: Path, good: list[Path]) -> socket.socket:
    outside = root.parent / "outside"
    outside.mkdir()
    shutil.copy(good[2], outside / "secret.png")
    (cups / "leaves.png").symlink_to(outside / "secret.png")
    (cups / "leaves-relative.png").symlink_to("../../outside/secret.png")
    (cups / "leaves-folder").symlink_to(outside)
    (cups / "inside.png").symlink_to("../hats/1000.png")  # fine, but an exact duplicate
    (cups / "nowhere.png").symlink_to("gone.png")
    (cups / "itself.png").symlink_to("itself.png")
    (cups / "up").symlink_to(root)
    (cups / "device.png").symlink_to("/dev/zero")
    os.mkfifo(cups / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    where = Path.cwd()
    os.chdir(cups)  # a socket's path is short
    try:
        server.bind("socket.png")
    finally:
        os.chdir(where)
    return server


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, fill: object, draw_image: object) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "photos"
    cups = root / "cups"
    good = fill(cups / "deep" / "er", range(8))  # type: ignore[operator]
    fill(root / "hats", range(1000, 1008))  # type: ignore[operator]
    add_files(cups, good)
    add_names(cups, draw_image)
    server = add_links_and_pipes(root, cups, good)
    (root / "README.md").write_text("a stray file")
    (root / "hats-link").symlink_to("hats")
    (root / ".git").mkdir()
    (root / ".git" / "config").touch()
    for volumes_own in ("__MACOSX", "lost+found", "$Recycle.Bin", "System Volume Information"):
        (root / volumes_own).mkdir()
    server.close()
    return root


def snapshot(root: Path) -> dict[bytes, tuple[int, ...]]:
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            info = os.lstat(folder + b"/" + name)
            found[folder + b"/" + name] = (info.st_mode, info.st_size, info.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def prepared(hostile: Path) -> tuple[PrepareReport, Path]:
    before = snapshot(hostile)
    out = hostile.parent / "dataset"
    report = prepare_dataset(hostile, out, PrepareOptions(width=16, height=16))
    assert snapshot(hostile) == before
    assert sorted(p.name for p in hostile.parent.iterdir()) == ["dataset", "outside", "photos"]
    return report, out


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("cups/truncated.png", "undecodable"),
        ("cups/text.jpg", "not_an_image"),
        ("cups/page.webp", "not_an_image"),
        ("cups/empty.png", "not_an_image"),
        ("cups/bomb.png", "too_many_pixels"),
        ("cups/tiles.tif", "too_costly"),
        ("cups/phone.heic", "not_an_image"),
        ("cups/narrow.png", "too_small"),
        ("cups/same-pixels.webp", "exact_duplicate"),
        ("cups/same-bytes.png", "exact_duplicate"),
        ("cups/inside.png", "exact_duplicate"),  # a link, which makes hats no cups
        ("cups/deep/er/0000.png", None),
        ("hats/1000.png", None),
        ("cups/leaves.png", "link_leaves_folder"),
        ("cups/leaves-relative.png", "link_leaves_folder"),
        ("cups/leaves-folder", "link_leaves_folder"),
        ("cups/device.png", "link_leaves_folder"),
        ("cups/nowhere.png", "broken_link"),
        ("cups/itself.png", "broken_link"),
        ("cups/up", "link_to_folder"),
        ("cups/pipe.png", "not_a_file"),
        ("cups/socket.png", "not_a_file"),
        ("cups/.DS_Store", "hidden"),
        ("README.md", "stray"),
        ("hats-link", "link_to_folder"),
        (".git", "hidden"),
        ("__MACOSX", "hidden"),
        ("lost+found", "hidden"),
        ("$Recycle.Bin", "hidden"),
        ("System Volume Information", "hidden"),
    ],
)
def test_each_is_left_out_for_its_reason(
    prepared: tuple[PrepareReport, Path], path: str, reason: str | None
) -> None:
    reasons = {item["path"]: item["reason"] for item in prepared[0].left_out_photos}
    assert reasons.get(path) == reason


def test_the_dataset_holds_the_rest(prepared: tuple[PrepareReport, Path]) -> None:
    report, out = prepared
    dataset = PreparedDataset(out)
    index = pq.read_table(out / "index.parquet").to_pydict()
    assert len(dataset.images) == len(index["path"]) == report.used == 16 + 3
    assert report.found == report.used + len(report.left_out_photos)
    assert sum(report.left_out.values()) == len(report.left_out_photos)
    kinds = {"HEIC": 1, "HTML": 1, "TIFF": 1, "WEBP": 1, "empty": 1, "unknown": 1}
    assert {name: report.formats.get(name) for name in kinds} == kinds
    assert sum(report.formats.values()) == report.formats["PNG"] + sum(kinds.values())
    assert {f"cups/{NEWLINE}", f"cups/{UNICODE}", "cups/caf\\xe9.png"} <= set(index["path"])
    assert json.loads((out / "report.json").read_text())["left_out"] == report.left_out
    assert all(image.std() > 0 for image in dataset.images)


def test_images_are_those_of_the_index(prepared: tuple[PrepareReport, Path], hostile: Path) -> None:
    dataset = PreparedDataset(prepared[1])
    index = pq.read_table(prepared[1] / "index.parquet").to_pydict()
    for row, path in enumerate(index["path"]):
        if "\\" in path:
            continue
        with Image.open(hostile / path) as image:
            expected = np.asarray(image.convert("RGB").resize((16, 16), box=(0, 4, 40, 44)))
        assert np.abs(dataset.images[row].astype(int) - expected).mean() < 12, path


_READ_UNREADABLE = """
import sys
from pathlib import Path
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions
report = prepare_dataset(Path(sys.argv[1]), Path(sys.argv[2]), PrepareOptions(width=8, height=8))
print(report.model_dump_json())
"""


def test_unreadable_photo_and_folder(catalogue: Path, fill: object, tmp_path: Path) -> None:
    fill(catalogue / "cups" / "locked", range(100, 102))  # type: ignore[operator]
    (catalogue / "cups" / "0000.png").chmod(0)
    (catalogue / "cups" / "locked").chmod(0)
    command = [sys.executable, "-c", _READ_UNREADABLE, str(catalogue), str(tmp_path / "out")]
    if os.geteuid() == 0:  # root reads everything, unless it gives that up
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root without setpriv can't lose its right to read everything")
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        (catalogue / "cups" / "locked").chmod(0o700)
    assert done.returncode == 0, done.stderr
    report = PrepareReport.model_validate_json(done.stdout)
    reasons = {item["path"]: item["reason"] for item in report.left_out_photos}
    assert reasons == {"cups/0000.png": "unreadable", "cups/locked": "unreadable"}
