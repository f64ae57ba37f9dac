"""Who may call while no key is configured: programs on this machine, and nobody through them.

A reverse proxy or a web page on this machine reaches a loopback address too, and would bring
strangers along. Both give themselves away by what they send.
"""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import Forbidden, Unauthorized
from service.exposure import is_loopback

_ADDRESS: Final = re.compile(r"[0-9.]+|.*:.*")
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?", re.IGNORECASE)
# What proxies, load balancers and content delivery networks add to a request.
_FORWARDING: Final = re.compile(
    r"forwarded|via|x-forwarded.*|x-real-ip|x-(cluster-)?client-ip|true-client-ip|x-proxyuser-ip"
    r"|x-original-.*|x-envoy-.*|x-arr-.*|x-amzn-.*|x-azure-.*|x-appengine-.*|x-scheme"
    r"|cf-.*|cdn-loop|fastly-.*|fly-.*|x-vercel-.*|ali-cdn-.*|incap-.*|x-sucuri-.*"
)
_NO_KEY: Final = (
    "no API key is configured, so only programs on this machine are served; {reason}: "
    "set CATALOGAN_API_KEY (or CATALOGAN_API_KEY_FILE), or CATALOGAN_KEYS_FILE"
)


def check_local(scope: Scope) -> None:
    """Refuse a request that may not be from a program on this machine.

    Raises:
        Unauthorized: It came to another address or under another name, or through a proxy.
        Forbidden: A page of another origin sent it.
    """
    headers = Headers(scope=scope)
    reason = _outside(scope, headers) or _forwarded(scope, headers)
    if reason is not None:
        raise Unauthorized(_NO_KEY.format(reason=reason))
    _check_origin(headers)


def _outside(scope: Scope, headers: Headers) -> str | None:
    """Why the request did not reach a loopback address under a loopback name; None: it did.

    The name keeps web pages from reaching the service through a domain of theirs that
    resolves to 127.0.0.1.
    """
    server = scope.get("server")
    address = server[0] if server else None
    if address is not None and _ADDRESS.fullmatch(address) and not is_loopback(address):
        return "this request came to another address than loopback"
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return f"this request has {len(hosts)} Host headers"
    parsed = _HOST.fullmatch(hosts[0])
    if parsed is None or not is_loopback((parsed[1] or parsed[2]).lower()):
        return "this request's Host is not localhost or another name of loopback"
    return None


def _forwarded(scope: Scope, headers: Headers) -> str | None:
    for name in headers:
        if _FORWARDING.fullmatch(name):
            return f"this request was forwarded, as its header {name} says"
    if scope.get("http_version") == "1.0":  # what nginx forwards by default, without a header
        return "this request is HTTP/1.0, as some proxies forward them"
    return None


def _check_origin(headers: Headers) -> None:
    """Refuse what a browser sends for a page of another origin: it may post forms anywhere."""
    own = f"http://{headers['host']}".lower()
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    foreign = any(origin.lower() != own for origin in origins) or any(
        site not in ("same-origin", "none") for site in sites
    )
    if foreign:
        raise Forbidden(
            "a web page of another origin sent this, and no API key is configured: call from a "
            "program, or set CATALOGAN_API_KEY and send it",
            code="foreign_origin",
        )
