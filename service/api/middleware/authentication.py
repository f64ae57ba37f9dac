"""Who may call what: keys, scopes and rates; and the count of what each key requested."""

import math
import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.api_keys import BY_LINK, LOCAL, ApiKey, keyless
from service.access.keyring import Keyring
from service.access.rates import Rates
from service.api.caller import images_of, set_key
from service.api.endpoint import LINKS, METRICS, VERIFICATIONS, Endpoint, endpoint_above
from service.errors import Busy, Forbidden, NotFound, Unauthorized
from service.settings import Settings, is_loopback
from service.storage.usage import Usage
from service.telemetry.observation import note_key

_ADDRESS: Final = re.compile(r"[0-9.]+|.*:.*")
_LINKS: Final = LINKS.path.partition("{")[0]


class Authentication:
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
            Unauthorized, Forbidden, NotFound, Busy: It may not pass.
        """
        path = scope["path"]
        if path == METRICS.path and self._open_metrics:
            await self._app(scope, receive, send)
            return
        if path.startswith(_LINKS):  # its route looks at the signature
            set_key(scope, BY_LINK)
            note_key(BY_LINK.name)
            await self._app(scope, receive, send)
            return
        key = self._identify(scope)
        set_key(scope, key)
        note_key(key.name)
        endpoint = endpoint_above(path)
        if endpoint is None:
            raise NotFound("Not Found")
        if endpoint.kind is None:
            _check_scope(key, endpoint)
            await self._app(scope, receive, send)
        else:
            await self._serve_counted(endpoint, endpoint.kind, key, (scope, receive, send))

    async def _serve_counted(
        self, endpoint: Endpoint, kind: str, key: ApiKey, exchange: tuple[Scope, Receive, Send]
    ) -> None:
        """Serve a request that counts as its key's, whatever becomes of it."""
        scope, receive, send = exchange
        status = 500

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(rate_headers)
            await send(message)

        try:
            _check_scope(key, endpoint)
            rate_headers = self._take_rate(key)
            await self._app(scope, receive, send_counted)
        finally:
            self._usage.count(key.name, kind, images_of(scope), failed=status >= 400)

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
            if self._anybody is not None and scope["path"] == VERIFICATIONS.path:
                return self._anybody
            raise Unauthorized("send the API key as `Authorization: Bearer KEY` or `x-api-key`")
        key = self._keyring.find(given)
        if key is None:
            raise Unauthorized("the API key is wrong")
        return key

    def _take_rate(self, key: ApiKey) -> dict[str, str]:
        """Take a request out of the key's rate; returns the headers that say so."""
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


def _check_scope(key: ApiKey, endpoint: Endpoint) -> None:
    if endpoint.scope not in (None, *key.scopes):
        raise Forbidden(f"the API key {key.name} lacks the scope {endpoint.scope}")


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
