"""Messages about files and options that fail validation, in plain words."""

from typing import Final

from pydantic import ValidationError

from models.validation import first_problem

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
    first, value = first_problem(error)
    where = first.place or whole
    shown = isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_VALUE
    if where and shown and first.kind not in _WITHOUT_VALUE:
        where = f"{where} {value!r}"
    return f"{where}: {first.message}" if where else first.message
