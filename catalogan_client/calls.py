"""A call: what is sent, and how the response is read. Nothing here sends."""

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypeVar

import httpx

Result = TypeVar("Result")

OutputFormat = Literal["png", "webp", "jpeg"]
FileInput = str | os.PathLike[str] | bytes | IO[bytes]
"""A file: its path, its bytes, or an object opened for reading in binary mode."""


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request, and how its response is read.

    Attributes:
        method: HTTP method.
        path: Below the service's address.
        read: Returns the result of a response with status 200.
        body: JSON fields, or with files those of a form.
        files: A form's files: field, file name, file.
        query: Of the address.
        accept: Media type of the response.
        idempotency_key: The caller's own; else each POST gets a new one.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Result]
    body: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, str, FileInput]] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    accept: str = "application/json"
    idempotency_key: str | None = None

    def arguments(self) -> dict[str, Any]:
        """What httpx takes to build the request; files are read here, once for all tries."""
        headers = {"Accept": self.accept}
        if self.method == "GET":
            return {"headers": headers, "params": self.query}
        # The same for all tries of this request, so that none is worked on twice.
        headers["Idempotency-Key"] = self.idempotency_key or uuid.uuid4().hex
        if not self.files:
            return {"headers": headers, "json": self.body}
        files = [(name, (file_name, read_file(file))) for name, file_name, file in self.files]
        data = {name: _form_text(value) for name, value in self.body.items()}
        return {"headers": headers, "data": data, "files": files}


def given(**values: Any) -> dict[str, Any]:
    """The fields that the caller set."""
    return {name: value for name, value in values.items() if value is not None}


def read_file(file: FileInput) -> bytes:
    """Read a file whole.

    Raises:
        OSError: It can't be read.
        TypeError: It isn't one, or was opened as text.
    """
    if isinstance(file, bytes):
        return file
    if isinstance(file, str | os.PathLike):
        return Path(file).read_bytes()
    data: object = file.read() if hasattr(file, "read") else None
    if not isinstance(data, bytes):
        raise TypeError('a file must be a path, bytes, or opened for reading in mode "rb"')
    return data


def is_one_file(files: FileInput | Sequence[FileInput]) -> bool:
    """Whether it is one file rather than a sequence of them."""
    return isinstance(files, str | bytes | os.PathLike) or hasattr(files, "read")


def _form_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"  # the service's forms know no exponents
    return json.dumps(value)
