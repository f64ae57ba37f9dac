"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): uploads that fit the schema are real pictures."""

import io
from typing import Any

import schemathesis
from PIL import Image
from schemathesis import GenerationMode

_BUFFER = io.BytesIO()
Image.linear_gradient("L").resize((40, 30)).save(_BUFFER, "PNG")
PICTURE = _BUFFER.getvalue()


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Put a picture where random bytes are, so that what lies behind decoding is reached."""
    generated = case.meta.generation.mode if case.meta else None
    if (
        generated == GenerationMode.POSITIVE
        and isinstance(case.body, dict)
        and "image" in case.body
    ):
        case.body["image"] = PICTURE
