"""The image sizes that networks can be built for. No torch."""

from dataclasses import dataclass
from typing import Final

MIN_BASE_PX: Final = 3
MAX_BASE_PX: Final = 8  # of the shorter side
MAX_LONG_BASE_PX: Final = 32
MIN_SIDE_PX: Final = 8  # of an image


@dataclass(frozen=True)
class Pyramid:
    """Resolutions from the base shape, doubled `doublings` times, up to the image's.

    Attributes:
        base: Height and width of the coarsest feature map: 3 to 8 px on the shorter side, at
            most 32 on the longer.
        doublings: How many times the base is doubled to reach the image's size.
    """

    base: tuple[int, int]
    doublings: int

    @classmethod
    def of(cls, height: int, width: int) -> "Pyramid":
        """Halve height and width together as long as both keep at least 3 px.

        Raises:
            ValueError: They can't be halved, or the base would be too large, as for 100 x 100;
                the message names the nearest sizes that work, of the same proportions if there
                are any, else which proportions there are.
        """
        base, doublings = (height, width), 0
        while base[0] % 2 == 0 and base[1] % 2 == 0 and min(base) >= 2 * MIN_BASE_PX:
            base, doublings = (base[0] // 2, base[1] // 2), doublings + 1
        if doublings == 0 or min(base) > MAX_BASE_PX or max(base) > MAX_LONG_BASE_PX:
            raise ValueError(
                f"size {width}x{height}: networks can't be built for it, only for a small shape "
                f"doubled several times; {_advice(height, width)}"
            )
        return cls(base, doublings)

    def shape(self, level: int) -> tuple[int, int]:
        """Height and width at `level`; 0 is the base."""
        return self.base[0] << level, self.base[1] << level

    def channels(self, level: int, channel_base: int, channel_max: int) -> int:
        """Feature maps at `level`: halved with each doubling, never above the maximum."""
        return min(channel_max, max(8, channel_base >> (level + 2)))


def _advice(height: int, width: int) -> str:
    """Which sizes to take instead."""
    sizes = _usable_sizes(height, width)
    alike = {size for size in sizes if size[0] * width == size[1] * height}

    def distance(size: tuple[int, int]) -> tuple[int, int]:
        off = max(abs(size[0] - height), abs(size[1] - width))
        return off, abs(size[0] * width - size[1] * height)

    nearest = sorted(sorted(alike or sizes, key=distance)[:2])
    near = "the nearest are " + " and ".join(f"{w}x{h}" for h, w in nearest)
    if alike:
        return near
    return (
        f"none has its proportions, as one side is {MIN_BASE_PX} to {MAX_BASE_PX} parts and the "
        f"other {MIN_BASE_PX} to {MAX_LONG_BASE_PX}; {near}"
    )


def _usable_sizes(height: int, width: int) -> set[tuple[int, int]]:
    """Heights and widths that networks can be built for, up to beyond these."""
    bases = range(MIN_BASE_PX, MAX_LONG_BASE_PX + 1)
    return {
        (h << doublings, w << doublings)
        for doublings in range(1, max(height, width).bit_length() + 1)
        for h in bases
        for w in bases
        if min(h, w) <= MAX_BASE_PX and min(h, w) << doublings >= MIN_SIDE_PX
    }
