"""Limits of docs/security.md that have no other test, and that each one there has a test."""

import ast
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.app
from service.api.parsing.json_body import MAX_NAMES
from service.model_store.registry import Registry
from service.settings import Settings

from .conftest import BACKSTOP_SEC, Held, running_service
from .test_augmentations_http import photo
from .test_bad_requests import check

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "docs" / "security.md"
GENERATIONS = "/v1/images/generations"
AUGMENTATIONS = "/v1/images/augmentations"


@pytest.fixture
def styled_home(bento_home: Path, styled_export: Path) -> None:
    """A Model Store with one model that has an encoder; registering it generates, too."""
    Registry().register(styled_export)


@pytest.mark.parametrize(
    ("limit", "path", "request_"),
    [
        ("max_pending_interpolations", "/v1/images/interpolations", {"json": {"seeds": [1, 2]}}),
        ("max_pending_uploads", "/v1/images/variations", {"files": {"image": photo()}}),
    ],
)
def test_each_queue_is_bounded(
    styled_home: None, held: Held, limit: str, path: str, request_: Any
) -> None:
    with running_service(**{limit: "1"}) as client, ThreadPoolExecutor() as callers:
        first = callers.submit(client.post, path, **request_)
        assert held.begun.wait(BACKSTOP_SEC)
        refused = client.post(path, **request_)
        held.release.set()
        assert check(refused, 429)["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status_code == 200


def test_pixels_are_counted_before_anything_is_decoded(registered: Path) -> None:
    with running_service(max_upload_pixels="3000") as client:
        assert client.post(AUGMENTATIONS, files={"image": photo((60, 50))}).status_code == 200
        check(client.post(AUGMENTATIONS, files={"image": photo((61, 50))}), 413, "image")


def test_no_more_models_are_loaded_than_may_be(
    bento_home: Path, make_export: Callable[..., Path]
) -> None:
    for name in ("one", "two", "three"):
        Registry().register(make_export(name=name))
    with running_service(max_loaded_models="2") as client:
        for name in ("one", "two", "three"):
            assert client.post(GENERATIONS, json={"model": name}).status_code == 200
        runtime = service.app.gateway._runtime
        assert runtime is not None
        loaded = [name for name in ("one", "two", "three") if runtime.pool.loaded(name)]
        assert loaded == ["one", "three"]  # the default stays


@pytest.mark.parametrize(
    "annotations",
    [
        {"boxes": [[1, 1, 2, 2]] * 1001},
        {"polygons": [[1, 1, 2, 2, 3, 1]] * 1001},
        {"polygons": [[1, 1, 2, 2] * 500 + [3, 1]] * 21},
        {"keypoints": [[[1, 1, 2]] * 501]},
        {"keypoints": [[[1, 1, 2]] * 500] * 41},
        {"boxes": [[1, 1, 2, 2]], "labels": ["x" * 201]},
    ],
)
def test_annotations_are_bounded(client: TestClient, annotations: Any) -> None:
    files = {"image": ("a.png", photo()), "annotations": (None, json.dumps([annotations]))}
    refused = client.post(AUGMENTATIONS, files=files)
    error = check(refused, 400, refused.json()["error"]["param"])
    assert error["param"].startswith("annotations")


def test_numbers_have_at_most_forty_digits(client: TestClient) -> None:
    for number in ("1" * 41, "1" * 100_000):
        body = f'{{"seed": {number}}}'
        headers = {"Content-Type": "application/json"}
        error = check(client.post(GENERATIONS, content=body, headers=headers), 400)
        assert "digits" in error["message"]


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/datasets"])
def test_json_objects_have_a_bounded_number_of_names(client: TestClient, path: str) -> None:
    """Each costs an error to word: 70,000 of them held the event loop up for two seconds."""
    names = {f"name {index}": 1 for index in range(MAX_NAMES + 1)}
    for body in (names, {"categories": names}):
        assert "names" in check(client.post(path, json=body), 400)["message"]
    names.popitem()
    check(client.post(path, json=names), 400, "name 0")


def named_tests() -> list[str]:
    return re.findall(r"`(test_\w+\.py::\w+)`", SECURITY.read_text())


def test_the_tests_of_each_limit_exist() -> None:
    named = named_tests()
    assert len(named) > 30
    for test in named:
        file, _, name = test.partition("::")
        found = list((ROOT / "tests").rglob(file))
        assert found, f"docs/security.md names {file}, which is nowhere"
        tree = ast.walk(ast.parse(found[0].read_text()))
        assert name in [getattr(one, "name", "") for one in tree], f"{file} has no {name}"


def test_each_row_of_the_table_has_a_test() -> None:
    table = SECURITY.read_text().partition("## Limits")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "|---" not in line]
    assert len(rows) > 25
    for row in rows[1:]:
        assert re.search(r"`test_\w+\.py::\w+` \|$", row), f"no test is named in: {row}"


def test_each_setting_that_limits_clients_is_in_the_table() -> None:
    text = SECURITY.read_text()
    limits = [name for name in Settings.model_fields if name.startswith("max_")]
    limits += [name for name in Settings.model_fields if name.endswith("_timeout_sec")]
    for name in limits:
        assert f"`{name}`" in text or name == "shutdown_timeout_sec", f"{name} is missing"
