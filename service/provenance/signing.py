"""C2PA manifests: what an image says of its origin, signed together with its pixels."""

import importlib.metadata
import io
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import c2pa

from service.errors import NotReady
from service.provenance.deadline import Deadline
from service.provenance.signing_keys import SigningKey
from service.provenance.xmp import ENHANCED, Mark

logger = logging.getLogger(__name__)

GENERATOR: Final = "Catalogan"
ASSERTION: Final = "org.catalogan.picture"
# The version of C2PA's specification that the manifests follow.
SPECIFICATION: Final = "2.4.0"
# Said by the signer itself; what is not listed is "gathered", as if from elsewhere.
_CREATED: Final = ["c2pa.actions", "c2pa.ingredient", ASSERTION]
_TOO_SLOW: Final = "the time stamp authority (CATALOGAN_TIMESTAMP_URL) took too long to answer"
# A time stamp takes part of a second; one that hangs would hold a worker for half a minute.
DEADLINE_SEC: Final = 5.0
RETRY_SEC: Final = 30


class ManifestSigner:
    """Signs files; any number of threads may share one.

    Settings and key are in a context of its own: c2pa's settings for the whole process are left
    alone.

    Attributes:
        key: Signs.
        failing: Whether the last file could not be signed.
    """

    def __init__(self, key: SigningKey, timestamp_url: str | None = None) -> None:
        """Sign with `key`.

        Args:
            key: Checked.
            timestamp_url: Of an RFC 3161 authority that is called for each image.

        Raises:
            ValueError: c2pa refuses it.
        """
        self.key: Final = key
        self._agent: Final = {"name": GENERATOR, "version": _version()}
        self._context: Final = _context(key, timestamp_url, verify=False)
        self._deadline: Final = Deadline(DEADLINE_SEC, RETRY_SEC) if timestamp_url else None
        self.failing = False
        # What a reader would object to shows now, by the signature of a pixel.
        checked = _context(key, None, verify=True)
        try:
            _embed(checked, self._definition(Mark(ENHANCED, 0)), _PIXEL, "image/gif")
        except c2pa.C2paError as error:
            raise ValueError(str(error)) from None

    def sign(self, data: bytes, media_type: str, mark: Mark) -> bytes:
        """Put a signed manifest into an encoded image; takes part of a millisecond.

        Args:
            data: A PNG, JPEG, WebP or GIF, animated or not.
            media_type: Of it.
            mark: What is signed beside the file's bytes.

        Returns:
            The same file with the manifest, some 3 kB longer.

        Raises:
            NotReady: The certificate has expired, or the time stamp authority does not answer in
                time.
        """
        try:
            if datetime.now(UTC) >= self.key.expires:  # c2pa looks once, when it gets the key
                raise c2pa.C2paError("the certificate has expired")
            signed = self._embed(mark, data, media_type)
        except (c2pa.C2paError, TimeoutError) as error:
            self.failing = True
            logger.error("an image can't be signed: %s", str(error) or _TOO_SLOW)
            raise NotReady(
                "images can't be signed now, and none leaves unsigned; see the log",
                code="signing_failed",
                retry_after_sec=RETRY_SEC,
            ) from None
        self.failing = False
        return signed

    def _embed(self, mark: Mark, data: bytes, media_type: str) -> bytes:
        """Sign; without the photo's own manifest where c2pa does not take that."""
        try:
            return self._embed_kept(mark, data, media_type)
        except c2pa.C2paError:
            if mark.manifest is None:
                raise
            return self._embed_kept(replace(mark, manifest=None), data, media_type)

    def _embed_kept(self, mark: Mark, data: bytes, media_type: str) -> bytes:
        definition, kept = self._definition(mark), mark.manifest
        embed = partial(_embed, self._context, definition, data, media_type, kept)
        return embed() if self._deadline is None else self._deadline.run(embed)

    def _definition(self, mark: Mark) -> str:
        """The manifest as c2pa's JSON."""
        metadata = {
            "model": mark.model,
            "model_sha256": mark.model_hash,
            "seed": mark.seed,
            "category": mark.category,
            "truncation_psi": mark.truncation_psi,
            "photo_sha256": mark.photo_sha256,
            "recipe": mark.parameters,
        }
        assertions = [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": self._actions(mark), "allActionsIncluded": True},
            },
            {"label": ASSERTION, "data": {k: v for k, v in metadata.items() if v is not None}},
        ]
        generator = {**self._agent, "specVersion": SPECIFICATION}
        definition = {"claim_generator_info": [generator], "assertions": assertions}
        photos = [ingredient(index, mark.generated) for index in range(_photos(mark))]
        # The first comes with its own manifest, if it has one.
        definition["ingredients"] = photos[1:] if mark.manifest else photos
        # Lone surrogates, which JSON in Python can carry, are no text for anybody else.
        return json.dumps(definition, ensure_ascii=False).encode("utf-8", "replace").decode()

    def _actions(self, mark: Mark) -> list[dict[str, Any]]:
        """What happened: a generating is created, a photo is opened and edited."""
        labels = [ingredient(k, mark.generated)["label"] for k in range(_photos(mark))]
        photo = {"parameters": {"ingredientIds": labels}} if labels else {}
        done = {
            "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "softwareAgent": self._agent,
            "digitalSourceType": mark.source_type,
        }
        if mark.generated:
            return [{"action": "c2pa.created", **done, **photo}]
        return [{"action": "c2pa.opened", **photo}, {"action": "c2pa.edited", **done}]


def ingredient(index: int, generated: bool) -> dict[str, str]:
    """An uploaded photo, as c2pa's JSON.

    Args:
        index: Its place among the image's photos.
        generated: Whether the image is generated; else it is the photo, edited.
    """
    return {
        "title": "uploaded photo",
        "relationship": "inputTo" if generated else "parentOf",
        "label": f"photo-{index}",
    }


def _photos(mark: Mark) -> int:
    """How many photos went in; an edited image has one."""
    return len(mark.photos) if mark.generated else 1


def _context(key: SigningKey, timestamp_url: str | None, *, verify: bool) -> c2pa.Context:
    settings = {
        "version": 1,
        "verify": {
            "verify_after_sign": verify,  # takes longer than to sign
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
        "builder": {"thumbnail": {"enabled": False}, "created_assertion_labels": _CREATED},
    }
    url = timestamp_url.encode() if timestamp_url else None
    try:
        info = c2pa.C2paSignerInfo(key.algorithm.encode(), key.chain, key.private_key, url)
        return c2pa.Context.from_dict(settings, signer=c2pa.Signer.from_info(info))
    except c2pa.C2paError as error:
        raise ValueError(str(error)) from None


def _embed(
    context: c2pa.Context, definition: str, data: bytes, media_type: str, kept: bytes | None = None
) -> bytes:
    signed, builder = io.BytesIO(), c2pa.Builder(definition, context)
    if kept is not None:
        builder.add_ingredient_from_archive(io.BytesIO(kept))
    builder.sign(media_type, io.BytesIO(data), signed)
    return signed.getvalue()


def _version() -> str:
    try:
        return importlib.metadata.version("catalogan")
    except importlib.metadata.PackageNotFoundError:  # code without its package, as in a Bento
        return "unknown"


_PIXEL: Final = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
