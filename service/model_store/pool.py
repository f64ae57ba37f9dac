"""The models in memory, and the watcher that swaps in what is newly promoted."""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from service.errors import Busy, DeviceError, NotFound, NotReady, OperatorError
from service.inference.generation import GeneratorSession
from service.inference.micro_batching import Batching
from service.model_store.registry import RegisteredModel, Registry
from service.settings import Settings

logger = logging.getLogger(__name__)

# A model that can't be loaded is tried again, should a file system have been late.
RETRY_SEC: Final = 30.0
# How long a model stays before another may take its place: loading takes a tenth of the time.
MIN_STAY_SEC: Final = 1.0
STAY_PER_LOAD: Final = 10.0


class NoRoom(Busy):
    """A model can't be loaded yet, as those that are were loaded a moment ago.

    Attributes:
        wait_sec: Until one of them may make room.
    """

    def __init__(self, name: str, loaded: int, wait_sec: float) -> None:
        super().__init__(
            f"{name} can't be loaded yet: {loaded} models are, and none may make room so soon; "
            "request fewer models in turn, or have the operator raise CATALOGAN_MAX_LOADED_MODELS",
            param="model",
            code="too_many_models",
            retry_after_sec=max(1, math.ceil(wait_sec)),
        )
        self.wait_sec: Final = wait_sec


@dataclass(frozen=True)
class LoadedModel:
    """A registered model and its warm session.

    Attributes:
        stays_until: Before it, by time.monotonic(), no other model takes its place.
    """

    registered: RegisteredModel
    session: GeneratorSession
    stays_until: float = 0.0


