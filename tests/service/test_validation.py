"""Messages about wrong fields: in Catalogan's words, at the field at fault."""

from typing import Any

import pytest

from service.augmentation.requests import AugmentationRequest
from service.datasets.plan import DatasetRequest
from service.errors import BadRequest
from service.fields import Strict, validate
from service.generation.interpolation_requests import InterpolationRequest
from service.generation.requests import GenerationRequest


@pytest.mark.parametrize(
    ("kind", "value", "param", "message"),
    [
        (GenerationRequest, {"n": 0}, "n", "must be 1 or more"),
        (GenerationRequest, {"n": 11}, "n", "must be 10 or less"),
        (GenerationRequest, {"seed": 2**53}, "seed", "must be below 9007199254740992"),
        (GenerationRequest, {"n": "1"}, "n", "must be a whole number"),
        (GenerationRequest, {"n": 1.5}, "n", "must be a whole number"),
        (GenerationRequest, {"n": True}, "n", "must be a whole number"),
        (GenerationRequest, {"truncation_psi": "1"}, "truncation_psi", "must be a number"),
        (
            GenerationRequest,
            {"truncation_psi": float("nan")},
            "truncation_psi",
            "must be a finite number",
        ),
        (GenerationRequest, {"truncation_psi": 2}, "truncation_psi", "must be 1 or less"),
        (GenerationRequest, {"seeds": []}, "seeds", "must have 1 or more entries"),
        (GenerationRequest, {"seeds": 5}, "seeds", "must be a list"),
        (GenerationRequest, {"seeds": [1, None]}, "seeds.1", "must be a whole number"),
        (
            GenerationRequest,
            {"output_format": "gif"},
            "output_format",
            "must be 'png', 'jpeg' or 'webp'",
        ),
        (GenerationRequest, {"category": 1}, "category", "must be text"),
        (
            GenerationRequest,
            {"category": "x" * 201},
            "category",
            "may have at most 200 characters",
        ),
        (GenerationRequest, {"categories": {"mugs": 0}}, "categories.mugs", "must be above 0"),
        (GenerationRequest, {"style_mixing": 3}, "style_mixing", "must be an object"),
        (GenerationRequest, {"style_mixing": {"coarse": 1}}, "style_mixing.fine", "is missing"),
        (
            GenerationRequest,
            {"style_mixing": {"coarse": 1, "fine": 2, "x": 3}},
            "style_mixing.x",
            "is not a known field",
        ),
        (InterpolationRequest, {"seeds": [1, 2], "loop": 1}, "loop", "must be true or false"),
        (AugmentationRequest, {"operations": {}}, "operations", "must be a list"),
        (AugmentationRequest, {"operations": [3]}, "operations.0", "must be an object"),
        (AugmentationRequest, {"operations": [{}]}, "operations.0", "'name' is missing"),
        (
            AugmentationRequest,
            {"operations": [{"name": "background", "fills": [3]}]},
            "operations.0.background.fills.0",
            "must be text",
        ),
        (DatasetRequest, {"count": 1, "layout": "x"}, "layout", "must be 'folder', 'coco' or "),
    ],
)
def test_messages(kind: type[Strict], value: Any, param: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(kind, value)
    assert caught.value.param == param
    assert caught.value.message.startswith(message)
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": 11}, "must be 10 or less; n is 11"),
        ({"n": True}, "must be a whole number; n is true"),
        ({"seed": -1}, "must be 0 or more; seed is -1"),
        ({"seeds": [1, "2"]}, "must be a whole number; seeds.1 is '2'"),
        ({"category": 7}, "must be text; category is 7"),
        ({"category": "x" * 201}, "may have at most 200 characters (category)"),
        ({"size": 1024}, "must be text; size is 1024"),
        ({"output_format": "\x1b[2J"}, r"output_format is '\x1b[2J'"),
        ({"style_mixing": {"coarse": 1}}, "is missing (style_mixing.fine)"),
        ({"truncation_psi": [1]}, "must be a number (truncation_psi)"),
    ],
)
def test_a_message_alone_says_which_field_and_what_was_sent(
    value: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(GenerationRequest, value)
    assert caught.value.message.endswith(message)


def test_an_unknown_operation_lists_the_known() -> None:
    with pytest.raises(BadRequest) as caught:
        validate(AugmentationRequest, {"operations": [{"name": "nope"}]})
    assert caught.value.param == "operations.0"
    assert caught.value.message.startswith("'name' must be one of 'flip', 'rotate', ")
    assert "nope" not in caught.value.message


def test_an_unknown_field_in_brackets_is_named_whole() -> None:
    with pytest.raises(BadRequest) as caught:
        validate(GenerationRequest, {"tuple[3]": 1})
    assert caught.value.param == "tuple[3]"
