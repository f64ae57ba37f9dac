"""Drawing operations for a photo, and doing them.

Geometry comes first, whatever its place in the list: its matrices are multiplied into one, by
which pixels are resampled once and annotations go along. Then come the others, in their order.
What is drawn, done again, results in the same pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from models.images import flatten
from service.augmentation.lazy import once
from service.augmentation.matrices import local_scales, scaling
from service.augmentation.operations.base import Layers, Matrix, Operation, Pixels, Scene, Size
from service.augmentation.operations.geometry import Canvas, GeometricOperation
from service.augmentation.operations.scenery import Background
from service.augmentation.operations.tones import ImageOperation
from service.augmentation.operations.traces import Shadow
from service.augmentation.policies import AnyOperation
from service.augmentation.projection import Annotated
from service.augmentation.resampling import View, resampled_pixels, warp
from service.augmentation.subject import Subject, before_backdrop, of_mask
from service.errors import BadRequest
from service.provenance.xmp import ENHANCED

_MIN_SCALE: Final = 1e-3
_MAX_SCALE: Final = 1e3


@dataclass(frozen=True)
class Photo:
    """A decoded photo and what came with it.

    Attributes:
        param: Names the file in errors.
        size: Width and height of the file, upright; annotations and matrices are in its pixels.
        sha256: Of the file, hex.
        pixels: RGB, perhaps smaller than `size`.
        alpha: Their opacity; None = all are opaque.
        mask: Class indexes of `size`, mode L or P; None = none was sent.
        mask_sha256: Of the mask's file, hex.
        known: Its annotation; None = none was sent.
        source_type: What its edited images are, as an IPTC term; see `edited_source_type`.
        manifest: The file's own, as of a Mark.
    """

    param: str
    size: Size
    sha256: str
    pixels: Pixels
    alpha: Pixels | None = None
    mask: Image.Image | None = None
    mask_sha256: str | None = None
    known: Annotated | None = None
    source_type: str = ENHANCED
    manifest: bytes | None = None

    @property
    def frame(self) -> Size:
        """Width and height of `pixels`: the frame that operations begin with."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def to_frame(self) -> Matrix:
        """From pixels of the file to those of the frame."""
        return scaling(self.frame[0] / self.size[0], self.frame[1] / self.size[1])

    @once
    def flat(self) -> Pixels:
        """RGB, transparency over white."""
        if self.alpha is None:
            return self.pixels
        return np.asarray(
            flatten(Image.fromarray(np.dstack([self.pixels, self.alpha])), 3, "white")
        )

    @once
    def backdrop_colour(self) -> tuple[int, ...]:
        """Median colour of the border: in a product photo, the backdrop's."""
        pixels = self.flat
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        return tuple(int(level) for level in np.median(border, axis=0))

    @once
    def subject(self) -> Subject | None:
        """The subject, by mask, transparency or plain backdrop; None = it can't be found."""
        if self.mask is not None:
            return of_mask(self.pixels, self.mask)
        if self.alpha is not None:
            return Subject("alpha", self.alpha, self.pixels)
        return before_backdrop(self.pixels)

    def require_subject(self) -> Subject:
        """The subject.

        Raises:
            BadRequest: It can't be found.
        """
        subject = self.subject
        if subject is None:
            raise BadRequest(
                "its subject can't be found: the backdrop isn't plain. Send a mask, a "
                "photo with transparency, or operations without background, product shadow and "
                "fit subject",
                param=self.param,
                code="subject_not_found",
            )
        return subject


