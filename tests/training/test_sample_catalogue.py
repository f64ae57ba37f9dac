"""The rendered sample catalogue: what is promised to the demo and to other tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.images import decode_image
from training.sample_catalogue import render
from training.sample_catalogue.mesh import join, revolve, rounded_box, rounded_profile, tube
from training.sample_catalogue.raster import NOTHING, covered, visible_faces
from training.sample_catalogue.render import (
    LICENCE_FILE,
    PRODUCTS,
    SampleCatalogueError,
    render_catalogue,
    render_photo,
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "catalogue"
    render_catalogue(out, count=19, size_px=64, seed=3)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_folders_are_categories_of_readable_photos(catalogue: Path) -> None:
    folders = {
        path.name: len(list(path.iterdir())) for path in catalogue.iterdir() if path.is_dir()
    }
    assert folders.keys() == PRODUCTS.keys()
    assert len(folders) >= 6
    assert sum(folders.values()) == 19
    assert max(folders.values()) - min(folders.values()) <= 1
    for path in catalogue.glob("*/*.jpg"):
        assert decode_image(path.read_bytes()).shape == (64, 64, 3)


def test_licence_is_stated(catalogue: Path) -> None:
    assert "CC0 1.0" in (catalogue / LICENCE_FILE).read_text()


def test_no_two_photos_are_alike(catalogue: Path) -> None:
    contents = [path.read_bytes() for path in catalogue.glob("*/*.jpg")]
    assert len(set(contents)) == len(contents)


def test_counts_and_progress_are_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    counts = render_catalogue(tmp_path / "c", count=9, size_px=32, on_progress=seen.append)
    assert sum(counts.values()) == 9
    assert seen == list(range(1, 10))


def test_worker_processes_render_the_same_files_as_one(
    tmp_path: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_SERIAL_COUNT", 1)
    render_catalogue(tmp_path / "parallel", count=19, size_px=64, seed=3)
    assert files(tmp_path / "parallel") == files(catalogue)


def test_a_photo_depends_on_seed_category_and_index_alone(catalogue: Path, tmp_path: Path) -> None:
    larger = tmp_path / "larger"
    render_catalogue(larger, count=22, size_px=64, seed=3)
    few, more = files(catalogue), files(larger)
    assert len(more) > len(few)
    assert few.items() <= more.items()


def test_seed_changes_every_photo() -> None:
    one = np.asarray(render_photo("mug", 0, size_px=32, seed=0))
    other = np.asarray(render_photo("mug", 0, size_px=32, seed=1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("category", list(PRODUCTS))
def test_the_product_fills_the_middle_of_a_plain_backdrop(category: str) -> None:
    for index in range(4):
        picture = np.asarray(render_photo(category, index, size_px=64, seed=5), np.float32)
        border = np.concatenate([picture[:2].reshape(-1, 3), picture[:, :2].reshape(-1, 3)])
        assert border.min() > 120, "the backdrop is light"
        assert border.std(axis=0).max() < 25, "the backdrop is plain"
        differs = np.abs(picture - np.median(border, axis=0)).max(axis=2) > 25
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        extent = max(np.ptp(rows), np.ptp(columns)) / 64
        assert 0.5 < extent < 1, "the product is of a size that shows at 32 px"
        assert abs(rows.mean() + columns.mean() - 64) < 20, "and about centred"


def test_edges_are_anti_aliased() -> None:
    picture = np.asarray(render_photo("box", 0, size_px=256, seed=0).convert("L"), np.float32)
    steps = np.abs(np.diff(picture, axis=1))
    strong = steps > 0.5 * steps.max()
    # A hard edge would jump in one step; a soft one has further change on either side.
    beside = np.maximum(np.roll(steps, 1, axis=1), np.roll(steps, -1, axis=1))
    assert np.median(beside[strong] / steps[strong]) > 0.1


@pytest.mark.parametrize("existing", ["full", "file"])
def test_an_existing_place_is_refused_and_left_alone(tmp_path: Path, existing: str) -> None:
    out = tmp_path / "photos"
    mine = out
    if existing == "full":
        out.mkdir()
        mine = out / "mine.txt"
    mine.write_text("keep")
    with pytest.raises(SampleCatalogueError, match=r"out: .*photos exists"):
        render_catalogue(out, count=8, size_px=32)
    assert mine.read_text() == "keep"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    render_catalogue(out, count=8, size_px=32)
    assert len(list(out.glob("*/*.jpg"))) == 8


@pytest.mark.parametrize(
    ("field", "value"), [("count", 7), ("size_px", 31), ("size_px", 2000), ("seed", -1)]
)
def test_numbers_out_of_range_name_the_field(tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(SampleCatalogueError, match=f"{field}: {value}"):
        render_catalogue(tmp_path / "photos", **{field: value})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_catalogue(tmp_path / "photos", count=16, size_px=32, on_progress=stop)
    assert not list(tmp_path.iterdir())


def square(x: float, near: float) -> tuple[np.ndarray, np.ndarray]:
    """An 8 px square at (x, 4), counter-clockwise as seen from outside, y down."""
    xy = np.array([[x, 12], [x + 8, 12], [x + 8, 4], [x, 4]], np.float32)
    return xy, np.full(4, near, np.float32)


def test_the_nearest_face_is_seen_and_shared_edges_leave_no_gap() -> None:
    (far, far_near), (close, close_near) = square(2, 0.5), square(6, 1.0)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    both = np.concatenate([faces, faces + 4]).astype(np.int32)
    seen = visible_faces(
        np.concatenate([far, close]), np.concatenate([far_near, close_near]), both, (16, 16)
    )
    assert (seen[4:12, 2:6] < 2).all()
    assert (seen[4:12, 2:6] != NOTHING).all()
    assert (seen[4:12, 6:14] >= 2).all()
    assert (seen != NOTHING).sum() == 8 * 12


def test_faces_seen_from_inside_are_left_out_but_cover() -> None:
    xy, near = square(2, 1.0)
    inside_out = np.array([[2, 1, 0], [3, 2, 0]], np.int32)
    assert (visible_faces(xy, near, inside_out, (16, 16)) == NOTHING).all()
    assert covered(xy, inside_out, (16, 16)).sum() == 64


def test_faces_beyond_the_frame_are_cut_off() -> None:
    xy, near = square(-4, 1.0)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    assert (visible_faces(xy, near, faces, (16, 16)) != NOTHING).sum() == 4 * 8
    assert (visible_faces(xy - 50, near, faces, (16, 16)) == NOTHING).all()


def test_meshes_face_outwards() -> None:
    ball = rounded_profile([(0, 0), (0.5, 0), (0.5, 1), (0, 1)], 0.4)
    path = np.stack([np.zeros(5), np.linspace(0, 1, 5), np.zeros(5)], axis=1)
    shapes = {
        "revolve": revolve(ball, 0),
        "tube": tube(path, (0.2, 0.2), 0),
        "box": rounded_box((1, 1, 1), 0.2, 0),
    }
    for name, mesh in shapes.items():
        a, b, c = (mesh.points[mesh.faces[:, k]] for k in range(3))
        across = np.cross(b - a, c - a)
        outward = np.sum(across * ((a + b + c) / 3 - [0, 0.5, 0]), axis=1)
        assert (outward > -1e-6).all(), name
        assert join([mesh, mesh]).faces.max() == 2 * len(mesh.points) - 1


def test_categories_differ_at_32_px() -> None:
    """The mean pictures tell a nearest-mean classifier the category of unseen photos."""
    first, second = (
        {name: np.stack([_outline(name, i) for i in range(start, start + 6)]) for name in PRODUCTS}
        for start in (0, 6)
    )
    means = np.stack([pictures.mean(axis=0).ravel() for pictures in first.values()])
    right = 0
    for label, pictures in enumerate(second.values()):
        distance = ((pictures.reshape(len(pictures), 1, -1) - means) ** 2).sum(axis=2)
        right += int((distance.argmin(axis=1) == label).sum())
    assert right / (6 * len(PRODUCTS)) > 0.7


def _outline(category: str, index: int) -> np.ndarray:
    """How far each pixel is from the backdrop's colour, at 32 px and mirrored both ways."""
    photo = render_photo(category, index, size_px=64, seed=11)
    picture = np.asarray(photo.resize((32, 32), Image.Resampling.BOX), np.float32)
    away = np.abs(picture - np.median(picture[:2], axis=(0, 1))).max(axis=2)
    strength = np.clip(away / 60, 0, 1)
    return (strength + strength[:, ::-1]) / 2
