"""The audit log: what became of keys, and who came with a wrong one. Never a key, nor its hash."""

import logging

logger = logging.getLogger("service.audit")


def key_created(name: str) -> None:
    """A key can be used from now on."""
    logger.info("API key %s was created", name, extra={"fields": {"event": "key_created"}})


def key_changed(name: str) -> None:
    """A key has other scopes, another rate or another quota from now on."""
    logger.info("API key %s was changed", name, extra={"fields": {"event": "key_changed"}})


def key_revoked(name: str) -> None:
    """A key is refused from now on."""
    logger.info("API key %s was revoked", name, extra={"fields": {"event": "key_revoked"}})


def key_refused(address: str, refusals: int) -> None:
    """A wrong key came."""
    logger.warning(
        "a wrong API key came from %s, the %d. of late",
        address,
        refusals,
        extra={"fields": {"event": "key_refused", "address": address, "refusals": refusals}},
    )


def key_accepted_after_refusals(name: str, address: str, refusals: int) -> None:
    """A right key came from where wrong ones had come."""
    logger.warning(
        "API key %s was accepted from %s, after %d wrong ones",
        name,
        address,
        refusals,
        extra={
            "fields": {
                "event": "key_accepted_after_refusals",
                "key": name,
                "address": address,
                "refusals": refusals,
            }
        },
    )
