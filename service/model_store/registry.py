"""Export directories -> BentoML's Model Store, and the promotion of one version by name."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bentoml
from bentoml.exceptions import BentoMLException
from bentoml.models import ModelContext

from models.manifest import (
    ENCODER_FILE,
    GENERATOR_FILE,
    MANIFEST_FILE,
    MAPPING_FILE,
    UPSCALER_FILE,
    WATERMARK_ENCODER_FILE,
    GeneratorManifest,
    ManifestError,
)
from service.errors import RegistryError
from service.model_store.exports import export_version, parse_manifest
from service.model_store.promotions import Promotions

logger = logging.getLogger(__name__)

# Marks our models in a store that may hold others'.
MODULE: Final = "catalogan"
# BentoML wants a letter or digit at the end, too.
NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model in the store.

    Attributes:
        name: The model's name.
        version: First digits of the manifest's SHA-256, the same on every machine.
        folder: Where the store keeps the export's files.
        manifest: What was exported.
        promoted: Whether this version is the one served under its name.
    """

    name: str
    version: str
    folder: Path
    manifest: GeneratorManifest
    promoted: bool

    @property
    def model_id(self) -> str:
        """The model as requests name it, "name:version"."""
        return f"{self.name}:{self.version}"

    def read_generator(self) -> bytes:
        """Read the generator's bytes and check them against the manifest.

        Raises:
            RegistryError: The file is missing or changed.
        """
        return self.read(GENERATOR_FILE)

    def read_others(self) -> dict[str, bytes]:
        """Read what the export has of graphs that work beside the generator.

        Raises:
            RegistryError: A file is missing or changed.
        """
        files = (MAPPING_FILE, ENCODER_FILE, UPSCALER_FILE, WATERMARK_ENCODER_FILE)
        return {file: self.read(file) for file in files if file in self.manifest.files}

    def read(self, file: str) -> bytes:
        """Read one of the export's files and check it against the manifest.

        Raises:
            RegistryError: It is missing or changed.
        """
        try:
            data = (self.folder / file).read_bytes()
        except OSError as error:
            raise RegistryError(f"{self.model_id}: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.files[file].sha256:
            raise RegistryError(f"{self.model_id}: {file} was changed: register it again")
        return data


class Registry:
    """The models of `BENTOML_HOME` that Catalogan registered."""

    def __init__(self) -> None:
        """Find the store.

        Raises:
            RegistryError: It is not there and can't be created.
        """
        from bentoml._internal.configuration.containers import BentoMLContainer

        try:
            self._store: Final = Path(BentoMLContainer.model_store_dir.get())
        except OSError as error:
            raise RegistryError(
                f"the Model Store can't be created: {error}; set BENTOML_HOME to a writable folder"
            ) from error
        self.promotions: Final = Promotions(self._store.parent / "catalogan")

    def register(self, export: Path, name: str | None = None) -> RegisteredModel:
        """Check an export and store it; the first of its name is promoted.

        Args:
            export: What `catalogan export` wrote.
            name: Name to register under; else the manifest's.

        Returns:
            The registered model; the same one when it was registered before.

        Raises:
            RegistryError: The export is refused, or can't be stored.
        """
        from service.model_store.inspection import inspect_export

        manifest, files = inspect_export(export)
        name = _check_name(name or manifest.name)
        version = export_version(files)
        with self.promotions.locked():
            if not self._is_intact(name, version):
                self._store_files(name, version, files)
        if name not in self.promotions.histories():
            self.promotions.promote(name, version)
        return self.get(f"{name}:{version}")

    def list(self) -> list[RegisteredModel]:
        """All registered models, by name, the promoted version first."""
        models = []
        for stored in bentoml.models.list():
            if stored.info.module != MODULE or stored.tag.version is None:
                continue
            try:
                models.append(self._load(stored.tag.name, stored.tag.version))
            except RegistryError as error:
                logger.warning("left out of the list: %s", error)
        return sorted(models, key=lambda m: (m.name, not m.promoted, m.version))

    def get(self, model_id: str) -> RegisteredModel:
        """Look up "name:version", or "name" for its promoted version.

        Raises:
            RegistryError: Not registered, nothing promoted, or damaged.
        """
        name, _, version = model_id.partition(":")
        _check_name(name)
        if not version:
            promoted = self.promoted().get(name)
            if promoted is None:
                raise RegistryError(f"no model {name!r} is promoted: {self._known()}")
            version = promoted
        return self._load(name, _check_name(version))

    def promoted(self) -> dict[str, str]:
        """Served version by name, in the order of first promotion.

        A name that was never promoted here, in a store that was filled elsewhere (a Bento's,
        say), serves its only version.
        """
        served = {name: history[-1] for name, history in self.promotions.histories().items()}
        versions: dict[str, list[str]] = {}
        for folder in sorted(self._store.glob(f"*/*/{GENERATOR_FILE}")):
            versions.setdefault(folder.parent.parent.name, []).append(folder.parent.name)
        for name, found in versions.items():
            if name not in served and len(found) == 1:
                served[name] = found[0]
        return served

    def promote(self, model_id: str) -> RegisteredModel:
        """Serve this version under its name from now on.

        Args:
            model_id: "name:version".

        Raises:
            RegistryError: Not registered, or its files were changed.
        """
        name, _, version = model_id.partition(":")
        if not version:
            raise RegistryError(f"say which version of {name!r}, as NAME:VERSION; {self._known()}")
        self._verify(self.get(model_id))
        self.promotions.promote(name, version)
        return self.get(model_id)

    def rollback(self, name: str) -> RegisteredModel:
        """Serve again what was served under `name` before the last promotion.

        Raises:
            RegistryError: Nothing was served before, or it is gone or changed.
        """
        history = self.promotions.histories().get(_check_name(name), ())
        if len(history) > 1:
            self._verify(self.get(f"{name}:{history[-2]}"))
        return self.get(f"{name}:{self.promotions.rollback(name)}")

    def _load(self, name: str, version: str) -> RegisteredModel:
        folder = self._store / name / version
        try:
            data = (folder / MANIFEST_FILE).read_bytes()
        except OSError:
            raise RegistryError(
                f"no model {name}:{version} is registered: {self._known()}"
            ) from None
        manifest = parse_manifest(data, folder / MANIFEST_FILE)
        return RegisteredModel(
            name=name,
            version=version,
            folder=folder,
            manifest=manifest,
            promoted=self.promoted().get(name) == version,
        )

    def _is_intact(self, name: str, version: str) -> bool:
        """Whether it is stored whole; what an interrupted registration left is removed."""
        folder = self._store / name / version
        if not folder.exists():
            return False
        try:
            bentoml.models.get(f"{name}:{version}")
            self._verify(self._load(name, version))
        except (RegistryError, BentoMLException) as error:
            logger.warning("%s:%s is registered again: %s", name, version, error)
            shutil.rmtree(folder)
            return False
        return True

    def _verify(self, model: RegisteredModel) -> None:
        try:
            model.manifest.verify_files(lambda name: (model.folder / name).read_bytes())
        except (OSError, ManifestError) as error:
            raise RegistryError(f"{model.model_id}: {error}; register it again") from error

    def _store_files(self, name: str, version: str, files: dict[str, bytes]) -> None:
        try:
            with bentoml.models.create(
                f"{name}:{version}",
                module=MODULE,
                signatures={},
                context=ModelContext(framework_name="onnx", framework_versions={}),
            ) as model:
                for file, data in files.items():
                    Path(model.path_of(file)).write_bytes(data)
        except (BentoMLException, OSError) as error:
            shutil.rmtree(self._store / name / version, ignore_errors=True)
            raise RegistryError(f"{name}:{version} can't be stored: {error}") from error

    def _known(self) -> str:
        ids: Iterable[str] = sorted(
            f"{p.parent.parent.name}:{p.parent.name}"
            for p in self._store.glob(f"*/*/{GENERATOR_FILE}")
        )
        known = ", ".join(list(ids)[:10])
        return f"registered are {known}" if known else "nothing is registered yet"


def _check_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise RegistryError(
            f"{name[:80]!r} is no name: use small letters, digits, '-', '_' and '.', at most 63, "
            "with a letter or digit first and last"
        )
    return name
