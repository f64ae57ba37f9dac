"""A decoding process: reads requests, does their tasks, and is ended when one costs too much."""

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

# What Pillow would import with the first file of a format, within that file's limits.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from models.confinement import (
    budget_for,
    confine,
    end_with_parent,
    leave_no_core,
    limit_cpu,
)
from models.images import ImageError, ImageLimits, measure_image
from service.decoding.tasks import perform


def main() -> None:
    """Serve the requests of the process that started this one, until it closes its end.

    Arguments: file descriptors of the requests, the responses, the memory that pixels are handed
    over in, and the pipe that tells that the parent is gone.
    """
    requests, responses, shared, lifeline = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    end_with_parent(lifeline)
    leave_no_core()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.preinit()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stderr.fileno())  # what codecs say of strangers' files is for no log
    incoming, outgoing = os.fdopen(requests, "rb"), os.fdopen(responses, "wb")
    with suppress(BrokenPipeError), incoming, outgoing:
        _send(outgoing, {})  # ready
        for line in incoming:
            _send(outgoing, _respond(json.loads(line), shared))


def _respond(request: dict[str, Any], shared: int) -> dict[str, Any]:
    """Do one request within its file's budget."""
    data = os.pread(shared, request.pop("bytes"), 0)
    try:
        confine(budget_for(len(data)))
        if request["task"] != "measure":
            _confine_to_size(data, ImageLimits(**request["limits"]))
        about, parts = perform(request, data)
        limit_cpu(0)
    except ImageError as error:
        limit_cpu(0)
        # A codec that ran out of memory may have left some behind.
        spent = isinstance(error.__cause__, MemoryError)
        return {"reason": error.reason, "message": str(error), "spent": spent}
    at = 0
    for part in parts:
        at += _write(shared, part, at)
    return {"about": about, "parts": [len(part) for part in parts]}


def _confine_to_size(data: bytes, limits: ImageLimits) -> None:
    """Allow what the size in the header takes, where there is one within limits."""
    with suppress(ImageError):
        confine(budget_for(len(data), measure_image(data, limits=limits)))


def _write(shared: int, part: bytes, at: int) -> int:
    done = 0
    while done < len(part):
        done += os.pwrite(shared, memoryview(part)[done:], at + done)
    return done


def _send(outgoing: BinaryIO, response: dict[str, Any]) -> None:
    outgoing.write(json.dumps(response).encode() + b"\n")
    outgoing.flush()


if __name__ == "__main__":
    main()
