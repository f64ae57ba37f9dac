"""Who is at the other end of a request: the client's address, also behind trusted proxies."""

import ipaddress
import logging
from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from service.settings import Network

logger = logging.getLogger(__name__)

UNKNOWN: Final = "unknown"
_WAY_OUT: Final = "see docs/operating.md, TLS"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Peers:
    """Tells clients from the proxies before them; warns once of what the operator should change."""

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        """Believe the forwarding headers of the proxies in these networks alone."""
        self._trusted: Final = trusted
        self._warned: Final[set[str]] = set()

    def address(self, scope: Scope) -> str:
        """The client's address; of IPv6 its /64 network, as one host may take any address there.

        X-Forwarded-For is read from its end, where the nearest proxy wrote, as far as the
        proxies are trusted; what stands before that anybody may have made up.
        """
        nearest = _parse((scope.get("client") or (UNKNOWN,))[0])
        if nearest is None:
            return UNKNOWN
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        if not forwarded:
            return _network(nearest)
        if not self._trusts(nearest):
            self._warn(
                f"X-Forwarded-For came from {nearest}, which CATALOGAN_TRUSTED_PROXIES does not "
                "name: all clients behind it count as one"
            )
            return _network(nearest)
        for text in reversed(",".join(forwarded).split(",")):
            found = _parse(text.strip())
            if found is None:
                break
            nearest = found
            if not self._trusts(found):
                break
        return _network(nearest)

    def warn_if_plain(self, scope: Scope) -> None:
        """Warn, once, where a key came over plain HTTP from beyond this machine."""
        nearest = _parse((scope.get("client") or (UNKNOWN,))[0])
        protocol = Headers(scope=scope).get("x-forwarded-proto", "").rpartition(",")[2].strip()
        if nearest is None or scope.get("scheme") == "https":
            return
        if self._trusts(nearest):
            if protocol == "http":
                self._warn(
                    f"keys travel over plain HTTP to the proxy at {nearest}, where anybody on the "
                    f"way can read them: redirect its clients to HTTPS ({_WAY_OUT})"
                )
        elif not nearest.is_loopback:
            self._warn(
                "keys travel over plain HTTP, where anybody on the way can read them: put a proxy "
                f"with TLS before the service and name it in CATALOGAN_TRUSTED_PROXIES ({_WAY_OUT})"
            )

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _warn(self, text: str) -> None:
        kind = text.partition(" ")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(text)


@lru_cache(4096)
def _parse(text: str) -> Address | None:
    """An address, with or without a port behind it."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(4096)
def _network(address: Address) -> str:
    if address.version == 4 or address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
