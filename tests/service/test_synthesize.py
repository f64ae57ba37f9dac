"""`catalogan synthesize`: sets on the command line, and the shards of one."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from service.datasets import plan as plan_module
from service.inference.generation import GeneratorSession

from .. import processes
from .small_graphs import constant, generator_graph
from .test_cli import ROOT, run
from .test_encoding import IPTC, OURS, read_xmp


@pytest.fixture(autouse=True)
def unsigned(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal sets have equal bytes where no file is signed; and nothing is left in the home."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("CATALOGAN_MARKS", "unsigned")


def synthesize(export: Path, out: Path, *options: object) -> Path:
    result = run("synthesize", "--export", export, "--out", out, "--seed", 5, *options)
    assert result.exit_code == 0, result.output
    return out


def files(path: Path) -> dict[str, bytes]:
    """All files of a set by name, in order where there is one."""
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    return {
        one.relative_to(path).as_posix(): one.read_bytes()
        for one in sorted(path.rglob("*"))
        if one.is_file()
    }


def test_a_log_says_what_and_how_far(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = run("synthesize", "--export", export, "--out", out, "--count", 3)
    # Tests of commands that train leave their log on stderr behind.
    said = [line for line in result.stderr.splitlines() if line.startswith("Synthesizing")]
    settings, last = said
    assert re.fullmatch(
        r"Synthesizing 12 images of shop:\w{12}: layout folder, size 24x16, format png, "
        r"truncation_psi [\d.]+, seed \d+, shard 1/1; \d+ workers on cpu",
        settings,
    )
    assert re.match(r"Synthesizing: 12 of 12 images, .* images/s, 0 min left$", last)
    result = run("generate", "--export", export, "--out", tmp_path / "images", "--count", 12)
    assert "Generating: 12 of 12 images" in result.stderr


MIX = ("--category", "boxes=7", "--category", "Mugs=3", "--category", "café lamps=1")


def test_a_folder_for_each_category(export: Path, tmp_path: Path) -> None:
    found = files(synthesize(export, tmp_path / "set.zip", *MIX))
    lines = [json.loads(line) for line in found["metadata.jsonl"].splitlines()]
    assert list(found) == [
        *(line["file_name"] for line in lines),
        "metadata.jsonl",
        "README.md",
        "classes.json",
        "manifest.json",
    ]
    assert [line["file_name"][-10:] for line in lines] == [f"{k:06d}.png" for k in range(1, 12)]
    assert sum(line["file_name"].startswith("café-lamps/") for line in lines) == 1
    for line in lines:
        with Image.open(io.BytesIO(found[line["file_name"]])) as image:
            assert image.size == (24, 16)
        mark = read_xmp(found[line["file_name"]])
        assert mark[IPTC + "DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert (mark[OURS + "seed"], mark[OURS + "category"]) == (
            str(line["seed"]),
            line["category"],
        )
    manifest = json.loads(found["manifest.json"])
    assert (manifest["synthetic"], manifest["count"], manifest["seed"]) == (True, 11, 5)
    assert [(one["name"], one["count"]) for one in manifest["categories"]] == [
        ("mugs", 3),
        ("boxes", 7),
        ("café lamps", 1),
    ]
    card = found["README.md"].decode()
    assert manifest["statement"] in card
    assert manifest["model_hash"] in card


def readme_code(out: Path, reader: str) -> str:
    """What a set's README says of a reader, with the set's own place in it."""
    blocks = re.findall(r"```python\n(.+?)```", (out / "README.md").read_text("utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if f"from {reader}" in block)
    return str(code).replace("SET", str(out))


@pytest.mark.parametrize("shard", ["1/1", "2/3"])
def test_image_folders_give_the_labels_of_the_metadata(
    export: Path, tmp_path: Path, shard: str
) -> None:
    """Two of four categories have images, whose folders in order aren't their labels in order."""
    pytest.importorskip("torchvision")
    counts = ("--category", "shoe boxes=5", "--category", "boxes=4")
    options = (*counts, "--seed", 5, "--shard", shard)
    out = synthesize(export, tmp_path / "set", *options)
    (metadata,) = out.glob("metadata*.jsonl")
    told = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    assert {one["label"] for one in told} == {1, 2}
    names: dict[str, Any] = {}
    exec(readme_code(out, "torchvision.datasets"), names)
    read = names["images"]
    assert read.classes == ["mugs", "shoe boxes", "boxes", "café lamps"]
    found = {Path(file).relative_to(out).as_posix(): label for file, label in read.samples}
    assert found == {one["file_name"]: one["label"] for one in told}
    compile(readme_code(out, "datasets"), "README.md", "exec")


