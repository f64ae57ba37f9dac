"""Catalogues by manifest: what is kept, what is left out, what is refused."""

import csv
import datetime
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.photos.catalogue import prepare_dataset
from training.photos.manifest import read_manifest
from training.photos.options import PrepareOptions
from training.photos.scan import LeftOut, Listing, PrepareError

COLUMNS = PrepareOptions()


def write_csv(file: Path, rows: list[dict[str, Any]], **form: Any) -> Path:
    with file.open("w", encoding=form.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **form)
        writer.writeheader()
        writer.writerows(rows)
    return file


def rows_of(catalogue: Path) -> list[dict[str, Any]]:
    files = sorted(catalogue.rglob("*.png"))
    return [
        {
            "path": str(file.relative_to(catalogue)),
            "category": f" {'Öl' if row % 2 else 'tea'} ",
            "sku": f"A{row // 3}",
            "price": 9.5 + row,
            "label": "ours is a number",
        }
        for row, file in enumerate(files)
    ]


@pytest.mark.parametrize("kind", ["csv", "excel", "parquet"])
def test_manifest_to_dataset(catalogue: Path, tmp_path: Path, kind: str) -> None:
    rows = rows_of(catalogue)
    if kind == "parquet":
        file = tmp_path / "m.parquet"
        day = datetime.date(2026, 1, 2)
        pq.write_table(pa.Table.from_pylist([row | {"day": day} for row in rows]), file)
    elif kind == "excel":
        file = write_csv(tmp_path / "m.csv", rows, delimiter=";", encoding="utf-8-sig")
    else:
        file = write_csv(tmp_path / "m.csv", rows)
    options = PrepareOptions(width=8, height=8, manifest=file, validation_share=0.4)
    report = prepare_dataset(catalogue, tmp_path / "out", options)
    assert report.used == 16
    index = pq.read_table(tmp_path / "out" / "index.parquet")
    assert set(index["category"].to_pylist()) == {"tea", "Öl"}
    assert set(index["label"].to_pylist()) == {0, 1}
    assert index["manifest_label"][0].as_py() == "ours is a number"
    assert float(index["price"][0].as_py()) == 9.5
    if kind == "parquet":
        assert index["day"][0].as_py() == day
    by_sku: dict[str, set[str]] = {}
    for sku, side in zip(index["sku"].to_pylist(), index["split"].to_pylist(), strict=True):
        by_sku.setdefault(sku, set()).add(side)
    assert len(by_sku) == 6
    assert all(len(found) == 1 for found in by_sku.values())
    assert {"train", "validation"} == set.union(*by_sku.values())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("cups/gone.png", "missing_file"),
        ("../outside.png", "bad_path"),
        ("cups/../../outside.png", "bad_path"),
        ("/etc/passwd", "bad_path"),
        ("cups\\0001.png", "bad_path"),
        ("C:\\photos\\1.png", "bad_path"),
        ("", "bad_path"),
        ("cups", "not_a_file"),
        ("leaves.png", "link_leaves_folder"),
        ("cups/" + "x" * 300, "unreadable"),
    ],
)
def test_paths_that_are_not_taken(catalogue: Path, tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "outside.png").write_bytes(b"secret")
    (catalogue / "leaves.png").symlink_to(tmp_path / "outside.png")
    rows = [{"path": "cups/0001.png", "category": "cups"}, {"path": path, "category": "cups"}]
    listing = read_manifest(write_csv(tmp_path / "m.csv", rows), catalogue, COLUMNS)
    assert [photo.path for photo in listing.photos] == ["cups/0001.png"]
    assert [item.reason for item in named_ones(listing)] == [reason]


def named_ones(listing: Listing) -> list[LeftOut]:
    """What rows name, of what is left out."""
    return [item for item in listing.left_out if item.reason != "not_in_manifest"]


def test_row_without_category(catalogue: Path, tmp_path: Path) -> None:
    rows = [{"path": "cups/0001.png", "category": " "}]
    listing = read_manifest(write_csv(tmp_path / "m.csv", rows), catalogue, COLUMNS)
    assert [item.reason for item in named_ones(listing)] == ["no_category"]


