"""An export in int8, registered and served as any other."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image
from starlette.testclient import TestClient

from models.manifest import INPUT_NAMES
from service.inference.generation import latents
from service.model_store.registry import Registry

from .conftest import model_store, running_service, write_export
from .small_graphs import CATEGORIES, Z_DIM

torch = pytest.importorskip("torch")

URL = "/v1/images/generations"
HEIGHT, WIDTH = 16, 24


@pytest.fixture(scope="module")
def int8_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generator with its first weights, as `catalogan export --precision int8` makes it."""
    from models.generator import Generator, GeneratorShape
    from training.export.export import generator_graph
    from training.export.loss import Setting

    shape = GeneratorShape(
        height=HEIGHT,
        width=WIDTH,
        channels=3,
        categories=len(CATEGORIES),
        z_dim=Z_DIM,
        w_dim=8,
        channel_base=256,
        channel_max=16,
    )
    torch.manual_seed(0)
    generator = Generator(shape).eval().requires_grad_(False)
    generator.update_w_avg(256)
    graph, parity, losses = generator_graph(generator, "int8", Setting(0.7, 0.0))
    num_ws, w_dim = generator.style_shape
    return write_export(
        tmp_path_factory.mktemp("exports") / "int8",
        onnx.load_from_string(graph),
        size=(HEIGHT, WIDTH, 3),
        name="small",
        precision="int8",
        parity=parity.model_dump(),
        losses=[loss.model_dump() for loss in losses],
        noise_dim=generator.noise_dim,
        noise_scale=0.0,
        num_ws=num_ws,
        w_dim=w_dim,
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, int8_export: Path) -> Iterator[TestClient]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(int8_export)
        with running_service() as client:
            yield client


def pictures(client: TestClient, **body: object) -> list[np.ndarray]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))))
        for one in response.json()["data"]
    ]


def test_it_is_served_alone_as_in_a_batch(client: TestClient) -> None:
    together = pictures(client, category="boxes", n=5, seed=40)
    assert len({one.tobytes() for one in together}) == 5
    for index, picture in enumerate(together):
        assert picture.shape == (HEIGHT, WIDTH, 3)
        (alone,) = pictures(client, category="boxes", seed=40 + index)
        np.testing.assert_array_equal(alone, picture)


def test_it_paints_what_the_standard_says(client: TestClient, int8_export: Path) -> None:
    """ONNX's own reference takes the graph literally; ONNX Runtime fuses it into integers."""
    manifest = Registry().get("small").manifest
    assert manifest.precision == "int8"
    assert [round(one.truncation_psi, 1) for one in manifest.losses] == [1.0, 0.7]
    evaluator = ReferenceEvaluator(str(int8_export / "generator.onnx"))
    z, noise = latents(manifest, 7)
    category = np.eye(len(CATEGORIES), dtype=np.float32)[[2]]
    psi = np.array([manifest.truncation_psi], dtype=np.float32)
    feed = dict(zip(INPUT_NAMES, (z[None], category, psi, noise[None]), strict=True))
    feed["style_offset"] = np.zeros((1, manifest.num_ws, manifest.w_dim), dtype=np.float32)
    (expected,) = evaluator.run(None, feed)
    expected = np.rint((np.clip(expected[0], -1, 1) + 1) * 127.5).transpose(1, 2, 0)
    (picture,) = pictures(client, category="boxes", seed=7)
    assert np.abs(picture - expected).mean() < 0.5
    assert expected.std() > 10
