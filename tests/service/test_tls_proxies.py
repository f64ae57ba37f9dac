"""The reverse proxies of docs/operating.md, as they stand there, with TLS before a real service."""

import datetime
import logging
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.model_store.registry import Registry

from ..processes import started
from .conftest import model_store, wait_for
from .live import live_service
from .test_augmentations_http import photo
from .test_cli import free_port

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
KEY = "the-operators-own-key"
NAME = "images.example.com"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, export: Path) -> Iterator[None]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)
        yield


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.pem and images.key, for NAME."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "images.pem").write_bytes(signed.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "images.key").write_bytes(private)
    return folder


def example(language: str) -> str:
    """The configuration in the docs."""
    found = re.search(rf"```{language}\n(.*?)```", OPERATING.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@dataclass
class Proxy:
    """A running proxy with TLS."""

    port: int
    certificate: Path

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self.certificate / "images.pem"))
        extensions = {"sni_hostname": NAME}
        url = f"https://127.0.0.1:{self.port}{path}"
        headers = {"Host": NAME, **more.pop("headers", {})}
        # Not from the address that the proxy itself has.
        transport = httpx.HTTPTransport(verify=context, local_address="127.0.0.2")
        with httpx.Client(transport=transport, timeout=None) as client:
            return client.request(method, url, headers=headers, extensions=extensions, **more)


Start = Callable[[str], Any]


@pytest.fixture(params=["nginx", "caddy"])
def start(request: pytest.FixtureRequest, certificate: Path, tmp_path: Path) -> Start:
    """Starts a proxy of the docs' configuration before the service at an address."""
    program = shutil.which(request.param, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{request.param} is not installed")

    @contextmanager
    def proxy(upstream: str, text: str = example(request.param)) -> Iterator[Proxy]:
        port = free_port()
        text = text.replace("127.0.0.1:3000", upstream.removeprefix("http://"))
        if request.param == "nginx":
            command = [program, "-c", str(_nginx(text, port, certificate, tmp_path))]
        else:
            command = [program, "run", "--adapter", "caddyfile", "--config"]
            command.append(str(_caddy(text, port, certificate, tmp_path)))
        home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
        with started(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:

            def listens() -> bool:
                assert run.poll() is None, run.communicate()[1]
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_for(listens)
            yield Proxy(port, certificate)
            run.terminate()
            run.communicate()

    return proxy


def _nginx(server: str, port: int, certificate: Path, folder: Path) -> Path:
    server = server.replace("443 ssl", f"127.0.0.1:{port} ssl")
    server = server.replace("/etc/ssl", str(certificate))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    head = f"daemon off; pid {folder / 'pid'}; error_log stderr; events {{}}\n"
    path = folder / "nginx.conf"
    path.write_text(f"{head}http {{ access_log off; {temporary}\n{server} }}\n")
    return path


def _caddy(site: str, port: int, certificate: Path, folder: Path) -> Path:
    files = f"{certificate / 'images.pem'} {certificate / 'images.key'}"
    site = site.replace(f"{NAME} {{", f"{NAME}:{port} {{\n    tls {files}", 1)
    path = folder / "Caddyfile"
    path.write_text(f"{{\n    admin off\n    auto_https disable_redirects\n}}\n{site}")
    return path


def test_clients_are_served_over_tls_and_told_apart(
    home: None, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        live_service(api_key=KEY, trusted_proxies="127.0.0.1") as address,
        start(address) as proxy,
    ):
        made_up = {"X-Forwarded-For": "198.51.100.9", "x-api-key": "wrong"}
        assert proxy.request("GET", "/v1/models", headers=made_up).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        made = proxy.request("POST", "/v1/images/generations", json={"n": 2}, headers=headers)
        assert len(made.json()["data"]) == 2
        varied = proxy.request(
            "POST", "/v1/images/augmentations", files={"image": photo()}, headers=headers
        )
        assert varied.status_code == 200, varied.text
        body = {"count": 3, "container": "zip"}
        streamed = proxy.request("POST", "/v1/datasets", json=body, headers=headers)
        assert streamed.content.startswith(b"PK"), streamed.text
    assert "a wrong API key came from 127.0.0.2" in caplog.text
    assert "198.51.100.9" not in caplog.text
    assert "plain HTTP" not in caplog.text


def test_without_a_key_the_proxys_clients_are_refused(home: None, start: Start) -> None:
    with live_service() as address, start(address) as proxy:
        refused = proxy.request("GET", "/v1/models")
    assert refused.status_code == 401
    assert "set CATALOGAN_API_KEY" in refused.json()["error"]["message"]


@pytest.mark.parametrize("start", ["nginx"], indirect=True)
def test_without_a_key_the_shortest_configuration_of_nginx_lets_nobody_in(
    home: None, start: Start
) -> None:
    """It sends a Host of loopback, and no header that says that anything was forwarded."""
    bare = "server { listen 443 ssl; ssl_certificate /etc/ssl/images.pem; ssl_certificate_key "
    bare += "/etc/ssl/images.key; location / { proxy_pass http://127.0.0.1:3000; } }"
    with live_service() as address, start(address, bare) as proxy:
        refused = proxy.request("GET", "/v1/models")
    assert refused.status_code == 401
    assert "HTTP/1.0" in refused.json()["error"]["message"]
