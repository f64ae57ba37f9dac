"""A folder of photos -> photos to read, and entries left out without opening them.

The first folder level is the category; deeper levels don't matter. Only the folder is listed
here, no photo is opened. Nothing outside the folder is ever opened: links that leave it,
pipes, sockets and devices are left out because of their kind.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from models.terminal import printable

# Created by systems and tools, in any letter case; never photos or categories.
_NOT_PHOTOS: Final = frozenset(
    {
        *("__macosx", "@eadir", "thumbs.db", "desktop.ini"),
        # What a volume has of its own: ext4, Windows, Synology, QNAP.
        *("lost+found", "system volume information", "$recycle.bin", "recycler", "found.000"),
        *("#recycle", "@recycle", "@recently-snapshot"),
    }
)
_HIDDEN: Final = "hidden, or a system's by-product"


class PrepareError(ValueError):
    """A catalogue that can't be prepared; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoRef:
    """One photo to read.

    Attributes:
        file: The regular file that contains it, links resolved.
        path: Its path below the catalogue's folder, as shown and stored.
        category: Category as the catalogue writes it.
        sku: Article number, None where none is known.
        further: Further columns of the manifest.
        validation: It comes from the folder given as the validation split.
        linked: It is reached through a link; the file itself may be listed too.
    """

    file: str
    path: str
    category: str
    sku: str | None = None
    further: Mapping[str, object] = field(default_factory=dict)
    validation: bool = False
    linked: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A photo, or another entry in its place, that is not in the dataset."""

    path: str
    reason: str
    message: str


@dataclass
class Listing:
    """Photos to read, in a fixed order, and those left out already."""

    photos: list[PhotoRef] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    categories: set[str] = field(default_factory=set)
    validation_categories: set[str] = field(default_factory=set)
    # Of the files that were read: name of the format -> their number.
    formats: dict[str, int] = field(default_factory=dict)
    # Distinguishes photos given for validation in stored and displayed paths.
    prefix: str = ""

    def leave_out(self, name: bytes, reason: str, message: str) -> None:
        """Record that `name`, below the folder, is not used."""
        self.left_out.append(LeftOut(self.prefix + shown(name), reason, message))

    def add(self, path: str, found: bytes | tuple[str, str], **known: Any) -> None:
        """Record a photo at `path`, or why it is not used.

        Args:
            path: Its path as shown and stored.
            found: What `locate` returned.
            known: Further fields of its PhotoRef.
        """
        if isinstance(found, bytes):
            self.photos.append(PhotoRef(file=os.fsdecode(found), path=path, **known))
        else:
            self.left_out.append(LeftOut(path, *found))


def shown(raw: bytes) -> str:
    """Decode a path to text; bytes that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace")


def category_name(raw: str) -> str:
    """Normalise a category's name: composed Unicode, trimmed, control characters escaped."""
    return printable(unicodedata.normalize("NFC", raw.strip()))


def scan_folder(root: Path, *, validation: bool = False) -> Listing:
    """List the photos below `root`, whose first folder level is the category.

    Args:
        root: The catalogue's folder.
        validation: Mark each photo as given for validation.

    Returns:
        Photos sorted by path, bytewise, whatever the file system's order.

    Raises:
        PrepareError: `root` is no readable folder.
    """
    base = os.fsencode(os.path.realpath(root))
    listing = Listing(prefix=f"{shown(base.rpartition(b'/')[2])}/" if validation else "")
    try:
        top = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError as error:
        raise PrepareError(f"{root} is no readable folder ({error.strerror})") from error
    for entry in top:
        if entry.is_dir(follow_symlinks=False) and not _is_by_product(entry.name):
            category = category_name(shown(entry.name))
            listing.categories.add(category)
            for below in _walk(entry.path, base, listing):
                listing.add(
                    listing.prefix + shown(os.path.relpath(below.path, base)),
                    locate(below.path, base),
                    category=category,
                    validation=validation,
                    linked=below.is_symlink(),
                )
        elif entry.is_dir(follow_symlinks=False) or _is_by_product(entry.name):
            listing.leave_out(entry.name, "hidden", _HIDDEN)
        else:
            found = locate(entry.path, base)
            stray = ("stray", "not in a category folder")
            listing.leave_out(entry.name, *(stray if isinstance(found, bytes) else found))
    listing.photos.sort(key=lambda photo: photo.path.encode())
    return listing


def _walk(folder: bytes, base: bytes, listing: Listing) -> Iterator[os.DirEntry[bytes]]:
    """Yield every entry below `folder` that is not a folder; links are not followed."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            listing.leave_out(os.path.relpath(current, base), "unreadable", f"{error.strerror}")
            continue
        for entry in entries:
            if _is_by_product(entry.name):
                listing.leave_out(os.path.relpath(entry.path, base), "hidden", _HIDDEN)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            else:
                yield entry


def locate(path: bytes, base: bytes) -> bytes | tuple[str, str]:
    """Resolve `path` to a regular file within `base`, or say why that fails.

    Args:
        path: Absolute path, perhaps a link.
        base: The catalogue's real folder.

    Returns:
        The file's real path, or (reason, message).
    """
    try:
        real = os.path.realpath(path, strict=True)
        mode = os.lstat(real).st_mode
    except OSError as error:
        if _is_link(path):
            return "broken_link", f"link to nowhere: {error.strerror}"
        missing = isinstance(error, FileNotFoundError)
        return "missing_file" if missing else "unreadable", f"{error.strerror}"
    if os.path.commonpath([real, base]) != base:
        return "link_leaves_folder", f"points to {shown(real)}"
    if stat.S_ISDIR(mode) and _is_link(path):
        return "link_to_folder", "its photos count in their own folder"
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return "not_a_file", kinds.get(stat.S_IFMT(mode), "a device")
    return real


def _is_link(path: bytes) -> bool:
    """Whether `path` is a link; False if it doesn't exist or its name is too long."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_by_product(name: bytes) -> bool:
    return name.startswith(b".") or shown(name).casefold() in _NOT_PHOTOS
