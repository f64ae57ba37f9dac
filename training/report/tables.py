"""Formats an evaluation's numbers for a run's report, whose template explains them."""

from statistics import mean, stdev

from training.evaluation.record import Usefulness, UsefulnessArmName
from training.metrics.scores import Scores


def score(scores: Scores, name: str) -> str:
    """Format a score, the kernel distance with its interval; a missing score with its reason."""
    value = getattr(scores, name)
    if value is None:
        return scores.reasons.get(name, "–")
    if name != "kernel_distance" or scores.kernel_distance_interval is None:
        return number(value)
    low, high = scores.kernel_distance_interval
    return f"{number(value)} ({number(low)} to {number(high)})"


def gains(found: Usefulness, arm: UsefulnessArmName, over: UsefulnessArmName) -> list[float]:
    """Percentage points that one way of training gains over another, by seed.

    The comparison is paired: the same photos and the same initial weights.
    """
    pairs = zip(found.arms[arm].accuracies, found.arms[over].accuracies, strict=True)
    return [100 * (a - b) for a, b in pairs]


def gain(found: Usefulness, arm: UsefulnessArmName) -> str:
    """Format what a way of training gains over few photos alone."""
    points = gains(found, arm, "real")
    return f"{mean(points):+.1f} ± {stdev(points):.1f} points"


def usefulness_verdict(found: Usefulness) -> str:
    """Say in one sentence what generated images add to classical augmentation."""
    points = gains(found, "generated_augmented", "augmented")
    # There are too few seeds for a significance test: a gain must exceed twice its standard error
    # and have the same sign for all seeds.
    margin = 2 * stdev(points) / len(points) ** 0.5
    amount = f"{mean(points):+.1f} points on top of classical augmentation"
    if mean(points) > margin and min(points) > 0:
        return f"Generated images helped: {amount}."
    if mean(points) < -margin and max(points) < 0:
        return f"Generated images did harm: {amount}."
    return f"No clear difference: {amount}, which is within the scatter over seeds."


def number(value: float | None) -> str:
    """Format a number with three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Format a fraction in per cent, with one more digit if it is small; or a dash."""
    if value is None:
        return "–"
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
