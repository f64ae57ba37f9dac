"""Real exports, small enough to make anew for each test session."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

# Nobody's own Model Store is touched, whatever a test forgets.
_HOME = tempfile.TemporaryDirectory(prefix="catalogan-tests-")
os.environ |= {"BENTOML_HOME": _HOME.name, "BENTOML_DO_NOT_TRACK": "True"}

with warnings.catch_warnings():
    # BentoML uses deprecated parts of pathspec and pydantic, and Starlette prefers a
    # successor of httpx, which BentoML does not take yet.
    warnings.simplefilter("ignore")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models.model import ModelStore
    from starlette.testclient import TestClient

    import service.api
    from models.manifest import GeneratorManifest


GOLDEN = Path(__file__).parent / "golden-export"
CATEGORIES = ("mugs", "shoe boxes", "boxes", "café lamps")
Z_DIM, NOISE_DIM, OPSET = 8, 64, 20


def generator_graph(height: int = 16, width: int = 24, channels: int = 3, seed: int = 0) -> Any:
    """A generator of MatMul, Resize, Conv and Tanh that keeps the contract."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.7, shape).astype(np.float32), name)

    small_h, small_w = height // 4, width // 4
    constants = [
        weights("category_style", len(CATEGORIES), Z_DIM),
        weights("to_map", Z_DIM, 6 * small_h * small_w),
        weights("kernel", channels, 6, 3, 3),
        numpy_helper.from_array(np.array([0, 6, small_h, small_w], dtype=np.int64), "map_shape"),
        numpy_helper.from_array(np.array([0, 1, 8, 8], dtype=np.int64), "noise_shape"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "last_axis"),
        numpy_helper.from_array(np.array([], dtype=np.float32), "no_roi"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], dtype=np.float32), "scales"),
        numpy_helper.from_array(
            np.array([1, 1, height / 8, width / 8], dtype=np.float32), "noise_scales"
        ),
        numpy_helper.from_array(np.array(0.1, dtype=np.float32), "noise_strength"),
    ]
    nodes = [
        helper.make_node("MatMul", ["category", "category_style"], ["mean_style"]),
        helper.make_node("Unsqueeze", ["truncation_psi", "last_axis"], ["psi"]),
        helper.make_node("Mul", ["z", "psi"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean_style"], ["style"]),
        helper.make_node("MatMul", ["style", "to_map"], ["flat"]),
        helper.make_node("Reshape", ["flat", "map_shape"], ["map"]),
        helper.make_node("Resize", ["map", "no_roi", "scales"], ["large"], mode="linear"),
        helper.make_node("Reshape", ["noise", "noise_shape"], ["noise_map"]),
        helper.make_node("Resize", ["noise_map", "no_roi", "noise_scales"], ["grain"]),
        helper.make_node("Mul", ["grain", "noise_strength"], ["faint"]),
        helper.make_node("Add", ["large", "faint"], ["noisy"]),
        helper.make_node("Conv", ["noisy", "kernel"], ["raw"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["raw"], ["images"]),
    ]

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    graph = helper.make_graph(
        nodes,
        "generator",
        [
            value("z", Z_DIM),
            value("category", len(CATEGORIES)),
            value("truncation_psi"),
            value("noise", NOISE_DIM),
        ],
        [value("images", channels, height, width)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    return model


def write_export(
    folder: Path,
    model: Any = None,
    *,
    name: str = "shop",
    size: tuple[int, int, int] = (16, 24, 3),
    seed: int = 0,
    others: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """Write an export of `model` (else of the small generator) whose manifest fits it.

    `others` are more files to write and list.
    """
    folder.mkdir(parents=True)
    height, width, channels = size
    model = model or generator_graph(height, width, channels, seed)
    (folder / "generator.onnx").write_bytes(model.SerializeToString())
    Image.new("RGB", (8, 8), "white").save(folder / "preview.png")
    for file, data in (others or {}).items():
        (folder / file).write_bytes(data)
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in folder.iterdir()
    }
    manifest: dict[str, Any] = {
        "name": name,
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "categories": CATEGORIES,
        "width": width,
        "height": height,
        "channels": channels,
        "z_dim": Z_DIM,
        "noise_dim": NOISE_DIM,
        "opset": OPSET,
        "preset": "test",
        "nimg": 1000,
        "dataset_hash": "0" * 64,
        "parity": {
            "max_abs_error": 1e-6,
            "tolerance": 1e-4,
            "truncation_psi": [0.5, 1.0],
            "batch_sizes": [1, 2, 7],
            "categories": len(CATEGORIES),
            "torch_version": "none",
            "onnxruntime_version": "none",
        },
        "files": files,
        **changes,
    }
    checked = GeneratorManifest.model_validate(manifest)
    (folder / "manifest.json").write_text(checked.model_dump_json(indent=2))
    return folder


@contextmanager
def model_store(home: Path, **environment: str) -> Iterator[Path]:
    """An own BENTOML_HOME, and no CATALOGAN_ settings but those given."""
    (home / "models").mkdir(parents=True)
    # BentoML reads its home once in a process; tests want one each.
    overrides = {
        BentoMLContainer.bentoml_home: str(home),
        BentoMLContainer.model_store_dir: str(home / "models"),
        BentoMLContainer.model_store: ModelStore(home / "models"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CATALOGAN_")]:
            patch.delenv(name)
        patch.setenv("BENTOML_HOME", str(home))
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        for provider, value in overrides.items():
            provider.set(value)
        yield home
    for provider in overrides:
        provider.reset()


@contextmanager
def running_service(**environment: str) -> Iterator[TestClient]:
    """The whole service, BentoML's part included, on the present model store."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        with TestClient(
            service.api.asgi_app(), base_url="http://127.0.0.1:3000", raise_server_exceptions=False
        ) as client:
            yield client


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small export, to read only."""
    return write_export(tmp_path_factory.mktemp("exports") / "shop")


@pytest.fixture(scope="session")
def trained_export(export: Path) -> Path:
    """An export that was really trained, where the repository holds one; to read only."""
    return GOLDEN if GOLDEN.is_dir() else export


@pytest.fixture
def make_export(tmp_path: Path) -> Callable[..., Path]:
    """Makes exports of one's own."""
    made = iter(range(1000))

    def make(model: Any = None, **changes: Any) -> Path:
        return write_export(tmp_path / f"export-{next(made)}", model, **changes)

    return make


@pytest.fixture
def bento_home(tmp_path: Path) -> Iterator[Path]:
    """An empty Model Store for one test."""
    with model_store(tmp_path / "bentoml") as home:
        yield home


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, export: Path) -> Iterator[TestClient]:
    """A service with one promoted model, without a key, for a module's tests."""
    from service.registry import Registry

    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)
        with running_service() as client:
            yield client


@pytest.fixture
def make_graph() -> Callable[..., Any]:
    """Makes the small export's graph, to be spoiled."""
    return generator_graph
