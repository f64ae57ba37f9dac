"""Who may call what: keys, scopes and rates; and the count of what each key asked for."""

import math
import re
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.api_keys import LOCAL, ApiKey, keyless
from service.access.api_keys import Scope as KeyScope
from service.access.keyring import Keyring
from service.access.rates import Rates
from service.api.caller import pictures_of, set_key
from service.errors import Busy, Forbidden, Unauthorized
from service.settings import Settings, is_loopback
from service.storage.usage import Usage
from service.telemetry.observation import note_key

METRICS_PATH: Final = "/metrics"
VERIFICATIONS_PATH: Final = "/v1/verifications"


@dataclass(frozen=True)
class Need:
    """What a route asks of the key, and the kind that its requests are counted as.

    Any key is enough where no scope is asked for.
    """

    scope: KeyScope | None
    kind: str


# By path; what is below a path needs the same. Any key opens what is not here.
NEEDS: Final = {
    "/v1/images/generations": Need("generate", "generation"),
    "/v1/images/variations": Need("generate", "variation"),
    "/v1/images/interpolations": Need("generate", "interpolation"),
    "/v1/images/augmentations": Need("generate", "augmentation"),
    "/v1/datasets": Need("generate", "dataset"),
    VERIFICATIONS_PATH: Need(None, "verification"),
}
_ADDRESS: Final = re.compile(r"[0-9.]+|.*:.*")


class Access:
    """ASGI middleware: lets through whom the keys allow, and counts."""

    def __init__(self, app: ASGIApp, keyring: Keyring, usage: Usage, settings: Settings) -> None:
        """Wrap `app`."""
        self._app: Final = app
        self._open_metrics: Final = settings.open_metrics
        rate = settings.open_verification
        self._anybody: Final = None if rate is None else keyless(rate)
        self._keyring: Final = keyring
        self._usage: Final = usage
        self._rates: Final = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Unauthorized, Forbidden, Busy: It may not pass.
        """
        if scope["path"] == METRICS_PATH:
            self._check_scrape(scope)
            await self._app(scope, receive, send)
            return
        key = self._identify(scope)
        set_key(scope, key)
        note_key(key.name)
        need = find_need(scope["path"])
        if need is None:
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(allowed)
            await send(message)

        try:
            if need.scope not in (None, *key.scopes):
                raise Forbidden(f"the API key {key.name} lacks the scope {need.scope}")
            allowed = self._allow(key)
            await self._app(scope, receive, send_counted)
        finally:
            self._usage.count(key.name, need.kind, pictures_of(scope), failed=status >= 400)

    def _check_scrape(self, scope: Scope) -> None:
        """Refuse the metrics to whom they don't concern; scrapes count as nobody's requests."""
        if not self._open_metrics:
            key = self._identify(scope)
            if "metrics" not in key.scopes:
                raise Forbidden(f"the API key {key.name} lacks the scope metrics")

    def _identify(self, scope: Scope) -> ApiKey:
        """Find the key; where none is configured, check that the request came over loopback."""
        headers = Headers(scope=scope)
        if self._keyring.open:
            if not _is_local(scope, headers):
                raise Unauthorized("no API key is configured, so only this machine is served")
            return LOCAL
        given = headers.get("x-api-key")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if given is None and scheme.lower() == "bearer":
            given = credentials.strip()
        if given is None:
            if self._anybody is not None and scope["path"] == VERIFICATIONS_PATH:
                return self._anybody
            raise Unauthorized("send the API key as `Authorization: Bearer KEY` or `x-api-key`")
        key = self._keyring.find(given)
        if key is None:
            raise Unauthorized("the API key is wrong")
        return key

    def _allow(self, key: ApiKey) -> dict[str, str]:
        """Take a request out of the key's rate; gives the headers that tell of it."""
        allowance = self._rates.take(key)
        if allowance is None:
            return {}
        if allowance.wait_sec > 0:
            refused = Busy(
                f"more than {allowance.limit} requests a minute",
                code="rate_limit_exceeded",
                retry_after_sec=math.ceil(allowance.wait_sec),
            )
            refused.headers |= allowance.headers
            raise refused
        return allowance.headers


def find_need(path: str) -> Need | None:
    """What `path`, or the nearest path above it, needs."""
    while path:
        if path in NEEDS:
            return NEEDS[path]
        path = path.rpartition("/")[0]
    return None


def _is_local(scope: Scope, headers: Headers) -> bool:
    """Whether the request reached a loopback address under a loopback name.

    The name keeps web pages from reaching the service through a domain of theirs that
    resolves to 127.0.0.1.
    """
    server = scope.get("server")
    address = server[0] if server else "localhost"
    if address is not None and _ADDRESS.fullmatch(address) and not is_loopback(address):
        return False
    host = headers.get("host", "localhost")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name.lower())
