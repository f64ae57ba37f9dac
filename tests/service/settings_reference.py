"""Writes docs/settings.md from the settings' model, when run as a module."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings import Settings

FILE: Final = Path(__file__).parents[2] / "docs" / "settings.md"
_HEAD: Final = """# Settings

Every setting is an environment variable: `CATALOGAN_` and its name in capitals, as
`CATALOGAN_MAX_UPLOAD_BYTES`. This page is written from the service's own model
(`python -m tests.service.settings_reference`), and a test compares the two.

| setting | default | takes | |
|---|---|---|---|
"""
_NAMES: Final = {Path: "a path", SecretStr: "text, never shown", str: "text", bool: "true or false"}
_UNLIMITED: Final = {int: "a whole number", float: "a number"}


def reference() -> str:
    """The page as it must be."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return _HEAD + "".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_default(field)} | {_takes(field)} | {field.description or ''} |\n"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return ""
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{_number(value)}`"
    return f"`{value}`"


def _number(value: float) -> str:
    """With underscores, which the environment may have too."""
    return f"{int(value):_}" if value == int(value) else str(value)


def _takes(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    return _range(field) or _NAMES.get(kind) or _UNLIMITED[kind]


def _range(field: FieldInfo) -> str:
    said = {"ge": "{} or more", "gt": "over {}", "le": "up to {}"}
    return ", ".join(
        text.format(_number(getattr(bound, name)))
        for name, text in said.items()
        for bound in field.metadata
        if hasattr(bound, name)
    )


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
