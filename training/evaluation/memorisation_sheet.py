"""A sheet of the generated images that came nearest to training photos."""

from typing import Final

from PIL import Image, ImageDraw

from training.dataset import PreparedDataset
from training.evaluation.contact_sheet import (
    FAINT,
    GENERATED,
    INK,
    PAPER,
    REAL,
    as_png,
    cell_size,
    fitted,
    font,
    shortened,
)
from training.evaluation.memorisation import NearPair

_COLUMNS: Final = 4
_GAP_PX: Final = 4
_MARGIN_PX: Final = 40
_TITLE_PX: Final = 84
_CAPTION_PX: Final = 46
_WARNING: Final = (176, 58, 46)


def draw_memorisation(pairs: list[NearPair], dataset: PreparedDataset) -> bytes:
    """Draw pairs, generated image on the left, training photo on the right.

    Args:
        pairs: One or more, in this order.
        dataset: Contains the photos; one that matched mirrored is shown mirrored.

    Returns:
        A PNG.
    """
    cell = cell_size(pairs[0].image)
    block = (2 * cell[0] + _GAP_PX, cell[1] + _CAPTION_PX)
    lines = -(-len(pairs) // _COLUMNS)
    width = _MARGIN_PX + _COLUMNS * (block[0] + _MARGIN_PX)
    height = _TITLE_PX + lines * (block[1] + _MARGIN_PX // 2) + _MARGIN_PX // 2
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, 20), "Nearest to a training photo", INK, font(24))
    draw.text((_MARGIN_PX, 54), "left: generated", GENERATED, font(15))
    draw.text((_MARGIN_PX + 130, 54), "right: training photo", REAL, font(15))
    for position, pair in enumerate(pairs):
        left = _MARGIN_PX + (position % _COLUMNS) * (block[0] + _MARGIN_PX)
        top = _TITLE_PX + (position // _COLUMNS) * (block[1] + _MARGIN_PX // 2)
        photo = dataset.images[pair.row][:, :: -1 if pair.mirrored else 1]
        sheet.paste(fitted(pair.image, cell), (left, top))
        sheet.paste(fitted(photo, cell), (left + cell[0] + _GAP_PX, top))
        name = shortened(dataset.info.categories[pair.label], 24)
        draw.text((left, top + cell[1] + 5), name, INK, font(15))
        verdict = "too near" if pair.too_near else "not too near"
        caption = f"{pair.distance:.2f}, {verdict}" + (", mirrored" if pair.mirrored else "")
        colour = _WARNING if pair.too_near else FAINT
        draw.text((left, top + cell[1] + 24), caption, colour, font(13))
    return as_png(sheet)
