"""Finds the category that a prompt names."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from models.manifest import name_words
from service.errors import BadRequest

Words = tuple[str, ...]
_NO_SYNONYMS: Final[Mapping[str, Sequence[str]]] = {}


def category_of_prompt(
    prompt: str,
    categories: Sequence[str],
    synonyms: Mapping[str, Sequence[str]] = _NO_SYNONYMS,
) -> int:
    """Find the category that the prompt names; a longer name wins over one inside it.

    Whole words count; letter case and simple English plurals, in either, don't matter.

    Args:
        prompt: Free text.
        categories: Names to look for.
        synonyms: Other names by category.

    Returns:
        Index into `categories`.

    Raises:
        BadRequest: The prompt names none, or several.
    """
    names = _names(tuple(categories), tuple((name, tuple(synonyms[name])) for name in synonyms))
    named = sorted(_outermost(name_words(prompt), names))
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


@lru_cache(maxsize=16)
def _names(
    categories: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]
) -> dict[Words, set[int]]:
    """Indices of categories by all their names: a prompt is looked up, not searched for each."""
    others = dict(synonyms)
    names: dict[Words, set[int]] = {}
    for index, category in enumerate(categories):
        for name in (category, *others.get(category, ())):
            names.setdefault(name_words(name), set()).add(index)
    names.pop((), None)
    return names


def _outermost(text: Words, names: Mapping[Words, set[int]]) -> set[int]:
    """Categories whose names stand in the text, and not only inside longer names."""
    places = [
        (start, start + length)
        for length in {len(name) for name in names}
        for start in range(len(text) - length + 1)
        if text[start : start + length] in names
    ]
    named: set[int] = set()
    reach = 0
    for start, stop in sorted(places, key=lambda place: (place[0], -place[1])):
        if stop > reach:
            named |= names[text[start:stop]]
            reach = stop
    return named
