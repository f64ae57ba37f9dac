"""Which mask belongs to which photo: by name, however it is written, and never by order."""

from unicodedata import normalize

import pytest

from service.augmentation.masks import match_masks
from service.decoding.uploads import File
from service.errors import MAX_MESSAGE_CHARS, BadRequest

COMPOSED, DECOMPOSED = (normalize(form, "größe") for form in ("NFC", "NFD"))


def matched(photos: list[str], masks: list[str]) -> list[str | None]:
    files = [[File(name, b"") for name in names] for names in (photos, masks)]
    return [None if mask is None else mask.name for mask in match_masks(*files)]


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"]),
        (["0", "1"], ["0.png", "1.png"]),
        (["a.jpg", "b.jpg"], ["a.jpg.png", "b.JPG.png"]),
        (["a v1.2", "a v1.3"], ["a v1.2.png", "a v1.3.png"]),
        ([f"{COMPOSED}.jpg", "b.jpg"], [f"{DECOMPOSED}.png", "b.png"]),
        ([f"{DECOMPOSED}.jpg", "b.jpg"], [f"{COMPOSED}.png", None]),
        ([f"{DECOMPOSED}.jpg", f"{COMPOSED}.jpg"], [f"{DECOMPOSED}.png", f"{COMPOSED}.png"]),
        (["IMG_1.JPG", "IMG_2.JPG"], ["img_1.png", "Img_2.PNG"]),
        (["Mug.jpg", "mug.jpg"], ["Mug.png", "mug.png"]),
        (["STRASSE.jpg", f"{COMPOSED.upper()}.jpg"], ["straße.png", f"{DECOMPOSED}.png"]),
        (["photos/a.jpg", "photos\\b.jpg"], ["masks/a.png", "b.png"]),
        (["x/1.jpg", "y/1.jpg"], ["x/1.png", "y/1.png"]),
        (["a.jpg", "b.jpg", "c.jpg"], [None, None, "c.png"]),
        (["mug.jpg"], ["anything.png"]),
    ],
)
def test_masks_find_their_photos_in_any_order(photos: list[str], masks: list[str | None]) -> None:
    sent = [mask for mask in masks if mask is not None]
    assert matched(photos, sent) == masks
    assert matched(photos, sent[::-1]) == masks


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["a.jpg", "b.jpg"], ["x.png", "y.png"]),
        (["a.jpg", "b.jpg"], ["b.png", "y.png"]),
        (["a.jpg", "b.jpg"], ["a.png", "A.png"]),
        (["Mug.jpg", "mug.jpg"], ["MUG.png"]),
        (["a.jpg", "a.png"], ["a.png"]),
        (["image", "image"], ["mask", "mask"]),
        (["x/1.jpg", "y/1.jpg"], ["1.png", "2.png"]),
        (["a.jpg"], ["a.png", "b.png"]),
        (["a.jpg", "b.jpg"], ["", ""]),
    ],
)
def test_masks_that_are_no_photos_own_are_refused(photos: list[str], masks: list[str]) -> None:
    with pytest.raises(BadRequest, match="by file name") as refused:
        matched(photos, masks)
    assert refused.value.param == "mask"


def test_the_refusal_lists_both_sides_however_many_and_long_they_are() -> None:
    photos = [f"{'photo' * 30}-{index:02d}.jpg" for index in range(16)]
    masks = [f"{'mask' * 30}-{index:02d}.png" for index in range(16, 32)]
    with pytest.raises(BadRequest) as refused:
        matched(photos, masks)
    message = refused.value.message
    assert all(f"{index:02d}.jpg" in message for index in range(16))
    assert all(f"{index:02d}.png" in message for index in range(16, 32))
    assert message.endswith("mug.png for mug.jpg")
    assert len(message) <= MAX_MESSAGE_CHARS
