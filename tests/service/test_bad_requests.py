"""Every kind of bad request gets its status in the one shape, and never a 500."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

URL = "/v1/images/generations"


def check(response: Any, status: int, param: str | None = None) -> dict[str, Any]:
    """Check status and shape; give the error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert all(isinstance(error[name], str) for name in ("code", "message", "type"))
    assert error["param"] == param
    assert len(response.content) < 2000
    assert response.headers["x-request-id"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 11),
        ("n", 1.0),
        ("n", "1"),
        ("n", True),
        ("n", -1),
        ("n", []),
        ("seed", -1),
        ("seed", 2**53),
        ("seed", 10**39),
        ("seed", 1.5),
        ("seed", "1"),
        ("truncation_psi", -0.01),
        ("truncation_psi", 1.01),
        ("truncation_psi", "0.5"),
        ("truncation_psi", 10**30),
        ("category", "spoons"),
        ("category", ""),
        ("category", 1),
        ("category", "x" * 201),
        ("category", "\ud800"),
        ("category", "\x00"),
        ("prompt", "x" * 32_001),
        ("prompt", "a spoon"),
        ("prompt", ["mug"]),
        ("size", "1024x1024"),
        ("size", "24X16"),
        ("size", "x" * 1000),
        ("output_format", "gif"),
        ("output_format", "PNG"),
        ("output_compression", 101),
        ("output_compression", -1),
        ("background", "transparent"),
        ("background", "pink"),
        ("response_format", "jpeg"),
        ("model", 5),
        ("model", "x" * 129),
        ("partial_images", 4),
        ("stream", "yes"),
        ("user", {}),
        ("image", "https://example.org/x.png"),
    ],
)
def test_fields_out_of_range(client: TestClient, field: str, value: Any) -> None:
    body = {"category": "boxes", field: value} if field != "prompt" else {field: value}
    response = client.post(
        URL, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    check(response, 400, field)


def test_what_is_not_served_says_so(client: TestClient) -> None:
    error = check(client.post(URL, json={"response_format": "url"}), 400, "response_format")
    assert "b64_json" in error["message"]
    error = check(client.post(URL, json={"stream": True}), 400, "stream")
    assert "False" in error["message"]
    assert client.post(URL, json={"stream": False}).status_code == 200
    for colour in ("pink", "#12345", "#1234567", "#12345g", " white", "white\n"):
        error = check(client.post(URL, json={"background": colour}), 400, "background")
        known = "auto, opaque, transparent, white or a colour as #rrggbb"
        assert error["message"] == f"must be {known}; background is {colour!r}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"nonsense",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"n": NaN}',
        b'{"truncation_psi": Infinity}',
        b'{"truncation_psi": -Infinity}',
        b'{"n": 1, "n": 2}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"n": 01}',
        b"{'n': 1}",
        b'{"n": 1}{"n": 1}',
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_malformed_json(client: TestClient, body: bytes) -> None:
    response = client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert check(response, 400)["code"] == "invalid_json"


def test_an_infinite_number_is_out_of_range(client: TestClient) -> None:
    response = client.post(
        URL, content=b'{"truncation_psi": 1e999}', headers={"Content-Type": "application/json"}
    )
    check(response, 400, "truncation_psi")


def test_unknown_fields_list_the_known_and_repeat_little(client: TestClient) -> None:
    error = check(client.post(URL, json={"x" * 100_000: 1}), 400, "x" * 64)
    assert error["code"] == "unknown_field"
    assert "truncation_psi" in error["message"]
    response = client.post(
        URL, content=b'{"\\ud800": 1}', headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    "media", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_other_content_types(client: TestClient, media: str) -> None:
    response = client.post(URL, content=b"{}", headers={"Content-Type": media})
    check(response, 400, "Content-Type")


def test_content_type_parameters_are_fine(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post(URL, content=b"{}", headers=headers).status_code == 200


def test_what_cannot_be_accepted(client: TestClient) -> None:
    check(client.post(URL, json={}, headers={"Accept": "text/html"}), 400, "Accept")
    check(client.post(URL, json={"n": 2}, headers={"Accept": "image/png"}), 400, "n")
    body = {"output_format": "webp"}
    check(client.post(URL, json=body, headers={"Accept": "image/png"}), 400, "output_format")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v2/models", "/v1/images", "/docs", "/docs.json", "/a%0Ab", "//"]
)
def test_unknown_routes(client: TestClient, path: str) -> None:
    check(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", URL),
        ("DELETE", URL),
        ("OPTIONS", URL),
        ("BREW", URL),
        ("POST", "/v1/models"),
        ("PUT", "/v1/models/shop"),
        ("GET", "/v1/images/augmentations"),
    ],
)
def test_wrong_methods(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    check(response, 405)
    assert response.headers["allow"]


def test_unknown_models(client: TestClient) -> None:
    check(client.get("/v1/models/none"), 404, "model")
    check(client.get("/v1/models/" + "x" * 5000), 404, "model")


def test_bodies_over_the_cap(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    error = check(client.post(URL, content=b" " * 1_000_001, headers=headers), 413)
    assert "1000000" in error["message"]

    def chunks() -> Any:
        for _ in range(101):
            yield b" " * 10_000

    check(client.post(URL, content=chunks(), headers=headers), 413)


def test_a_lying_length_is_no_way_around_the_cap(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "10"}
    check(client.post(URL, content=b" " * 1_000_001, headers=headers), 413)
