"""Looks an export over before it is registered: files, graph, and one inference."""

from pathlib import Path

import numpy as np

from models.manifest import GENERATOR_FILE, WEIGHTS_FILE, GeneratorManifest
from service.errors import RegistryError
from service.inference.generation import GeneratorSession, ImageSpec
from service.inference.signatures import signatures
from service.model_store.exports import read_export
from service.model_store.weights import check_weights


def inspect_export(export: Path) -> tuple[GeneratorManifest, dict[str, bytes]]:
    """Check an export directory thoroughly, up to one inference.

    Args:
        export: Directory that holds the manifest and exactly the files it lists.

    Returns:
        The manifest, and the checked bytes of all files by name, the manifest's included,
        so that what is stored is what was checked.

    Raises:
        RegistryError: Names the file or operator at fault and the way out.
    """
    manifest, files = read_export(export)
    if WEIGHTS_FILE in files:
        check_weights(files[WEIGHTS_FILE])
    others = {file: files[file] for file in signatures(manifest) if file != GENERATOR_FILE}
    session = GeneratorSession(files[GENERATOR_FILE], manifest, others=others, device="cpu")
    last = len(manifest.categories) - 1
    (image,) = session.render([ImageSpec(seed=1, category=last, truncation_psi=1.0)])
    if not np.ptp(image):
        raise RegistryError(f"{GENERATOR_FILE} generates images of one colour: train it first")
    return manifest, files
