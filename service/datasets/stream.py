"""A planned set -> the bytes of its archive, made as they are taken."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.archives import Sink
from service.datasets.layouts import LAYOUTS, Box, Made
from service.datasets.numbering import Item
from service.datasets.plan import DatasetPlan
from service.generation.output import Finishing
from service.inference.generation import GeneratorSession, PictureSpec
from service.rendering.encoded_image import Finished
from service.rendering.presentation import present

# Runs jobs on worker threads; gives their results in order.
Run = Callable[[Sequence[Callable[[], Any]]], Awaitable[list[Any]]]
# What a transparent picture shows is where it is rather seen than not.
OPAQUE: Final = 128


@dataclass(frozen=True)
class Maker:
    """Makes a set's pictures.

    Attributes:
        session: The model.
        finishing: How its pictures are finished.
        run: Runs jobs on worker threads.
        ahead: The most batches that are made or wait before their pictures are taken.
    """

    session: GeneratorSession
    finishing: Finishing
    run: Run
    ahead: int


async def dataset_bytes(
    plan: DatasetPlan, sink: Sink, maker: Maker, on_picture: Callable[[Finished], Any]
) -> AsyncGenerator[bytes, None]:
    """Make a set; gives the archive's bytes, empty ones where `sink` keeps them.

    Nothing is made that isn't about to be taken, and what is being made when the iterator is
    closed is thrown away.

    Args:
        plan: What is made.
        sink: Where it goes.
        maker: Makes the pictures.
        on_picture: Takes each when it has been handed out.

    Raises:
        SessionError: The generator failed; the archive is then without its end.
    """
    layout = LAYOUTS[plan.layout](plan, maker.finishing, sink)
    async with aclosing(_pictures(plan, maker)) as pictures:
        async for made in pictures:
            yield layout.picture(made)
            on_picture(made.picture)
    rest = layout.finish()
    while True:
        (block,) = await maker.run([partial(next, rest, None)])
        if block is None:
            return
        yield block


async def _pictures(plan: DatasetPlan, maker: Maker) -> AsyncGenerator[Made, None]:
    """Give all pictures in order, at most `ahead` batches in the making."""
    batches = _batches(plan.items(), maker.session.batch_sizes[-1])
    making: deque[asyncio.Future[list[Any]]] = deque()
    try:
        while True:
            for items in islice(batches, maker.ahead - len(making)):
                job = partial(_paint, plan, maker, items)
                making.append(asyncio.ensure_future(maker.run([job])))
            if not making:
                return
            (batch,) = await making.popleft()
            for made in batch:
                yield made
    finally:
        for one in making:
            one.cancel()
        await asyncio.gather(*making, return_exceptions=True)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _paint(plan: DatasetPlan, maker: Maker, items: Sequence[Item]) -> list[Made]:
    specs = [PictureSpec(item.seed, item.category, plan.truncation_psi) for item in items]
    painted = zip(
        items, specs, maker.session.render(specs, plan.presentation.upscaled), strict=True
    )
    return [
        Made(item, maker.finishing.finish(pixels, spec), _box(pixels, plan))
        for item, spec, pixels in painted
    ]


def _box(pixels: NDArray[np.uint8], plan: DatasetPlan) -> Box:
    """Where the product is: around what is opaque, or everywhere where nothing is clear."""
    wanted = plan.presentation
    if pixels.shape[2] == 4 and plan.layout == "coco":
        shown = present(pixels, replace(wanted, background=None))[..., 3] >= OPAQUE
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        if rows.size:
            left, top = int(columns[0]), int(rows[0])
            return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    return 0, 0, wanted.width, wanted.height
