"""What pydantic found wrong, in Catalogan's words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# pydantic's kind of error -> what to say of the field; braces hold the error's bounds.
_MESSAGES: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "json_invalid": "is not valid JSON",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "finite_number": "must be a finite number",
    "too_long": "may have at most {max_length} entries",
    "too_short": "must have {min_length} or more entries",
    "string_too_long": "may have at most {max_length} characters",
    "string_too_short": "must have {min_length} or more characters",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is missing",
    "invalid_key": "must be text",
    "is_instance_of": "must be a list",  # a Sequence, the only abstract type of a field
    "sequence_str": "must be a list",
}
# Wrong types: the beginning of the kind -> what is expected.
_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "model": "an object",
    "none": "null",
    "date": "a date such as 2026-11-24",
    "datetime": "a time such as 2026-11-24T12:00:00Z",
    "path": "a path",
}
# pydantic counts the branch of a union as a place, such as function-after[check(), str].
_UNION_BRANCH: Final = re.compile(r"[a-z-]+\[.+\]")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value.

    Attributes:
        place: The field, its parents before it, with dots between; empty = the whole.
        depth: Number of names in `place`.
        kind: pydantic's word for it.
        message: What is wrong, without the value.
    """

    place: str
    depth: int
    kind: str
    message: str


def problems(error: ValidationError) -> list[Problem]:
    """All that is wrong, in the order of the fields; never repeats what was sent."""
    return [_problem(one) for one in error.errors(include_input=False, include_url=False)]


def first_problem(error: ValidationError) -> tuple[Problem, Any]:
    """What is wrong first, and the value that was sent there: strangers may send many."""
    first = error.errors(include_url=False)[0]
    return _problem(first), first["input"]


def _problem(one: ErrorDetails) -> Problem:
    kind, names = one["type"], [str(part) for part in one["loc"]]
    if kind != "extra_forbidden":
        names = [name for name in names if not _UNION_BRANCH.fullmatch(name)]
    message = _message(kind, one["msg"], one.get("ctx", {}))
    if kind == "missing" and isinstance(one["loc"][-1], int):
        message += ": the list is too short"
    return Problem(".".join(name[:64] for name in names), len(names), kind, message)


def _message(kind: str, original: str, bounds: Mapping[str, Any]) -> str:
    if kind == "value_error":  # of a validator of Catalogan, which says it in words
        return original.removeprefix("Value error, ")
    if kind in _MESSAGES:
        return _MESSAGES[kind].format_map({name: _shown(one) for name, one in bounds.items()})
    expected = _TYPES.get(kind.partition("_")[0])
    return f"must be {expected}" if expected else "is not valid"


def _shown(bound: Any) -> Any:
    """1, not 1.0."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
