"""The serving commands as an operator runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from catalogan import app
from service.model_store.registry import Registry

from ..processes import started
from .conftest import wait_for
from .test_augmentations_http import photo

ROOT = Path(__file__).parents[2]
# With time limits that no busy machine runs into, where they are no settings: see conftest.
COMMAND = [
    sys.executable,
    "-c",
    "from service.storage import database; from service.provenance import manifests\n"
    "database.TIMEOUT_SEC = manifests.TIMEOUT_SEC = 600\n"
    "import catalogan; catalogan.main()",
]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _store(bento_home: Path) -> None:
    """Each test has a Model Store of its own."""


def test_register_list_show_promote_roll_back(make_export: Callable[..., Path]) -> None:
    first, second = make_export(seed=1), make_export(seed=2)
    assert "(promoted)" in run("register", first).output
    answer = run("register", second).output
    new_id = answer.split()[1]
    assert f"catalogan models promote {new_id}" in answer
    listed = json.loads(run("models", "list", "--json").output)
    assert [model["promoted"] for model in listed] == [True, False]
    assert new_id in run("models", "list").output
    assert json.loads(run("models", "show", "shop").output)["id"] == listed[0]["id"]
    shown = json.loads(run("models", "show", new_id).output)
    assert shown["manifest"]["dataset_hash"] == "0" * 64
    assert new_id in run("models", "promote", new_id).output
    assert json.loads(run("models", "show", "shop").output)["id"] == new_id
    assert listed[0]["id"] in run("models", "rollback", "shop").output


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "nowhere"),
        ("models", "show", "shop"),
        ("models", "promote", "shop"),
        ("models", "rollback", "shop"),
        ("models", "rollback", "No Name"),
        ("generate", "--out", "x"),
        ("generate", "--out", "x", "--export", "nowhere"),
        ("serve", "--host", "0.0.0.0"),
        ("serve", "--host", "no.such.host.invalid"),
    ],
)
def test_expected_failures_are_one_line_and_exit_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_generate_writes_what_was_asked(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    arguments = ("generate", "--export", export, "--out", out, "--seed", 7, "--count", 5)
    result = run(*arguments, "--format", "webp")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "boxes-10.webp",
        "café-lamps-11.webp",
        "café-lamps-7.webp",
        "mugs-8.webp",
        "shoe-boxes-9.webp",
    ]
    for name in names:
        with Image.open(out / name) as image:
            assert image.size == (24, 16)


def test_generate_at_another_size(export: Path, tmp_path: Path) -> None:
    arguments = ("generate", "--export", export, "--out", tmp_path, "--seed", 0)
    assert run(*arguments, "--size", "48x32").exit_code == 0
    with Image.open(tmp_path / "mugs-0.png") as image:
        assert image.size == (48, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--category", "spoons"), "unknown category; known are mugs"),
        (("--seed", str(2**53)), "must be below"),
        (("--size", "100x100"), 'the nearest to 100x100 is "96x64"'),
    ],
)
def test_generate_names_what_is_wrong(
    export: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run("generate", "--export", export, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_generate_onto_a_file(export: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run("generate", "--export", export, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "can't be written to" in result.output


def test_category_names_stay_inside_the_directory(
    make_export: Callable[..., Path], tmp_path: Path
) -> None:
    export = make_export(categories=("../../up", "/etc/passwd", "..", "a" * 200))
    out = tmp_path / "out"
    assert run("generate", "--export", export, "--out", out, "--count", 4).exit_code == 0
    assert len(list(out.iterdir())) == 4


def get(url: str, **options: Any) -> Any:
    request = urllib.request.Request(url, **options)
    with urllib.request.urlopen(request) as response:
        return response.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server process and wait until it is ready."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    with started(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:

        def is_ready() -> bool:
            assert process.poll() is None, process.communicate()[0]
            try:
                return bool(get(f"http://127.0.0.1:{port}/readyz"))
            except OSError:
                return False

        wait_for(is_ready)
        yield process


def test_serve_announces_itself_and_stops_cleanly(export: Path) -> None:
    Registry().register(export)
    port = free_port()
    with serving([*COMMAND, "serve", "--port", str(port)], port) as process:
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        headers = {"Content-Type": "application/json", "Accept": "image/png"}
        assert get(url, data=b'{"seed": 1}', headers=headers).startswith(b"\x89PNG")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert process.returncode == 0
    assert f"listening on http://127.0.0.1:{port} (no API key: this machine only)" in output
    assert "Traceback" not in output


def test_a_port_that_is_taken(export: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("serve", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "can't listen on 127.0.0.1:" in result.output


def test_a_container_without_a_key_exits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGAN_CONTAINER", "1")
    result = run("serve")
    assert result.exit_code == 2
    assert "CATALOGAN_API_KEY" in result.output


BENTOML = [sys.executable, "-m", "bentoml", "serve"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--host", "0.0.0.0"], {}),
        ([], {}),
        (["--host", "127.0.0.1"], {"CATALOGAN_CONTAINER": "1"}),
    ],
)
def test_bentoml_serve_refuses_strangers_too(
    export: Path, options: list[str], environment: dict[str, str]
) -> None:
    Registry().register(export)
    ran = subprocess.run(
        [*BENTOML, "service.bento:ProductImages", "--port", str(free_port()), *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    assert "CATALOGAN_API_KEY" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_bento_holds_the_promoted_model_and_serves(export: Path, tmp_path: Path) -> None:
    """`bentoml build` on a copy of what it packs, then the Bento alone, without a pointer."""
    model = Registry().register(export)
    source = tmp_path / "source"
    for pattern in ("bentofile.yaml", "locks/cpu.txt", "service/**/*.py", "models/*.py"):
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().removeprefix("__tag__:")
    name, version = tag.split(":")
    bento = Path(os.environ["BENTOML_HOME"]) / "bentos" / name / version
    assert model.model_id in (bento / "bento.yaml").read_text()
    packed = sorted(path.name for path in (bento / "src" / "models").iterdir())
    images = [f"image_{part}.py" for part in ("checks", "colour", "files", "formats")]
    shared = ["images.py", "manifest.py", "markdown.py", "progress.py", "terminal.py"]
    others = ["__init__.py", "av1_sizes.py", "confinement.py", "validation.py", "watermark.py"]
    assert packed == sorted([*others, *images, *shared])
    Registry().promotions.path.unlink()
    port = free_port()
    command = [*BENTOML, tag, "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, port, PYTHONPATH="") as process:
        assert model.model_id in get(f"http://127.0.0.1:{port}/v1/models").decode().replace(
            f'"id":"{model.name}"', f'"id":"{model.model_id}"'
        )
        uploaded = httpx.post(  # decoded by a process of its own, which finds its modules
            f"http://127.0.0.1:{port}/v1/images/augmentations",
            files={"image": photo()},
            timeout=None,
        )
        assert uploaded.status_code == 200, uploaded.text
        process.send_signal(signal.SIGTERM)
        process.communicate()


def test_a_store_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = {**os.environ, "BENTOML_HOME": str(tmp_path / "file" / "home")}
    command = [sys.executable, "-m", "catalogan", "models", "list"]
    done = subprocess.run(command, env=home, capture_output=True, text=True)
    assert done.returncode == 2
    assert "set BENTOML_HOME" in done.stderr
    assert "Traceback" not in done.stderr
