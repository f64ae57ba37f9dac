"""Files with keys: who else on this machine may read or change them."""

import logging
import stat
from pathlib import Path

from service.errors import SettingsError

logger = logging.getLogger(__name__)


def check_secret_file(path: Path, setting: str) -> None:
    """Warn where others may read a file of keys; refuse one that they may write.

    Others' reading is no more than warned of: Docker and Kubernetes mount secrets so.

    Raises:
        SettingsError: Others may write to it; names `setting`.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # who reads it says more
    if mode & stat.S_IWOTH:
        raise SettingsError(
            f"{setting}: others may write to {path} (mode {mode:04o}), and so give themselves "
            "keys: chmod 600 it"
        )
    if mode & stat.S_IROTH:
        logger.warning(
            "%s: others may read %s (mode %04o): chmod 600 it, or mount the secret with mode 0440",
            setting,
            path,
            mode,
        )
