"""Which category a prompt names."""

import pytest

from service.errors import BadRequest
from service.pictures.prompts import category_of_prompt

CATEGORIES = ("mugs", "shoe boxes", "boxes", "café lamps", "t-shirt", "dress", "T_Shirts long")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red mug", "mugs"),
        ("Two MUGS, please", "mugs"),
        ("one box", "boxes"),
        ("a shoe box on white", "shoe boxes"),
        ("shoe-boxes", "shoe boxes"),
        ("CAFÉ LAMP", "café lamps"),
        ("a t-shirt", "t-shirt"),
        ("long dresses", "dress"),
        ("some t shirts long", "T_Shirts long"),
    ],
)
def test_named(prompt: str, expected: str) -> None:
    assert CATEGORIES[category_of_prompt(prompt, CATEGORIES)] == expected


@pytest.mark.parametrize("prompt", ["smuggler", "a lamp", "boxing", "café", "", "🫖", "addressed"])
def test_parts_of_words_name_nothing(prompt: str) -> None:
    with pytest.raises(BadRequest, match="names no category; known are mugs") as caught:
        category_of_prompt(prompt, CATEGORIES)
    assert caught.value.code == "unknown_category"


@pytest.mark.parametrize("prompt", ["a mug and a dress", "a shoe box beside a box"])
def test_several_are_ambiguous(prompt: str) -> None:
    with pytest.raises(BadRequest, match="several categories") as caught:
        category_of_prompt(prompt, CATEGORIES)
    assert (caught.value.code, caught.value.param) == ("ambiguous_category", "prompt")


def test_messages_stay_short() -> None:
    many = [f"{'x' * 190}{index}" for index in range(5000)]
    with pytest.raises(BadRequest) as caught:
        category_of_prompt("nothing", many)
    assert len(caught.value.message) <= 600
    assert "4988 more" in caught.value.message
