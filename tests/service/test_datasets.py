"""Which pictures make up a set, and the archives that they are written to."""

import io
import os
import shutil
import struct
import subprocess
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import GeneratorManifest
from service.api.parsing.accept import resolve_file
from service.datasets.archives import Directory, Spool, Tar, Zip, add, add_blocks
from service.datasets.numbering import Shard, all_items, first_seed, folder_names
from service.datasets.plan import CONTAINER_TYPES, DatasetPlan, DatasetRequest, plan_dataset
from service.errors import BadRequest
from service.fields import validate
from service.inference.generation import SEED_LIMIT


def manifest_of(export: Path, **changes: Any) -> GeneratorManifest:
    return GeneratorManifest.model_validate_json(
        (export / "manifest.json").read_bytes()
    ).model_copy(update=changes)


def planned(export: Path, container: Any = "zip", limit: int = 10**6, **body: Any) -> DatasetPlan:
    asked = validate(DatasetRequest, body)
    return plan_dataset(asked, manifest_of(export), container=container, limit=limit)


def test_items_have_the_counts_asked_for_and_every_seed_once() -> None:
    counts = {0: 700, 3: 41, 9: 1}
    items = list(all_items(counts, base=2**53 - 1))
    assert Counter(item.category for item in items) == counts
    assert [item.number for item in items] == list(range(1, 743))
    assert len({item.seed for item in items}) == 742
    assert all(0 <= item.seed < SEED_LIMIT for item in items)


def test_every_stretch_has_the_categories_in_proportion() -> None:
    items = [item.category for item in all_items({0: 600, 1: 300, 2: 100}, base=0)]
    for start in range(0, 1000, 50):
        found = Counter(items[start : start + 50])
        assert abs(found[0] - 30) <= 1
        assert abs(found[1] - 15) <= 1
        assert abs(found[2] - 5) <= 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    counts=st.dictionaries(st.integers(0, 30), st.integers(1, 40), min_size=1, max_size=12),
    first=st.integers(1, 500),
)
def test_items_from_any_number_on_are_those_of_the_whole(
    counts: dict[int, int], first: int
) -> None:
    whole = list(all_items(counts, base=5))
    assert list(all_items(counts, base=5, first=first)) == whole[first - 1 :]


def test_the_last_shard_of_the_largest_set_begins_at_once(export: Path) -> None:
    """Ten million items were walked before its first, for 14 s on the event loop."""
    shard = {"index": 10_000, "of": 10_000}
    counts = {"mugs": 9_999_990, "boxes": 1, "café lamps": 8}
    plan = planned(export, categories=counts, seed=1, shard=shard)
    begun = time.process_time()
    items = list(plan.items())
    assert time.process_time() - begun < 0.5
    assert [item.number for item in items] == list(plan.numbers)
    assert items[-1].number == 9_999_999


def test_ten_thousand_categories_delay_no_shard() -> None:
    counts = dict.fromkeys(range(10_000), 999)
    begun = time.process_time()
    item = next(all_items(counts, base=0, first=9_990_000))
    assert time.process_time() - begun < 2
    assert item.number == 9_990_000


def test_seeds_follow_from_base_category_and_place_alone() -> None:
    few = [i for i in all_items({1: 5, 2: 7}, base=42) if i.category == 2]
    many = [i for i in all_items({0: 90, 2: 30}, base=42) if i.category == 2]
    assert [i.seed for i in few] == [i.seed for i in many][:7]
    assert [i.seed for i in few] == [(first_seed(42, 2) + k) % SEED_LIMIT for k in range(7)]
    # What the documentation says, so that others can work it out.
    assert first_seed(42, 2) == (0xC0D88CED25C15FD5 + 2 * 2**39) % 2**53


def test_categories_share_no_seeds_whatever_their_number() -> None:
    starts = sorted(first_seed(7, category) for category in range(10_000))
    gaps = np.diff([*starts, starts[0] + SEED_LIMIT])
    assert gaps.min() >= 2**39


