"""Which category a prompt names."""

import pytest

from models.manifest import check_synonyms
from service.errors import BadRequest
from service.generation.prompts import category_of_prompt

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


SYNONYMS = {
    "mugs": ["cup", "Becher", "drinking vessel"],
    "boxes": ["carton", "cup holder"],
    "dress": ["ÉTOILE robe"],
}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red cup", "mugs"),
        ("two CUPS", "mugs"),
        ("ein BECHER", "mugs"),
        ("drinking-vessels of glass", "mugs"),
        ("a cup holder", "boxes"),
        ("une étoile robe", "dress"),
        ("a mug, that is a cup", "mugs"),
        ("a shoe box", "shoe boxes"),
        ("mug " * 8000, "mugs"),
    ],
)
def test_named_by_synonym(prompt: str, expected: str) -> None:
    assert CATEGORIES[category_of_prompt(prompt, CATEGORIES, SYNONYMS)] == expected


@pytest.mark.parametrize("prompt", ["cups and cartons", "a cup holder with a cup", "cup, dress"])
def test_synonyms_of_several_are_ambiguous(prompt: str) -> None:
    with pytest.raises(BadRequest, match="several categories, mugs, ") as caught:
        category_of_prompt(prompt, CATEGORIES, SYNONYMS)
    assert caught.value.code == "ambiguous_category"


@pytest.mark.parametrize("prompt", ["cupboard", "vessel", "holder"])
def test_parts_of_synonyms_name_nothing(prompt: str) -> None:
    with pytest.raises(BadRequest, match="names no category; known are mugs"):
        category_of_prompt(prompt, CATEGORIES, SYNONYMS)


@pytest.mark.parametrize(
    ("synonyms", "message"),
    [
        ({"spoons": ["x"]}, "synonyms of 'spoons', which is no category; known are mugs, "),
        ({"mugs": ["box"]}, "'box', a synonym of 'mugs', is the category 'boxes', too"),
        (
            {"mugs": ["cup"], "dress": ["CUPS"]},
            "'CUPS', a synonym of 'dress', is a synonym of 'mugs'",
        ),
        ({"mugs": ["!?"]}, "has no word in it"),
    ],
)
def test_synonyms_that_name_none_or_two_are_refused(
    synonyms: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match="synonym") as caught:
        check_synonyms(synonyms, CATEGORIES)
    assert message in str(caught.value)


def test_ones_own_names_may_be_said_twice() -> None:
    check_synonyms({"mugs": ["mug", "Mugs", "cup", "cups"]}, CATEGORIES)
