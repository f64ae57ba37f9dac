"""A session of an export or a registered model, for commands."""

from pathlib import Path

from models.manifest import GENERATOR_FILE, UPSCALER_FILE, WATERMARK_ENCODER_FILE
from service.errors import RegistryError
from service.inference.generation import GeneratorSession
from service.model_store.exports import export_version, read_export
from service.model_store.registry import Registry
from service.settings import Settings


def open_session(
    model_id: str | None, export: Path | None, settings: Settings
) -> tuple[GeneratorSession, str]:
    """Load an export or a registered model; return its id, too.

    Raises:
        OperatorError: It can't be used.
    """
    if export is not None:
        manifest, files = read_export(export)
        generator, shown_id = files[GENERATOR_FILE], f"{manifest.name}:{export_version(files)}"
        used = (UPSCALER_FILE, WATERMARK_ENCODER_FILE)
        others = {file: files[file] for file in used if file in files}
    else:
        registry = Registry()
        wanted = model_id or next(iter(registry.promoted()), None)
        if wanted is None:
            raise RegistryError("no model is registered: `catalogan register EXPORT`")
        model = registry.get(wanted)
        manifest, generator, shown_id = model.manifest, model.read_generator(), model.model_id
        others = model.read_others()
    session = GeneratorSession(
        generator,
        manifest,
        others=others,
        device=settings.device,
        intra_op_threads=settings.intra_op_threads,
    )
    return session, shown_id
