"""Whether others than this machine reach the service, and what that takes."""

import ipaddress
import logging

from service.errors import SettingsError
from service.settings import Settings

logger = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings, host: str | None) -> None:
    """Refuse to serve others without a key; warn where they send it over plain HTTP.

    Args:
        settings: The service's settings.
        host: The address that is listened on; None where it is not known.

    Raises:
        SettingsError: No key, and a container or an address that others reach.
    """
    if settings.has_keys:
        _warn_of_plain_http(settings, host)
        return
    way_out = "set CATALOGAN_API_KEY (or CATALOGAN_API_KEY_FILE), or CATALOGAN_KEYS_FILE"
    if settings.container:
        raise SettingsError(f"a container serves others than this machine: {way_out}")
    if host is not None and not is_loopback(host):
        raise SettingsError(f"{host} is reachable from outside this machine: {way_out}")


def _warn_of_plain_http(settings: Settings, host: str | None) -> None:
    if host is not None and not is_loopback(host) and settings.trusted_proxies is None:
        logger.warning(
            "the service speaks plain HTTP on %s: on their way from other machines keys can be "
            "read. Put a proxy with TLS before it, and name it in CATALOGAN_TRUSTED_PROXIES; see "
            "docs/operating.md, TLS",
            host,
        )
