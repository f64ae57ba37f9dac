"""catalogan_client against the real service, synchronous and asynchronous."""

import asyncio
import hashlib
import io
import pickle
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from catalogan_client import (
    APIStatusError,
    AsyncCatalogan,
    AuthenticationError,
    BadRequestError,
    Catalogan,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from service.access.api_keys import create_key
from service.model_store.registry import Registry

from .conftest import model_store
from .live import live_service
from .scripted import answer, hang_up, scripted
from .test_augmentations_http import photo

KEY = "secret-key-of-the-test"
CALLERS = {
    "poor": (["generate"], None, "3/month"),
    "slow": (["generate"], "1/minute", None),
    "trainer": (["train"], None, None),
    "careful": (["generate"], None, None),
}
KEYS: dict[str, str] = {}
Use = Callable[[Any], Any]


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, styled_export: Path, clear_export: Path
) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        Registry().register(clear_export)
        keys_file = tmp_path_factory.mktemp("keys") / "keys.json"
        for name in CALLERS:
            KEYS[name] = create_key(keys_file, name, *CALLERS[name])
        with live_service(
            api_key=KEY, keys_file=str(keys_file), max_upload_bytes="100000"
        ) as address:
            yield address


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, address: str) -> Callable[[Use], Any]:
    """Calls `use` with a client of the kind; awaits what it gives, where it must."""

    def use_sync(use: Use) -> Any:
        with Catalogan(address, KEY, max_retries=0) as client:
            return use(client)

    def use_async(use: Use) -> Any:
        async def main() -> Any:
            async with AsyncCatalogan(address, KEY, max_retries=0) as client:
                return await use(client)

        return asyncio.run(main())

    return use_sync if request.param == "sync" else use_async


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_generate(call: Callable[[Use], Any], tmp_path: Path) -> None:
    made = call(
        lambda client: client.images.generate(
            categories={"mugs": 3, "boxes": 1},
            seeds=[5, 9],
            truncation_psi=0.25,
            model="clear",
            size="48x32",
            background="white",
            output_format="webp",
            output_compression=90,
            user="me",
        )
    )
    assert (made.size, made.output_format, made.truncation_psi) == ("48x32", "webp", 0.25)
    assert made.model == Registry().get("clear").model_id
    assert [one.seed for one in made.images] == [5, 9]
    assert made.images[0].categories == {"mugs": 0.75, "boxes": 0.25}
    path = made.images[1].save(tmp_path / "picture.webp")
    assert path.read_bytes() == made.images[1].data
    assert (opened(made.images[1].data).format, opened(made.images[1].data).size) == (
        "WEBP",
        (48, 32),
    )


def test_generate_by_prompt_and_mixed_styles(call: Callable[[Use], Any]) -> None:
    mixing = {"coarse": 1, "fine": 2, "crossover": 1}
    made = call(lambda client: client.images.generate("two mugs", n=2, style_mixing=mixing))
    assert [one.category for one in made.images] == ["mugs", "mugs"]
    used = made.images[0].style_mixing
    assert (used.coarse, used.fine, used.crossover) == (1, 2, 1)
    assert made.images[0].categories is None


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "file"])
def test_vary_takes_files_of_all_kinds(
    call: Callable[[Use], Any], tmp_path: Path, kind: str
) -> None:
    path, data = tmp_path / "photo.png", photo()
    path.write_bytes(data)
    with path.open("rb") as file:
        given = {"path": path, "text path": str(path), "bytes": data, "file": file}[kind]
        made = call(lambda client: client.images.vary(given, strength=0.00001, seeds=[3, 1]))
    assert [one.seed for one in made.images] == [3, 1]
    assert {one.photo_sha256 for one in made.images} == {hashlib.sha256(data).hexdigest()}
    assert {one.strength for one in made.images} == {0.00001}
    assert made.reconstruction_error > 0
    assert made.validation_errors.photos == 30


def test_interpolate(call: Callable[[Use], Any]) -> None:
    archive = call(lambda client: client.images.interpolate([1, 2], frames=3, loop=True))
    assert (archive.output_format, archive.frame_count, archive.loop) == ("zip", 4, True)
    assert len(archive.images) == 4
    assert [one.interpolation.share for one in archive.images] == [0, 0.5, 0, 0.5]
    assert {opened(one.data).size for one in archive.images} == {(24, 16)}
    for kind in ("gif", "webp"):
        moving = call(
            lambda client, kind=kind: client.images.interpolate(
                [1, 2], category="café lamps", frames=3, frame_duration_ms=50, output_format=kind
            )
        )
        assert (moving.output_format, moving.frame_duration_ms) == (kind, 50)
        assert (moving.category, moving.seeds, moving.images) == ("café lamps", (1, 2), ())
        assert getattr(opened(moving.data), "n_frames", 1) == 3


