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
            "unknown field; known are coarse, fine",
        ),
        (InterpolationRequest, {"seeds": [1, 2], "loop": 1}, "loop", "must be true or false"),
        (AugmentationRequest, {"operations": {}}, "operations", "must be a list"),
        (AugmentationRequest, {"operations": [3]}, "operations.0", "must be an object"),
        (AugmentationRequest, {"operations": [{}]}, "operations.0", "'name' is missing"),
        (
            AugmentationRequest,
            {"operations": [{"name": "background", "fills": [3]}]},
            "operations.0.background.fills.0",
            "must be transparent, white, black or a colour as #rrggbb, or a list of two colours",
        ),
        (DatasetRequest, {"count": 1, "layout": "x"}, "layout", "must be 'folder', 'coco' or "),
    ],
)
def test_messages(kind: type[Strict], value: Any, param: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(kind, value)
    assert caught.value.param == param
    assert caught.value.message.startswith(message)
    assert message.startswith("unknown field") or param in caught.value.message


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


BOX = "must be four numbers: [left, top, width, height] as coco, [left, top, right, bottom] as xyxy"
POLYGON = (
    "must be one flat list of numbers for each polygon, [x1, y1, x2, y2, ...]; send what is RLE as "
    "a mask"
)
LABEL = "must be text of up to 200 characters, or a whole number of up to 53 bits"
PAIR = "must be two whole numbers: places of keypoints, counted from 0"


@pytest.mark.parametrize(
    ("annotation", "place", "message"),
    [
        ({"label": 1.5}, ".label", LABEL),
        ({"label": "x" * 201}, ".label", LABEL),
        ({"boxes": [[1, 2, 3, 4]], "labels": [None]}, ".labels.0", LABEL),
        (
            {"boxes": [[1, 2, 3, 4]], "labels": []},
            "",
            "labels must hold one for each box: there are 0 for 1",
        ),
        ({"boxes": [[1, 2, 3]]}, ".boxes.0", BOX),
        ({"boxes": [{"x": 1}]}, ".boxes.0", BOX),
        ({"boxes": [[1, 2, 3, "4"]]}, ".boxes.0.3", "must be a number"),
        ({"boxes": [[1, 2, 3, 4]] * 1001}, ".boxes", "may have at most 1000 entries"),
        ({"polygons": [[[1, 2], [3, 4], [5, 6]]]}, ".polygons.0", POLYGON),
        ({"polygons": [{"counts": "x", "size": [1, 1]}]}, ".polygons.0", POLYGON),
        ({"polygons": [1, 2, 3, 4, 5, 6]}, ".polygons.0", POLYGON),
        (
            {"polygons": [[1, 2] * 2000] * 11},
            "",
            "polygons and keypoints have more than 20000 points: send polygons with fewer",
        ),
        (
            {"keypoints": [[1, 2, 2, 3, 4, 2]]},
            ".keypoints.0.0",
            "must be [x, y, visibility]: cut COCO's flat list into threes",
        ),
        ({"flip_pairs": [[0]]}, ".flip_pairs.0", PAIR),
        (
            {"keypoints": [[[1, 2, 2]]], "flip_pairs": [[0, 1]]},
            "",
            "flip_pairs may name the keypoints that every instance has, counted from 0: there "
            "are 1",
        ),
        (
            {"bbox": [1, 2, 3, 4]},
            ".bbox",
            "unknown field; known are label, format, boxes, labels, polygons, keypoints, "
            "flip_pairs",
        ),
    ],
)
def test_annotations_errors_say_what_to_send(
    annotation: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(AugmentationRequest, {"annotations": [None, annotation]})
    assert caught.value.param == f"annotations.1{place}"
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("operation", "place", "message"),
    [
        ({"name": "rotate", "degrees": "5"}, "degrees", "one number, or a range as [low, high]"),
        ({"name": "rotate", "degrees": [1]}, "degrees", "one number, or a range as [low, high]"),
        ({"name": "rotate", "degrees": [9, 3]}, "degrees", "9, is above the upper one, 3"),
        ({"name": "background", "fills": [["white"]]}, "fills.0", "or a list of two colours"),
        ({"name": "flip", "often": 1}, "often", "known are name, probability, axis"),
        ({"name": "perspective", "insets": [[0, 0]]}, "insets.1", "the list is too short"),
    ],
)
def test_operations_errors_say_what_to_send(
    operation: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(AugmentationRequest, {"operations": [operation]})
    assert caught.value.param == f"operations.0.{operation['name']}.{place}"
    assert message in caught.value.message


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
