"""The openai package, pointed at our address."""

import base64
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image

from service.model_store.registry import Registry

from .conftest import model_store
from .live import held_upload, live_service
from .test_augmentations_http import photo

KEY = "secret-key-of-the-test"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        with live_service(api_key=KEY, max_pending_uploads="1") as address:
            yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def opened(images: openai.types.ImagesResponse) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(one.b64_json or ""))) for one in images.data]


def vary(client: openai.OpenAI, **options: object) -> openai.types.ImagesResponse:
    with warnings.catch_warnings():
        # OpenAI has retired its own endpoint.
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.images.create_variation(**options)  # type: ignore[arg-type]


def test_generate(client: openai.OpenAI) -> None:
    made = client.images.generate(
        prompt="two white mugs on a table",
        model="styled",
        n=2,
        size="48x32",
        quality="high",
        style="vivid",
        moderation="low",
        background="opaque",
        output_format="webp",
        output_compression=80,
        response_format="b64_json",
        partial_images=0,
        stream=False,
        user="me",
        extra_body={"safety_identifier": "me", "complexity": "low", "seed": 5},
    )
    assert [(one.format, one.size) for one in opened(made)] == [("WEBP", (48, 32))] * 2
    assert (made.size, made.output_format) == ("48x32", "webp")
    assert made.created > 0
    assert [(one.seed, one.category) for one in made.data or []] == [(5, "mugs"), (6, "mugs")]


def test_create_variation(client: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo())
    with (tmp_path / "photo.png").open("rb") as file:
        made = vary(client, image=file)
    assert [one.size for one in opened(made)] == [(24, 16)]
    made = vary(
        client,
        image=photo(),
        model="styled",
        n=2,
        size="48x32",
        response_format="b64_json",
        user="me",
        extra_body={"strength": 0.25, "seeds": "[7, 9]"},
    )
    assert [one.size for one in opened(made)] == [(48, 32)] * 2
    assert [one.seed for one in made.data or []] == [7, 9]
    assert made.reconstruction_error > 0


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.owned_by) == ("styled", "unspecified")
    assert client.models.retrieve("styled") == model


def test_errors(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a spoon")
    assert (caught.value.param, caught.value.type) == ("prompt", "invalid_request_error")
    assert "mugs" in caught.value.message
    assert caught.value.code == "unknown_category"
    assert caught.value.request_id
    with pytest.raises(openai.BadRequestError, match="b64_json"):
        client.images.generate(prompt="mugs", response_format="url")
    with pytest.raises(openai.BadRequestError):
        client.images.generate(prompt="mugs", size="1024x1024")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="mugs", model="gpt-image-1")
    with pytest.raises(openai.UnprocessableEntityError):
        vary(client, image=photo()[:200])
    other = openai.OpenAI(base_url=f"{address}/v1", api_key="other", max_retries=0)
    with other, pytest.raises(openai.AuthenticationError):
        other.models.list()


def test_a_full_queue(client: openai.OpenAI, address: str) -> None:
    with held_upload(address, photo(), KEY), pytest.raises(openai.RateLimitError) as caught:
        vary(client, image=photo())
    assert caught.value.code == "queue_full"
    assert caught.value.response.headers["retry-after"] == "1"
