"""The OpenAPI document against the running service: schemathesis finds no difference."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.model_store.registry import Registry

from ..processes import started
from .conftest import model_store, wait_for
from .test_cli import COMMAND, ROOT, free_port

KEY = "key-of-the-contract-test"
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# Not checked: that whatever fits the schema is accepted. No schema can say which categories
# and models there are, nor that a string of bytes is a picture.
UNCHECKED = "positive_data_acceptance"


@contextmanager
def logging_to(log: Path, **environment: str) -> Iterator[str]:
    """Serve, with the log in a file that holds any number of lines; gives the base URL."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [*COMMAND, "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out, started(command, env=env, stdout=out, stderr=out) as run:

        def is_ready() -> bool:
            assert run.poll() is None, log.read_text()
            try:
                return httpx.get(f"{url}/readyz", timeout=None).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(is_ready)
        yield url
        run.terminate()
        run.wait()


@pytest.fixture(scope="module")
def service_url(
    tmp_path_factory: pytest.TempPathFactory, styled_export: Path, export: Path
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "service.log"
    with model_store(tmp_path_factory.mktemp("bentoml"), api_key=KEY):
        Registry().register(styled_export)
        Registry().register(export)
        with logging_to(log) as url:
            yield url
    assert "Traceback" not in log.read_text()


def run_schemathesis(url: str, folder: Path, *options: str, **environment: str) -> str:
    key = ("--header", f"Authorization: Bearer {KEY}")
    command = [SCHEMATHESIS, "run", f"{url}/v1/openapi.json", *key, *options]
    command += ["--continue-on-failure", "--no-color", "--request-timeout", "600"]
    env = os.environ | environment
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_contract_is_kept(service_url: str, tmp_path: Path) -> None:
    """Every boundary of every schema, broken one by one, and some drawn at random."""
    options = ("--exclude-checks", UNCHECKED, "--max-examples", "5", "--seed", "1")
    said = run_schemathesis(service_url, tmp_path, *options)
    listed = httpx.get(
        f"{service_url}/v1/openapi.json", headers={"x-api-key": KEY}, timeout=None
    ).json()
    operations = sum(len(path) for path in listed["paths"].values())
    assert f"Tested: {operations}" in said
    generated, passed = map(int, re.findall(r"(\d+) generated, (\d+) passed", said)[0])
    assert generated == passed > 50 * operations
    assert "Authentication failed" not in said


@pytest.mark.slow
def test_the_contract_is_kept_for_long(service_url: str, tmp_path: Path) -> None:
    options = ("--phases", "fuzzing,stateful", "--max-examples", "100", "--seed", "2")
    run_schemathesis(service_url, tmp_path, "--exclude-checks", UNCHECKED, *options)


@pytest.mark.slow
def test_the_contract_is_kept_for_real_pictures(service_url: str, tmp_path: Path) -> None:
    """What lies behind decoding; a picture's bytes are no text, so all bodies count as wrong."""
    checks = ("--exclude-checks", f"{UNCHECKED},negative_data_rejection")
    options = ("--mode", "positive", "--max-examples", "30", "--seed", "4")
    hooks = {"SCHEMATHESIS_HOOKS": str(HOOKS)}
    run_schemathesis(service_url, tmp_path, *checks, *options, **hooks)
