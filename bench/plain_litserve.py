"""The plain server in LitServe: a session in each of its worker processes, its fast queue.

    python bench/plain_litserve.py EXPORT MODEL_ID THREADS PORT

As many workers as the service has threads, and, by LitServe's default, as many processes
that speak HTTP.
"""

import signal
import sys
from pathlib import Path

from fastapi import Response
from litserve import LitAPI, LitServer
from plain import ROUTE, BareSession, authorize

from service.messages.schemas import GenerationRequest


class PictureAPI(LitAPI):
    """Pictures of seeds; travels to the workers before `setup`."""

    authorize = staticmethod(authorize)

    def __init__(self, export: Path, model_id: str) -> None:
        super().__init__(api_path=ROUTE)
        self._model = (export, model_id)

    def setup(self, device: str) -> None:
        """Open a worker's session."""
        self._session = BareSession(*self._model)

    def decode_request(self, request: GenerationRequest) -> GenerationRequest:
        """Nothing: the annotation has FastAPI validate the body."""
        return request

    def predict(self, asked: GenerationRequest) -> Response:
        """Make the picture and its answer."""
        return self._session.answer(asked)

    def encode_response(self, answered: Response) -> Response:
        """Nothing: it is encoded."""
        return answered


def main() -> None:
    export, model_id, threads, port = sys.argv[1:]
    # LitServe ends its processes on Ctrl-C alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = LitServer(
        PictureAPI(Path(export), model_id),
        accelerator="cpu",
        workers_per_device=int(threads),
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
