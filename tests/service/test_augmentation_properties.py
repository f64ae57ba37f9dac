"""What must hold of every augmentation: pixels, masks and annotations go the same way."""

import json
import math
from collections import deque
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.augmentation.annotations import Annotation
from service.augmentation.instances import find_instances
from service.augmentation.matrices import homography, project
from service.augmentation.operations.base import Operation
from service.augmentation.operations.geometry import Canvas, Flip, Perspective, Scale, Translate
from service.augmentation.operations.tones import daylight
from service.augmentation.pipeline import Photo, compose, draw_operations, render
from service.augmentation.policies import POLICIES, AnyOperation, with_canvas
from service.augmentation.projection import Annotated, carry
from service.augmentation.requests import AugmentationRequest
from service.augmentation.resampling import View, moves_pixels, warp, warp_labels
from service.augmentation.subject import before_backdrop, components, of_mask
from service.errors import BadRequest

WIDTH, HEIGHT = 96, 72
SEEDS = st.integers(0, 2**53 - 1)
few = settings(max_examples=40, deadline=None, derandomize=True)

GEOMETRY: list[dict[str, Any]] = [
    {"name": "flip"},
    {"name": "flip", "axis": "vertical", "probability": 0.3},
    {"name": "rotate", "degrees": [-180, 180]},
    {"name": "scale", "factor": [0.5, 2]},
    {"name": "translate", "x": [-0.2, 0.2], "y": [-0.2, 0.2]},
    {"name": "shear", "x_degrees": [-20, 20], "y_degrees": [-20, 20]},
    {"name": "perspective", "strength": [0, 0.2]},
    {"name": "crop", "scale": [0.7, 1]},
    {"name": "canvas", "size": "90x110", "probability": 0.5},
]


def parsed(operations: list[dict[str, Any]]) -> list[AnyOperation]:
    request = AugmentationRequest.model_validate({"operations": operations})
    assert request.operations is not None
    return list(request.operations)


def known_of(annotation: Annotation, mask: Image.Image | None = None) -> Annotated:
    size = (WIDTH, HEIGHT)
    return Annotated(annotation, size, find_instances(annotation, size, mask))


def boxed_photo(box: tuple[int, int, int, int]) -> Photo:
    """A red box on white, with a mask and a box that say where."""
    image, mask = Image.new("RGB", (WIDTH, HEIGHT), "white"), Image.new("L", (WIDTH, HEIGHT))
    left, top, right, bottom = box
    image.paste((255, 0, 0), box)
    mask.paste(7, box)
    corners = [left, top, right, top, right, bottom, left, bottom]
    points = [[[left, top, 2], [right, bottom, 2]]]
    annotation = Annotation.model_validate(
        {"format": "xyxy", "boxes": [box], "polygons": [corners], "keypoints": points}
    )
    pixels = np.asarray(image)
    known = known_of(annotation, mask)
    return Photo("image", (WIDTH, HEIGHT), "", pixels, None, mask, "", known)