def draw_operations(
    operations: Sequence[AnyOperation], seed: int, photo: Photo
) -> list[AnyOperation]:
    """Draw what happens to one image of `photo`; the seed fixes it.

    Returns:
        The operations that take place, with nothing left to chance.

    Raises:
        BadRequest: One needs the subject, which can't be found.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn: list[AnyOperation] = []
    matrix, size = photo.to_frame, photo.frame
    for operation in operations:
        if rng.random() >= operation.probability:
            continue
        step = operation.drawn(rng, Scene(size, matrix, lambda: _outline(photo)))
        drawn.append(step)
        if isinstance(step, GeometricOperation):
            matrix, size = step.matrix(size) @ matrix, step.frame(size)
    return drawn


def compose(steps: Sequence[Operation], photo: Photo) -> View:
    """Multiply all geometry of drawn operations into one matrix from the photo's file.

    Raises:
        BadRequest: Together they leave nothing to be seen of it.
    """
    matrix, size = photo.to_frame, photo.frame
    for step in steps:
        if isinstance(step, GeometricOperation):
            matrix, size = step.matrix(size) @ matrix, step.frame(size)
    depth = (matrix @ np.array([photo.size[0] / 2, photo.size[1] / 2, 1.0]))[2]
    scales = local_scales(matrix, photo.size) if depth > 0 else (0.0, 0.0)
    # Slants may flatten what no axis shows.
    area = abs(float(np.linalg.det(matrix))) / depth**3 if depth > 0 else 0.0
    if not (min(*scales, area**0.5) > _MIN_SCALE and max(scales) < _MAX_SCALE):
        raise BadRequest(
            "together these operations make the photo a thousand times smaller or larger, or "
            "turn it away: use fewer, or milder ones",
            param="operations",
        )
    return View(matrix, size)


def render(photo: Photo, steps: Sequence[AnyOperation], view: View) -> Pixels:
    """Do drawn operations to a photo.

    Args:
        photo: The photo.
        steps: As `draw_operations` returned them.
        view: As `compose` returned it for them.

    Returns:
        uint8 [height, width, 3], or 4 with transparency.

    Raises:
        BadRequest: One needs the subject, which can't be found.
    """
    behind = next((s.background for s in steps if isinstance(s, Canvas)), "backdrop")
    in_frame = View(view.matrix @ np.linalg.inv(photo.to_frame), view.size)
    layers = _lay_out(photo, steps, in_frame, behind)
    for step in steps:
        if isinstance(step, ImageOperation | Shadow | Background):
            layers = step.apply(layers)
    pixels = np.asarray(layers.image)
    return pixels if layers.alpha is None else np.dstack([pixels, layers.alpha])


def work_pixels(photo: Photo, steps: Sequence[AnyOperation], view: View) -> int:
    """How many pixels `render` computes on its way to an image, for the same arguments."""
    in_frame = View(view.matrix @ np.linalg.inv(photo.to_frame), view.size)
    cut_out = any(isinstance(step, Background) for step in steps)
    warps = 1 if cut_out or not any(step.needs_subject() for step in steps) else 2
    others = sum(not isinstance(step, GeometricOperation) for step in steps)
    image = view.size[0] * view.size[1]
    return warps * (resampled_pixels(photo.frame, in_frame) + image) + others * image


def may_be_transparent(operations: Sequence[AnyOperation]) -> bool:
    """Whether these operations, as requested or drawn, may leave transparency."""
    return any(
        operation.background == "transparent"
        if isinstance(operation, Canvas)
        else isinstance(operation, Background) and operation.transparent
        for operation in operations
    )


def _outline(photo: Photo) -> NDArray[np.float64]:
    """Of the subject; of the boxes, where they were sent and it is not known for sure."""
    boxes = photo.known.annotation.corners() if photo.known else np.empty((0, 4))
    if photo.mask is None and photo.alpha is None and len(boxes):
        return np.concatenate([boxes[:, :2], boxes[:, 2:], boxes[:, [0, 3]], boxes[:, [2, 1]]])
    outline = photo.require_subject().outline()
    return outline * [photo.size[0] / photo.frame[0], photo.size[1] / photo.frame[1]]


def _lay_out(photo: Photo, steps: Sequence[Operation], view: View, behind: str) -> Layers:
    """Resample the photo, and its subject where one is needed."""
    if any(isinstance(step, Background) for step in steps):
        subject = photo.require_subject()
        image, matte = _cut_out(subject.pixels, subject.matte, view)
        return Layers(image, matte, matte)
    layers = _lay_out_whole(photo, view, behind)
    if any(step.needs_subject() for step in steps):
        seen = warp(Image.fromarray(photo.require_subject().matte), view, (0,))
        layers.matte = np.asarray(seen)
    return layers


def _lay_out_whole(photo: Photo, view: View, behind: str) -> Layers:
    if behind == "transparent":
        opaque = np.full(photo.pixels.shape[:2], 255, dtype=np.uint8)
        image, alpha = _cut_out(photo.pixels, opaque if photo.alpha is None else photo.alpha, view)
        return Layers(image, alpha)
    colour = photo.backdrop_colour if behind == "backdrop" else ImageColor.getrgb(behind)
    return Layers(warp(Image.fromarray(photo.flat), view, colour))


def _cut_out(pixels: Pixels, alpha: Pixels, view: View) -> tuple[Image.Image, Pixels]:
    """Resample colours and opacity together, weighing colours by it."""
    weighed = Image.fromarray(np.dstack([pixels, alpha]))
    seen = warp(weighed, view, (0, 0, 0, 0))
    opacity = np.asarray(seen.getchannel("A"))
    colours = np.array(seen.convert("RGB"))
    # Where nothing is, the mean colour: no blur may bring black in.
    solid = opacity > 0
    if solid.any():
        colours[~solid] = np.rint(colours[solid].mean(axis=0))
    return Image.fromarray(colours), opacity
