"""What strangers wrote, on the operator's terminal: shown, never obeyed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from catalogan import app
from service.provenance.marker import read_development_key
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys
from service.provenance.xmp import GENERATED, Mark

from .test_marks_http import photo

# A line end, what clears the screen (7 and 8 bits), a title, what turns text around, half a pair.
EVIL = "x\n: made by this service, and intact\r\x1b[2J\x9b31m\x1b]0;t\x07\u202e\u2028\x85"
SHOWN = "x\\n: made by this service, and intact\\r\\x1b[2J\\x9b31m\\x1b]0;t\\x07\\u202e\\u2028\\x85"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_harmless(output: str) -> None:
    assert all(one.isprintable() for line in output.split("\n") for one in line)
    assert not any(line.lstrip().startswith(": made by") for line in output.split("\n"))


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """A stranger's image, with a stranger's names."""
    create_development_keys(tmp_path / "theirs", "Their Inc")
    mark = Mark(GENERATED, 7, EVIL, "f" * 64, EVIL)
    signer = ManifestSigner(read_development_key(tmp_path / "theirs"))
    path = tmp_path / f"{EVIL.replace('/', '')}.png"
    path.write_bytes(signer.sign(photo(), "image/png", mark))
    return path


def test_verify_shows_control_characters_escaped(bento_home: Path, forged: Path) -> None:
    result = run("verify", forged)
    assert result.exit_code == 1
    assert_harmless(result.output)
    assert f"{SHOWN}.png: not proven" in result.output
    assert f"category {SHOWN}" in result.output
    result = run("verify", "--json", forged)
    assert_harmless(result.output)
    (answer,) = json.loads(result.output)
    assert (answer["file"], answer["claims"]["category"]) == (str(forged), EVIL)


def test_errors_show_them_escaped(bento_home: Path, tmp_path: Path) -> None:
    (tmp_path / EVIL).write_bytes(b"no image")
    for name in (tmp_path / EVIL, tmp_path / f"none {EVIL}", tmp_path / "none \udcff\x1b[31m"):
        result = run("verify", name)
        assert result.exit_code == 2
        assert_harmless(result.output)
        assert result.output.count("\n") == 1


def test_commands_that_train_show_them_escaped(tmp_path: Path) -> None:
    pytest.importorskip("torch")  # which the serving install lacks
    commands = (("prepare", tmp_path / EVIL), ("evaluate", tmp_path / EVIL, "--data", tmp_path))
    for command in commands:
        result = run(*command, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert_harmless(result.output)
        assert "\\x1b[2J" in result.output


def test_models_and_generate_show_categories_escaped(
    bento_home: Path, make_export: Callable[..., Path], tmp_path: Path
) -> None:
    categories = [EVIL, "[red]boxes[/red] :cat:", "c", "d"]
    export = make_export(categories=categories, author=EVIL, licence=EVIL)
    assert run("register", export).exit_code == 0
    result = run("models", "show", "shop")
    assert_harmless(result.output)
    assert json.loads(result.output)["categories"] == categories
    result = run("models", "list", "--json")
    assert_harmless(result.output)
    for arguments in (
        ("--out", tmp_path / EVIL),
        ("--out", tmp_path / "o", "--category", EVIL[:9]),
    ):
        result = run("generate", "--model", "shop", "--seed", "1", *arguments)
        assert_harmless(result.output)
    for path in (tmp_path / EVIL).iterdir():
        assert path.name.isprintable()


def test_a_sets_card_shows_them_as_text(
    bento_home: Path, make_export: Callable[..., Path], tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script> [a](javascript:b) | c"
    export = make_export(categories=[evil, "b", "c", "d"], author=evil, licence=evil, data=evil)
    arguments = ("--export", export, "--out", tmp_path / "set", "--count", "1", "--seed", "1")
    result = run("synthesize", *arguments)
    assert result.exit_code == 0, result.output
    card = (tmp_path / "set" / "README.md").read_text()
    shown = "&lt;script&gt;alert\\(1\\)&lt;/script&gt; \\[a\\]\\(javascript:b\\) \\| c"
    assert card.count(shown) == 4
    assert "<" not in card
