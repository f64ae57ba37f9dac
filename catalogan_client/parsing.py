"""Responses -> frozen dataclasses. Fields that a newer service adds are passed over."""

import base64
import dataclasses
import io
import json
import typing
import zipfile
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import httpx

from catalogan_client.errors import BrokenAnswerError

Result = TypeVar("Result")

HEADER_PREFIX: Final = "x-catalogan-"


def json_reader(kind: type[Result]) -> Callable[[httpx.Response], Result]:
    """Return a reader of JSON responses."""

    def read(response: httpx.Response) -> Result:
        try:
            value = response.json()
        except ValueError:
            raise BrokenAnswerError(f"not JSON: {response.text[:80]!r}") from None
        result: Result = build(kind, value)
        return result

    return read


def build(kind: Any, value: Any, where: str = "the response") -> Any:
    """Build a value of the type that a result's field has.

    Args:
        kind: A dataclass, tuple[X, ...], X | None, int | str, a plain type, or one that isn't
            looked into.
        value: As JSON has it; bytes are Base64.
        where: Names the value in errors.

    Raises:
        BrokenAnswerError: It has another type, or a field is missing.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is UnionType:
        if value is None:
            return None
        kinds = [one for one in arguments if one is not NoneType]
        fitting = kinds if len(kinds) == 1 else [one for one in kinds if type(value) is one]
        _check(bool(fitting), where)
        return build(fitting[0], value, where)
    if origin is tuple:
        _check(isinstance(value, list), where)
        return tuple(build(arguments[0], one, f"{where}.{i}") for i, one in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, value, where)
    if kind in _PLAIN:
        try:
            return _PLAIN[kind](value)
        except (ValueError, TypeError):
            raise _broken(where) from None
    return value


def _build_fields(kind: Any, value: Any, where: str) -> Any:
    _check(isinstance(value, dict), where)
    found = {}
    for field, hint in _fields(kind):
        name = field.metadata.get("json", field.name)
        if name in value:
            found[field.name] = build(hint, value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING:
            raise _broken(f"{where}.{name}", "is missing")
    return kind(**found)


@cache
def _fields(kind: Any) -> list[tuple["dataclasses.Field[Any]", Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _exactly(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return convert


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


_PLAIN: Final[Mapping[Any, Callable[[Any], Any]]] = {
    str: _exactly(str),
    int: _exactly(int),
    bool: _exactly(bool),
    float: _number,
    bytes: _bytes,
    date: date.fromisoformat,
}


def header_metadata(response: httpx.Response, kind: type) -> dict[str, Any]:
    """What the headers of a bare file say of it, as JSON would."""
    metadata: dict[str, Any] = {}
    for field, hint in _fields(kind):
        name = field.metadata.get("json", field.name)
        text = response.headers.get(HEADER_PREFIX + name.replace("_", "-"))
        if text is None:
            continue
        try:
            metadata[name] = unquote(text) if hint is str else json.loads(unquote(text))
        except ValueError:
            raise _broken(f"the header {HEADER_PREFIX}{name}") from None
    return metadata


def archive_metadata(data: bytes) -> dict[str, Any]:
    """What a ZIP's manifest.json says, with each image's bytes as JSON would have them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            metadata: dict[str, Any] = json.loads(archive.read("manifest.json"))
            for one in metadata["data"]:
                one["b64_json"] = archive.read(one["file"])
    except (zipfile.BadZipFile, ValueError, LookupError, TypeError) as error:
        raise BrokenAnswerError(f"the archive can't be read: {error}") from None
    return metadata


def _check(fits: bool, where: str) -> None:
    if not fits:
        raise _broken(where)


def _broken(where: str, what: str = "is not what it should be") -> BrokenAnswerError:
    return BrokenAnswerError(f"{where} {what}: is this a Catalogan service?")
