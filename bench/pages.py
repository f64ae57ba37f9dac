"""Tables in pages of docs/: the page has the words, and says where each table goes.

<!-- table SPECIFICATION -->
| what stands here | is replaced |
<!-- end -->
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev

from measuring import REPOSITORY
from scipy.stats import t as student

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


def ratio(logs: list[float]) -> str:
    """Geometric mean with its 95 % interval, of logarithms."""
    if not logs:
        return "-"
    centre, low, high = map(math.exp, interval(logs))
    return f"{centre:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(logs) > 1 else "")


def between(differences: list[float]) -> str:
    """Mean of paired differences with its 95 % interval."""
    centre, low, high = interval(differences)
    return f"{centre:+.3f}: {low:+.3f} to {high:+.3f}"


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t)."""
    half = math.nan
    if len(values) > 1:
        half = student.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values), mean(values) - half, mean(values) + half