def test_interpolate_photos(call: Callable[[Use], Any], tmp_path: Path) -> None:
    (tmp_path / "mug.png").write_bytes(photo())
    stops = [7, tmp_path / "mug.png", photo((30, 30), "JPEG")]
    archive = call(lambda client: client.images.interpolate(stops, frames=2, category="mugs"))
    assert archive.waypoints == (7, "photo-0", "photo-1")
    hashes = [one.photo_sha256 for one in archive.photos]
    assert hashes[0] == hashlib.sha256(photo()).hexdigest()
    ways = [(frame.interpolation.start, frame.interpolation.to) for frame in archive.images]
    assert ways == [(None, hashes[0]), (hashes[0], hashes[1]), (hashes[1], hashes[1])]
    assert archive.validation_errors.photos == 30
    moving = call(
        lambda client: client.images.interpolate(stops, frames=3, output_format="webp", loop=True)
    )
    assert (moving.waypoints, moving.frame_count) == (archive.waypoints, 6)


def test_augment(call: Callable[[Use], Any]) -> None:
    photos = [photo(), photo((60, 40), "JPEG")]
    mask = png(Image.new("L", (60, 40), 3))
    known = {"label": "mug", "boxes": [[10, 10, 20, 20]], "keypoints": [[[15, 15, 2]]]}
    options = {"masks": [None, mask], "annotations": [None, known], "min_visible": 0.0}
    operations = [{"name": "rotate", "degrees": 10}, {"name": "blur"}]
    made = call(
        lambda client: client.images.augment(photos, **options, operations=operations, n=2, seed=7)
    )
    assert [(one.photo, one.seed) for one in made.images] == [(0, 7), (0, 8), (1, 9), (1, 10)]
    last = made.images[3]
    assert (made.images[0].mask, made.images[0].annotations) == (None, None)
    assert opened(last.mask).size == opened(last.data).size == (60, 40)
    assert last.annotations.label == "mug"
    assert last.annotations.visible[0] > 0.9
    assert last.matrix[2] == (0, 0, 1)
    replays = [one.replay() for one in made.images]
    again = call(lambda client: client.images.augment(photos, **options, replay=replays))
    for one, other in zip(again.images, made.images, strict=True):
        assert opened(one.data).tobytes() == opened(other.data).tobytes()
    alone = call(lambda client: client.images.augment(photos[0], policy="light", canvas=CANVAS))
    assert alone.size == "40x40"


CANVAS = {"size": "40x40"}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_verify(call: Callable[[Use], Any], tmp_path: Path) -> None:
    made = call(lambda client: client.images.generate(seed=11, category="boxes")).images[0]
    path = made.save(tmp_path / "picture.png")
    found = call(lambda client: client.verifications.verify(path))
    assert (found.ours, found.verdict) == (True, "ours")
    assert (found.claims.seed, found.claims.category) == (11, "boxes")
    assert {one.layer for one in found.layers} >= {"c2pa", "record", "xmp"}
    assert call(lambda client: client.verifications.verify(photo())).verdict == "unknown"


def test_usage(call: Callable[[Use], Any]) -> None:
    call(lambda client: client.images.generate(n=3))
    today = datetime.now(UTC).date()
    for span in ({}, {"first": today - timedelta(days=1), "last": today + timedelta(days=1)}):
        usage = call(lambda client, span=span: client.usage.get(**span))
        (entry,) = [one for one in usage.entries if one.kind == "generation"]
        assert today - timedelta(days=1) <= entry.date <= today
        assert entry.pictures >= 3
        assert {one.key for one in usage.quotas} == {"poor"}  # the operator sees all
    long_ago = date(2020, 1, 1)
    assert call(lambda client: client.usage.get(long_ago, long_ago)).entries == ()


def test_quotas_rates_and_scopes(address: str) -> None:
    with Catalogan(address, KEYS["poor"]) as client:
        client.images.generate(n=2)
        (quota,) = client.usage.get().quotas
        assert (quota.key, quota.per, quota.used, quota.left) == ("poor", "month", 2, 1)
        with pytest.raises(RateLimitError) as caught:
            client.images.generate(n=2)
    assert caught.value.code == "quota_exceeded"
    assert caught.value.retry_after is not None
    with Catalogan(address, KEYS["slow"], max_retries=0) as client:
        client.images.generate()
        with pytest.raises(RateLimitError) as caught:
            client.images.generate()
    assert caught.value.code == "rate_limit_exceeded"
    with Catalogan(address, KEYS["trainer"]) as client, pytest.raises(PermissionDeniedError):
        client.images.generate()


