"""Who may call what: keys, scopes and rates; and the count of what each key requested."""

import math
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import audit
from service.access.api_keys import BY_LINK, LOCAL, ApiKey, keyless
from service.access.guesses import Guesses
from service.access.keyring import Keyring
from service.access.rates import Rates
from service.api.caller import images_of, set_key
from service.api.endpoint import LINKS, METRICS, VERIFICATIONS, Endpoint, endpoint_at
from service.api.middleware.keyless import check_local
from service.api.middleware.peers import Peers
from service.errors import Busy, Forbidden, MethodNotAllowed, NotFound, Unauthorized
from service.key_strength import key_bits
from service.settings import Settings
from service.storage.usage import Usage
from service.telemetry.observation import note_key

# A right key of so many was not found by guessing: its owner doesn't wait for who guesses.
UNGUESSABLE_BITS: Final = 100


class Authentication:
    """ASGI middleware: lets through whom the keys allow, and counts."""

    def __init__(self, app: ASGIApp, keyring: Keyring, usage: Usage, settings: Settings) -> None:
        """Wrap `app`."""
        self._app: Final = app
        self._open_metrics: Final = settings.open_metrics
        rate = settings.open_verification
        self._anybody: Final = None if rate is None else keyless(rate)
        self._keyring: Final = keyring
        self._peers: Final = Peers(settings.trusted_networks)
        self._guesses: Final = Guesses()
        self._usage: Final = usage
        self._rates: Final = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Unauthorized, Forbidden, NotFound, MethodNotAllowed, Busy: It may not pass.
        """
        path = scope["path"]
        if path == METRICS.path and self._open_metrics:
            _endpoint(scope)
            await self._app(scope, receive, send)
            return
        if endpoint_at(path) is LINKS:  # its route looks at the signature
            _endpoint(scope)
            set_key(scope, BY_LINK)
            note_key(BY_LINK.name)
            await self._app(scope, receive, send)
            return
        key = self._identify(scope)
        set_key(scope, key)
        note_key(key.name)
        endpoint = _endpoint(scope)
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
            self._usage.count(key.id, kind, images_of(scope), failed=status >= 400)

    def _identify(self, scope: Scope) -> ApiKey:
        """Find the key; where none is configured, check that the request came over loopback."""
        if self._keyring.open:
            check_local(scope)
            return LOCAL
        headers = Headers(scope=scope)
        given = headers.get("x-api-key")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if given is None and scheme.lower() == "bearer":
            given = credentials.strip()
        if given is None:
            if self._anybody is not None and scope["path"] == VERIFICATIONS.path:
                return self._anybody
            raise Unauthorized("send the API key as `Authorization: Bearer KEY` or `x-api-key`")
        return self._accept(given, scope)

    def _accept(self, given: str, scope: Scope) -> ApiKey:
        """The key that was given, unless its address sent too many wrong ones.

        Raises:
            Unauthorized: It is wrong, or may be right, but is not looked at yet.
        """
        key, address = self._keyring.find(given), self._peers.address(scope)
        wait_sec = self._guesses.wait_sec(address, key.id if key else None)
        if wait_sec > 0 and not (key and key_bits(given) >= UNGUESSABLE_BITS):
            raise Unauthorized(
                f"too many wrong API keys came from your address: wait {math.ceil(wait_sec)} s",
                code="too_many_wrong_keys",
                retry_after_sec=math.ceil(wait_sec),
            )
        if key is None:
            audit.key_refused(address, self._guesses.refuse(address))
            raise Unauthorized("the API key is wrong")
        self._peers.warn_if_plain(scope)
        if refusals := self._guesses.accept(address, key.id):
            audit.key_accepted_after_refusals(key.name, address, refusals)
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


def _endpoint(scope: Scope) -> Endpoint:
    """The record of what is requested; without one there is no access, whatever the key."""
    endpoint = endpoint_at(scope["path"])
    if endpoint is None:
        raise NotFound("no such path; GET /v1/openapi.json lists those that there are")
    if scope["method"] != endpoint.method:
        refused = MethodNotAllowed(f"this path takes {endpoint.method} alone")
        refused.headers["Allow"] = endpoint.method
        raise refused
    return endpoint


def _check_scope(key: ApiKey, endpoint: Endpoint) -> None:
    if endpoint.scope not in (None, *key.scopes):
        raise Forbidden(f"the API key {key.name} lacks the scope {endpoint.scope}")