@pytest.mark.parametrize("unit", [1, 4, 1000])
@pytest.mark.parametrize("of", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("total", [0, 1, 2, 12, 20, 29])
def test_shards_follow_on_each_other_and_leave_nothing_out(total: int, of: int, unit: int) -> None:
    parts = [Shard(index, of).numbers(total, unit) for index in range(1, of + 1)]
    assert [n for part in parts for n in part] == list(range(1, total + 1))
    assert all((part.start - 1) % unit == 0 for part in parts if part)
    assert max(map(len, parts)) - min(map(len, parts)) <= unit


def test_folder_names_are_safe_and_differ() -> None:
    names = folder_names(
        [
            *("../../up", "/etc/passwd", "..", "Mugs", "mugs", "MUGS!", "con", "café lamps"),
            *("a" * 200, "a" * 199, "🫖", "😀", "x\0y\n", "mugs-4", "."),
        ]
    )
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name
        assert len(name.encode()) <= 255
        assert not set(name) & set('/\\.:\0\n*?"<>| ')
        assert name.casefold() not in ("con", "nul")
    assert names[3] == "Mugs"
    assert names[7] == "café-lamps"


def test_spool_gives_back_what_it_was_given_and_keeps_little() -> None:
    spool, lines = (
        Spool(),
        [f'{{"file_name": "mugs/{k:06d}.png", "seed": {k}}}\n' for k in range(50_000)],
    )
    for line in lines:
        spool.write(line.encode())
    expected = "".join(lines).encode()
    assert b"".join(spool.blocks()) == b"".join(spool.blocks()) == expected
    assert max(map(len, spool.blocks())) < 2_000_000
    assert sum(map(len, spool._parts)) < 10 * 50_000


FILES = {
    "a/000001.png": b"first",
    "empty": b"",
    "café/größe.json": b"{}" * 999,
    "n" * 60 + "/" + "m" * 150: b"long name",
}


def archive(sink: Any, files: dict[str, bytes] = FILES) -> bytes:
    parts = [add(sink, name, data) for name, data in files.items()]
    parts += add_blocks(sink, "lines.jsonl", lambda: iter([b"one\n", b"two\n"]))
    return b"".join([*parts, *sink.close()])


EXPECTED = {**FILES, "lines.jsonl": b"one\ntwo\n"}


def read_tar(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def read_zip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        return {name: found.read(name) for name in found.namelist()}


def test_tar_and_zip_hold_what_was_put_in_and_no_clock() -> None:
    assert list(read_tar(archive(Tar())).items()) == list(EXPECTED.items())
    assert list(read_zip(archive(Zip())).items()) == list(EXPECTED.items())
    assert archive(Zip()) == archive(Zip())
    with tarfile.open(fileobj=io.BytesIO(archive(Tar()))) as tar:
        assert {(one.mtime, one.uid, one.mode) for one in tar} == {(0, 0, 0o644)}
    with zipfile.ZipFile(io.BytesIO(archive(Zip()))) as found:
        assert {(one.date_time, one.external_attr >> 16) for one in found.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644)
        }


def test_zip_says_sizes_before_the_bytes_for_those_who_unpack_as_they_read() -> None:
    data = archive(Zip())
    found = {}
    while data.startswith(b"PK\3\4"):
        flags, crc = int.from_bytes(data[6:8], "little"), int.from_bytes(data[14:18], "little")
        size, names, extra = (
            int.from_bytes(data[start:end], "little")
            for start, end in ((22, 26), (26, 28), (28, 30))
        )
        assert not flags & 8
        name = data[30 : 30 + names].decode()
        found[name] = data[30 + names + extra : 30 + names + extra + size]
        assert zlib.crc32(found[name]) == crc
        data = data[30 + names + extra + size :]
    assert found == EXPECTED


def test_a_file_of_unknown_size_in_a_zip() -> None:
    sink = Zip()
    data = b"".join([sink.begin("a.tar"), sink.write(b"12"), sink.write(b"345"), sink.end()])
    data += add(sink, "b", b"behind") + b"".join(sink.close())
    assert read_zip(data) == {"a.tar": b"12345", "b": b"behind"}


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip")
def test_unzip_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    sink = Zip()
    data = b"".join([sink.begin("a.tar"), sink.write(b"12345"), sink.end()])
    (tmp_path / "set.zip").write_bytes(data + archive(sink))
    ran = subprocess.run(["unzip", "-tq", tmp_path / "set.zip"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr


def test_more_files_than_a_short_zip_can_count() -> None:
    sink, size = Zip(), 70_000
    data = b"".join(add(sink, f"{k}", b"") for k in range(size)) + b"".join(sink.close())
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.namelist() == [f"{k}" for k in range(size)]
    # zipfile goes by the directory's size; others need the record of the long form.
    record, locator = data[-98:-42], data[-42:-22]
    assert struct.unpack("<4sQ2H2L2Q", record[:40])[-2:] == (size, size)
    assert struct.unpack("<4sLQL", locator) == (b"PK\6\7", 0, len(data) - 98, 1)
    assert data[-22:-6].startswith(b"PK\5\6\0\0\0\0\xff\xff\xff\xff")


@pytest.mark.slow
def test_a_zip_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    path, sink, zeros = tmp_path / "large.zip", Zip(), bytes(64 * 2**20)
    with path.open("wb") as file:
        file.write(sink.begin("large"))
        for _ in range(65):  # as holes: nothing is written
            file.seek(len(sink.write(zeros)), os.SEEK_CUR)
        file.write(sink.end() + add(sink, "behind", b"here") + b"".join(sink.close()))
    with zipfile.ZipFile(path) as found:
        assert found.read("behind") == b"here"
        assert found.getinfo("large").file_size == 65 * len(zeros)
        assert found.getinfo("behind").header_offset > 2**32
        with found.open("large") as large:
            while large.read(2**24):  # checks the CRC at the end
                pass
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", path], check=True, capture_output=True)


def test_a_directory_holds_the_same_files(tmp_path: Path) -> None:
    assert archive(Directory(tmp_path)) == b""
    found = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == EXPECTED


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "categories"),
        ({"count": 3, "categories": {"mugs": 1}}, "categories"),
        ({"count": 0}, "count"),
        ({"count": 2.0}, "count"),
        ({"categories": {}}, "categories"),
        ({"categories": {"mugs": 0}}, "categories.mugs"),
        ({"categories": {"spoons": 1}}, "categories"),
        ({"categories": {"mugs": 1, "MUGS ": 2}}, "categories"),
        ({"count": 1, "shard": {"index": 3, "of": 2}, "seed": 1}, "shard.index"),
        ({"count": 1, "shard": {"index": 0, "of": 2}, "seed": 1}, "shard.index"),
        ({"count": 1, "shard": {"index": 1, "of": 2}}, "seed"),
        ({"count": 1, "background": "transparent", "output_format": "jpeg"}, "background"),
        ({"count": 1, "layout": "yolo"}, "layout"),
        ({"count": 1, "size": "1x1"}, "size"),
        ({"count": 1, "extra": 1}, "extra"),
        ({"count": 26}, "count"),
        ({"categories": {"boxes": 101}}, "categories"),
        ({"count": 9_999_999}, "count"),
    ],
)
def test_bad_requests_name_the_field(export: Path, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        planned(export, limit=100, **body)
    assert caught.value.param == param


def test_the_limit_is_on_what_is_made_at_a_time(export: Path) -> None:
    shard = {"index": 2, "of": 4}
    plan = planned(export, limit=100, count=100, seed=0, shard=shard)
    assert (plan.total, len(plan.numbers)) == (400, 100)


def test_names_are_long_enough_for_the_whole_set(export: Path) -> None:
    assert planned(export, count=1).digits == 6
    assert planned(export, count=300_000, limit=10**7).digits == 7


def resolve_container(accept: str | None, body: dict[str, Any]) -> str:
    request = validate(DatasetRequest, {"count": 1, **body})
    preferred = request.usual_container
    return resolve_file(accept, CONTAINER_TYPES, request.container, "container", preferred)


@pytest.mark.parametrize(
    ("accept", "body", "container"),
    [
        (None, {}, "zip"),
        ("*/*", {"layout": "webdataset"}, "tar"),
        ("application/x-tar", {}, "tar"),
        ("application/zip", {"layout": "webdataset"}, "zip"),
        ("application/*", {"container": "tar"}, "tar"),
    ],
)
def test_the_container(accept: str | None, body: dict[str, Any], container: str) -> None:
    assert resolve_container(accept, body) == container


@pytest.mark.parametrize(
    ("accept", "body", "param"),
    [("image/png", {}, "Accept"), ("application/zip", {"container": "tar"}, "container")],
)
def test_no_container_that_is_accepted(accept: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        resolve_container(accept, body)
    assert caught.value.param == param
