"""Registering: what is refused, what is stored, and which version is served."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import OperatorError, RegistryError
from service.model_store.registry import Registry

pytestmark = pytest.mark.usefixtures("bento_home")


def test_a_registered_model_is_the_export(export: Path) -> None:
    registry = Registry()
    model = registry.register(export)
    assert model.promoted
    assert model.name == "shop"
    assert model.read_generator() == (export / "generator.onnx").read_bytes()
    assert [m.model_id for m in registry.list()] == [model.model_id]
    assert registry.get("shop") == registry.get(model.model_id) == model


def test_registering_again_changes_nothing(export: Path) -> None:
    registry = Registry()
    assert registry.register(export) == registry.register(export)
    assert len(registry.list()) == 1


def test_what_an_interrupted_registration_left_is_replaced(export: Path) -> None:
    registry = Registry()
    model = registry.register(export)
    (model.folder / "generator.onnx").write_bytes(b"half")
    assert registry.register(export).read_generator() == (export / "generator.onnx").read_bytes()


def test_only_the_first_of_a_name_promotes_itself(make_export: Callable[..., Path]) -> None:
    registry = Registry()
    first = registry.register(make_export(seed=1))
    second = registry.register(make_export(seed=2))
    assert not second.promoted
    assert registry.get("shop").version == first.version
    other = registry.register(make_export(seed=2), "other-name")
    assert other.promoted
    assert list(registry.promoted()) == ["shop", "other-name"]


def test_promote_and_roll_back(make_export: Callable[..., Path]) -> None:
    registry = Registry()
    models = [registry.register(make_export(seed=seed)) for seed in range(3)]
    for model in models[1:]:
        assert registry.promote(model.model_id).promoted
    assert registry.rollback("shop").version == models[1].version
    assert registry.rollback("shop").version == models[0].version
    with pytest.raises(RegistryError, match="no earlier promotion"):
        registry.rollback("shop")


def test_promoting_twice_leaves_one_step_to_go_back(make_export: Callable[..., Path]) -> None:
    registry = Registry()
    first, second = (registry.register(make_export(seed=seed)) for seed in range(2))
    registry.promote(second.model_id)
    registry.promote(second.model_id)
    assert registry.rollback("shop").version == first.version


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("shop", "say which version"),
        ("shop:000000000000", "registered are shop:"),
        ("nothing:000000000000", "no model nothing"),
        ("../etc:passwd", "is no name"),
        ("shop:../../x", "is no name"),
        ("shop:", "say which version"),
    ],
)
def test_what_cannot_be_promoted(export: Path, model_id: str, message: str) -> None:
    registry = Registry()
    registry.register(export)
    with pytest.raises(RegistryError, match=message):
        registry.promote(model_id)


def test_a_changed_model_is_neither_promoted_nor_served(make_export: Callable[..., Path]) -> None:
    registry = Registry()
    registry.register(make_export(seed=1))
    second = registry.register(make_export(seed=2))
    with (second.folder / "generator.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RegistryError, match=r"generator\.onnx is not the file"):
        registry.promote(second.model_id)
    with pytest.raises(RegistryError, match="was changed"):
        second.read_generator()


def test_graphs_beside_the_generator_are_read_as_they_were_registered(styled_export: Path) -> None:
    model = Registry().register(styled_export)
    others = model.read_others()
    assert others.keys() == {"mapping.onnx", "encoder.onnx"}
    assert others["mapping.onnx"] == (styled_export / "mapping.onnx").read_bytes()
    (model.folder / "mapping.onnx").write_bytes(b"changed")
    with pytest.raises(RegistryError, match=r"mapping.onnx was changed"):
        model.read_others()


def test_a_store_filled_elsewhere_serves_its_only_version(export: Path) -> None:
    registry = Registry()
    model = registry.register(export)
    registry.promotions.path.unlink()
    assert registry.promoted() == {"shop": model.version}
    assert registry.get("shop").promoted


def test_a_damaged_pointer_says_so(export: Path) -> None:
    registry = Registry()
    registry.register(export)
    registry.promotions.path.write_text('{"names": {"shop": []}}')
    with pytest.raises(RegistryError, match=r"promotions\.json can't be read"):
        registry.promoted()


def test_the_pointer_is_replaced_whole(
    make_export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.register(make_export(seed=1))
    second = registry.register(make_export(seed=2))
    before = registry.promotions.path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RegistryError, match="No space left"):
        registry.promote(second.model_id)
    assert registry.promotions.path.read_bytes() == before
    assert sorted(p.name for p in registry.promotions.path.parent.iterdir()) == [
        "lock",
        "promotions.json",
    ]


def test_missing_directory_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="is no directory"):
        Registry().register(tmp_path / "none")
    with pytest.raises(RegistryError, match=r"manifest\.json can't be read"):
        Registry().register(tmp_path)


@pytest.mark.parametrize("name", ["Shop", "a/b", "-x", "x-", "a" * 64, "sh op", "..", "café"])
def test_names_that_are_refused(make_export: Callable[..., Path], name: str) -> None:
    export = make_export()
    with pytest.raises(RegistryError, match="is no name"):
        Registry().register(export, name)
    assert Registry().list() == []


def _spoil_manifest(export: Path, **changes: Any) -> None:
    path = export / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _link(export: Path) -> None:
    preview = export / "preview.png"
    preview.rename(export.parent / "elsewhere.png")
    preview.symlink_to(export.parent / "elsewhere.png")


def _pipe(export: Path) -> None:
    (export / "preview.png").unlink()
    os.mkfifo(export / "preview.png")


SPOILERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte": (
        lambda e: (e / "preview.png").write_bytes((e / "preview.png").read_bytes()[:-1] + b"x"),
        r"preview\.png is not the file",
    ),
    "a pickle beside": (lambda e: (e / "model.pkl").write_bytes(b"\x80\x04."), r"model\.pkl"),
    "a folder beside": (lambda e: (e / "weights").mkdir(), "weights"),
    "a missing file": (lambda e: (e / "preview.png").unlink(), r"missing \['preview\.png'\]"),
    "a link": (_link, "is not a plain file"),
    "a pipe": (_pipe, "is not a plain file"),
    "a later schema": (lambda e: _spoil_manifest(e, schema_version=2), "schema_version"),
    "NaN in the manifest": (
        lambda e: (e / "manifest.json").write_text(
            (e / "manifest.json").read_text().replace("0.7", "NaN")
        ),
        r"manifest\.json: truncation_psi",
    ),
    "no JSON": (lambda e: (e / "manifest.json").write_text("{"), r"manifest\.json"),
    "a path in the manifest": (
        lambda e: _spoil_manifest(e, files={"../generator.onnx": {"sha256": "0" * 64, "bytes": 1}}),
        "files",
    ),
    "a synonym of two": (
        lambda e: _spoil_manifest(e, synonyms={"mugs": ["cup"], "boxes": ["Cups"]}),
        "'Cups', a synonym of 'boxes', is a synonym of 'mugs'",
    ),
    "synonyms without end": (
        lambda e: _spoil_manifest(e, synonyms={"mugs": [f"mug {k}" for k in range(51)]}),
        r"synonyms\.mugs",
    ),
    "another opset": (lambda e: _spoil_manifest(e, opset=21), "opset 20"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_spoiled_exports_are_refused_and_leave_nothing(
    make_export: Callable[..., Path], name: str
) -> None:
    spoil, message = SPOILERS[name]
    export = make_export()
    spoil(export)
    with pytest.raises(OperatorError, match=message):
        Registry().register(export)
    assert Registry().list() == []
    assert Registry().promoted() == {}


def test_an_oversized_generator_is_refused_unread(
    make_export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.model_store.exports.MAX_GENERATOR_BYTES", 1000)
    with pytest.raises(RegistryError, match="over the limit of 1000"):
        Registry().register(make_export())
