"""A contact sheet: per category, real photos above generated images."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.dataset import PreparedDataset
from training.evaluation.record import EvaluationReport

_CELL_PX: Final = 112
_GAP_PX: Final = 6
_MARGIN_PX: Final = 40
_LABEL_PX: Final = 92
_HEADER_PX: Final = 40
_TITLE_PX: Final = 92
# With more categories the sheet has two columns, so that it fits a screen.
_ONE_COLUMN: Final = 3
PAPER: Final = (250, 250, 248)
INK: Final = (32, 33, 36)
FAINT: Final = (120, 122, 126)
REAL: Final = (62, 98, 78)
GENERATED: Final = (38, 84, 160)


@dataclass(frozen=True)
class SheetRow:
    """One category's images, uint8 [K, height, width, 1 | 3 | 4]."""

    category: str
    real: NDArray[np.uint8]
    generated: NDArray[np.uint8]


def sheet_photos(
    dataset: PreparedDataset, label: int, count: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """At most `count` photos of a category: validation photos, then train to fill up."""
    of_label = dataset.labels == label
    rows = np.concatenate(
        [
            rng.permutation(np.flatnonzero(of_label & (dataset.splits == split)))
            for split in ("validation", "train")
        ]
    )
    return np.asarray(dataset.images[rows[:count]])


def draw_contact_sheet(rows: list[SheetRow], report: EvaluationReport) -> bytes:
    """Draw the sheet.

    Args:
        rows: One block per row, in this order.
        report: Source of the numbers on the sheet.

    Returns:
        A PNG.
    """
    cell = cell_size(rows[0].real[0])
    images = max(max(len(row.real), len(row.generated)) for row in rows)
    columns = 1 if len(rows) <= _ONE_COLUMN else 2
    block_width = _LABEL_PX + images * (cell[0] + _GAP_PX) - _GAP_PX
    block_height = _HEADER_PX + 2 * (cell[1] + _GAP_PX)
    lines = -(-len(rows) // columns)
    width = _MARGIN_PX + columns * (block_width + _MARGIN_PX)
    height = _TITLE_PX + _MARGIN_PX + lines * (block_height + _MARGIN_PX // 2)
    sheet = Image.new("RGB", (width, height), PAPER)
    _draw_title(ImageDraw.Draw(sheet), report)
    for position, row in enumerate(rows):
        left = _MARGIN_PX + (position % columns) * (block_width + _MARGIN_PX)
        top = _TITLE_PX + _MARGIN_PX // 2
        top += (position // columns) * (block_height + _MARGIN_PX // 2)
        _draw_block(sheet, (left, top), cell, row, report)
    return as_png(sheet)


def as_png(sheet: Image.Image) -> bytes:
    """Encode a sheet as PNG."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def cell_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a cell with the aspect of images [height, width, channels], in px."""
    height, width = image.shape[:2]
    scale = _CELL_PX / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _draw_title(draw: ImageDraw.ImageDraw, report: EvaluationReport) -> None:
    """Title and the headline numbers."""
    draw.text((_MARGIN_PX, 28), "Real photos above, generated images below", INK, font(26))
    numbers = report.headline()
    psi = report.agreement.generated_as_served.truncation_psi
    distances = [
        "too few photos" if scores.kernel_distance is None else f"{scores.kernel_distance:.3f}"
        for scores in (report.overall, report.real_floor)
    ]
    text = (
        f"kernel distance {distances[0]} (real photos {distances[1]}) on {report.features.name}"
        f"  ·  in the category requested {numbers['label_agreement_as_served']:.0%}"
        f" at psi {psi:g} (real photos {numbers['label_agreement_floor']:.0%})"
    )
    draw.text((_MARGIN_PX, 66), text, FAINT, font(16))


def _draw_block(
    sheet: Image.Image,
    corner: tuple[int, int],
    cell: tuple[int, int],
    row: SheetRow,
    report: EvaluationReport,
) -> None:
    """Header, a row of real photos, a row of generated ones."""
    draw = ImageDraw.Draw(sheet)
    left, top = corner
    draw.text((left, top + 8), shortened(row.category), INK, font(20))
    recognised = report.agreement.generated_as_served.per_category.get(row.category)
    if recognised is not None:
        start = left + draw.textlength(shortened(row.category), font(20)) + 14
        draw.text((start, top + 13), f"{recognised:.0%} recognised", FAINT, font(14))
    lines = (("real", REAL, row.real), ("generated", GENERATED, row.generated))
    for line, (label, colour, images) in enumerate(lines):
        y = top + _HEADER_PX + line * (cell[1] + _GAP_PX)
        draw.rectangle((left, y, left + 3, y + cell[1] - 1), colour)
        draw.text((left + 12, y + cell[1] // 2), label, colour, font(15), anchor="lm")
        for column, image in enumerate(images):
            x = left + _LABEL_PX + column * (cell[0] + _GAP_PX)
            sheet.paste(fitted(image, cell), (x, y))


def fitted(image: NDArray[np.uint8], cell: tuple[int, int]) -> Image.Image:
    """Resize an image to the cell as RGB, transparency over white."""
    shown = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if shown.mode == "RGBA":
        white = Image.new("RGBA", shown.size, "white")
        white.alpha_composite(shown)
        shown = white
    return shown.convert("RGB").resize(cell, Image.Resampling.LANCZOS)


def shortened(name: str, limit: int = 40) -> str:
    """Shorten a name to `limit` characters."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the sheets' font at a size."""
    return ImageFont.load_default(size_px)
