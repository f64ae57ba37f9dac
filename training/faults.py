"""Messages about files and options that fail validation, in plain words."""

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# By pydantic's type of error. Its own messages speak of inputs, instances and extra inputs.
_MESSAGES: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown name",
    "json_invalid": "not valid JSON",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), "must be a group of named values"
    ),
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing"),
        "must be a date and time",
    ),
}
# Where the value explains nothing: it is absent, is of an unknown name, or is in the message.
_WITHOUT_VALUE: Final = ("missing", "extra_forbidden", "json_invalid", "value_error")
_LONGEST_VALUE: Final = 60


def first_fault(error: Exception, whole: str = "") -> str:
    """Describe an error in one line: a ValidationError by its first field, others by their text.

    A missing or unreadable file is described by the system's reason and its path.

    Args:
        error: What was raised.
        whole: Name for what failed, where the fault is of no single field.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    value = first["input"]
    shown = isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_VALUE
    if where and shown and first["type"] not in _WITHOUT_VALUE:
        where = f"{where} {value!r}"
    return f"{where}: {describe(first)}" if where else describe(first)


def describe(fault: ErrorDetails) -> str:
    """Say what is wrong with a field that failed validation, without naming it."""
    context = fault.get("ctx", {})
    if fault["type"] == "value_error":  # raised by a validator of our own
        return str(context["error"])
    limits = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
    return _MESSAGES.get(fault["type"], "not a valid value").format(**limits)
