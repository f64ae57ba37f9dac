"""What all routes work with."""

from dataclasses import dataclass
from typing import Final

from fastapi import Request

from service.access.keyring import Keyring
from service.errors import BadRequest
from service.http.metrics import Metrics
from service.http.workers import Queue, Workers
from service.marks.marker import Marker
from service.observation import note_model
from service.registry.model_pool import LoadedModel, ModelPool
from service.settings import Settings
from service.state.state import State

# The statuses that any route which makes pictures may answer with.
COMMON: Final = (400, 401, 403, 408, 409, 413, 429, 500, 503, 504)


@dataclass(frozen=True)
class Runtime:
    """What the routes work with.

    Painters run what asks the generator for pictures: the workers, or, where it is on a GPU,
    more threads, which mostly wait for it.

    Uploads have a queue of their own: a slow sender holds a place while it sends. So have
    interpolations, which take long, and datasets, which take as long as their clients do.
    """

    settings: Settings
    pool: ModelPool
    workers: Workers
    painters: Workers
    metrics: Metrics
    state: State
    keyring: Keyring
    marker: Marker
    generations: Queue
    interpolations: Queue
    uploads: Queue
    datasets: Queue

    @property
    def ready(self) -> bool:
        """Whether requests can be served: a model is loaded, and no shutdown has begun."""
        return self.pool.default is not None and not self.generations.draining

    def drain(self) -> None:
        """Refuse new work; what was begun is finished."""
        for queue in (self.generations, self.interpolations, self.uploads, self.datasets):
            queue.draining = True


async def find_model(runtime: Runtime, model_id: str | None) -> LoadedModel:
    """Look the model up; one that must be loaded first takes a worker, not the event loop."""
    loaded = runtime.pool.loaded(model_id)
    if loaded is None:
        (loaded,) = await runtime.workers.run([lambda: runtime.pool.get(model_id)])
    note_model(loaded.registered.model_id)
    return loaded


def require_json(request: Request, otherwise: str = "") -> None:
    """Refuse a body of another type; `otherwise` names what else would do.

    Raises:
        BadRequest: It isn't declared to be JSON.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadRequest(
            f"send the body as Content-Type: application/json{otherwise}", param="Content-Type"
        )
