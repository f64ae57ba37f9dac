"""GET /v1/models: what requests may name."""

from fastapi import FastAPI

from models.manifest import ENCODER_FILE, MAPPING_FILE
from service.api.endpoint import MODEL, MODELS
from service.api.openapi import route
from service.api.runtime import Runtime
from service.api.schemas.models import Marks, ModelInfo, ModelList
from service.errors import NotFound
from service.model_store.registry import RegisteredModel
from service.rendering.presentation import largest_size


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add GET /v1/models and GET /v1/models/{model}."""

    @route(app, MODELS)
    def list_models() -> ModelList:
        """Models that requests may name."""
        return ModelList(data=[_model_info(m, runtime) for m in runtime.pool.promoted()])

    @route(app, MODEL)
    def show_model(model: str) -> ModelInfo:
        """One model, by name, "name:version" or an alias."""
        model = runtime.settings.aliases.get(model, model)
        for known in runtime.pool.promoted():
            if model in (known.name, known.model_id):
                return _model_info(known, runtime)
        raise NotFound(
            "no such model is served; GET /v1/models lists them",
            param="model",
            code="model_not_found",
        )


def _model_info(model: RegisteredModel, runtime: Runtime) -> ModelInfo:
    manifest, default = model.manifest, runtime.pool.default
    return ModelInfo(
        id=model.name,
        created=int(manifest.created.timestamp()),
        owned_by=manifest.author,
        version=model.version,
        model_hash=manifest.model_hash,
        default=default is not None and default.registered.model_id == model.model_id,
        categories=list(manifest.categories),
        synonyms={name: list(others) for name, others in manifest.synonyms.items()},
        size=f"{manifest.width}x{manifest.height}",
        max_size="{}x{}".format(*largest_size(manifest)),
        channels=manifest.channels,
        truncation_psi=manifest.truncation_psi,
        style_layers=manifest.num_ws if MAPPING_FILE in manifest.files else None,
        encoder=ENCODER_FILE in manifest.files,
        licence=manifest.licence,
        marks=Marks(
            xmp=runtime.marker.xmp,
            signed_by=runtime.marker.signing,
            watermark=runtime.marker.wants_watermark(manifest),
        ),
    )