boxes = st.tuples(
    st.integers(0, 50), st.integers(0, 40), st.integers(20, 40), st.integers(20, 30)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@few
@given(seed=SEEDS, box=boxes)
def test_pixels_masks_and_boxes_agree(seed: int, box: tuple[int, int, int, int]) -> None:
    photo = boxed_photo(box)
    steps = draw_operations(parsed(GEOMETRY), seed, photo)
    view = compose(steps, photo)
    assert photo.mask is not None
    assert photo.known is not None
    found = carry(photo.known, view, 0)
    mask = np.asarray(warp_labels(photo.mask, view))
    red = render(photo, steps, view)[..., 1] < 128
    area = mask.astype(bool).sum()
    if area < 30:  # a sliver has hardly a box
        return
    for seen in (mask == 7, red):
        rows, columns = np.nonzero(seen)
        box_of_pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        corners_cut_off = 1.6 if seen is red else 1.0  # half covered pixels at sharp corners
        np.testing.assert_allclose(found["boxes"][0], box_of_pixels, atol=corners_cut_off + 1)
    polygon = np.array(found["polygons"][0]).reshape(-1, 2)
    drawn = Image.new("L", view.size)
    ImageDraw.Draw(drawn).polygon([tuple(p - 0.5) for p in polygon], fill=1)
    assert abs(int(np.asarray(drawn).sum()) - int(area)) <= 0.08 * area + 2 * sum(view.size) ** 0.5
    assert found["visible"][0] <= 1


@few
@given(seed=SEEDS)
def test_points_come_back_through_the_inverse(seed: int) -> None:
    photo = boxed_photo((20, 20, 60, 50))
    view = compose(draw_operations(parsed(GEOMETRY), seed, photo), photo)
    points = np.array([[0.0, 0.0], [WIDTH, 0], [33.3, 70.1]])
    there = project(points, view.matrix)
    if np.isnan(there).any():
        return
    np.testing.assert_allclose(project(there, np.linalg.inv(view.matrix)), points, atol=1e-6)


@few
@given(seed=SEEDS, policy=st.sampled_from(sorted(POLICIES)))
def test_what_was_drawn_gives_the_same_again(seed: int, policy: Any) -> None:
    photo = boxed_photo((20, 20, 60, 50))
    steps = draw_operations(POLICIES[policy], seed, photo)
    assert [step.inexact() for step in steps] == [None] * len(steps)
    assert draw_operations(POLICIES[policy], seed, photo) == steps
    listed = [step.model_dump(mode="json", exclude_none=True) for step in steps]
    request = AugmentationRequest.model_validate({"replay": [{"operations": listed}]})
    assert request.replay is not None
    again = request.replay[0].operations
    assert list(again) == steps
    assert draw_operations(again, seed + 1, photo) == steps
    view = compose(steps, photo)
    np.testing.assert_array_equal(render(photo, steps, view), render(photo, again, view))


@few
@given(seed=SEEDS)
def test_draws_stay_in_their_ranges(seed: int) -> None:
    photo = boxed_photo((20, 20, 60, 50))
    operations = [
        operation.model_copy(update={"probability": 1.0}) for operation in POLICIES["strong"]
    ]
    for asked, step in zip(operations, draw_operations(operations, seed, photo), strict=True):
        for name in type(asked)._ranges():
            if (step.name, name) == ("cutout", "side"):
                continue  # each rectangle has two of its own
            (low, high), (value, same) = getattr(asked, name), getattr(step, name)
            assert low <= value == same <= high
        type(step).model_validate(step.model_dump(mode="json", exclude_none=True))


def anything(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema allows, with the ends of every range."""
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([anything(one) for one in schema["anyOf"]])
    kind = schema["type"]
    if kind == "array" and "prefixItems" in schema:
        items = st.tuples(*[anything(one) for one in schema["prefixItems"]]).map(list)
        is_range = len(schema["prefixItems"]) == 2 and "items" not in schema
        return items.map(lambda pair: sorted(pair) if is_range else pair)
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(anything(schema["items"]), min_size=least, max_size=3)
    if kind == "string":
        colours = ["white", "#123456", "transparent", "backdrop"]
        return st.sampled_from([*colours, "64x48", "16x200", "1:1", "8:1", "1:8"])
    if kind == "null":
        return st.none()
    low, high = schema["minimum"], schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1)
    if kind == "integer":
        return st.integers(int(low), int(high))
    return st.sampled_from([low, (low + high) / 2, high]) | st.floats(low, high)


def any_operation(kind: type[Operation]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: anything(s) for name, s in kind.model_json_schema()["properties"].items()}
    return st.fixed_dictionaries({"name": fields.pop("name")}, optional=fields)


any_operations = st.lists(
    st.sampled_from(get_args(get_args(AnyOperation)[0])).flatmap(any_operation),
    min_size=1,
    max_size=6,
)


@settings(few, max_examples=100)
@given(asked=any_operations, seed=SEEDS)
def test_all_that_is_valid_is_done_and_done_again(asked: list[dict[str, Any]], seed: int) -> None:
    try:
        operations = parsed(asked)
    except ValueError:  # a field's values that don't go together
        return
    photo = boxed_photo((30, 20, 60, 50))
    try:
        steps = draw_operations(operations, seed, photo)
        view = compose(steps, photo)
    except BadRequest:
        return
    pixels = render(photo, steps, view)
    assert pixels.shape[:2] == view.size[::-1]
    assert photo.known is not None
    json.dumps(carry(photo.known, view, 0), allow_nan=False)
    listed = [step.model_dump(mode="json", exclude_none=True) for step in steps]
    request = AugmentationRequest.model_validate({"replay": [{"operations": listed}]})
    assert request.replay is not None
    again = request.replay[0].operations
    np.testing.assert_array_equal(render(photo, again, compose(again, photo)), pixels)


def test_geometry_is_one_resampling_wherever_it_stands() -> None:
    photo = boxed_photo((20, 20, 60, 50))
    turn, gamma, back = (
        {"name": "rotate", "degrees": 31},
        {"name": "gamma", "gamma": 1.5},
        {"name": "rotate", "degrees": -31},
    )
    steps = draw_operations(parsed([turn, gamma, back]), 0, photo)
    view = compose(steps, photo)
    alone = draw_operations(parsed([gamma]), 0, photo)
    np.testing.assert_allclose(view.matrix, np.eye(3), atol=1e-9)
    np.testing.assert_array_equal(
        render(photo, steps, view), render(photo, alone, compose(alone, photo))
    )


def wave(size: int, x: float, y: float) -> np.ndarray:
    """A plane wave by its cycles per pixel, sampled at pixel centres."""
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    return 127.5 + 100 * np.cos(2 * math.pi * (x * columns + y * rows))


def seen(pixels: np.ndarray, scale: float, degrees: float) -> tuple[np.ndarray, View]:
    size = round(len(pixels) * scale)
    photo = Photo("image", (len(pixels),) * 2, "", np.repeat(pixels[..., None], 3, axis=2))
    operations = parsed(
        [{"name": "rotate", "degrees": degrees}, {"name": "canvas", "size": f"{size}x{size}"}]
    )
    steps = draw_operations(operations, 0, photo)
    view = compose(steps, photo)
    margin = size // 4
    return render(photo, steps, view)[margin:-margin, margin:-margin, 0].astype(float), view


@pytest.mark.parametrize(("scale", "degrees"), [(0.15, 10), (0.3, 0), (0.3, 27), (0.5, 10)])
def test_detail_too_fine_for_the_picture_vanishes(scale: float, degrees: float) -> None:
    fine = np.rint(wave(400, 0.7 / 2, 0.13)).astype(np.uint8)  # over the picture's limit
    shrunk, _ = seen(fine, scale, degrees)
    assert shrunk.std() < 10
    assert abs(shrunk.mean() - 127.5) < 2


@pytest.mark.parametrize(
    ("scale", "degrees"), [(0.3, 10), (0.55, 10), (0.7, 33), (1, 10), (1.7, 10)]
)
def test_detail_that_the_picture_can_hold_stays(scale: float, degrees: float) -> None:
    kept, view = seen(
        np.rint(wave(400, 0.06 * min(scale, 1), 0.2 * min(scale, 1))).astype(np.uint8),
        scale,
        degrees,
    )
    margin = view.size[0] // 4
    columns, rows = np.meshgrid(*[np.arange(view.size[0]) + 0.5] * 2)
    back = project(
        np.column_stack([columns.ravel(), rows.ravel()]), np.linalg.inv(view.matrix)
    ).T.reshape(2, *columns.shape)
    cycles = 0.06 * min(scale, 1) * back[0] + 0.2 * min(scale, 1) * back[1]
    ideal = (127.5 + 100 * np.cos(2 * math.pi * cycles))[margin:-margin, margin:-margin]
    assert np.abs(kept - ideal).mean() < 4
    assert np.abs(kept - ideal).max() < 14


def test_the_photos_edge_is_smooth_on_a_canvas() -> None:
    white = Photo("image", (100, 100), "", np.full((100, 100, 3), 255, dtype=np.uint8))
    canvas = {"name": "canvas", "size": "160x160", "fit": "pad", "background": "black"}
    steps = draw_operations(parsed([{"name": "rotate", "degrees": 10}, canvas]), 0, white)
    pixels = render(white, steps, compose(steps, white))[..., 0].astype(int)
    side = pixels[60:100, 20:40]  # the left edge runs through it
    soft = ((side > 20) & (side < 235)).any(axis=1).mean()
    assert soft > 0.6
    assert abs(pixels.sum() / 255 - 100**2) < 30


def test_the_edge_of_transparency_is_no_brighter() -> None:
    grey = Photo("image", (100, 100), "", np.full((100, 100, 3), 120, dtype=np.uint8))
    for size in ("160x160", "50x50"):
        canvas = {"name": "canvas", "size": size, "background": "transparent"}
        steps = draw_operations(parsed([{"name": "rotate", "degrees": 10}, canvas]), 0, grey)
        pixels = render(grey, steps, compose(steps, grey)).astype(int)
        shown = pixels[pixels[..., 3] > 100]
        assert np.abs(shown[:, :3] - 120).max() <= 3  # rounding
        assert (pixels[..., 3] == 255).mean() > 0.8


def test_a_subject_brings_no_backdrop_along() -> None:
    """A red disc on green, cut out by a mask with hard edges, at once turned and shrunk."""
    image, mask = Image.new("RGB", (200, 200), (0, 160, 0)), Image.new("L", (200, 200))
    large = Image.new("L", (800, 800))
    ImageDraw.Draw(large).ellipse((200, 200, 600, 600), fill=255)
    image.paste((200, 0, 0), mask=large.resize((200, 200), Image.Resampling.BOX))
    ImageDraw.Draw(mask).ellipse((49, 49, 151, 151), fill=1)
    pixels = np.asarray(image)
    for photo in (
        Photo("image", (200, 200), "", pixels, None, mask),
        Photo("image", (200, 200), "", pixels),
    ):
        turned = [
            {"name": "rotate", "degrees": 17},
            {"name": "canvas", "size": "130x130"},
            {"name": "background", "fills": ["white"]},
        ]
        steps = draw_operations(parsed(turned), 0, photo)
        shown = render(photo, steps, compose(steps, photo)).astype(int)
        assert (shown[0] == 255).all()
        assert shown[65, 65].tolist() == pytest.approx([200, 0, 0], abs=2)
        # From red to white green and blue rise together; green alone would be a halo.
        assert np.abs(shown[..., 1] - shown[..., 2]).max() < 24
        assert (shown[..., 1] - shown[..., 2]).mean() < 0.1


def test_a_product_shadow_falls_beside_the_product_only() -> None:
    photo = boxed_photo((30, 20, 60, 50))
    asked = [
        {"name": "background", "fills": ["white"]},
        {
            "name": "shadow",
            "kind": "product",
            "strength": 0.5,
            "angle_degrees": -90,
            "position": 1,
            "softness": 0.1,
        },
    ]
    steps = draw_operations(parsed(asked), 0, photo)
    pixels = render(photo, steps, compose(steps, photo))
    assert pixels[35, 45].tolist() == [255, 0, 0]
    assert pixels[54, 45].max() < 160
    assert pixels[10, 45].min() == 255


def test_a_cast_shadow_darkens_its_side() -> None:
    photo = boxed_photo((30, 20, 60, 50))
    cast = {"name": "shadow", "strength": 0.4, "position": 0.3, "softness": 0.2}
    for degrees, dark, light in ((0, (5, -1), (5, 0)), (90, (0, 5), (-1, 5))):
        steps = draw_operations(parsed([{**cast, "angle_degrees": degrees}]), 0, photo)
        pixels = render(photo, steps, compose(steps, photo))
        assert pixels[dark].tolist() == [153] * 3
        assert pixels[light].tolist() == [255] * 3


def test_white_balance_is_that_of_daylight() -> None:
    np.testing.assert_allclose(daylight(6504), [1, 1, 1], atol=0.005)
    # D50 by its tabulated white, XYZ 0.9642, 1, 0.8251.
    np.testing.assert_allclose(daylight(5003), [1.176, 0.976, 0.722], atol=0.005)
    grey = Photo("image", (20, 20), "", np.full((20, 20, 3), 128, dtype=np.uint8))

    def seen(**fields: float) -> list[int]:
        step = {"name": "white_balance", **fields}
        steps = draw_operations(parsed([step]), 0, grey)
        colour: list[int] = render(grey, steps, compose(steps, grey))[5, 5].tolist()
        return colour

    assert seen(kelvin=6504) == [128, 128, 128]
    assert seen(kelvin=5003) == pytest.approx([139, 128, 111], abs=1)  # green as it was
    red, green, blue = seen(kelvin=9000)
    assert red < green == 128 < blue
    assert seen(kelvin=6504, tint=0.2) == pytest.approx([128, 139, 128], abs=1)


def test_a_gradient_runs_where_it_points() -> None:
    photo = boxed_photo((30, 20, 60, 50))
    fill = {"name": "background", "fills": [["#000000", "#ffffff"]], "angle_degrees": 0}
    steps = draw_operations(parsed([fill]), 0, photo)
    row = render(photo, steps, compose(steps, photo))[2, :, 0].astype(int)
    assert row[0] < 4
    assert row[-1] > 251
    assert (np.diff(row) >= 0).all()


@pytest.mark.parametrize(
    ("fit", "aspect", "size"),
    [("contain", "1:1", (96, 96)), ("cover", "1:1", (72, 72)), ("pad", "2:1", (144, 72))],
)
def test_aspect_ratios(fit: str, aspect: str, size: tuple[int, int]) -> None:
    photo = boxed_photo((30, 20, 60, 50))
    canvas = {"name": "canvas", "aspect": aspect, "fit": fit, "background": "#0000ff"}
    steps = draw_operations(parsed([canvas]), 0, photo)
    view = compose(steps, photo)
    pixels = render(photo, steps, view)
    assert view.size == size == (pixels.shape[1], pixels.shape[0])
    # Nothing is scaled, so each pixel is a pixel of the photo.
    assert moves_pixels(view.matrix)
    assert (pixels[:, :, 1] == 0).sum() > 0
    blue = (pixels == [0, 0, 255]).all(axis=2).mean()
    assert blue == pytest.approx(0 if fit == "cover" else 1 - WIDTH * HEIGHT / math.prod(size))


def test_cover_and_contain_scale_to_a_size() -> None:
    photo = boxed_photo((30, 20, 60, 50))
    for fit, scale in (("contain", 0.5), ("cover", 2 / 3), ("pad", 0.5)):
        canvas = {"name": "canvas", "size": "48x48", "fit": fit}
        (step,) = draw_operations(parsed([canvas]), 0, photo)
        assert isinstance(step, Canvas)
        assert step.placement is not None
        assert step.placement[0] == pytest.approx(scale, abs=1e-5)
    padded = {"name": "canvas", "size": "960x720", "fit": "pad"}
    (step,) = draw_operations(parsed([padded]), 0, photo)
    assert isinstance(step, Canvas)
    assert step.placement == (1, 432, 324)


def test_boxes_tell_the_subject_where_nothing_else_does() -> None:
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (HEIGHT, WIDTH, 3))
    known = known_of(Annotation.model_validate({"boxes": [[10, 10, 20, 10], [40, 30, 10, 20]]}))
    photo = Photo("image", (WIDTH, HEIGHT), "", noise.astype(np.uint8), known=known)
    canvas = {"name": "canvas", "size": "100x100", "fit": "subject", "fill": 0.8}
    view = compose(draw_operations(parsed([canvas]), 0, photo), photo)
    found = carry(known, view, 0)["boxes"]
    assert found[0] == pytest.approx([10, 10, 40, 20], abs=0.51)
    assert found[1] == pytest.approx([70, 50, 20, 40], abs=0.51)
    bare = Photo("image", (WIDTH, HEIGHT), "", noise.astype(np.uint8))
    with pytest.raises(BadRequest, match="Send a mask"):
        draw_operations(parsed([canvas]), 0, bare)


def test_what_lies_behind_the_viewer_is_not_seen() -> None:
    """Zoomed in far, then tilted: part of the photo's plane passes the horizon."""
    photo = boxed_photo((10, 10, 86, 62))
    steps: list[Operation] = [
        Scale(name="scale", factor=(4, 4)),
        Perspective(
            name="perspective",
            strength=(0, 0),
            insets=((0.3, 0.3), (0.3, 0.0), (0.0, 0.3), (0.0, 0.3)),
        ),
        Translate(name="translate", x=(0, 0), y=(0.9, 0.9)),
        Scale(name="scale", factor=(0.3, 0.3)),
    ]
    view = compose(steps, photo)
    pixels = render(photo, steps, view)  # type: ignore[arg-type]
    assert photo.known is not None
    found = carry(photo.known, view, 0)
    assert np.isfinite(np.array(found["boxes"])).all()
    back = np.linalg.inv(view.matrix)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    behind = back[2, 0] * x + back[2, 1] * y + back[2, 2] <= 0
    assert behind.mean() > 0.1
    assert (pixels[behind] == 255).all()
    assert (pixels[..., 1] < 128).any()


def test_operations_that_leave_nothing_are_refused() -> None:
    photo = boxed_photo((30, 20, 60, 50))
    steps = draw_operations(parsed([{"name": "scale", "factor": 0.2}] * 8), 0, photo)
    with pytest.raises(BadRequest, match="thousand times"):
        compose(steps, photo)


def test_policies_for_lettering_never_mirror() -> None:
    for name in ("marketplace", "scan"):
        assert not any(isinstance(operation, Flip) for operation in POLICIES[name])


def test_a_canvas_changes_that_of_the_policy() -> None:
    (canvas,) = (
        operation
        for operation in with_canvas(POLICIES["marketplace"], Canvas(size="100x100"))
        if isinstance(operation, Canvas)
    )
    assert (canvas.size, canvas.aspect, canvas.fit) == ("100x100", None, "subject")
    assert with_canvas(POLICIES["light"], Canvas(size="100x100"))[-1] == Canvas(size="100x100")


@few
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.floats(0.2, 0.8))
def test_components_are_those_of_a_plain_search(
    seed: int, height: int, width: int, share: float
) -> None:
    inside = np.random.Generator(np.random.PCG64(seed)).random((height, width)) < share
    wanted = np.zeros(inside.shape, dtype=int)
    for start in zip(*np.nonzero(inside), strict=True):
        if wanted[start]:
            continue
        number = start[0] * width + start[1] + 1
        queue = deque([start])
        wanted[start] = number
        while queue:
            y, x = queue.popleft()
            for there in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                within = 0 <= there[0] < height and 0 <= there[1] < width
                if within and inside[there] and not wanted[there]:
                    wanted[there] = number
                    queue.append(there)
    np.testing.assert_array_equal(components(inside), wanted)


def shaded_photo() -> np.ndarray:
    """A dark disc and a speck before a backdrop that is lit from the left, with grain."""
    y, x = np.mgrid[0:300, 0:400]
    light = 235 - 50 * x / 400 - 10 * (y / 300) ** 2
    pixels = np.stack([light, light * 0.98, light * 0.94], axis=-1)
    pixels[(x - 200) ** 2 + (y - 150) ** 2 < 80**2] = (60, 70, 140)
    pixels[20:24, 20:24] = (60, 70, 140)
    grain = np.random.Generator(np.random.PCG64(0)).normal(0, 2, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def test_a_subject_is_found_before_an_unevenly_lit_backdrop() -> None:
    subject = before_backdrop(shaded_photo())
    assert subject is not None
    y, x = np.mgrid[0:300, 0:400]
    distance = np.hypot(x - 200, y - 150)
    assert (subject.matte[distance < 76] == 255).all()
    assert (subject.matte[distance > 86] == 0).all()
    outline = subject.outline()
    np.testing.assert_allclose(outline.min(axis=0), [120, 70], atol=3)
    np.testing.assert_allclose(outline.max(axis=0), [281, 231], atol=3)


@pytest.mark.parametrize("kind", ["noise", "empty", "faint"])
def test_no_subject_is_made_up(kind: str) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    pixels = {
        "noise": rng.integers(0, 255, (200, 200, 3)),
        "empty": np.full((200, 200, 3), 240),
        "faint": np.full((200, 200, 3), 240),
    }[kind].astype(np.uint8)
    if kind == "faint":
        pixels[60:140, 60:140] = 228
    assert before_backdrop(pixels) is None


def test_a_hard_mask_gets_a_soft_edge_within_it() -> None:
    pixels = np.full((100, 100, 3), 128, dtype=np.uint8)
    mask = Image.new("L", (100, 100))
    mask.paste(5, (30, 30, 70, 70))
    matte = of_mask(pixels, mask).matte
    assert matte[50, 50] == 255
    assert matte[50, 33] == 255
    assert 0 < matte[50, 30] < 200
    assert (matte[:29] == 0).all()


def test_a_homography_takes_corners_to_corners() -> None:
    source = [[0, 0], [10, 0], [10, 5], [0, 5]]
    target = [[1, 1], [9, 0.5], [8, 5], [0, 4]]
    moved = project(np.array(source, dtype=float), homography(source, target))
    np.testing.assert_allclose(moved, target)


def test_quarter_turns_and_whole_steps_copy_pixels() -> None:
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    quarter = View(np.array([[0, 1, 0], [-1, 0, 40], [0, 0, 1]], dtype=float), (40, 40))
    np.testing.assert_array_equal(warp(image, quarter, (0, 0, 0)), np.rot90(pixels))
    step = View(np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1]], dtype=float), (40, 40))
    moved = np.asarray(warp(image, step, (9, 9, 9)))
    np.testing.assert_array_equal(moved[:38, 3:], pixels[2:, :37])
    assert (moved[38:] == 9).all()


def test_the_page_shows_the_policies_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text()
    for name, operations in POLICIES.items():
        block = page.partition(f"### {name}\n")[2].partition("```json\n")[2].partition("```")[0]
        assert parsed(json.loads(block)) == list(operations)
