"""Text of strangers in Markdown: shown as it is, whatever renders it."""

import re
from typing import Final

# Raw HTML and entities, as entities: not every renderer knows a backslash before them.
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS: Final = re.compile(r"[\\`*_{}\[\]()#!|~]")


def plain_markdown(text: str) -> str:
    """Escape a text so that it makes no link, tag, image, heading or further cell of a table.

    Args:
        text: Any; what isn't printed, line ends too, becomes blanks.

    Returns:
        One line.
    """
    shown = "".join(one if one.isprintable() else " " for one in text)
    marked = _MARKS.sub(r"\\\g<0>", " ".join(shown.split()))
    return "".join(_ENTITIES.get(one, one) for one in marked)
