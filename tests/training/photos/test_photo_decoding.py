"""Photos to pixels of one size, in processes that may hang or die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from models.images import ImageLimits
from models.manifest import GeneratorManifest
from service.decoding.processes import DecodingProcesses
from service.decoding.uploads import fit_upload
from training.photos.decode_pool import DecodeError, ImagesFile, decode_all
from training.photos.decoding import DecodedPhoto, UnusablePhoto, decode_photo, fit_image
from training.photos.options import PrepareOptions

from ...processes import started


def target(width: int = 8, height: int = 8, **more: Any) -> PrepareOptions:
    return PrepareOptions(width=width, height=height, **more)


def striped(size: tuple[int, int]) -> Image.Image:
    """Black with a red left and top edge of 10 px, and a blue right and bottom one."""
    image = Image.new("RGB", size, "black")
    width, height = size
    image.paste("red", (0, 0, 10, height))
    image.paste("red", (0, 0, width, 10))
    image.paste("blue", (width - 10, 0, width, height))
    image.paste("blue", (0, height - 10, width, height))
    return image


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (131, 77), (341, 256), (4000, 17)])
@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (48, 32), (192, 256)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_any_size_to_any_size(size: tuple[int, int], shape: tuple[int, int], fit: str) -> None:
    image = fit_image(Image.new("RGB", size, (10, 200, 30)), target(*shape, fit=fit))
    assert image.size == shape
    colours = {colour for _, colour in image.getcolors(shape[0] * shape[1])}
    if fit == "crop":
        assert colours == {(10, 200, 30)}
    else:
        assert (10, 200, 30) in colours
        assert len(colours) <= 2


def test_crop_is_centred() -> None:
    pixels = np.asarray(fit_image(striped((300, 100)), target(50, 50)))
    assert (pixels[10:-10, :3] == 0).all()  # the sides are cut
    assert (pixels[10:-10, -3:] == 0).all()
    assert (pixels[0, 25] > [200, -1, -1]).all()
    assert (pixels[-1, 25] > [-1, -1, 200]).all()


def test_pad_keeps_the_whole_photo_on_the_background() -> None:
    pixels = np.asarray(
        fit_image(striped((300, 100)), target(60, 60, fit="pad", background="lime"))
    )
    assert (pixels[:20] == [0, 255, 0]).all()
    assert (pixels[40:] == [0, 255, 0]).all()
    assert pixels[30, 0, 0] > 150
    assert pixels[30, -1, 2] > 150


def test_proportions_are_kept() -> None:
    image = Image.new("RGB", (400, 200))
    image.paste("white", (150, 50, 250, 150))  # a square
    for fit in ("crop", "pad"):
        pixels = np.asarray(fit_image(image, target(64, 48, fit=fit, background="black")))
        bright = pixels[..., 0] > 128
        assert abs(bright.any(axis=0).sum() - bright.any(axis=1).sum()) <= 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_hidden_colours_do_not_bleed_through_transparency(fit: str) -> None:
    image = Image.new("RGBA", (90, 60), (255, 0, 255, 0))  # magenta that nobody sees
    image.paste((20, 120, 20, 255), (30, 0, 60, 60))
    pixels = np.asarray(fit_image(image, target(16, 16, channels=4, fit=fit)))
    seen = pixels[pixels[..., 3] > 30]
    assert np.abs(seen[:, :3].astype(int) - [20, 120, 20]).max() <= 12
    if fit == "pad":
        assert (pixels[0, :, 3] == 0).all()


@pytest.fixture(scope="module")
def decoding() -> Iterator[DecodingProcesses]:
    with closing(DecodingProcesses(1, ImageLimits())) as processes:
        yield processes


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("mode", "image_format"), [("RGB", "JPEG"), ("RGBA", "PNG"), ("L", "PNG")])
def test_the_service_fits_uploads_as_photos_are_prepared(
    tmp_path: Path, decoding: DecodingProcesses, channels: Any, mode: str, image_format: str
) -> None:
    rng = np.random.default_rng(0)
    depth = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    file = tmp_path / "photo"
    Image.fromarray(rng.integers(0, 256, (300, 200, *depth), np.uint8)).resize((2300, 3500)).save(
        file, image_format
    )
    _, prepared = decode_photo(str(file), target(24, 16, channels=channels))
    manifest = GeneratorManifest.model_construct(width=24, height=16, channels=channels)
    np.testing.assert_array_equal(fit_upload(file.read_bytes(), decoding, manifest), prepared)


def test_grey_padding_has_the_background_s_brightness() -> None:
    image = fit_image(Image.new("L", (100, 50), 7), target(10, 10, fit="pad", background="#808080"))
    assert image.getpixel((0, 0)) == 128
    assert image.getpixel((5, 5)) == 7


def test_a_pipe_in_place_of_the_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnusablePhoto) as caught:
        decode_photo(str(tmp_path / "pipe"), target())
    assert caught.value.reason == "not_a_file"


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path, fill: Any) -> None:
    (tmp_path / "link").symlink_to(fill(tmp_path, range(1))[0])
    with pytest.raises(UnusablePhoto) as caught:
        decode_photo(str(tmp_path / "link"), target())
    assert caught.value.reason == "unreadable"


def test_hash_of_pixels_does_not_depend_on_size_or_fit(tmp_path: Path, fill: Any) -> None:
    file = str(fill(tmp_path, range(1))[0])
    photos = [
        decode_photo(file, target(side, side, fit=fit))[0]
        for side in (8, 16)
        for fit in ("crop", "pad")
    ]
    assert photos == photos[:1] * 4


@pytest.fixture
def images(tmp_path: Path) -> ImagesFile:
    path = tmp_path / "images"
    path.write_bytes(bytes(16 + 40 * 8 * 8 * 3))
    return ImagesFile(path=path, offset_bytes=16)


def test_pixels_are_in_the_row_of_the_file(tmp_path: Path, images: ImagesFile, fill: Any) -> None:
    files = [str(file) for file in fill(tmp_path, range(40))]
    outcomes = dict(decode_all(files, target(), images, processes=2))
    assert sorted(outcomes) == list(range(40))
    rows = np.memmap(images.path, np.uint8, "r", 16, (40, 8, 8, 3))
    for row in (0, 17, 39):
        photo, pixels = decode_photo(files[row], target())
        assert outcomes[row] == photo
        assert (rows[row] == pixels).all()


@pytest.mark.parametrize(
    ("sent", "reason", "limits"),
    [
        (signal.SIGKILL, "decoder_died", {}),
        (signal.SIGSTOP, "took_too_long", {"wall_limit_sec": 8}),
    ],
)
def test_a_process_that_dies_or_hangs_costs_one_photo(
    tmp_path: Path,
    images: ImagesFile,
    fill: Any,
    sent: signal.Signals,
    reason: str,
    limits: dict[str, Any],
) -> None:
    files = [str(file) for file in fill(tmp_path, range(40))]
    outcomes: dict[int, DecodedPhoto | UnusablePhoto] = {}
    for row, outcome in decode_all(files, target(**limits), images, processes=1):
        if not outcomes:
            victim = multiprocessing.active_children()[0].pid
            assert victim is not None
            os.kill(victim, sent)
        outcomes[row] = outcome
    assert sorted(outcomes) == list(range(40))
    lost = [o.reason for o in outcomes.values() if isinstance(o, UnusablePhoto)]
    assert set(lost) <= {reason}
    if sent == signal.SIGKILL:  # a starved machine may add to what takes too long
        assert len(lost) <= 1  # none, if it had just answered for its last photo
    assert not multiprocessing.active_children()


def test_a_photo_that_costs_too_much_work_is_given_up(
    tmp_path: Path, images: ImagesFile, fill: Any
) -> None:
    files = [str(file) for file in fill(tmp_path, range(12))]
    Image.effect_noise((6000, 6000), 50).save(tmp_path / "huge.png", compress_level=1)
    files.insert(3, str(tmp_path / "huge.png"))
    begun = time.process_time()
    decode_photo(files[3], target())
    limit = (time.process_time() - begun) / 3  # far above what others need
    options = target(cpu_limit_sec=limit)
    outcomes = dict(decode_all(files, options, images, processes=1))
    lost = {row: o.reason for row, o in outcomes.items() if isinstance(o, UnusablePhoto)}
    assert lost == {3: "took_too_long"}


PREPARING = """
import os, sys
from training.photos.decode_pool import ImagesFile, decode_all
from training.photos.options import PrepareOptions
if __name__ == "__main__":
    file, images = sys.argv[1:]
    options, rows = PrepareOptions(width=8, height=8), ImagesFile(path=images, offset_bytes=0)
    for _ in decode_all([file] * 9999, options, rows, processes=1):
        print(flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process in a codec")
def test_no_process_outlives_a_preparation_that_is_killed(
    tmp_path: Path, images: ImagesFile
) -> None:
    (tmp_path / "prepare.py").write_text(PREPARING)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    command = [sys.executable, *map(str, (tmp_path / "prepare.py", tmp_path / "photo.png"))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with started([*command, str(images.path)], env=env, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        processes = psutil.Process(parent.pid).children(recursive=True)
        (decoder,) = [one for one in processes if one.ppid() != parent.pid]  # the fork server's
        decoder.suspend()  # it reads nothing, as in a codec
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(processes, timeout=60)
        for one in alive:
            one.kill()
    assert not alive


def test_images_file_that_can_not_be_written_ends_it(tmp_path: Path, fill: Any) -> None:
    files = [str(file) for file in fill(tmp_path, range(2))]
    gone = ImagesFile(path=tmp_path / "gone", offset_bytes=0)
    with pytest.raises(DecodeError, match="before its first photo"):
        list(decode_all(files, target(), gone, processes=1))


def test_stopping_early_leaves_no_process(
    tmp_path: Path, images: ImagesFile, fill: Callable[[Path, range], list[Path]]
) -> None:
    files = [str(file) for file in fill(tmp_path, range(40))]
    outcomes = decode_all(files, target(), images, processes=2)
    next(outcomes)
    outcomes.close()
    assert not multiprocessing.active_children()
