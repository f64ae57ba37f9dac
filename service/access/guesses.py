"""Wrong keys are slowed down: an address that sends several has to wait, longer each time."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

# Who mistypes a key, or has an old one in a script, is not held up.
FREE_REFUSALS: Final = 5
FIRST_WAIT_SEC: Final = 1.0
LONGEST_WAIT_SEC: Final = 300.0
FORGOTTEN_SEC: Final = 3600.0
MAX_ADDRESSES: Final = 10_000


@dataclass
class _Address:
    """What came from one address.

    Attributes:
        accepted: Ids of the keys that came from it.
        refusals: Wrong keys, none of them `FORGOTTEN_SEC` after the one before.
        unreported: Those since a key was accepted.
        refused_at: When the last one came.
        wait_until: When the next key is looked at.
    """

    accepted: set[str] = field(default_factory=set)
    refusals: int = 0
    unreported: int = 0
    refused_at: float = 0.0
    wait_until: float = 0.0


class Guesses:
    """The addresses that keys come from, of this process; only the event loop uses them.

    A key that was accepted from an address before is never held up there: others behind the
    same address, or an old key in a script, can't lock its owner out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no address."""
        self._clock: Final = clock
        self._addresses: Final[OrderedDict[str, _Address]] = OrderedDict()

    def wait_sec(self, address: str, key_id: str | None) -> float:
        """Time until a key from `address` is looked at; 0 = now.

        Args:
            address: Where it came from.
            key_id: Of the key; None where it is wrong.
        """
        known = self._addresses.get(address)
        if known is None or key_id in known.accepted:
            return 0.0
        return max(0.0, known.wait_until - self._clock())

    def refuse(self, address: str) -> int:
        """Count a wrong key; returns how many came of late."""
        known, now = self._address(address), self._clock()
        if now - known.refused_at > FORGOTTEN_SEC:
            known.refusals = known.unreported = 0
        known.refusals += 1
        known.unreported += 1
        known.refused_at = now
        if known.refusals >= FREE_REFUSALS:
            doublings = min(known.refusals - FREE_REFUSALS, 20)
            known.wait_until = now + min(LONGEST_WAIT_SEC, FIRST_WAIT_SEC * 2**doublings)
        return known.refusals

    def accept(self, address: str, key_id: str) -> int:
        """Note a right key; returns how many wrong ones came since the last right one."""
        known = self._address(address)
        known.accepted.add(key_id)
        refusals, known.unreported = known.unreported, 0
        return refusals

    def _address(self, address: str) -> _Address:
        """What is known of an address; the one that was silent longest makes room for it."""
        known = self._addresses.setdefault(address, _Address())
        self._addresses.move_to_end(address)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return known
