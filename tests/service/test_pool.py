"""More models than may be loaded."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.model_store import pool
from service.model_store.pool import ModelPool, NoRoom
from service.model_store.registry import Registry
from service.settings import load_settings

from .conftest import BACKSTOP_SEC, running_service
from .test_bad_requests import check

NAMES = ("one", "two", "three", "four")


@pytest.fixture
def four_models(
    bento_home: Path, make_export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(pool, "MIN_STAY_SEC", BACKSTOP_SEC)
    for name in NAMES:
        Registry().register(make_export(name=name))
    return bento_home


def opened(limit: int, loads: list[str]) -> ModelPool:
    settings = load_settings(max_loaded_models=limit)
    models = ModelPool(settings, Registry(), lambda model_id, _: loads.append(model_id[:3]))
    models._refresh()
    return models


def get(models: ModelPool, name: str) -> str:
    return models.get(name).registered.model_id.partition(":")[0]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_alternating_models_are_refused_not_reloaded(four_models: Path, limit: int) -> None:
    loads: list[str] = []
    models = opened(limit, loads)
    fitting = NAMES[: max(2, limit)]
    for _ in range(3):
        assert [get(models, name) for name in fitting] == list(fitting)
        with pytest.raises(NoRoom, match="CATALOGAN_MAX_LOADED_MODELS") as caught:
            models.get("four")
        assert int(caught.value.headers["Retry-After"]) >= 1
    assert loads == [name[:3] for name in fitting]


def test_a_model_that_stayed_for_a_while_makes_room(
    four_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = opened(3, [])
    for name in ("two", "three", "two"):
        get(models, name)
    monkeypatch.setattr(pool, "time", _Later(3600))
    assert get(models, "four") == "four"
    # The one that was used longest ago left, and the default never does.
    assert set(models._loaded) == {"one", "two", "four"}


class _Later:
    """The time module, some seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def test_a_new_default_is_loaded_whatever_is_there(
    four_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = opened(2, [])
    get(models, "two")
    monkeypatch.setattr(pool.ModelPool, "_served", lambda _: {"four": _version("four")})
    assert models._refresh()
    assert models.default is not None
    assert models.default.registered.model_id.startswith("four:")
    assert len(models._loaded) == 2


def _version(name: str) -> str:
    return Registry().promoted()[name]


def test_over_http_it_is_a_429(four_models: Path) -> None:
    with running_service(max_loaded_models="2", max_queue_wait_sec="30") as client:
        url = "/v1/images/generations"
        assert client.post(url, json={"model": "two"}).status_code == 200
        refused = client.post(url, json={"model": "three"})
        assert check(refused, 429, "model")["code"] == "too_many_models"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post(url, json={"model": "two"}).status_code == 200


def test_a_short_wait_is_waited_for_and_counted(
    four_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MIN_STAY_SEC", 0.3)
    url, names = "/v1/images/generations", ["two", "three"] * 3
    with running_service(max_loaded_models="2") as client:
        started = time.monotonic()
        models = [client.post(url, json={"model": name}).json()["model"] for name in names]
        assert time.monotonic() - started > 5 * 0.3
        assert [model.partition(":")[0] for model in models] == names
        lines = client.get("/metrics").text.splitlines()
    waited = [line for line in lines if 'duration_seconds_sum{model="three' in line]
    assert any('stage="queue"' in line and float(line.split()[-1]) > 0.3 for line in waited)
