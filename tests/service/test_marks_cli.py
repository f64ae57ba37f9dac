"""`catalogan keys` and `catalogan verify` as an operator runs them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from PIL import Image
from typer.testing import CliRunner

from catalogan import app

from .test_marks_http import photo


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def picture(
    bento_home: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A picture of `catalogan generate`, signed with a company's key."""
    result = run("keys", "create", "--out", tmp_path / "keys", "--name", "Büro & Söhne")
    assert result.exit_code == 0, result.output
    for line in result.output.splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    monkeypatch.setenv("CATALOGAN_MARKS", "signed")
    arguments = ["generate", "--export", str(export), "--out", str(tmp_path), "--seed", "0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return tmp_path / "mugs-0.png"


def test_verify_tells_ours_from_others(picture: Path, tmp_path: Path) -> None:
    result = run("verify", "--json", picture)
    assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)
    assert (answer["verdict"], answer["claims"]["category"]) == ("ours", "mugs")
    assert answer["layers"][0]["signer"]["organization"] == "Büro & Söhne"
    assert {one["layer"]: one["status"] for one in answer["layers"]} == {
        "c2pa": "trusted",
        "record": "found",
        "xmp": "found",
    }
    data = bytearray(picture.read_bytes())
    data[-30] ^= 1
    (tmp_path / "changed.png").write_bytes(data)
    (tmp_path / "other.png").write_bytes(photo())
    result = run("verify", picture, tmp_path / "changed.png", tmp_path / "other.png")
    assert result.exit_code == 1
    assert "mugs-0.png: made by this service, and intact" in result.output
    assert "changed.png: NOT intact" in result.output
    assert "other.png: not known" in result.output


def test_verify_elsewhere_needs_the_signers_certificate(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CATALOGAN_SIGNING_CERTIFICATE", "CATALOGAN_SIGNING_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "elsewhere"))
    assert run("verify", picture).exit_code == 1
    monkeypatch.setenv("CATALOGAN_TRUST_ANCHORS", str(tmp_path / "keys" / "root.pem"))
    assert run("verify", picture).exit_code == 1  # whoever else signs under it is not us
    monkeypatch.setenv("CATALOGAN_TRUST_ANCHORS", str(tmp_path / "keys" / "certificate.pem"))
    result = run("verify", "--json", picture)
    assert result.exit_code == 0
    assert '"unavailable"' in result.output
    assert not (tmp_path / "elsewhere").exists()  # it only looks


@pytest.mark.parametrize("name", ["none.png", "text.png", "."])
def test_bad_input_is_one_line_and_exit_2(bento_home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    result = run("verify", tmp_path / name)
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_a_file_over_the_cap(
    bento_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGAN_MAX_UPLOAD_BYTES", "1000")
    (tmp_path / "large.png").write_bytes(photo())
    result = run("verify", tmp_path / "large.png")
    assert (result.exit_code, "CATALOGAN_MAX_UPLOAD_BYTES" in result.output) == (2, True)


def test_keys_are_made_for_their_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    assert run("keys", "create", "--out", tmp_path / "keys").exit_code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"certificate.pem": 0o644, "key.pem": 0o600, "root.pem": 0o644}
    assert b"PRIVATE" not in (tmp_path / "keys" / "certificate.pem").read_bytes()
    leaf, root = x509.load_pem_x509_certificates(
        (tmp_path / "keys" / "certificate.pem").read_bytes()
    )
    leaf.verify_directly_issued_by(root)
    before = {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    result = run("keys", "create", "--out", tmp_path / "keys")
    assert (result.exit_code, "is there already" in result.output) == (2, True)
    for name in ("certificate.pem", "root.pem"):  # one is enough
        (tmp_path / "keys" / name).unlink()
    assert run("keys", "create", "--out", tmp_path / "keys").exit_code == 2
    key = tmp_path / "keys" / "key.pem"
    assert key.read_bytes() == before[key]


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_no_certificate_can_hold(tmp_path: Path, name: str) -> None:
    result = run("keys", "create", "--out", tmp_path / "keys", "--name", name)
    assert result.exit_code == 2
    assert result.output.startswith("error: --name")
    assert not (tmp_path / "keys").exists()


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("keys", "create", "--out", tmp_path / "file" / "keys")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)


def test_the_signed_file_is_a_picture_like_any(picture: Path) -> None:
    with Image.open(io.BytesIO(picture.read_bytes())) as image:
        image.verify()
