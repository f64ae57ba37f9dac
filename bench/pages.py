"""Tables in pages of docs/: the page has the words, and says where each table goes.

<!-- table SPECIFICATION -->
| what stands here | is replaced |
<!-- end -->
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev

from measuring import REPOSITORY

DOCS = REPOSITORY / "docs"
_TABLE = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(name: str, table: Callable[[str], str], folder: Path = DOCS) -> None:
    """Write docs/NAME into `folder`, with what `table` makes of each specification."""
    page = (DOCS / name).read_text(encoding="utf-8")
    filled, count = _TABLE.subn(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", page)
    if not count:
        raise ValueError(f"docs/{name} has no place for a table")
    (folder / name).write_text(filled, encoding="utf-8")


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation; a dash for nothing."""
    if not values:
        return "-"
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"
