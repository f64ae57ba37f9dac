"""Which mask belongs to which photo, by their file names."""

from collections.abc import Callable, Sequence
from typing import Final
from unicodedata import normalize

from service.decoding.uploads import File
from service.errors import BadRequest

# What all listed names may take of an error's message.
_LISTED_CHARS: Final = 350


def match_masks(photos: Sequence[File], masks: Sequence[File]) -> list[File | None]:
    """Say which mask belongs to each photo.

    A mask has its photo's file name, with or without the photo's ending before its own: mug.png or
    mug.jpg.png for mug.jpg. The order never counts; one mask of one photo may have any name.

    Raises:
        BadRequest: A mask is no photo's, or might be several's; lists the names of both sides.
    """
    if len(photos) == len(masks) == 1:
        return list(masks)
    matched: dict[int, File] = {}
    unmatched = []
    for mask in masks:
        index = _photo_of(mask.name, photos)
        if index is None or index in matched:
            unmatched.append(mask)
        else:
            matched[index] = mask
    if unmatched:
        others = [photo for index, photo in enumerate(photos) if index not in matched]
        raise BadRequest(_message(unmatched, others or photos), param="mask")
    return [matched.get(index) for index in range(len(photos))]


def _photo_of(mask: str, photos: Sequence[File]) -> int | None:
    """The one photo that the name of a mask names, as exactly as it can be told; None = none."""
    for form in _FORMS:
        wanted = _stem(form(mask))
        named = [
            index
            for index, photo in enumerate(photos)
            if wanted in (form(photo.name), _stem(form(photo.name)))
        ]
        if named:
            return named[0] if len(named) == 1 else None
    return None


def _canonical(name: str) -> str:
    """The same for all Unicode forms of a name: macOS keeps é as two characters."""
    return normalize("NFC", name)


def _caseless(name: str) -> str:
    return _canonical(normalize("NFD", name).casefold())


def _without_folder(name: str) -> str:
    return _caseless(name).replace("\\", "/").rpartition("/")[2]


# From the letter to the loosest: a looser one counts only where no stricter one finds a photo.
_FORMS: Final[Sequence[Callable[[str], str]]] = (str, _canonical, _caseless, _without_folder)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _message(masks: Sequence[File], photos: Sequence[File]) -> str:
    width = max(8, _LISTED_CHARS // (len(masks) + len(photos)) - 4)
    mask_names, photo_names = (
        ", ".join(_shown(file.name, width) for file in files) for files in (masks, photos)
    )
    return (
        "masks belong to photos by file name, not by order, and these can't be told apart or have "
        f"no photo: {mask_names}. Photos without a mask: {photo_names}. Name each mask as its "
        "photo: mug.png for mug.jpg"
    )


def _shown(name: str, width: int) -> str:
    """A name's end, where names mostly differ."""
    return f'"{name}"' if len(name) <= width else f'"…{name[1 - width :]}"'
