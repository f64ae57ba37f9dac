"""The masking study's pictures: distance along training, lag with its masks, sample grids."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from masking_ledger import Ledger, present
from masking_plan import CONFIRMATION_SEEDS, LENGTHS_KIMG, SCREENING_SEEDS, CatalogueName
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from measuring import REPOSITORY
from PIL import Image

FIGURES = REPOSITORY / "docs" / "masking"
FEW: CatalogueName = "clothing-300"


def draw_curves(ledger: Ledger, winner: str) -> None:
    """Frechet distance along training: mean over seeds, band of one standard deviation."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("off", winner, "periodic", "random", "static"):
        records = present(ledger, FEW, name, CONFIRMATION_SEEDS)
        if records:
            _curve(axes, records, name)
    label_distances(axes)
    axes.legend()
    figure.savefig(FIGURES / "curves.svg")


def label_distances(axes: Axes) -> None:
    """Images shown to the right, distances upwards, on a logarithmic scale in plain numbers."""
    axes.set(xlabel="thousand images shown", ylabel="Frechet distance", yscale="log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(StrMethodFormatter("{x:g}"))


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
