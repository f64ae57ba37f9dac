"""Real exports, small enough to make anew for each test session."""

import hashlib
import os
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from .postgres import running_postgres
from .small_graphs import (
    CATEGORIES,
    NOISE_DIM,
    NUM_WS,
    OPSET,
    W_DIM,
    Z_DIM,
    encoder_file,
    generator_graph,
    mapping_file,
    upscaler_file,
    with_offset,
)

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

    import service.bento
    from models.manifest import GeneratorManifest
    from service.inference.generation import GeneratorSession, ImageSpec
    from service.provenance import manifests
    from service.settings import Settings, load_settings
    from service.storage import database


# Until something happens that does, however busy the machine; what never does is found by it.
BACKSTOP_SEC = 600.0
# What is not about time limits must not run into one.
PATIENT = dict.fromkeys(
    ("request_timeout", "max_queue_wait", "head_timeout", "body_timeout", "send_timeout"), "600"
)
GOLDEN = Path(__file__).parent / "golden-export"
STYLES = {"num_ws": NUM_WS, "w_dim": W_DIM}
ERRORS = {"reconstruction": 0.1, "nearest_photo": 0.2, "mean_photo": 0.3}
ENCODER_RECORD = {
    "nimg": 1000,
    "parity": {
        "max_abs_error": 1e-6,
        "tolerance": 1e-4,
        "truncation_psi": [1.0],
        "batch_sizes": [1, 2, 7],
        "categories": len(CATEGORIES),
        "torch_version": "none",
        "onnxruntime_version": "none",
    },
    "errors": {"photos": 30, "pixel_mse": ERRORS, "feature_distance": ERRORS},
}
DISTANCES = {"upscaler": 0.03, "lanczos": 0.1}
UPSCALER_RECORD = {
    "factor": 4,
    "nimg": 1000,
    "parity": ENCODER_RECORD["parity"],
    "judged": 30,
    "photos": DISTANCES,
    "generated": DISTANCES,
}


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


def write_styled_export(folder: Path, channels: int = 3, **changes: Any) -> Path:
    """Write an export with mapping and encoder, by default served without noise."""
    settings = {
        "model": with_offset(generator_graph(channels=channels)),
        "others": {"mapping.onnx": mapping_file(), "encoder.onnx": encoder_file(channels=channels)},
        "size": (16, 24, channels),
        "name": "styled",
        "noise_scale": 0.0,
        "encoder": ENCODER_RECORD,
        **STYLES,
    }
    return write_export(folder, **{**settings, **changes})


def write_upscaled_export(folder: Path, channels: int = 3, **changes: Any) -> Path:
    """As `write_styled_export`, with an upscaler."""
    others = {
        "mapping.onnx": mapping_file(),
        "encoder.onnx": encoder_file(channels=channels),
        "upscaler.onnx": upscaler_file(channels=channels),
    }
    settings = {"name": "large", "others": others, "upscaler": UPSCALER_RECORD}
    return write_styled_export(folder, channels, **{**settings, **changes})


@contextmanager
def model_store(home: Path, **environment: str) -> Iterator[Path]:
    """An own BENTOML_HOME, and no CATALOGAN_ settings but those given.

    By default images are unsigned, so that equal ones have equal bytes, and time limits are long.
    """
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
        patch.setenv("CATALOGAN_MARKS", "unsigned")
        for limit, seconds in PATIENT.items():
            patch.setenv(f"CATALOGAN_{limit.upper()}_SEC", seconds)
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        for provider, value in overrides.items():
            provider.set(value)
        yield home
    for provider in overrides:
        provider.reset()


@pytest.fixture(autouse=True, scope="session")
def _patience() -> Iterator[None]:
    """As PATIENT, for what is no setting."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (database, manifests):
            patch.setattr(module, "TIMEOUT_SEC", BACKSTOP_SEC)
        yield


@contextmanager
def running_service(**environment: str) -> Iterator[TestClient]:
    """The whole service, BentoML's part included, on the present model store."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        with TestClient(
            service.bento.asgi_app(),
            base_url="http://127.0.0.1:3000",
            raise_server_exceptions=False,
        ) as client:
            yield client


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BACKSTOP_SEC
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@dataclass
class Held:
    """The painting of all pictures waits until it is released.

    `painted` has, for each time that it was begun, of how many pictures.
    """

    begun: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    painted: list[int] = field(default_factory=list)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """No picture is painted until the test says so, or ends."""
    holding, render = Held(), GeneratorSession.render

    def wait_and_render(self: GeneratorSession, specs: Sequence[ImageSpec], *more: Any) -> Any:
        holding.painted.append(len(specs))
        holding.begun.set()
        holding.release.wait(BACKSTOP_SEC)
        return render(self, specs, *more)

    monkeypatch.setattr(GeneratorSession, "render", wait_and_render)
    yield holding
    holding.release.set()


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small export, to read only."""
    return write_export(tmp_path_factory.mktemp("exports") / "shop")


@pytest.fixture(scope="session")
def styled_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small export with mapping and encoder, served without noise; to read only."""
    return write_styled_export(tmp_path_factory.mktemp("exports") / "styled")


@pytest.fixture(scope="session")
def clear_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `styled_export`, of pictures with transparency."""
    folder = tmp_path_factory.mktemp("exports") / "clear"
    return write_styled_export(folder, channels=4, name="clear")


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


@pytest.fixture
def registered(bento_home: Path, export: Path) -> Path:
    """A Model Store for one test, with one promoted model."""
    from service.model_store.registry import Registry

    Registry().register(export)
    return bento_home


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, export: Path) -> Iterator[TestClient]:
    """A service with one promoted model, without a key, for a module's tests."""
    from service.model_store.registry import Registry

    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(export)
        with running_service() as client:
            yield client


@pytest.fixture(scope="module")
def styled(
    tmp_path_factory: pytest.TempPathFactory, styled_export: Path, export: Path, clear_export: Path
) -> Iterator[TestClient]:
    """A service whose default model has mapping and encoder.

    "shop" has neither, and "clear" paints transparency.
    """
    from service.model_store.registry import Registry

    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        Registry().register(export)
        Registry().register(clear_export)
        with running_service() as client:
            yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server, without a database."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """URL of an empty database on PostgreSQL."""
    return _new_database(postgres)


@pytest.fixture(scope="module")
def postgres_of_module(postgres: str) -> str:
    """URL of a database on PostgreSQL for all tests of a module."""
    return _new_database(postgres)


def _new_database(postgres: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(database.locate(f"{postgres}/postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def state_environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of an empty database: a test with it runs on both kinds."""
    if request.param == "sqlite":
        return {"data_dir": str(tmp_path / "state")}
    return {"state_url": request.getfixturevalue("postgres_url")}


@pytest.fixture
def state_settings(state_environment: dict[str, str]) -> Settings:
    """As `state_environment`."""
    return load_settings(**state_environment)


@pytest.fixture
def make_graph() -> Callable[..., Any]:
    """Makes the small export's graph, to be spoiled."""
    return generator_graph
