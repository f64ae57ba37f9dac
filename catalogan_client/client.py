"""The two clients."""

import os
from typing import Any, Final, Generic, Self

import httpx

from catalogan_client.images import Images
from catalogan_client.labelled_sets import Datasets
from catalogan_client.methods import AnyTransport
from catalogan_client.models import Models
from catalogan_client.transport import AsyncTransport, Transport
from catalogan_client.usage import UsageReports
from catalogan_client.verifications import Verifications

DEFAULT_BASE_URL: Final = "http://127.0.0.1:3000"
# More than the service itself allows, so that its own word on it (504) arrives.
DEFAULT_TIMEOUT_SEC: Final = 75.0
DEFAULT_MAX_RETRIES: Final = 2
CONNECT_TIMEOUT_SEC: Final = 10.0


class _Resources(Generic[AnyTransport]):
    """What both clients offer."""

    def __init__(self, transport: AnyTransport) -> None:
        self._transport: AnyTransport = transport
        self.images: Images[AnyTransport] = Images(transport)
        self.datasets: Datasets[AnyTransport] = Datasets(transport)
        self.verifications: Verifications[AnyTransport] = Verifications(transport)
        self.models: Models[AnyTransport] = Models(transport)
        self.usage: UsageReports[AnyTransport] = UsageReports(transport)


class Catalogan(_Resources[Transport]):
    """A service's client, for any number of threads.

    Its methods raise `CataloganError`s.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_SEC,
        max_retries: int = DEFAULT_MAX_RETRIES,
    ) -> None:
        """Connect to nothing yet.

        Args:
            base_url: The service's address, else CATALOGAN_BASE_URL, else this machine's
                port 3000.
            api_key: Else CATALOGAN_API_KEY, else none is sent.
            timeout: Seconds without a byte from the service, in each try.
            max_retries: Tries after the first, where the service is busy or can't be reached.

        Raises:
            ValueError: The address or the key can't be one.
        """
        http = httpx.Client(**_settings(base_url, api_key, timeout))
        super().__init__(Transport(http, max_retries))

    def close(self) -> None:
        """Close its connections."""
        self._transport.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncCatalogan(_Resources[AsyncTransport]):
    """As `Catalogan`, for asyncio: its methods are awaited."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_SEC,
        max_retries: int = DEFAULT_MAX_RETRIES,
    ) -> None:
        """Connect to nothing yet; see `Catalogan`."""
        http = httpx.AsyncClient(**_settings(base_url, api_key, timeout))
        super().__init__(AsyncTransport(http, max_retries))

    async def close(self) -> None:
        """Close its connections."""
        await self._transport.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _settings(base_url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    """What httpx takes, from arguments and environment."""
    address = base_url or os.environ.get("CATALOGAN_BASE_URL") or DEFAULT_BASE_URL
    # The OpenAI client's addresses end so.
    address = address.rstrip("/").removesuffix("/v1")
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://: {address!r}")
    headers = {"User-Agent": "catalogan-client"}
    key = (api_key or os.environ.get("CATALOGAN_API_KEY") or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("the API key has characters that no key has")  # and never show it
    if key:
        headers["Authorization"] = f"Bearer {key}"
    limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_SEC))
    return {"base_url": address, "headers": headers, "timeout": limits}
