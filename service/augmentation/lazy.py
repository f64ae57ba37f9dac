"""Properties that are computed at first use, once for each object."""

import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Value = TypeVar("Value")


class once(Generic[Value]):
    """As functools.cached_property, with a lock for each object.

    Before Python 3.12 that one holds the same lock for all objects of a class, so that all photos
    of a process would wait for one; from 3.12 on it holds none, and threads that share a photo
    would all compute.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        """`compute` gives the value of an object."""
        self._compute: Final = compute
        self._name: Final = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        """Return the value, which lies in the object from then on."""
        values: dict[str, Any] = instance.__dict__
        if self._name not in values:
            with values.setdefault(f"_{self._name}_lock", threading.RLock()):
                if self._name not in values:
                    values[self._name] = self._compute(instance)
        value: Value = values[self._name]
        return value