class ModelPool:
    """Promoted models by name: the default always, others on demand.

    Swapping replaces one reference: requests that hold the old model finish with it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        on_load: Callable[[str, float | None], None] = lambda *_: None,
        on_run: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        """Load nothing yet; `start` does.

        Args:
            settings: The service's.
            registry: Where models are looked up.
            on_load: Is notified of the id of each model that was loaded and the seconds that it
                took, None where it failed.
            on_run: Is notified of the id of a model and how many images a run of it generated,
                where those of several requests are generated together.
        """
        self._on_load: Final = on_load
        self._on_run: Final = on_run
        self._settings: Final = settings
        # One beside the default can always be served.
        self._limit: Final = max(2, settings.max_loaded_models)
        self.registry: Final = registry
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._default: str | None = None
        self._lock: Final = threading.Lock()
        self._stopped: Final = threading.Event()
        self._watcher: Final = threading.Thread(
            target=self._watch, name="model-watcher", daemon=True
        )

    def start(self) -> None:
        """Load the default model, if one is promoted, and begin to watch for promotions.

        Raises:
            DeviceError: The chosen device is not there, which no promotion will change.
        """
        self._seen = self.registry.promotions.identity()
        self._failed_at = None if self._refresh() else time.monotonic()
        self._watcher.start()

    def stop(self) -> None:
        """End the watcher."""
        self._stopped.set()

    @property
    def default(self) -> LoadedModel | None:
        """The model for requests that name none; None before one could be loaded."""
        return self._loaded.get(self._default) if self._default else None

    def promoted(self) -> list[RegisteredModel]:
        """Models that requests may name, in the order of first promotion."""
        models = []
        for name, version in self._served().items():
            try:
                models.append(self.registry.get(f"{name}:{version}"))
            except OperatorError as error:
                logger.warning("%s:%s is promoted but can't be used: %s", name, version, error)
        return models

    def loaded(self, model_id: str | None) -> LoadedModel | None:
        """Return the model that `get` would, if it is in memory; never waits."""
        if model_id is None:
            return self.default
        name, _, version = model_id.partition(":")
        found = self._loaded.get(name)
        if found is None or version not in ("", found.registered.version):
            return None
        with suppress(KeyError):  # evicted this very moment
            self._loaded.move_to_end(name)
        return found

    def get(self, model_id: str | None) -> LoadedModel:
        """Return the model that a request names, loading it if need be.

        Args:
            model_id: "name" or "name:version" of a promoted model; None = the default.

        Raises:
            NotReady: No default is loaded.
            NotFound: Not promoted.
            NoRoom: It would take the place of a model that was loaded a moment ago.
        """
        loaded = self.loaded(model_id)
        if loaded is not None:
            return loaded
        if model_id is None:
            raise NotReady("no model is loaded: register one", retry_after_sec=5)
        name, _, version = model_id.partition(":")
        served = self._served().get(name)
        if served is None or version not in ("", served):
            known = ", ".join(f"{n}:{v}" for n, v in list(self._served().items())[:20]) or "none"
            raise NotFound(
                f"no such model is served; leave `model` out for the default. Served: {known}",
                param="model",
                code="model_not_found",
            )
        try:
            return self._load(name, served)
        except OperatorError as error:
            logger.error("%s:%s can't be loaded: %s", name, served, error)
            raise NotReady(
                f"{name}:{served} can't be loaded at present", param="model", retry_after_sec=30
            ) from error

    def _served(self) -> dict[str, str]:
        """Version by name: what is promoted, and where CATALOGAN_MODEL names a version, that."""
        served = self.registry.promoted()
        name, _, version = (self._settings.model or "").partition(":")
        return {**served, name: version} if version else served

    def _load(self, name: str, version: str, *, needed: bool = False) -> LoadedModel:
        with self._lock:
            loaded = self._loaded.get(name)
            if loaded is None and not needed:
                self._make_room(name)
            if loaded is None or loaded.registered.version != version:
                loaded = self._create(name, version)
                self._loaded[name] = loaded
            self._loaded.move_to_end(name)
            return loaded

    def _create(self, name: str, version: str) -> LoadedModel:
        started = time.perf_counter()
        try:
            loaded = self._read(name, version)
        except OperatorError:
            self._on_load(f"{name}:{version}", None)
            raise
        seconds = time.perf_counter() - started
        stay_sec = max(MIN_STAY_SEC, STAY_PER_LOAD * seconds)
        loaded = replace(loaded, stays_until=time.monotonic() + stay_sec)
        self._on_load(loaded.registered.model_id, seconds)
        logger.info(
            "loaded %s on %s in %.2f s",
            loaded.registered.model_id,
            loaded.session.device,
            seconds,
        )
        return loaded

    def _read(self, name: str, version: str) -> LoadedModel:
        registered = self.registry.get(f"{name}:{version}")
        session = GeneratorSession(
            registered.read_generator(),
            registered.manifest,
            others=registered.read_others(),
            device=self._settings.device,
            intra_op_threads=self._settings.intra_op_threads,
            batching=Batching(on_run=partial(self._on_run, registered.model_id)),
        )
        return LoadedModel(registered, session)

    def _make_room(self, name: str) -> None:
        """Drop the models used longest ago, never the default, until one more may be loaded.

        Raises:
            NoRoom: All of them were loaded a moment ago. Else, whoever alternates more models than
                may be loaded would have one loaded for each request.
        """
        while len(self._loaded) >= self._limit:
            others = [other for other in self._loaded if other != self._default]
            now = time.monotonic()
            left = next((o for o in others if self._loaded[o].stays_until <= now), None)
            if left is None:
                soonest = min(self._loaded[other].stays_until for other in others)
                raise NoRoom(name, len(self._loaded), soonest - now)
            del self._loaded[left]

    def _watch(self) -> None:
        while not self._stopped.wait(self._settings.poll_interval_sec):
            identity = self.registry.promotions.identity()
            retry = self._failed_at is not None and time.monotonic() - self._failed_at > RETRY_SEC
            if identity == self._seen and not retry:
                continue
            self._seen = identity
            try:
                self._failed_at = None if self._refresh() else time.monotonic()
            except Exception:
                # The watcher must outlive whatever a broken store throws at it.
                logger.exception("the promoted models could not be looked up")
                self._failed_at = time.monotonic()

    def _refresh(self) -> bool:
        """Load what is promoted now in place of what is loaded; keep the old where that fails."""
        try:
            served = self._served()
        except OperatorError as error:
            logger.error("%s", error)
            return False
        wanted = (self._settings.model or next(iter(served), "")).partition(":")[0]
        if not wanted or wanted not in served:
            logger.warning(
                "no model %sis promoted yet: register one; `catalogan models list` shows what "
                "there is",
                f"{wanted} " if wanted else "",
            )
            return False
        complete = True
        for name in dict.fromkeys([wanted, *self._loaded]):
            if name not in served:
                continue
            try:
                self._load(name, served[name], needed=True)
            except DeviceError:
                raise
            except OperatorError as error:
                logger.error("%s:%s can't be loaded: %s", name, served[name], error)
                complete = False
        if wanted in self._loaded:
            self._default = wanted
        with self._lock:
            while len(self._loaded) > self._limit:
                del self._loaded[next(name for name in self._loaded if name != self._default)]
        return complete