def test_photos_that_no_row_names_are_counted(catalogue: Path, tmp_path: Path) -> None:
    rows = rows_of(catalogue)[:12]
    manifest = write_csv(catalogue / "cups" / "m.csv", rows)
    listing = read_manifest(manifest, catalogue, COLUMNS)
    assert len(listing.photos) == 12
    assert {item.reason for item in listing.left_out} == {"not_in_manifest"}
    named = {photo.path for photo in listing.photos}
    assert len(listing.left_out) == 4
    assert not named & {item.path for item in listing.left_out}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_names_in_another_unicode_form_are_found(
    catalogue: Path, tmp_path: Path, on_disk: Literal["NFC", "NFD"]
) -> None:
    given: Literal["NFC", "NFD"] = "NFC" if on_disk == "NFD" else "NFD"
    folder = catalogue / unicodedata.normalize(on_disk, "Kleider für Mädchen")
    (catalogue / "cups").rename(folder)
    (folder / "0001.png").rename(folder / unicodedata.normalize(on_disk, "größe 1.png"))
    path = unicodedata.normalize(given, "Kleider für Mädchen/größe 1.png")
    rows = [{"path": path, "category": "cups"}]
    listing = read_manifest(write_csv(tmp_path / "m.csv", rows), catalogue, COLUMNS)
    assert len(listing.photos) == 1
    assert not named_ones(listing)


@pytest.mark.parametrize(
    ("encoding", "before", "delimiter"),
    [
        ("utf-8", "", ","),
        ("utf-8-sig", "sep=;\r\n", ";"),
        ("utf-16", "", "\t"),
        ("utf-16", "sep=|\r\n", "|"),
        ("cp1252", "", ";"),
    ],
)
def test_what_spreadsheets_save_is_read(
    catalogue: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    encoding: str,
    before: str,
    delimiter: str,
) -> None:
    lines = ["Path,CATEGORY,Sku,Price", "cups/0001.png,Hüte,A1,9"]
    text = before + "\r\n".join(line.replace(",", delimiter) for line in lines) + "\r\n"
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    (photo,) = read_manifest(tmp_path / "m.csv", catalogue, COLUMNS).photos
    assert (photo.category, photo.sku, photo.further) == ("Hüte", "A1", {"Price": "9"})
    assert ("Windows-1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize(
    "requested", [{"path_column": "file"}, {"category_column": "kind"}, {"sku_column": "article"}]
)
def test_unknown_column_is_named_with_those_there_are(
    catalogue: Path, tmp_path: Path, requested: dict[str, str]
) -> None:
    file = write_csv(tmp_path / "m.csv", [{"path": "a", "category": "b", "price": "1"}])
    with pytest.raises(PrepareError, match="path, category, price") as caught:
        read_manifest(file, catalogue, PrepareOptions.model_validate(requested))
    assert next(iter(requested.values())) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "is empty"),
        ("m.csv", b"path,category\na.png\n", "line 2 has 1 cells"),
        ("m.csv", b"path,category\n\x81\x8d,x\n", "neither UTF-8, UTF-16 .* nor Windows-1252"),
        ("m.csv", "path,category\na,x\n".encode("utf-16-le"), "neither UTF-8, UTF-16 with a byte"),
        ("m.csv", b'path,category\n"a.png,x\n', "can't be read"),
        ("m.csv", b"path,path,category\na,b,c\n", "more than one column path"),
        ("m.parquet", b"PAR1 nonsense", "can't be read"),
        ("m.xlsx", b"PK", ".csv or a .parquet"),
    ],
)
def test_refused_manifests(
    catalogue: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PrepareError, match=message):
        read_manifest(tmp_path / name, catalogue, COLUMNS)


def test_missing_manifest(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"gone\.csv"):
        read_manifest(tmp_path / "gone.csv", catalogue, COLUMNS)
