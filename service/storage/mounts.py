"""Which file system a path lies on: SQLite's locks can't be trusted on a network's."""

import logging
import re
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

MOUNTS: Final = Path("/proc/mounts")
# FUSE's block devices (fuseblk) are local disks.
_SHARED: Final = re.compile(
    r"nfs\d?|cifs|smb\w*|fuse(\..+)?|9p|virtiofs|afs|ceph|glusterfs|lustre|beegfs|gpfs|ocfs2|gfs2"
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def warn_of_shared(file: Path) -> None:
    """Tell the log where a SQLite file lies on a file system that machines share."""
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:  # not Linux
        return
    kind = file_system(file.absolute(), mounts)
    if _SHARED.fullmatch(kind):
        logger.warning(
            "%s lies on a network file system (%s), where SQLite's locks can hold requests up or "
            "fail: set CATALOGAN_DATA_DIR to a folder on a local disk, or CATALOGAN_STATE_URL to a "
            "PostgreSQL",
            file,
            kind,
        )


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that holds a path, such as "ext4"; empty where it is not known.

    Args:
        path: Absolute.
        mounts: As of /proc/mounts: device, folder and kind of each, the latest last.
    """
    found, depth = "", 0
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        folder = Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[1]))
        if path.is_relative_to(folder) and len(folder.parts) >= depth:
            found, depth = fields[2], len(folder.parts)
    return found
