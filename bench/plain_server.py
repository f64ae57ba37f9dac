"""What the plain servers do for a request, the same in each framework.

They do what the service does at its core: compare the key in constant time, validate the
request by the service's schema, run the session, encode, write XMP and sign. They serve one
picture of a seed and nothing else of the schema. What they leave out is the service's to
spend: records of hashes, usage and quotas in the database, idempotency, rates, limits on
bodies, connections, queues and time, content negotiation, one shape for errors, facts in
headers, request ids, metrics, traces, log lines, and models that change while it runs.
"""

import hmac
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bare_session import BareSession
from fastapi import Header, HTTPException, Response

from service.inference.generation import consecutive_seeds
from service.messages.schemas import GenerationRequest

ROUTE = "/v1/images/generations"


@dataclass(frozen=True)
class Arguments:
    """EXPORT MODEL_ID THREADS PORT; the key is in the environment, as the service's is."""

    export: Path
    model_id: str
    threads: int
    port: int

    @classmethod
    def parse(cls) -> "Arguments":
        """Read the command line."""
        export, model_id, threads, port = sys.argv[1:]
        return cls(Path(export), model_id, int(threads), int(port))


async def authorize(authorization: Annotated[str, Header()] = "") -> None:
    """Refuse who lacks the key; async, as FastAPI would pay for a thread otherwise."""
    scheme, _, given = authorization.partition(" ")
    key = os.environ["CATALOGAN_API_KEY"].encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key):
        raise HTTPException(401, "the API key is wrong")


def answer(session: BareSession, asked: GenerationRequest) -> Response:
    """The PNG of the seed that is asked for."""
    (seed,) = consecutive_seeds(asked.seed, 1)
    return Response(session.picture(seed), media_type="image/png")
