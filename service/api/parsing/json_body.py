"""JSON bodies, parsed more strictly than the standard library does."""

import json
from typing import Any, Final

from fastapi import Request

from service.errors import BadRequest
from service.fields import Parsed, validate

# Of one object, as many as a dataset has categories: each unknown name costs an error to word.
MAX_NAMES: Final = 10_000


async def read_json(request: Request, kind: type[Parsed], otherwise: str = "") -> Parsed:
    """Read a JSON body and check it; `otherwise` names what else would do.

    Raises:
        BadRequest: It isn't declared to be JSON, isn't JSON, or names the first field at fault.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest(
            f"send the body as Content-Type: application/json{otherwise}", param="Content-Type"
        )
    return validate(kind, parse_json(await request.body()))


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; as strict as `parse_json_value`.

    Raises:
        BadRequest: Not that, or no object.
    """
    value = parse_json_value(data)
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return value


def parse_json_value(data: bytes) -> Any:
    """Parse JSON, more strictly than the standard library does.

    Raises:
        BadRequest: Not UTF-8, not JSON, a duplicate name, too many names, NaN, or too deep.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
        )
    except BadRequest:
        raise
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError:
        raise BadRequest("not UTF-8", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"not JSON from character {error.pos} on", code="invalid_json") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_NAMES:
        raise BadRequest(f"a JSON object has more than {MAX_NAMES} names", code="invalid_json")
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadRequest("a JSON name occurs twice in one object", code="invalid_json")
    return result


def _refuse_constant(name: str) -> None:
    raise BadRequest(f"{name} is no JSON number", code="invalid_json")


def _bounded_int(digits: str) -> int:
    """Python would refuse, or take quadratic time for, thousands of digits."""
    if len(digits) > 40:
        raise BadRequest("a number has too many digits", code="invalid_json")
    return int(digits)
