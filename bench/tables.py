"""Markdown tables, and formats for their cells."""

import math
from collections.abc import Iterable
from statistics import mean, stdev

from scipy.stats import t as student


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t)."""
    centre, count = mean(values), len(values)
    error = stdev(values) / math.sqrt(count) if count > 1 else math.nan
    return centre, *student.interval(0.95, count - 1, centre, error)


def spread(values: list[float]) -> str:
    """Format mean and standard deviation; a dash without values."""
    if not values:
        return "-"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def ratio(logs: list[float]) -> str:
    """Format the geometric mean and its 95 % interval, from logarithms."""
    if not logs:
        return "-"
    centre, low, high = map(math.exp, interval(logs))
    return f"{centre:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(logs) > 1 else "")


def between(differences: list[float]) -> str:
    """Format the mean of paired differences and its 95 % interval."""
    centre, low, high = interval(differences)
    return f"{centre:+.3f}: {low:+.3f} to {high:+.3f}"
