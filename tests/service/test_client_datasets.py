"""catalogan_client streams labelled sets, synchronous and asynchronous."""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalogan_client import AsyncCatalogan, BadRequestError, Catalogan
from service.model_store.registry import Registry

from .conftest import model_store
from .live import live_service

KEY = "secret-key-of-the-test"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        with live_service(api_key=KEY) as address:
            yield address


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_create_dataset(address: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set.zip"
    counts = {"mugs": 3, "boxes": 30}
    arguments: dict[str, Any] = {
        "layout": "folder",
        "seed": 5,
        "shard": (1, 2),
        "size": "48x32",
    }

    def save() -> tuple[Any, Path]:
        client = Catalogan(address, KEY)
        with client, client.datasets.create(counts, **arguments) as dataset:
            return dataset.facts, dataset.save(path)

    async def save_async() -> tuple[Any, Path]:
        client = AsyncCatalogan(address, KEY)
        async with client, client.datasets.create(counts, **arguments) as dataset:
            return dataset.facts, await dataset.save(path)

    facts, saved = save() if kind == "sync" else asyncio.run(save_async())
    assert saved == path
    assert (facts.seed, facts.model) == (5, Registry().get("styled").model_id)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        pictures = [name for name in archive.namelist() if name.endswith(".png")]
        assert Image.open(io.BytesIO(archive.read(pictures[0]))).size == (48, 32)
    assert facts.count == len(pictures) == 16  # the smaller half of 33
    assert list(tmp_path.iterdir()) == [path]


def test_datasets_in_chunks(address: str) -> None:
    def whole(client: Catalogan) -> bytes:
        with client.datasets.create(count=2, seed=1, container="tar") as dataset:
            return b"".join(dataset)

    async def whole_async() -> bytes:
        client = AsyncCatalogan(address, KEY)
        arguments = {"count": 2, "seed": 1, "container": "tar"}
        async with client, client.datasets.create(**arguments) as dataset:
            return b"".join([chunk async for chunk in dataset])

    with Catalogan(address, KEY) as client:
        data = whole(client)
    assert data[257:262] == b"ustar"
    assert len(asyncio.run(whole_async())) == len(data)


def test_datasets_that_are_refused(address: str) -> None:
    async def refused() -> None:
        client = AsyncCatalogan(address, KEY)
        async with client, client.datasets.create({"spoons": 1}):
            pytest.fail("it has begun")

    client = Catalogan(address, KEY)
    with client, pytest.raises(BadRequestError) as caught, client.datasets.create({"spoons": 1}):
        pytest.fail("it has begun")
    assert caught.value.param == "categories"
    with pytest.raises(BadRequestError, match="known are mugs"):
        asyncio.run(refused())
