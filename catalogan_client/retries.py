"""Whether, and when, a request is sent again. Nothing here waits or sends."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

# 502 is a proxy's, whose service has just gone.
RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
# The first try, whose response was lost, still runs.
IN_PROGRESS: Final = "idempotency_in_progress"
FIRST_BACKOFF_SEC: Final = 0.5
MAX_BACKOFF_SEC: Final = 8.0
# Whoever has to wait longer wants to know, rather than hang.
MAX_RETRY_AFTER_SEC: Final = 60.0

Outcome = httpx.Response | httpx.RequestError


class Attempts:
    """Counts the tries of one request."""

    def __init__(self, max_retries: int) -> None:
        """Allow `max_retries` tries after the first."""
        self._left = max_retries
        self._made = 0

    def wait_after(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next try, None where `outcome` is the last word.

        Backoff doubles, with full jitter: clients that failed together don't come back
        together. A Retry-After is the least wait.
        """
        if self._left <= 0 or not _is_passing(outcome):
            return None
        wait_sec = retry_after_sec(outcome.headers) if isinstance(outcome, httpx.Response) else None
        if wait_sec is not None and wait_sec > MAX_RETRY_AFTER_SEC:
            return None
        ceiling = min(MAX_BACKOFF_SEC, FIRST_BACKOFF_SEC * 2**self._made)
        self._left -= 1
        self._made += 1
        return (wait_sec or 0.0) + random.uniform(0, ceiling)  # noqa: S311 - no secret


def retry_after_sec(headers: httpx.Headers) -> float | None:
    """What a Retry-After header says, in either of its forms; None where it says nothing.

    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:15])
    until, now = _date(text), _date(headers.get("date", ""))
    if until is None:
        return None
    # The server's clock counts, which needn't agree with this machine's.
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _is_passing(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.Response):
        status = outcome.status_code
        in_progress = status == 409 and IN_PROGRESS in outcome.text
        return status in RETRIED_STATUSES or in_progress
    lasting = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    return isinstance(outcome, httpx.TransportError) and not isinstance(outcome, lasting)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
