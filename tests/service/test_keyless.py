"""Without a key the service is this machine's: no proxy and no web page brings strangers along."""

import http.client
import json
from collections.abc import Iterator, Sequence

import pytest

from service.model_store.registry import Registry

from .conftest import model_store
from .live import live_service

URL = "/v1/images/generations"
Header = tuple[str, str]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, export: object) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)  # type: ignore[arg-type]
        with live_service() as found:
            yield found.removeprefix("http://")


def said(
    address: str, *headers: Header, method: str = "GET", path: str = "/v1/models", version: int = 11
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers and error of a request with these headers alone, in their order."""
    connection = http.client.HTTPConnection(address)
    connection._http_vsn = version  # type: ignore[attr-defined]
    connection._http_vsn_str = f"HTTP/{version // 10}.{version % 10}"  # type: ignore[attr-defined]
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    sent = b"{}" if method == "POST" else b""
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(sent)))
    connection.endheaders(sent)
    with connection.getresponse() as response:
        body = response.read()
        found = {name.lower(): value for name, value in response.headers.items()}
    connection.close()
    error = json.loads(body)["error"] if response.status >= 400 else {}
    return response.status, found, error


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host", "X-Forwarded-Server"),
        *("Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP", "CF-Ray", "True-Client-IP"),
        *("X-Client-IP", "X-Cluster-Client-IP", "X-Original-URL", "X-Envoy-External-Address"),
        *("Fastly-Client-IP", "Fly-Client-IP", "X-Amzn-Trace-Id", "CDN-Loop"),
    ],
)
def test_what_was_forwarded_is_refused(address: str, name: str) -> None:
    status, _, error = said(address, ("Host", "localhost"), (name, "127.0.0.1"))
    assert status == 401
    assert name.lower() in error["message"]
    assert "set CATALOGAN_API_KEY" in error["message"]


def test_http_1_0_is_refused_as_nginx_forwards_so_without_a_header(address: str) -> None:
    status, _, error = said(address, ("Host", "127.0.0.1:3000"), version=10)
    assert status == 401
    assert "HTTP/1.0" in error["message"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:3000"],
)
def test_names_of_loopback_are_served(address: str, host: str) -> None:
    assert said(address, ("Host", host))[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ("[::1]evil.example",),
        ("[::1]:80evil.example",),
        ("[::1",),
        ("::1",),
        ("localhost:80@evil.example",),
        ("localhost:",),
        ("localhost:123456",),
        ("localhost, evil.example",),
        ("localhost/evil.example",),
        ("localhost.",),
        ("localhost.evil.example",),
        ("127.0.0.1.evil.example",),
        ("127.1",),
        ("evil.example",),
        ("10.0.0.5:3000",),
        ("",),
        (),
        ("localhost", "evil.example"),
        ("evil.example", "localhost"),
        ("localhost", "localhost"),
    ],
)
def test_any_other_host_is_refused(address: str, hosts: Sequence[str]) -> None:
    status, _, error = said(address, *(("Host", host) for host in hosts))
    assert status == 401
    assert "Host" in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "https://evil.example"),),
        (("Origin", "null"),),
        (("Origin", "http://localhost:8080"),),
        (("Origin", "https://localhost:3000"),),
        (("Origin", "http://localhost:3000"), ("Origin", "http://evil.example")),
        (("Sec-Fetch-Site", "cross-site"),),
        (("Sec-Fetch-Site", "same-site"),),
        (("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "cross-site")),
    ],
)
def test_a_page_of_another_origin_is_refused(address: str, headers: Sequence[Header]) -> None:
    for method, path in (("POST", URL), ("GET", "/v1/models"), ("POST", "/v1/verifications")):
        status, _, error = said(
            address, ("Host", "localhost:3000"), *headers, method=method, path=path
        )
        assert (status, error["code"]) == (403, "foreign_origin")


def test_an_own_page_and_the_address_line_are_served(address: str) -> None:
    own = (("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "same-origin"))
    typed = (("Sec-Fetch-Site", "none"),)
    for headers in (own, typed):
        assert said(address, ("Host", "localhost:3000"), *headers)[0] == 200
    json_type = ("Content-Type", "application/json")
    status, _, _ = said(
        address, ("Host", "localhost:3000"), json_type, *own, method="POST", path=URL
    )
    assert status == 200


@pytest.mark.parametrize(
    "path",
    ["/v1/models/", "/v1/usage/", "/v1/images/generations/", "//v1/models", "/v1", "/readyz/"],
)
def test_nothing_redirects(address: str, path: str) -> None:
    for method in ("GET", "POST"):
        status, headers, error = said(address, ("Host", "localhost"), method=method, path=path)
        assert (status, error["code"]) == (404, "not_found")
        assert "location" not in headers


def test_probes_are_for_everybody(address: str) -> None:
    forwarded = (("Host", "shop.example"), ("X-Forwarded-For", "10.0.0.5"))
    for path in ("/livez", "/readyz"):
        assert said(address, *forwarded, path=path)[0] == 200
