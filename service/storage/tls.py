"""How a connection to PostgreSQL is encrypted."""

import ssl
from typing import Any

from sqlalchemy import URL

from service.errors import SettingsError


def tls_arguments(url: URL) -> dict[str, Any]:
    """Libpq's sslmode and sslrootcert, for a driver that takes a context.

    Raises:
        SettingsError: One of them is not as libpq knows it, or the certificate can't be read.
    """
    mode = url.query.get("sslmode", "disable")
    if mode in ("disable", "allow", "prefer"):
        return {}
    if mode not in ("require", "verify-ca", "verify-full"):
        raise SettingsError("CATALOGAN_STATE_URL: sslmode must be one of libpq's")
    root = url.query.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=str(root) if root else None)
    except OSError as error:
        raise SettingsError(f"CATALOGAN_STATE_URL: sslrootcert: {error}") from None
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl_context": context}
