"""The plain server in FastAPI and uvicorn: one session, which a few threads share.

python bench/plain_fastapi.py EXPORT MODEL_ID THREADS PORT
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from bare_session import BareSession
from fastapi import Depends, FastAPI, Response
from plain_server import ROUTE, Arguments, answer, authorize

from service.messages.schemas import GenerationRequest


def build_app(session: BareSession, threads: int) -> FastAPI:
    """The application."""
    app = FastAPI()
    workers = ThreadPoolExecutor(threads)

    @app.post(ROUTE, dependencies=[Depends(authorize)])
    async def generate(asked: GenerationRequest) -> Response:
        return await asyncio.get_running_loop().run_in_executor(workers, answer, session, asked)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    return app


def main() -> None:
    """Serve."""
    given = Arguments.parse()
    app = build_app(BareSession(given.export, given.model_id), given.threads)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
