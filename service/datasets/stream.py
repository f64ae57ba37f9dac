"""A planned set -> the bytes of its archive, generated as they are read."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.datasets.archives import Sink
from service.datasets.layouts import LAYOUTS, LabelledImage
from service.datasets.numbering import Item
from service.datasets.outlines import Outline, outline_product
from service.datasets.plan import DatasetPlan
from service.generation.output import ImageEncoder
from service.inference.generation import GeneratorSession, ImageSpec
from service.rendering.encoded_image import EncodedImage


class Run(Protocol):
    """Runs jobs on worker threads; `patient` ones are not refused, however long they wait."""

    async def __call__(
        self, jobs: Sequence[Callable[[], Any]], /, *, patient: bool = False
    ) -> list[Any]:
        """Return their results in order."""


@dataclass(frozen=True)
class SetGenerator:
    """Generates a set's images.

    Attributes:
        session: The model.
        encoder: How its images are encoded.
        run: Runs jobs on worker threads.
        ahead: The most batches that are generated or wait before their images are read.
    """

    session: GeneratorSession
    encoder: ImageEncoder
    run: Run
    ahead: int


async def dataset_bytes(
    plan: DatasetPlan, sink: Sink, generator: SetGenerator, on_image: Callable[[EncodedImage], Any]
) -> AsyncGenerator[bytes, None]:
    """Generate a set; yields the archive's bytes, empty ones where `sink` keeps them.

    Nothing is generated that isn't about to be read; what is being generated when the iterator
    is closed is thrown away.

    Args:
        plan: What is generated.
        sink: Where it goes.
        generator: Generates the images.
        on_image: Takes each when it has been handed out.

    Raises:
        SessionError: The generator failed; the archive is then without its end.
    """
    layout = LAYOUTS[plan.layout](plan, generator.encoder, sink)
    async with aclosing(_images(plan, generator)) as images:
        async for one in images:
            yield layout.image(one)
            on_image(one.image)
    rest = layout.finish()
    while True:
        (block,) = await generator.run([partial(next, rest, None)], patient=True)
        if block is None:
            return
        yield block


async def _images(
    plan: DatasetPlan, generator: SetGenerator
) -> AsyncGenerator[LabelledImage, None]:
    """Give all images in order, at most `ahead` batches at work."""
    batches = _batches(plan.items(), generator.session.batch_sizes[-1])
    running: deque[asyncio.Future[list[Any]]] = deque()
    begun = False
    try:
        while True:
            for items in islice(batches, generator.ahead - len(running)):
                job = partial(_generate_batch, plan, generator, items)
                # A busy queue may refuse a set, but never break one off.
                running.append(asyncio.ensure_future(generator.run([job], patient=begun)))
                begun = True
            if not running:
                return
            (batch,) = await running.popleft()
            for labelled in batch:
                yield labelled
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _generate_batch(
    plan: DatasetPlan, generator: SetGenerator, items: Sequence[Item]
) -> list[LabelledImage]:
    specs = [ImageSpec(item.seed, item.category, plan.truncation_psi) for item in items]
    generated = zip(
        items, specs, generator.session.render(specs, plan.presentation.upscaled), strict=True
    )
    return [
        LabelledImage(item, generator.encoder.encode(pixels, spec), _outline(pixels, plan))
        for item, spec, pixels in generated
    ]


def _outline(pixels: NDArray[np.uint8], plan: DatasetPlan) -> Outline | None:
    return outline_product(pixels, plan.presentation) if plan.layout == "coco" else None
