"""What the service uses of its dependencies that these don't promise to keep.

Each is used in one file, which these tests name. Where one fails, look there before anything else.
"""

import inspect
import os
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.bento import asgi_app
from service.model_store.registry import Registry


def test_uvicorn_starts_each_request_in_one_method() -> None:
    """service/server/connections.py: notes there which request is served."""
    parameters = inspect.signature(HttpToolsProtocol._start_asgi_task).parameters
    assert list(parameters) == ["self", "cycle", "app"]
    source = inspect.getsource(HttpToolsProtocol)
    assert source.count(".run_asgi(") == source[source.index("def _start_asgi_task") :].count(
        ".run_asgi("
    )
    assert list(inspect.signature(HttpToolsProtocol._unsupported_upgrade_warning).parameters) == [
        "self"
    ]


def test_starlette_lists_the_files_of_a_form() -> None:
    """service/api/parsing/multipart.py: closes them there, those of a form cut off, too.

    It names files and refuses text where the parser knows what a part is.
    """
    parser = MultiPartParser(Headers(), None)  # type: ignore[arg-type]
    assert parser._files_to_close_on_error == []
    part = parser._current_part
    assert part.file is None
    assert (part.data, part.field_name, part.content_disposition) == (b"", "", None)
    names = ("on_headers_finished", "on_part_data", "on_end")
    assert [len(inspect.signature(getattr(parser, name)).parameters) for name in names] == [0, 3, 0]


def test_bentoml_says_where_its_model_store_is() -> None:
    """service/model_store/registry.py: asks there."""
    assert Path(BentoMLContainer.model_store_dir.get()) == Path(
        os.environ["BENTOML_HOME"], "models"
    )
    Registry()


def test_bentoml_names_the_layers_that_are_left_out() -> None:
    """service/bento.py: takes them out of the list by name."""
    kept = {getattr(one.cls, "__name__", "") for one in asgi_app().user_middleware}
    assert "_Edge" in kept
    assert not {name for name in kept if "Timeout" in name or "Telemetry" in name}
