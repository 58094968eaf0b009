"""Vectors on a Chroma server that several processes share: one collection a memory of a store.

Everything in it can be deleted: a memory fills it again from the store. Its metadata say up to which operation it holds
the log; whoever logs operations brings it further, one process at a time (`memory/projection.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from verbal.errors import ConfigError, StoreError

from .chroma_collection import CONFIGURATION, ChromaCollection

_T = TypeVar("_T")
_TODO = "nothing is lost (log and vectors are in the store); start the server again: chroma run"


class ChromaServerIndex(ChromaCollection):
    """Vectors in a collection of a server.

    Args:
        url: `http://HOST:PORT`, or https.
        store: What tells this store from others (`Store.identity`).
        memory: Name of the memory.

    Raises:
        ConfigError: the URL cannot be read. StoreError: no Chroma server answers there.
    """

    shared: ClassVar[bool] = True

    def __init__(self, url: str, store: str, memory: str) -> None:
        self._host, self._port, self._ssl = _parsed(url)
        super().__init__(f"{url}, memory {memory!r}", _TODO)
        self._memory = memory
        self.collection = f"verbal-{store}-{hashlib.blake2b(memory.encode(), digest_size=8).hexdigest()}"
        """Its name on the server."""
        self._connect()

    def state(self) -> dict[str, Any]:
        """What `mark` was last given, by whichever process; empty when new."""
        with self._explained():
            if self._client is None:
                raise StoreError("the index is closed", where=self.where, todo="open the memory again")
            found = self._client.get_or_create_collection(
                self.collection, embedding_function=None, configuration=CONFIGURATION
            )
            if self._collection is None or found.id != self._collection.id:
                self._collection = found
            held = found.metadata or {}
            return {k: held[k] for k in ("embedder", "version", "digest")} if "version" in held else {}

    def mark(self, state: dict[str, Any]) -> None:
        """Keeps what the index now holds."""
        self._again(lambda: self._open.modify(metadata={"memory": self._memory, **state}))

    def clear(self) -> None:
        """Empties it, unless it is new or another process is filling it just now, which this one then does too."""
        if self.state():
            with self._explained():
                self._client.delete_collection(self.collection)
            self.state()

    def close(self) -> None:
        """Closes the connection."""
        with self._explained():
            self._disconnect()

    def _upsert(self, ids: list[str], rows: list[Any]) -> None:
        self._again(lambda: self._open.upsert(ids=ids, embeddings=rows))

    def _delete(self, ids: list[str]) -> None:
        self._again(lambda: self._open.delete(ids=ids))

    def _query(self, vectors: list[Any], n: int) -> list[tuple[list[str], list[float]]]:
        return self._again(lambda: self._asked(vectors, n), filled=True)

    def _again(self, work: Callable[[], _T], *, filled: bool = False) -> _T:
        """What `work` gives; in the collection of this name as it is now when the one that was known is gone.

        Args:
            work: What is asked of the collection.
            filled: Only a collection that somebody has filled will do.
        """
        try:
            with self._explained():
                return work()
        except StoreError:
            if self._client is None:
                raise
        held = self.state()
        if filled and not held:
            raise StoreError("the collection is gone from the server", where=self.where, todo=_TODO)
        with self._explained():
            return work()

    def _connect(self) -> None:
        import chromadb
        from chromadb.config import Settings

        with self._explained():
            settings = Settings(anonymized_telemetry=False)
            self._client = chromadb.HttpClient(self._host, self._port, ssl=self._ssl, settings=settings)
            self._collection = self._client.get_or_create_collection(
                self.collection, embedding_function=None, configuration=CONFIGURATION
            )

    def _disconnect(self) -> None:
        # Chroma's own `close` leaves the connections of its two halves open.
        for half in (self._client, getattr(self._client, "_admin_client", None)):
            if (session := getattr(getattr(half, "_server", None), "_session", None)) is not None:
                session.close()
        super()._disconnect()


def _parsed(url: str) -> tuple[str, int, bool]:
    todo = 'write server = "http://HOST:PORT"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("the URL of the Chroma server cannot be read", where="[memory] server", todo=todo) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the URL of the Chroma server holds a password", where="[memory] server", todo=todo)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"no address of a Chroma server: {url!r}", where="[memory] server", todo=todo)
    return parts.hostname, port or (443 if parts.scheme == "https" else 8000), parts.scheme == "https"


__all__ = ["ChromaServerIndex"]
