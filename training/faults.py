"""What a person is told of a file or an option that pydantic refuses."""

from pydantic import ValidationError


def first_fault(error: Exception, whole: str = "") -> str:
    """One line: of a ValidationError its first field and what is wrong there, else all it says.

    `whole` names what is wrong where no field is.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
