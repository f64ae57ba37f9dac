"""How a function that returns a call becomes a method of both clients."""

import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from catalogan_client.calls import Call
from catalogan_client.datasets import AsyncDataset, Dataset
from catalogan_client.results import DatasetFacts
from catalogan_client.transport import AsyncTransport, Transport

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
AnyTransport = TypeVar("AnyTransport", Transport, AsyncTransport)


class Resource(Generic[AnyTransport]):
    """Methods that send by one transport."""

    def __init__(self, transport: AnyTransport) -> None:
        """Send by `transport`."""
        self.transport: AnyTransport = transport


class _Method(Generic[Arguments, Result]):
    """Has the arguments of a function that returns a call."""

    def __init__(self, request: Callable[Arguments, Call[Result]]) -> None:
        """Keep the function's documentation."""
        self._request: Final = request
        self.__doc__ = request.__doc__

    def _bound(self, send: Callable[[Call[Result]], Any]) -> Any:
        @functools.wraps(self._request)
        def method(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
            return send(self._request(*args, **kwargs))

        return method


class Endpoint(_Method[Arguments, Result]):
    """A method that returns the result; of the asynchronous client, an awaitable of it."""

    @overload
    def __get__(
        self, resource: Resource[Transport], kind: type | None = None
    ) -> Callable[Arguments, Result]: ...
    @overload
    def __get__(
        self, resource: Resource[AsyncTransport], kind: type | None = None
    ) -> Callable[Arguments, Coroutine[Any, Any, Result]]: ...
    def __get__(self, resource: Any, kind: type | None = None) -> Any:
        """Bind it to a client's resource."""
        return self if resource is None else self._bound(resource.transport.send)


class Stream(_Method[Arguments, DatasetFacts]):
    """A method that returns a set that is read as it comes."""

    @overload
    def __get__(
        self, resource: Resource[Transport], kind: type | None = None
    ) -> Callable[Arguments, AbstractContextManager[Dataset]]: ...
    @overload
    def __get__(
        self, resource: Resource[AsyncTransport], kind: type | None = None
    ) -> Callable[Arguments, AbstractAsyncContextManager[AsyncDataset]]: ...
    def __get__(self, resource: Any, kind: type | None = None) -> Any:
        """Bind it to a client's resource."""
        return self if resource is None else self._bound(resource.transport.stream)
