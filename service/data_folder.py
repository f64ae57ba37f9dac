"""Where what lasts is kept: the data folder, and the Model Store beside it."""

import logging
import os
from pathlib import Path

from service.errors import SettingsError
from service.files import keep_private
from service.settings import Settings

logger = logging.getLogger(__name__)


def model_store_home() -> Path:
    """The folder that holds BentoML's Model Store, whether it is there or not."""
    home = os.environ.get("BENTOML_HOME")
    return Path(home) if home else Path.home() / "bentoml"


def data_folder(settings: Settings) -> Path:
    """The folder for what lasts: by default `catalogan` beside the registered models."""
    return settings.data_dir or model_store_home() / "catalogan"


def writable_data_folder(settings: Settings) -> Path | None:
    """The folder for what lasts, created if missing; None where it can't be written to.

    Only its owner can look into it, unless the operator made it otherwise, which is warned of.

    Raises:
        SettingsError: The operator named it, and it can't be written to.
    """
    folder = data_folder(settings)
    try:
        created = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if created or settings.data_dir is None:
            keep_private(folder, 0o700)  # the default is the service's own, whoever made it
        elif folder.stat().st_mode & 0o007:
            logger.warning("CATALOGAN_DATA_DIR: others may look into %s: chmod 700 it", folder)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if writable:
        return folder
    if settings.data_dir is not None:
        raise SettingsError(f"CATALOGAN_DATA_DIR: {folder} can't be written to")
    return None
