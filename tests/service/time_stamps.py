"""A time stamp authority of one's own (RFC 3161): OpenSSL's, behind a plain HTTP server."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

CONFIGURATION: Final = """
[req]
distinguished_name = name
prompt = no
[name]
O = Clock Inc
CN = {name}
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[stamper]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[tsa]
serial = serial
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
signer_digest = sha256
ess_cert_id_alg = sha256
"""


@contextmanager
def running_authority(folder: Path) -> Iterator[tuple[str, Path]]:
    """Stamp until the end; gives the authority's URL and the certificate of its root."""
    if shutil.which("openssl") is None:
        pytest.skip("OpenSSL is not installed: apt-get install openssl")
    _certify(folder)

    class Authority(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = _stamp(folder, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Authority) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", folder / "root.pem"
        finally:
            server.shutdown()
            thread.join()


def _certify(folder: Path) -> None:
    folder.mkdir()
    (folder / "serial").write_text("01")
    for name in ("root", "stamper"):
        (folder / f"{name}.cnf").write_text(CONFIGURATION.format(name=name))
    fresh = ["req", "-newkey", "rsa:2048", "-nodes", "-config"]
    _openssl(
        folder,
        *(*fresh, "root.cnf", "-x509", "-days", "30", "-extensions", "root"),
        *("-keyout", "root.key", "-out", "root.pem"),
    )
    _openssl(folder, *fresh, "stamper.cnf", "-keyout", "stamper.key", "-out", "stamper.csr")
    _openssl(
        folder,
        *("x509", "-req", "-in", "stamper.csr", "-CA", "root.pem", "-CAkey", "root.key"),
        *("-days", "30", "-extfile", "stamper.cnf", "-extensions", "stamper"),
        *("-out", "stamper.pem"),
    )


def _stamp(folder: Path, query: bytes) -> bytes:
    (folder / "query.tsq").write_bytes(query)
    _openssl(
        folder,
        *("ts", "-reply", "-config", "root.cnf", "-section", "tsa", "-queryfile", "query.tsq"),
        *("-signer", "stamper.pem", "-inkey", "stamper.key", "-chain", "root.pem"),
        *("-out", "reply.tsr"),
    )
    return (folder / "reply.tsr").read_bytes()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
