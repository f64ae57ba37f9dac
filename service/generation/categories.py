"""What a request says of categories -> the generator's input, and how responses name it."""

import math
from collections.abc import Mapping, Sequence

from models.manifest import category_index
from service.errors import BadRequest
from service.generation.prompts import listing
from service.inference.generation import Mixture


def find_category(name: str, known: Sequence[str], param: str = "category") -> int:
    """Index of a category, letter case and edge blanks aside.

    Raises:
        BadRequest: It is unknown; `param` is the field that named it.
    """
    index = category_index(name, known)
    if index is None:
        raise BadRequest(
            f"unknown category; known are {listing(known)}; {param} is {name[:40]!r}",
            param=param,
            code="unknown_category",
        )
    return index


def find_mixture(weights: Mapping[str, float], known: Sequence[str]) -> Mixture:
    """Normalise weights by name to sum 1; the heaviest first, whatever order they came in.

    Raises:
        BadRequest: A category is unknown, or named twice.
    """
    found = {find_category(name, known, "categories"): weights[name] for name in weights}
    if len(found) != len(weights):
        raise BadRequest(
            "a category is named twice: letter case and blanks don't count", param="categories"
        )
    total = math.fsum(found.values())  # exact, so that the order can't change the pixels
    shares = [(index, weight / total) for index, weight in found.items()]
    return tuple(sorted(shares, key=lambda share: (-share[1], share[0])))


def category_name(category: int | Mixture, known: Sequence[str]) -> str:
    """A category, or "70 % mugs + 30 % boxes"."""
    if isinstance(category, int):
        return known[category]
    if len(category) == 1:
        return known[category[0][0]]
    return " + ".join(f"{100 * weight:.3g} % {known[index]}" for index, weight in category)


def mixture_metadata(category: int | Mixture, known: Sequence[str]) -> dict[str, dict[str, float]]:
    """The exact weights of a mixture, to request it again; nothing for a single category."""
    if isinstance(category, int) or len(category) == 1:
        return {}
    return {"categories": {known[index]: weight for index, weight in category}}
