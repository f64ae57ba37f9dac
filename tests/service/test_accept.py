"""The kind of answer that an Accept header gets."""

import pytest

from service.api.parsing.accept import choose_response_type
from service.errors import BadRequest


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/WebP", "image/webp"),
        ("application/json;q=0.1, image/jpeg;q=0.9", "image/jpeg"),
        ("image/png;q=0, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("image/*", "image/png"),
        ("application/*;q=0.5, application/zip", "application/zip"),
        ("image/png; level=1; q=0.2, application/zip; q=0.1", "image/png"),
        ("image/png;q=nonsense, application/json;q=0.1", "application/json"),
    ],
)
def test_chosen(accept: str | None, expected: str) -> None:
    assert choose_response_type(accept) == expected


def test_among_images_the_asked_format_wins() -> None:
    assert choose_response_type("image/*", "image/webp") == "image/webp"
    assert choose_response_type("image/png, image/webp;q=0.9", "image/webp") == "image/png"
    assert choose_response_type("*/*", "image/webp") == "application/json"


@pytest.mark.parametrize(
    "accept", ["text/html", "image/avif", "*/*;q=0", "nonsense", "image/png;q=2"]
)
def test_nothing_served_is_acceptable(accept: str) -> None:
    with pytest.raises(BadRequest, match="served are application/json") as caught:
        choose_response_type(accept)
    assert (caught.value.code, caught.value.param) == ("not_acceptable", "Accept")


def test_hostile_lengths_are_quick() -> None:
    with pytest.raises(BadRequest):
        choose_response_type("a/b," * 10_000)
