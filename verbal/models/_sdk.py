"""What the adapters around clients share: one client per event loop, keys from the environment, faults translated."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from verbal.errors import ConfigError, VerbalError
from verbal.models._faults import foreign_fault
from verbal.models._wire import Dialect

T = TypeVar("T")


class LoopBound(Generic[T]):
    """A client that is made again when another event loop runs: its connections belong to the loop they opened in."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._client: T | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> T:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make(), loop
        return self._client

    def take(self) -> T | None:
        """The client, to be closed, when it belongs to the running loop; the next `get` makes a new one."""
        client, self._client = self._client, None
        return client if self._loop is asyncio.get_running_loop() else None


def read_key(variable: str, *, name: str) -> str:
    """The key in an environment variable.

    Raises:
        ConfigError: it is not set.
    """
    if not (key := os.environ.get(variable, "").strip()):
        todo = f"export {variable}=...; for a local server without a key use http/MODEL@http://HOST:PORT/v1"
        raise ConfigError(f"{variable} is not set", where=f"model {name}", todo=todo)
    return key


@contextmanager
def translated(
    where: str, key: str, *, dialect: Dialect | None = None, sent: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Turns what an SDK raises into errors of the house, without the foreign traceback (it may hold a key).

    With a `dialect`, a parameter of `sent` that the server refuses is learned.
    """
    try:
        yield
    except VerbalError:
        raise
    except Exception as error:
        found = foreign_fault(error, where=where, key=key)
        if dialect is not None and sent is not None:
            found = dialect.learn(found, getattr(error, "body", None), sent)
        raise found from None
