"""Ledger of the masking study -> docs/masking.md with its plots."""

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from masking_ledger import (
    Ledger,
    best,
    final_score,
    interval,
    last_mean,
    log_ratios,
    read_ledger,
)
from masking_plan import (
    CONFIGURATIONS,
    CONFIRMATION_SEEDS,
    FLOOR_SEEDS,
    KEPT_AFTER_SECOND,
    LAST_EVALUATIONS,
    LENGTHS_KIMG,
    LONG_SEEDS,
    OBJECTIVES,
    SCREENING_SEEDS,
    CatalogueName,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measuring import REPOSITORY
from PIL import Image

PAGE = REPOSITORY / "docs" / "masking.md"
FIGURES = REPOSITORY / "docs" / "masking"
FEW: CatalogueName = "clothing-300"
METRICS = {
    "frechet_distance": "Frechet distance",
    "kernel_distance": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}
TEXT = """# Does masking help?

Written by `make bench-masking` from bench/masking-runs.jsonl, every line of which is a run.
The plan (bench/masking_plan.py) was committed before the first of them.

- Network and settings: preset `cpu-demo`, 32 px, batch 16, adaptive augmentation on.
- `clothing-300`: 30 photos of each of ten categories of a real catalogue, 30 kimg = 100 passes;
  judged against the catalogue's other photos. `sample-300`: the same of eight rendered categories.
  `clothing`: all 3,068 training photos, 30 kimg. `clothing-300-long`: 90 kimg = 300 passes.
- Distances are on this project's own frozen features, on 2,048 pictures or somewhat more;
  they are no FID. A run's score is the mean of its last {evaluations} evaluations.
- Paired ratio: score over that of `off` with the same seed (same weights, photos, latents),
  geometric mean over seeds; in brackets the 95 % interval (Student's t on the logarithms).
"""


UNFINISHED = """**Not finished.** The confirmation on unseen seeds has not run: what stands below
is a screening, with one or a few seeds each, and no evidence yet. The defaults are what they were
before. `make bench-masking` goes on with the next run; all runs are to be of one commit, which the
ledger names."""


def chosen(ledger: Ledger) -> str | None:
    """The configuration that the screening ended with; None while it has not ended."""
    names = [
        name
        for name in CONFIGURATIONS
        if len(log_ratios(ledger, FEW, name, SCREENING_SEEDS)) == len(SCREENING_SEEDS)
    ]
    return best(ledger, names, SCREENING_SEEDS, 1)[0] if len(names) == KEPT_AFTER_SECOND else None


def present(
    ledger: Ledger, catalogue: CatalogueName, name: str, seeds: Iterable[int]
) -> list[dict[str, Any]]:
    """The finished runs of a configuration."""
    names = [f"{catalogue}/{name}/{seed}" for seed in seeds]
    return [ledger[n] for n in names if n in ledger]


def ratio(
    ledger: Ledger,
    catalogue: CatalogueName,
    name: str,
    seeds: Iterable[int],
    reference: str = "off",
) -> str:
    """Paired ratio over the seeds for which both runs are there."""
    logs = list(log_ratios(ledger, catalogue, name, seeds, reference).values())
    if not logs:
        return "not run yet"
    centre, low, high = interval(logs)
    return f"{centre:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(logs) > 1 else " (one seed)")


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def modes_table(
    ledger: Ledger, catalogue: CatalogueName, names: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """One row a mode: all metrics, ratio to off, share masked, seeds."""
    header = ["mode", *METRICS.values(), "paired ratio", "masked", "seeds"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name in names:
        records = present(ledger, catalogue, name, seeds)
        cells = [spread([last_mean(r, metric) for r in records]) for metric in METRICS]
        against = "1" if name == "off" else ratio(ledger, catalogue, name, seeds)
        masked = f"{mean(r['masked_share'] for r in records):.0%}" if records else "-"
        lines.append("| " + " | ".join([name, *cells, against, masked, str(len(records))]) + " |")
    return [*lines, ""]


def floor_section(ledger: Ledger) -> list[str]:
    """Off against off."""
    records = present(ledger, FEW, "off", FLOOR_SEEDS)
    scores = [final_score(r) for r in records]
    logs = [math.log(a / b) for i, a in enumerate(scores) for b in scores[:i]]
    lines = ["## Noise floor", ""]
    if len(scores) > 1:
        typical = math.sqrt(mean(x * x for x in logs))
        lines += [
            f"`off` with {len(scores)} seeds: {', '.join(f'{s:.2f}' for s in scores)}; two seeds "
            f"differ by {math.exp(typical) - 1:.0%} (root mean square). Smaller differences "
            "between single runs say nothing.",
            "",
        ]
    return lines


def screening_section(ledger: Ledger) -> list[str]:
    """Every configuration written down beforehand, in the order of the result."""
    lines = [
        "## Screening",
        "",
        "| configuration | what differs from `start` | paired ratio | seeds | masked |",
        "|---|---|---|---|---|",
    ]
    start = CONFIGURATIONS["start"]
    rows = []
    for name, masking in CONFIGURATIONS.items():
        records = present(ledger, FEW, name, SCREENING_SEEDS)
        logs = list(log_ratios(ledger, FEW, name, SCREENING_SEEDS).values())
        changed = ", ".join(f"{k}={v}" for k, v in masking.items() if v != start[k])
        value = math.exp(mean(logs)) if logs else math.inf
        masked = f"{mean(r['masked_share'] for r in records):.0%}" if records else "-"
        shown = f"{value:.3f}" if logs else "not run yet"
        rows.append((value, f"| {name} | {changed} | {shown} | {len(logs)} | {masked} |"))
    return [*lines, *(line for _, line in sorted(rows)), ""]


def confirmation_sections(ledger: Ledger, winner: str) -> list[str]:
    """The winner on unseen seeds, and elsewhere."""
    lines = [f"## Confirmation on unseen seeds: `{winner}`", ""]
    names = ["off", winner, "periodic", "random", "static"]
    lines += modes_table(ledger, FEW, names, CONFIRMATION_SEEDS)
    for control in ("periodic", "random", "static"):
        against = ratio(ledger, FEW, winner, CONFIRMATION_SEEDS, control)
        lines.append(f"- `{winner}` over {control}: {against}")
    lines += ["", "![Along training](masking/curves.svg)", ""]
    lines += ["![Lag and the mask](masking/lag.svg)", ""]
    others: list[tuple[str, CatalogueName, Sequence[int]]] = [
        ("A second catalogue", "sample-300", CONFIRMATION_SEEDS),
        ("Three times as long", "clothing-300-long", LONG_SEEDS),
        ("All photos of the first", "clothing", LONG_SEEDS),
    ]
    for title, catalogue, seeds in others:
        lines += [f"## {title}: `{catalogue}`", ""]
        lines += modes_table(ledger, catalogue, ["off", winner], seeds)
    lines += ["## Another objective, without masks", ""]
    lines += modes_table(ledger, FEW, ["off", *OBJECTIVES], LONG_SEEDS)
    return lines


def draw_curves(ledger: Ledger, winner: str) -> None:
    """Frechet distance along training: mean over seeds, band of one standard deviation."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("off", winner, "periodic", "random", "static"):
        records = present(ledger, FEW, name, CONFIRMATION_SEEDS)
        if records:
            _curve(axes, records, name)
    axes.set(xlabel="thousand images shown", ylabel="Frechet distance", yscale="log")
    axes.legend()
    figure.savefig(FIGURES / "curves.svg")


def _curve(axes: Axes, records: list[dict[str, Any]], name: str) -> None:
    kimg = [e["nimg"] / 1000 for e in records[0]["evaluations"]]
    columns = list(
        zip(*([e["frechet_distance"] for e in r["evaluations"]] for r in records), strict=True)
    )
    centre = [mean(c) for c in columns]
    (line,) = axes.plot(kimg, centre, marker="o", markersize=3, label=f"{name} (n={len(records)})")
    if len(records) > 1:
        low = [mean(c) - stdev(c) for c in columns]
        high = [mean(c) + stdev(c) for c in columns]
        axes.fill_between(kimg, low, high, alpha=0.12, color=line.get_color(), linewidth=0)


def draw_lag(ledger: Ledger, winner: str) -> None:
    """Adaptation of one run, with the periods in which a mask was held shaded."""
    records = present(ledger, FEW, winner, [*CONFIRMATION_SEEDS, *SCREENING_SEEDS])
    if not records:
        return
    record = records[0]
    events, end = record["events"], LENGTHS_KIMG[FEW][0]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    measured = [e for e in events if e["kind"] == "measure"]
    kimg = [e["nimg"] / 1000 for e in measured]
    axes.plot(kimg, [e["adaptation"] for e in measured], marker="o", markersize=3, color="black")
    started: float | None = None
    for event in [*events, {"kind": "unmask", "nimg": end * 1000}]:
        if event["kind"] == "mask":
            started = event["nimg"] / 1000
        elif event["kind"] == "unmask" and started is not None:
            axes.axvspan(started, event["nimg"] / 1000, color="tab:orange", alpha=0.3, linewidth=0)
            started = None
    axes.set(
        xlabel="thousand images shown",
        ylabel="adaptation",
        title=f"{winner}, seed {record['seed']}; shaded: a mask is held",
    )
    figure.savefig(FIGURES / "lag.svg")


def draw_grids(ledger: Ledger, winner: str, work: Path) -> list[str]:
    """The last sample grids of off and the winner, same seed, side by side."""
    shown = []
    for name in ("off", winner):
        for record in present(ledger, FEW, name, [*CONFIRMATION_SEEDS, *SCREENING_SEEDS])[:1]:
            grids = sorted((work / "runs" / record["name"] / "grids").glob("*.png"))
            shown += [Image.open(grids[-1])] if grids else []
    if len(shown) == 2:
        width, height = shown[0].size
        sheet = Image.new("RGB", (2 * width + 16, height), "white")
        for i, grid in enumerate(shown):
            sheet.paste(grid, (i * (width + 16), 0))
        sheet.save(FIGURES / "grids.webp", quality=85)
    if not (FIGURES / "grids.webp").exists():
        return []
    return [
        "## Pictures",
        "",
        f"The same latents after the same images; left `off`, right `{winner}`, a category a row.",
        "",
        "![Grids](masking/grids.webp)",
        "",
    ]


def write_page(work: Path) -> None:
    """Write the page and its figures from what is in the ledger so far."""
    ledger = read_ledger()
    FIGURES.mkdir(parents=True, exist_ok=True)
    lines = [TEXT.format(evaluations=LAST_EVALUATIONS)]
    if len(present(ledger, FEW, "off", CONFIRMATION_SEEDS)) < len(CONFIRMATION_SEEDS):
        lines += [UNFINISHED, ""]
    lines += floor_section(ledger)
    lines += screening_section(ledger)
    winner = chosen(ledger)
    if winner is not None:
        lines += confirmation_sections(ledger, winner)
        draw_curves(ledger, winner)
        draw_lag(ledger, winner)
        lines += draw_grids(ledger, winner, work)
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "masking")
    write_page(parser.parse_args().work)
