"""Files in forms as clients really send them: their names, and what is no file."""

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.api.parsing.file_names import extended_name, plain_name
from service.model_store.registry import Registry

from .conftest import model_store
from .live import live_service
from .test_augmentations_http import photo
from .test_bad_requests import check

URL = "/v1/images/augmentations"
PATHS = "/v1/images/interpolations"


def post(client: TestClient, url: str, *parts: tuple[bytes, bytes]) -> Any:
    """Send parts, each with its headers as given."""
    body = b"".join(b"--b\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    media = {"Content-Type": "multipart/form-data; boundary=b"}
    return client.post(url, content=body + b"--b--\r\n", headers=media)


def disposition(rest: str, name: str = "image") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"; {rest}'.encode()


NAMES = [
    ("filename*=UTF-8''gr%C3%B6%C3%9Fe.png", "größe.png"),
    ("filename*=utf-8'de'gr%C3%B6%C3%9Fe.png", "größe.png"),
    ("filename*=iso-8859-1''gr%F6%DFe.png", "größe.png"),
    ("FileName*=UTF-8''a%20%22b%22.png", 'a "b".png'),
    ("filename*=UTF-8''%25.png", "%.png"),
    ("filename=\"=?utf-8?B?xA==?=\"; filename*=utf-8''gr%C3%B6%C3%9Fe.png", "größe.png"),  # .NET
    ('filename="größe.png"', "größe.png"),
    ('filename="a %22b%22.png"', 'a "b".png'),  # browsers, curl, requests, httpx
    (r'filename="a \"b\".png"', 'a "b".png'),  # older curl
    ('filename="100%.png"', "100%.png"),
    ('filename="a%20b%41.png"', "a%20b%41.png"),  # what its file is called
    ("filename=\"a; filename*=UTF-8''b.png\"", "a; filename*=UTF-8''b.png"),
]


@pytest.mark.parametrize(("rest", "name"), NAMES)
def test_a_files_name_is_as_its_client_has_it(styled: TestClient, rest: str, name: str) -> None:
    second = (disposition('filename="second.png"'), photo())
    waypoints = f'["{name}", "second.png"]'.replace('"b"', r"\"b\"").encode()
    parts = [(disposition(rest), photo()), second]
    fields = [(disposition("x=y", "waypoints"), waypoints), (disposition("x=y", "frames"), b"2")]
    answer = post(styled, PATHS, *parts, *fields)
    assert answer.status_code == 200, answer.text


def test_a_file_without_a_usable_charset_is_still_a_file(styled: TestClient) -> None:
    for rest in ("filename*=punycode''a.png", "filename*=UTF-8''", "filename*=''a.png"):
        answer = post(styled, URL, (disposition(rest), photo()))
        assert answer.status_code == 200, answer.text


def test_names_are_read_in_linear_time() -> None:
    for unit in (b';a="', b'; filename="', b";filename*", b";a=\\", b"; ", b";filename*=x'"):
        extended_name(unit * (1_000_000 // len(unit)))
    plain_name("%22" * 300_000)


def data_url(size: int) -> bytes:
    return b"data:image/png;base64," + base64.b64encode(photo().ljust(size * 3 // 4, b"\0"))


@pytest.mark.parametrize("size", [100, 276_000])
@pytest.mark.parametrize("name", ["image", "image[]"])
@pytest.mark.parametrize("url", [URL, "/v1/images/variations", "/v1/verifications"])
def test_an_image_as_text_is_told_what_to_send(
    styled: TestClient, url: str, name: str, size: int
) -> None:
    for sent in (data_url(size), b"http://127.0.0.1:9/photo.png"):
        error = check(post(styled, url, (disposition("x=y", name), sent)), 400, name)
        assert "curl -F image=@photo.jpg" in error["message"]
    error = check(styled.post(url, json={"image": "x"}), 400, "Content-Type")
    assert "curl -F image=@photo.jpg" in error["message"]


def test_a_mask_as_text_is_told_too(styled: TestClient) -> None:
    parts = [(disposition('filename="a.png"'), photo()), (disposition("x=y", "mask"), data_url(9))]
    check(post(styled, URL, *parts), 400, "mask")


def test_a_field_that_is_too_long_is_named(styled: TestClient) -> None:
    files = {"image": photo(), "strength": (None, " " * 60_000)}
    error = check(styled.post("/v1/images/variations", files=files), 400, "strength")
    assert error["message"] == "the field has more than 50000 bytes"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        with live_service() as found:
            yield found


def test_the_line_that_is_recommended_works(address: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    (tmp_path / "photo.jpg").write_bytes(photo())
    refused = httpx.post(address + URL, data={"image": "data:image/png;base64,"}, timeout=None)
    line = (
        refused.json()["error"]["message"].rpartition("curl -F ")[2].replace("URL", address + URL)
    )
    command = [curl, "-sS", "-F", *line.split()]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"b64_json"' in ran.stdout


def test_curls_names_are_read(address: str, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    for name in ('a "b".png', "größe.png"):
        (tmp_path / name).write_bytes(photo())
    form = [f"image=@{name}" for name in ('"a \\"b\\".png"', "größe.png")]
    fields = ['waypoints=["a \\"b\\".png", "größe.png"]', "frames=2"]
    arguments = [part for one in (*form, *fields) for part in ("-F", one)]
    command = [curl, "-sSf", "-o", "path.zip", *arguments, address + PATHS]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
