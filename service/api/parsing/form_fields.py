"""A form's text fields -> values of the types that JSON has."""

import re
from collections.abc import Mapping
from typing import Any, Final

from service.api.parsing.json_body import parse_json_value
from service.errors import BadRequest

_INTEGER: Final = re.compile(r"[0-9]{1,16}")
_NUMBER: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,20})?")


def typed_fields(
    fields: Mapping[str, str],
    *,
    integers: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    json: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Convert the named fields, where they are sent; others stay text.

    Args:
        fields: As they came.
        integers: Names of whole numbers.
        numbers: Names of decimal numbers.
        json: Names of JSON values.

    Raises:
        BadRequest: Names the field at fault.
    """
    values: dict[str, Any] = dict(fields)
    for name, text in fields.items():
        if name in integers:
            if not _INTEGER.fullmatch(text):
                raise BadRequest("must be a whole number", param=name)
            values[name] = int(text)
        elif name in numbers:
            if not _NUMBER.fullmatch(text):
                raise BadRequest("must be a number such as 0.5", param=name)
            values[name] = float(text)
        elif name in json:
            values[name] = _parse_json(name, text)
    return values


def _parse_json(name: str, text: str) -> Any:
    try:
        return parse_json_value(text.encode("utf-8", "replace"))
    except BadRequest as error:
        raise BadRequest(error.message, param=name, code=error.code) from None
