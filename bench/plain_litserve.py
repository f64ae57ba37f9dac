"""The plain server in LitServe: a session in each of its worker processes, its fast queue.

    python bench/plain_litserve.py EXPORT MODEL_ID THREADS PORT

As many workers as the service has threads, and, by LitServe's default, as many processes
that speak HTTP.
"""

import signal
import sys

from fastapi import Response
from litserve import LitAPI, LitServer
from plain import ROUTE, BareSession, authorize

from service.messages.schemas import GenerationRequest


class ImageAPI(LitAPI):
    """Images of seeds; travels to the workers before `setup`."""

    authorize = staticmethod(authorize)

    def __init__(self, export: str, model_id: str) -> None:
        super().__init__(api_path=ROUTE)
        self._model = (export, model_id)

    def setup(self, device: str) -> None:
        """Open a worker's session."""
        self._session = BareSession(*self._model)

    def decode_request(self, request: GenerationRequest) -> GenerationRequest:
        """Nothing: the annotation has FastAPI validate the body."""
        return request

    def predict(self, request: GenerationRequest) -> Response:
        """Generate the image and its response."""
        return self._session.respond(request)

    def encode_response(self, response: Response) -> Response:
        """Nothing: it is encoded."""
        return response


def main() -> None:
    export, model_id, threads, port = sys.argv[1:]
    # LitServe ends its processes on Ctrl-C alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    api = ImageAPI(export, model_id)
    server = LitServer(api, accelerator="cpu", workers_per_device=int(threads), fast_queue=True)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(port), **quiet)


if __name__ == "__main__":
    main()