def test_a_retry_makes_nothing_twice(address: str) -> None:
    def forward(*, lost: bool) -> Callable[[Any], None]:
        def send(handler: Any) -> None:
            kept = ("authorization", "content-type", "idempotency-key", "accept")
            headers = {name: handler.headers[name] for name in kept}
            url = address + handler.path
            made = httpx.post(url, content=handler.body, headers=headers, timeout=None)
            answered.append(made)
            (hang_up if lost else answer(made.status_code, made.content))(handler)

        return send

    answered: list[httpx.Response] = []
    script = scripted(forward(lost=True), forward(lost=False))
    with script as proxy, Catalogan(proxy.address, KEYS["careful"]) as client:
        client.images.generate(n=2)
    assert answered[0].json() == answered[1].json()
    with Catalogan(address, KEYS["careful"]) as client:
        (entry,) = client.usage.get().entries
    assert (entry.requests, entry.pictures) == (2, 2)


def test_keys_of_ones_own_hold_over_calls(call: Callable[[Use], Any]) -> None:
    key = uuid.uuid4().hex
    first, again = (
        call(lambda client: client.images.generate(n=2, idempotency_key=key)) for _ in range(2)
    )
    assert again == first  # though no seed was sent
    with pytest.raises(ConflictError) as caught:
        call(lambda client: client.images.generate(n=3, idempotency_key=key))
    assert caught.value.param == "Idempotency-Key"
    assert call(lambda client: client.images.generate(n=2)) != first


def test_models(call: Callable[[Use], Any]) -> None:
    listed = call(lambda client: client.models.list()).models
    assert {(one.id, one.default) for one in listed} == {("styled", True), ("clear", False)}
    (default,) = [one for one in listed if one.default]
    assert call(lambda client: client.models.retrieve(f"styled:{default.version}")) == default
    assert default.categories == ("mugs", "shoe boxes", "boxes", "café lamps")


REFUSED: dict[str, tuple[type[APIStatusError], str | None, Use]] = {
    "value": (BadRequestError, "n", lambda client: client.images.generate(n=11)),
    "model": (NotFoundError, "model", lambda client: client.models.retrieve("styled?not#this")),
    "large": (TooLargeError, "image", lambda client: client.images.vary(bytes(150_000))),
    "type": (UnsupportedImageError, "image", lambda client: client.images.vary(b"text")),
    "damaged": (
        UndecodableImageError,
        "image",
        lambda client: client.images.vary(photo()[:200]),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_typed(call: Callable[[Use], Any], name: str) -> None:
    kind, param, use = REFUSED[name]
    with pytest.raises(kind) as caught:
        call(use)
    error = caught.value
    assert type(error) is kind
    assert error.param == param
    assert error.message
    assert error.code
    assert error.type == "invalid_request_error"
    assert len(error.request_id or "") == 32
    assert str(error.status) in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_wrong_key(address: str) -> None:
    with Catalogan(address, "wrong") as client, pytest.raises(AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert "wrong" not in repr(client)


def test_settings_come_from_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGAN_BASE_URL", f"{address}/v1/")
    monkeypatch.setenv("CATALOGAN_API_KEY", f"{KEY}\n")
    with Catalogan() as client:
        assert client.models.list().models


@pytest.mark.parametrize(
    ("base_url", "key"), [("127.0.0.1:3000", "key"), ("http://host", "schlüssel"), ("ftp://h", "k")]
)
def test_settings_that_can_be_none(base_url: str, key: str) -> None:
    with pytest.raises(ValueError, match=r"base_url|API key") as caught:
        Catalogan(base_url, key)
    assert key not in str(caught.value).split()


def test_many_at_once(address: str) -> None:
    async def main() -> list[int]:
        async with AsyncCatalogan(address, KEY) as client:
            made = await asyncio.gather(*(client.images.generate(seed=i) for i in range(8)))
        return [one.images[0].seed for one in made]

    assert asyncio.run(main()) == list(range(8))


def test_files_that_can_be_none(address: str, tmp_path: Path) -> None:
    with Catalogan(address, KEY) as client:
        with pytest.raises(FileNotFoundError):
            client.images.vary(tmp_path / "missing.png")
        for wrong in (io.StringIO("text"), 7, None):
            with pytest.raises(TypeError, match="file must be"):
                client.images.vary(wrong)  # type: ignore[arg-type]
