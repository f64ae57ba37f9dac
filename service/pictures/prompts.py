"""Finds the category that a prompt names."""

import re
from collections.abc import Sequence
from typing import Final

from service.errors import BadRequest

_WORD: Final = re.compile(r"\w+")


def category_of_prompt(prompt: str, categories: Sequence[str]) -> int:
    """Find the category whose words stand in the prompt; a longer name wins over a shorter.

    Letter case and simple English plurals, in either, don't matter.

    Args:
        prompt: Free text.
        categories: Names to look for.

    Returns:
        Index into `categories`.

    Raises:
        BadRequest: The prompt names none, or several.
    """
    text = _words(prompt)
    found: dict[int, list[range]] = {}
    for index, category in enumerate(categories):
        name = _words(category)
        spans = [
            range(start, start + len(name))
            for start in range(len(text) - len(name) + 1)
            if name and text[start : start + len(name)] == name
        ]
        if spans:
            found[index] = spans
    named = [index for index in found if not _is_inside_longer(index, found)]
    if len(named) == 1:
        return named[0]
    if not named:
        raise BadRequest(
            f"the prompt names no category; known are {listing(categories)}",
            param="prompt",
            code="unknown_category",
        )
    raise BadRequest(
        f"the prompt names several categories, {listing([categories[i] for i in named])}: "
        "set `category`",
        param="prompt",
        code="ambiguous_category",
    )


def listing(categories: Sequence[str], limit: int = 12) -> str:
    """Name some categories in a message of bounded length."""
    shown = ", ".join(name[:40] for name in categories[:limit])
    more = len(categories) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def _is_inside_longer(index: int, found: dict[int, list[range]]) -> bool:
    """Whether each place that names this category is part of a longer category's name."""
    return all(
        any(
            len(other) > len(span) and other.start <= span.start and span.stop <= other.stop
            for rival, others in found.items()
            if rival != index
            for other in others
        )
        for span in found[index]
    )


def _words(text: str) -> list[str]:
    return [_singular(word) for word in _WORD.findall(text.casefold().replace("_", " "))]


def _singular(word: str) -> str:
    """Fold simple plurals: mugs, boxes, dresses, batteries; leaves dress and bus alone."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
