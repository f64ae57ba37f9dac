"""The command line as people run it: a process, its exit code, its two streams."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent

# Runs the dispatcher where the named modules are not installed.
_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "catalogan"
import catalogan
catalogan.main()
"""

_AND_WHAT_IS_LOADED = """
import sys
import catalogan
try:
    catalogan.main()
finally:
    loaded = {"torch", "bentoml", "onnxruntime", "pyarrow", "training.cli", "service.cli.serve"}
    print("LOADED", sorted(loaded & set(sys.modules)))
"""


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "catalogan"] if code is None else ["-c", code]
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for category in ("cups", "ha[ts]"):
        (tmp_path / "photos" / category).mkdir(parents=True)
        for number in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((32, 32)).save(tmp_path / "photos" / category / f"{number}.png")
    return tmp_path / "photos"


def test_overview_lists_every_command_and_loads_no_command() -> None:
    done = run("--help", code=_AND_WHAT_IS_LOADED)
    assert done.returncode == 0, done.stderr
    assert "train-encoder" in done.stdout
    assert "train-upscaler" in done.stdout
    for command in ("prepare", "train", "evaluate", "export", "register", "serve", "generate"):
        assert command in done.stdout
    assert "LOADED []" in done.stdout


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("catalogan 0.")


def test_help_of_serving_loads_no_torch() -> None:
    done = run("serve", "--help", code=_AND_WHAT_IS_LOADED)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1]
    assert "service.cli.serve" in loaded
    assert "completion" not in done.stdout  # an option of no command
    assert "torch" not in loaded
    assert "training.cli" not in loaded


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "export", "train-watermark"])
def test_help_of_training_loads_no_torch(command: str) -> None:
    """It takes seconds to load, which a wrong option need not wait for."""
    done = run(command, "--help", code=_AND_WHAT_IS_LOADED)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1]
    assert "training.cli" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("missing", "arguments", "hint"),
    [
        ("torch", ["train", "data", "--out", "run"], "pip install 'catalogan[cpu,train]'"),
        ("pyarrow", ["prepare", "photos", "--out", "data"], "pip install 'catalogan[cpu,train]'"),
        ("timm", ["prepare", "photos", "--out", "data"], "pip install 'catalogan[cpu,train]'"),
    ],
)
def test_missing_extra_is_named(
    photos: Path, tmp_path: Path, missing: str, arguments: list[str], hint: str
) -> None:
    """Also where a command's work needs it, not its start."""
    found = {"photos": str(photos), "data": str(tmp_path / "data")}
    sent = [found.get(argument, argument) for argument in arguments]
    done = run(*sent, code=_WITHOUT.format(missing={missing}))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().splitlines() == [
        f"catalogan {arguments[0]} needs {missing}, which is not installed: {hint}"
    ]


def test_prepare(photos: Path, tmp_path: Path) -> None:
    (photos / "cups" / "broken.jpg").write_text("no picture")
    done = run("prepare", str(photos), "--out", str(tmp_path / "out"), "--size", "8x16")
    assert done.returncode == 0, done.stderr
    assert "16 of 17 photos used" in done.stdout
    assert "1 not_an_image" in done.stdout
    assert "ha[ts]" in done.stdout
    assert (tmp_path / "out" / "images.npy").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "big"], "--size 'big'"),
        (["--size", "4"], "--size 4"),
        (["--size", "100"], "the nearest are 96x96 and 112x112"),
        (["--size", "9x8"], "--size 9x8: networks can't be built for it"),
        (["--channels", "2"], "--channels 2"),
        (["--validation-share", "1.5"], "--validation-share 1.5"),
        (["--background", "[red"], "--background '[red'"),
        (["--min-photos", "99"], "fewer than the minimum of 99"),
    ],
)
def test_prepare_refuses_in_one_line(
    photos: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    done = run("prepare", str(photos), "--out", str(tmp_path / "out"), *more)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_sample_catalogue(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    done = run("sample-catalogue", "--out", str(out), "--part", "second")
    assert done.returncode == 0, done.stderr
    assert {path.name: len(list(path.iterdir())) for path in out.iterdir()} == {
        "shirt": 125,
        "shoe": 125,
    }
    assert "250 photos (CC0-1.0) in" in done.stdout.replace("\n", " ")


def test_sample_catalogue_never_mixes_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = run("sample-catalogue", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"Error: --out {tmp_path} exists and is not an empty folder: choose another or remove it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_sample_catalogue_names_the_parts(tmp_path: Path) -> None:
    done = run("sample-catalogue", "--out", str(tmp_path / "shop"), "--part", "third")
    assert done.returncode == 2
    assert "'third' is not one of 'first', 'second'" in done.stderr
    assert not (tmp_path / "shop").exists()