@pytest.mark.parametrize("layout", ["folder", "coco", "webdataset"])
def test_every_set_lists_all_classes(export: Path, tmp_path: Path, layout: str) -> None:
    options = ("--layout", layout, "--category", "boxes=1")
    found = files(synthesize(export, tmp_path / "set.tar", *options))
    name = "__catalogan__/classes" if layout == "webdataset" else "classes.json"
    assert json.loads(found[name]) == [
        {"label": 0, "name": "mugs", "folder": "mugs"},
        {"label": 1, "name": "shoe boxes", "folder": "shoe-boxes"},
        {"label": 2, "name": "boxes", "folder": "boxes"},
        {"label": 3, "name": "café lamps", "folder": "café-lamps"},
    ]


def test_coco(export: Path, tmp_path: Path) -> None:
    found = files(synthesize(export, tmp_path / "set.tar", "--layout", "coco", *MIX))
    coco = json.loads(found["annotations.json"])
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert names == {1: "mugs", 2: "shoe boxes", 3: "boxes", 4: "café lamps"}
    assert [one["id"] for one in coco["images"]] == list(range(1, 12))
    assert len({one["id"] for one in coco["annotations"]}) == 11
    for image, noted in zip(coco["images"], coco["annotations"], strict=True):
        assert noted["image_id"] == image["id"]
        assert (image["width"], image["height"]) == (24, 16)
        mark = read_xmp(found[f"images/{image['file_name']}"])
        assert names[noted["category_id"]] == mark[OURS + "category"]
        assert str(image["seed"]) == mark[OURS + "seed"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's
@pytest.mark.parametrize("size", ["24x16", "48x32"])
def test_cocos_own_tools_read_masks_boxes_and_areas(
    make_export: Callable[..., Path], tmp_path: Path, size: str
) -> None:
    export = make_export(framed_graph(), size=(16, 24, 4))
    options = ("--layout", "coco", "--count", 4, "--size", size)
    out = synthesize(export, tmp_path / "set", *options)
    with redirect_stdout(io.StringIO()):
        coco = COCO(out / "annotations.json")
    sources = set()
    for image in coco.loadImgs(coco.getImgIds()):
        (noted,) = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        rle, mask = coco.annToRLE(noted), coco.annToMask(noted).astype(bool)
        assert masks.toBbox(rle).tolist() == noted["bbox"]
        assert masks.area(rle) == noted["area"] == mask.sum() > 0
        sources.add(noted["outline_from"])
        if noted["outline_from"] == "alpha":
            with Image.open(out / "images" / image["file_name"]) as shown:
                np.testing.assert_array_equal(mask, np.asarray(shown)[..., 3] >= 128)
    assert "alpha" in sources


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's
def test_torchvision_reads_coco_sets(export: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    out = synthesize(export, tmp_path / "set", "--layout", "coco", "--count", 2)
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()):
        exec(readme_code(out, "torchvision.datasets"), names)
    read = names["images"]
    assert len(read) == 8
    for image, (noted,) in read:
        mask = read.coco.annToMask(noted)
        assert mask.shape == image.size[::-1]
        assert mask.sum() == noted["area"]


def framed_graph() -> Any:
    """The small generator with a margin around its pictures that is clear, and 3 px below."""
    model = generator_graph(channels=4)
    frame = np.zeros((1, 4, 16, 24), dtype=np.float32)
    frame[:, 3] = -3
    frame[:, 3, 2:13, 4:20] = 0
    model.graph.initializer.append(constant("frame", frame))
    model.graph.node[-1].output[0] = "bare"
    model.graph.node.append(helper.make_node("Add", ["bare", "frame"], ["images"]))
    return model


def test_coco_boxes_follow_transparency(make_export: Callable[..., Path], tmp_path: Path) -> None:
    export = make_export(framed_graph(), size=(16, 24, 4))
    found = files(synthesize(export, tmp_path / "set", "--layout", "coco", "--count", 4))
    coco, tight = json.loads(found["annotations.json"]), 0
    for image, noted in zip(coco["images"], coco["annotations"], strict=True):
        with Image.open(io.BytesIO(found[f"images/{image['file_name']}"])) as picture:
            seen = np.asarray(picture)[..., 3] >= 128
        left, top, width, height = noted["bbox"]
        tight += (width, height) != (24, 16)
        assert not seen[:top].any()
        assert not seen[:, :left].any()
        assert not seen[top + height :].any()
        assert not seen[:, left + width :].any()
        for edge in (seen[top], seen[top + height - 1], seen[:, left], seen[:, left + width - 1]):
            assert edge.any()
    assert tight


def samples(found: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """A tar's files as WebDataset's readers put them together: by name up to the first dot."""
    grouped: dict[str, dict[str, bytes]] = {}
    for name, data in found.items():
        if name.startswith("__"):
            continue
        key, _, kind = name.partition(".")
        assert kind
        if key in grouped:
            assert key == list(grouped)[-1], "the files of a sample lie apart"
        grouped.setdefault(key, {})[kind] = data
    return grouped


def check_samples(found: dict[str, dict[str, bytes]], first: int, last: int) -> None:
    assert list(found) == [f"{k:06d}" for k in range(first, last + 1)]
    for sample in found.values():
        assert sample.keys() == {"cls", "json", "png"}
        told, mark = json.loads(sample["json"]), read_xmp(sample["png"])
        assert int(sample["cls"]) == told["label"]
        assert told["category"] == mark[OURS + "category"]
        assert str(told["seed"]) == mark[OURS + "seed"]


def test_a_webdataset_tar_is_one_shard(export: Path, tmp_path: Path) -> None:
    found = files(synthesize(export, tmp_path / "set.tar", "--layout", "webdataset", *MIX))
    check_samples(samples(found), 1, 11)
    assert list(found)[-3:] == [
        f"__catalogan__/{name}" for name in ("README", "classes", "manifest")
    ]
    assert json.loads(found["__catalogan__/manifest"])["count"] == 11


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_many_webdataset_shards(
    export: Path, tmp_path: Path, target: str, small_tars: None
) -> None:
    options = ("--layout", "webdataset", "--count", 5)
    found = files(synthesize(export, tmp_path / target, *options))
    names = [f"shard-{k:06d}.tar" for k in range(3)]
    assert sorted(found) == ["README.md", "classes.json", "manifest.json", *names]
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(found[name])
        check_samples(samples(files(tmp_path / name)), 1 + 8 * index, min(8 + 8 * index, 20))


@pytest.fixture
def small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight pictures in a tar, so that few make several."""
    for module in ("service.datasets.plan", "service.datasets.layouts"):
        monkeypatch.setattr(f"{module}.TAR_IMAGES", 8)
    assert plan_module.TAR_IMAGES == 8


COUNTS = {
    "one": ("--category", "boxes=1"),
    "few": ("--category", "boxes=4", "--category", "mugs=1"),
}


@pytest.mark.parametrize("of", [2, 3, 7])
@pytest.mark.parametrize("target", ["{}", "{}.zip", "{}.tar"])
@pytest.mark.parametrize("layout", ["folder", "coco", "webdataset"])
def test_shards_are_the_set_whatever_their_number(
    export: Path, tmp_path: Path, small_tars: None, layout: str, target: str, of: int
) -> None:
    for name, counts in {**COUNTS, "many": ("--count", 5)}.items():
        options = ("--layout", layout, *counts)
        whole = files(synthesize(export, tmp_path / target.format(name), *options))
        joined: dict[str, bytes] = {}
        about: dict[str, list[bytes]] = {}
        for index in range(1, of + 1):
            out = tmp_path / target.format(f"{name}-{index}")
            suffix = f"-{index:05d}-of-{of:05d}"
            for file, data in files(
                synthesize(export, out, *options, "--shard", f"{index}/{of}")
            ).items():
                if suffix in file:
                    about.setdefault(file.replace(suffix, ""), []).append(data)
                elif file in joined:
                    assert "README" in file or "classes" in file
                    assert joined[file] == data
                else:
                    joined[file] = data
        check_about(whole, about, joined)
        if layout != "webdataset" or target == "{}.tar":  # there, whole tars are the unit
            parts = [json.loads(one)["shard"]["count"] for one in manifests(about)]
            assert max(parts) - min(parts) <= 1


def manifests(about: dict[str, list[bytes]]) -> list[bytes]:
    return next(data for name, data in about.items() if "manifest" in name)


def check_about(
    whole: dict[str, bytes], about: dict[str, list[bytes]], joined: dict[str, bytes]
) -> None:
    """The shards' files are the whole's, byte by byte; those about it come to the same."""
    assert whole.keys() == joined.keys() | about.keys()
    assert {name: data for name, data in whole.items() if name not in about} == joined
    for name, parts in about.items():
        if name == "metadata.jsonl":
            assert b"".join(parts) == whole[name]
        elif name == "annotations.json":
            read = [json.loads(part) for part in parts]
            for key, value in json.loads(whole[name]).items():
                if key in ("images", "annotations"):
                    assert [one for part in read for one in part[key]] == value
                else:
                    assert all(part[key] == value for part in read)
        else:
            expected = json.loads(whole[name])
            read = [json.loads(part) for part in parts]
            assert sum(part["shard"]["count"] for part in read) == expected["count"]
            assert all({**part, "shard": 0} == {**expected, "shard": 0} for part in read)


def test_equal_commands_give_equal_files(export: Path, tmp_path: Path) -> None:
    for kind in ("zip", "tar"):
        once, again = (tmp_path / f"{name}.{kind}" for name in ("once", "again"))
        synthesize(export, once, "--count", 3, "--layout", "coco")
        synthesize(export, again, "--count", 3, "--layout", "coco")
        assert once.read_bytes() == again.read_bytes()


def test_formats_sizes_and_backgrounds(clear_export: Path, tmp_path: Path) -> None:
    options = ("--format", "jpeg", "--size", "48x32", "--background", "#ff0000", "--count", 1)
    found = files(synthesize(clear_export, tmp_path / "set", *options))
    with Image.open(io.BytesIO(found["boxes/000003.jpeg"])) as image:
        assert (image.format, image.size) == ("JPEG", (48, 32))
    manifest = json.loads(found["manifest.json"])
    assert (manifest["background"], manifest["size"]) == ("#ff0000", "48x32")


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_what_exists_is_left_as_it_is(export: Path, tmp_path: Path, target: str) -> None:
    out = synthesize(export, tmp_path / target, "--count", 1)
    before = files(out)
    result = run("synthesize", "--export", export, "--out", out, "--count", 2)
    assert result.exit_code == 2
    assert "exists: choose another --out" in result.output
    assert files(out) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--count N"),
        (("--category", "boxes"), "add =COUNT"),
        (("--category", "boxes=1", "--category", "boxes=2"), "twice"),
        (("--category", "spoons=1"), "unknown category; known are mugs"),
        (("--count", 1, "--shard", "1"), "as I/N"),
        (("--count", 1, "--shard", "0/2", "--seed", 1), "must be 1 or more"),
        (("--count", 1, "--shard", "3/2", "--seed", 1), "there is no number 3"),
        (("--count", 1, "--shard", "1/2"), "send a seed"),
        (("--count", 1, "--background", "white"), "no transparency"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    export: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("synthesize", "--export", export, "--out", tmp_path / "out" / "set", *options)
    assert result.exit_code == 2
    # What else is there is log, of whichever level an earlier test has set.
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert message in line
    assert result.output.endswith(line + "\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_a_failure_on_the_way_leaves_nothing(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    render, left = GeneratorSession.render, iter(range(6))

    def failing(self: GeneratorSession, specs: Any, *more: Any) -> Any:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return render(self, specs, *more)

    monkeypatch.setattr(GeneratorSession, "render", failing)
    result = run("synthesize", "--export", export, "--out", tmp_path / target, "--count", 9)
    assert result.exit_code == 2
    assert "can't be written: No space left" in result.output
    assert not list(tmp_path.iterdir())


def heed_interrupts() -> None:
    """What shells start in the background is deaf to Ctrl-C, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupted_leaves_nothing_and_killed_is_made_anew(export: Path, tmp_path: Path) -> None:
    """A set too large to end by itself, stopped by Ctrl-C and by SIGKILL."""
    command = [sys.executable, "-m", "catalogan", "synthesize", "--export", str(export)]
    command += ["--count", "400000", "--out", str(tmp_path / "set"), "--seed", "5"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    aside = tmp_path / ".set.partial"

    def is_begun() -> bool:
        return not (aside / "left").exists() and (aside / "mugs").is_dir()

    options = {"cwd": ROOT, "env": env, "stderr": subprocess.DEVNULL}
    for kind in (signal.SIGKILL, signal.SIGINT):
        with processes.started(command, preexec_fn=heed_interrupts, **options) as process:
            processes.wait_for(is_begun, process)
            (aside / "left").touch()  # the next one clears it away
            process.send_signal(kind)
            assert process.wait() != 0
        assert aside.exists() == (kind == signal.SIGKILL)
    assert not (tmp_path / "set").exists()
    assert files(synthesize(export, tmp_path / "set", "--count", 1))


def test_progress_counts_the_pictures_of_the_shard(
    make_export: Callable[..., Path], tmp_path: Path
) -> None:
    from service.cli.synthesize import dataset_request, write_set

    seen: list[tuple[int, int]] = []
    request = dataset_request(count=5, categories=[], shard="1/2", seed=1)
    write_set(
        request,
        tmp_path / "set",
        export=make_export(),
        on_progress=lambda *progress: seen.append(progress),
    )
    assert seen == [(k, 10) for k in range(1, 11)]
