"""docs/api.md, followed to the letter against a real service."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.model_store.registry import Registry

from .conftest import model_store, write_styled_export
from .live import live_service

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
KEY = "secret-key-of-the-test"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Example:
    """A block of the page that is run, and what it should print, if the page says so."""

    language: str
    code: str
    line: int
    output: str | None = None


@dataclass
class Run:
    """What came of the examples of one language: the folder, and each one's output."""

    folder: Path
    outputs: dict[int, str] = field(default_factory=dict)


def examples(language: str) -> list[Example]:
    text = PAGE.read_text(encoding="utf-8")
    found: list[Example] = []
    for block in BLOCK.finditer(text):
        kind, code = block.groups()
        if kind == "output":
            found[-1].output = code
        elif kind in ("sh", "python"):
            found.append(Example(kind, code, text.count("\n", 0, block.start()) + 2))
    return [one for one in found if one.language == language]


def run(program: list[str], script: str, folder: Path, address: str) -> str:
    environment = os.environ | {
        "CATALOGAN_BASE_URL": address,
        "CATALOGAN_API_KEY": KEY,
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        program, input=script, cwd=folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, f"{PAGE.name}: {done.stdout}\n{done.stderr}"
    return done.stdout


def outputs(printed: str) -> dict[int, str]:
    """Each example's output, by its line."""
    parts = re.split(r"^=== (\d+)\n", printed, flags=re.MULTILINE)[1:]
    return {int(line): text for line, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    categories = ("mug", "lamp", "shoe", "box")  # four of the demo's
    export = write_styled_export(
        tmp_path_factory.mktemp("exports") / "shop", name="shop", categories=categories
    )
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)
        with live_service(api_key=KEY) as address:
            yield address


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, address: str) -> Run:
    """All sh blocks in one shell; it ends at the first that fails."""
    folder = tmp_path_factory.mktemp("shell")
    script = "".join(f"printf '\\n=== {one.line}\\n'\n{one.code}" for one in examples("sh"))
    return Run(folder, outputs(run(["bash", "-euo", "pipefail"], script, folder, address)))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, shell: Run, address: str) -> Run:
    """All python blocks in one interpreter, in the shell's folder."""
    script = "".join(f"print('\\n=== {one.line}')\n{one.code}" for one in examples("python"))
    return Run(shell.folder, outputs(run([sys.executable, "-"], script, shell.folder, address)))


@pytest.mark.parametrize("language", ["sh", "python"])
def test_examples_print_what_the_page_says(request: pytest.FixtureRequest, language: str) -> None:
    done = request.getfixturevalue("shell" if language == "sh" else "python")
    told = [one for one in examples(language) if one.output is not None]
    assert told
    for one in told:
        pattern = re.escape(one.output.strip()).replace("…", ".*")
        assert re.fullmatch(pattern, done.outputs[one.line].strip()), done.outputs[one.line]


def opened(path: Path) -> Any:
    return Image.open(io.BytesIO(path.read_bytes()))


def load(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def test_files_of_the_shell(shell: Run) -> None:
    folder = shell.folder
    assert (opened(folder / "mug.png").format, opened(folder / "mug.png").size) == ("PNG", (24, 16))
    lamps = load(folder / "lamps" / "manifest.json")
    assert [one["category"] for one in lamps["data"]] == ["lamp", "lamp"]
    assert {opened(folder / "lamps" / one["file"]).format for one in lamps["data"]} == {"WEBP"}
    shoes = load(folder / "shoes.json")
    assert [one["seed"] for one in shoes["data"]] == [7, 8, 40]
    assert shoes["data"][0]["categories"] == {"shoe": 0.8, "mug": 0.2}
    variations = load(folder / "variations.json")
    assert [(one["seed"], one["strength"]) for one in variations["data"]] == [(5, 0.4), (6, 0.4)]
    assert opened(folder / "mugs.webp").n_frames > 2
    augmented = load(folder / "augmented.json")
    assert [one["seed"] for one in augmented["data"]] == [1, 2, 3]
    assert {one["annotations"]["label"] for one in augmented["data"]} == {"mug"}
    with zipfile.ZipFile(folder / "set.zip") as archive:
        assert archive.testzip() is None
        assert len(json.loads(archive.read("annotations.json"))["images"]) == 5
    assert load(folder / "verified.json")["verdict"] == "ours"
    assert load(folder / "models.json")["data"] == [load(folder / "model.json")]
    kinds = {one["kind"] for one in load(folder / "usage.json")["data"]}
    assert kinds >= {"generation", "variation", "interpolation", "augmentation", "dataset"}
    assert base64.b64decode(shoes["data"][0]["b64_json"]).startswith(b"\x89PNG")


def test_files_of_python(python: Run) -> None:
    assert opened(python.folder / "python-mug.png").size == (24, 16)
    assert opened(python.folder / "mugs.gif").n_frames == 8
    assert (python.folder / "set.tar").stat().st_size > 1000
    assert not (python.folder / "set.tar.part").exists()


def test_the_page_names_every_endpoint_field_and_status(address: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    headers = {"Authorization": f"Bearer {KEY}"}
    document = httpx.get(f"{address}/v1/openapi.json", headers=headers, timeout=None).json()
    named = set(re.findall(r"`([A-Za-z_0-9-]+)`", page))
    rows = set(re.findall(r"\d{3}", "".join(re.findall(r"^\| [\d, ]+ \|", page, re.MULTILINE))))
    for path, operations in document["paths"].items():
        assert path.partition("{")[0].rstrip("/") in page
        for operation in operations.values():
            assert set(operation["responses"]) - {"200"} <= rows, path
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert set(content["schema"]["properties"]) <= named, path
            assert {one["name"] for one in operation.get("parameters", [])} <= named | {"model"}
