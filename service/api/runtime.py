"""What all routes work with."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from service.access.keyring import Keyring
from service.access.links import Links
from service.api.endpoint import QueueName
from service.api.queues import Queue
from service.decoding.decoder import Decoder
from service.inference.workers import Workers
from service.model_store.pool import LoadedModel, ModelPool, NoRoom
from service.provenance.manifests import kept_manifest
from service.provenance.marker import Marker
from service.settings import Settings
from service.storage.state import State
from service.telemetry.metrics import Metrics
from service.telemetry.observation import note_model, stage


@dataclass(frozen=True)
class Runtime:
    """What the routes work with.

    GPU threads run the generator: the workers, or, where it is on a GPU,
    more threads, which mostly wait for it.

    Uploads have a queue of their own, as they take much memory; who comes without a key has
    another, and who follows links a third. So have interpolations, which take long, and datasets,
    which take as long as their clients do.
    """

    settings: Settings
    pool: ModelPool
    workers: Workers
    gpu_threads: Workers
    metrics: Metrics
    state: State
    keyring: Keyring
    links: Links
    marker: Marker
    decoder: Decoder
    queues: Mapping[QueueName, Queue]

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a model is loaded, and no shutdown has begun."""
        return self.pool.default is not None and not any(
            queue.draining for queue in self.queues.values()
        )

    @property
    def degraded(self) -> str | None:
        """What can't be done now, though the service is up; another replica could not, either."""
        return "images can't be signed" if self.marker.failing else None

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        for queue in self.queues.values():
            queue.draining = True


async def find_model(runtime: Runtime, model_id: str | None) -> LoadedModel:
    """Look the model up, by its name or an alias.

    One that must be loaded first takes a worker, not the event loop.
    """
    model_id = runtime.settings.aliases.get(model_id or "", model_id)
    loaded = runtime.pool.loaded(model_id)
    if loaded is None:
        loaded = await _load_model(runtime, model_id)
    note_model(loaded.registered.model_id)
    return loaded


async def _load_model(runtime: Runtime, model_id: str | None) -> LoadedModel:
    """Load a model on a worker, as soon as another may make room for it.

    Raises:
        NoRoom: That takes longer than a request may wait.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + runtime.settings.max_queue_wait_sec
    while True:
        try:
            (loaded,) = await runtime.workers.run([lambda: runtime.pool.get(model_id)])
        except NoRoom as refused:
            if loop.time() + refused.wait_sec > deadline:
                raise
            with stage("queue"):
                await asyncio.sleep(refused.wait_sec)
        else:
            return loaded


async def keep_manifest(runtime: Runtime, photo: bytes, *, generated: bool) -> bytes | None:
    """A photo's own C2PA manifest, for the images that are made of it; see `kept_manifest`."""
    if runtime.marker.signer is None:
        return None
    # Not a worker, as it waits for a process that may take its time over a hostile file.
    return await runtime.decoder.run(lambda _: kept_manifest(photo, generated=generated))
