"""Vectors in a Chroma folder (the default index): approximate search that stays fast with many reflections.

Two processes writing one folder lose vectors without an error (measured: 31 % of them), so a folder has one owner at a
time, by a file lock. Everything in it can be deleted: the memory fills it again from the op log. chromadb itself is
imported when a folder is opened (about one second).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from verbal.errors import StoreError

from .reflections import ReflectionMemory

if TYPE_CHECKING:
    from verbal.store import Store

_BATCH = 2000


class ChromaMemory(ReflectionMemory):
    """Reflections found through Chroma.

    Args:
        store: Where the op log is.
        name: Name of the memory in the store.
        folder: Where the index lies, one folder a memory; beside the store when not given.
        options: As for `ReflectionMemory`.

    Raises:
        StoreError: another process (or another open memory of this one) holds the folder, or it cannot be written.
    """

    def __init__(self, store: Store, name: str = "main", folder: str | Path | None = None, **options: Any) -> None:
        root = Path(folder) if folder is not None else store.memory_folder
        super().__init__(store, ChromaIndex(root / _file_name(name)), name, **options)


class ChromaIndex:
    """Vectors in one Chroma collection under a folder.

    The folder holds `lock` (who has it open), `state.json` (what the index holds) and `chroma-<n>` (Chroma's own files;
    each time they are made anew under the next number, because a process keeps what it knew of an earlier path).

    Raises:
        StoreError: the folder is open elsewhere, or cannot be written.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = _lock(self.folder)
        self._client: Any = None
        self._collection: Any = None
        try:
            with self._explained():
                made = self._made()
                self._files = made[-1] if made else self.folder / "chroma-1"
                if made and not self._state_file.is_file():
                    self._wipe()
                self._connect()
        except StoreError:
            # Chroma cannot read its files: nothing is lost with them, so they are made anew.
            try:
                self.clear()
            except BaseException:
                self.close()
                raise
        except BaseException:
            self.close()
            raise

    def put(self, ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> None:
        """Adds or replaces vectors.

        Raises:
            StoreError: ids and vectors differ in number, a vector has another dimension, or Chroma fails.
        """
        if len(ids) != len(vectors):
            raise StoreError(f"{len(ids)} ids for {len(vectors)} vectors", where=str(self.folder))
        latest = dict(zip(ids, vectors, strict=True))  # Chroma refuses an id that comes twice in one call
        keys = list(latest)
        with self._explained():
            for i in range(0, len(keys), _BATCH):
                part = keys[i : i + _BATCH]
                self._open.upsert(ids=part, embeddings=[list(latest[k]) for k in part])

    def drop(self, ids: Sequence[str]) -> None:
        """Forgets ids (unknown ones are ignored)."""
        with self._explained():
            for i in range(0, len(ids), _BATCH):
                self._open.delete(ids=list(ids[i : i + _BATCH]))

    def nearest(self, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """At most `k` (id, cosine similarity), best first, ties by id."""
        with self._explained():
            held, wanted = (self._open.count() if k > 0 else 0), k + 16
            pairs: list[tuple[str, float]] = []
            while len(pairs) < held:
                found = self._open.query(
                    query_embeddings=[list(vector)], n_results=min(held, wanted), include=["distances"]
                )
                distances = zip(found["ids"][0], found["distances"][0], strict=True)
                pairs = sorted(((i, round(1.0 - d, 6)) for i, d in distances), key=lambda pair: (-pair[1], pair[0]))
                # Which of several equals Chroma gives is chance, and ties go by id here: all of them must be seen.
                if not pairs or wanted >= held or pairs[-1][1] < pairs[min(k, len(pairs)) - 1][1]:
                    break
                wanted *= 2
        return pairs[: max(k, 0)]

    def count(self) -> int:
        """How many vectors it holds."""
        with self._explained():
            return int(self._open.count())

    def state(self) -> dict[str, Any]:
        """What `mark` was last given; empty when new or damaged."""
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) and isinstance(state.get("version"), int) else {}

    def mark(self, state: dict[str, Any]) -> None:
        """Keeps what the index now holds, whole or not at all."""
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            new = self._state_file.with_suffix(".new")
            new.write_text(json.dumps(state), encoding="utf-8")
            os.replace(new, self._state_file)

    def clear(self) -> None:
        """Empties it, damaged or not: Chroma's files are deleted and made anew."""
        with self._explained():
            self._disconnect()
            self._wipe()
            self._connect()

    def close(self) -> None:
        """Closes Chroma and gives the folder free."""
        try:
            with self._explained():
                self._disconnect()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _made(self) -> list[Path]:
        """Folders of Chroma's files, the newest last."""
        return sorted(self.folder.glob("chroma-*"), key=lambda path: int(path.name.removeprefix("chroma-")))

    def _wipe(self) -> None:
        self._state_file.unlink(missing_ok=True)
        self._files = self.folder / f"chroma-{int(self._files.name.removeprefix('chroma-')) + 1}"
        for path in self._made():
            shutil.rmtree(path, ignore_errors=True)

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _open(self) -> Any:
        if self._collection is None:
            raise StoreError("the index is closed", where=str(self.folder), todo="open the memory again")
        return self._collection

    def _connect(self) -> None:
        import chromadb
        from chromadb.config import Settings

        self._files.mkdir(parents=True, exist_ok=True)
        self._client = chromadb.PersistentClient(str(self._files), settings=Settings(anonymized_telemetry=False))
        self._collection = self._client.get_or_create_collection(
            "reflections", embedding_function=None, configuration={"hnsw": {"space": "cosine", "ef_search": 200}}
        )

    def _disconnect(self) -> None:
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from chromadb.errors import ChromaError

        try:
            yield
        except StoreError:
            raise
        except (ChromaError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise StoreError(
                f"the Chroma index failed: {error}",
                where=str(self.folder),
                todo="nothing is lost (the op log is in the store); check the disk, or delete this folder",
            ) from error


def _lock(folder: Path) -> int:
    """The descriptor of the folder's lock file, locked; the kernel frees it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"the index folder cannot be written: {error.strerror}", where=str(folder), todo="check the path"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        who = "this process" if holder == str(os.getpid()) else f"process {holder or 'unknown'}"
        raise StoreError(
            f"the index is open in {who}",
            where=str(folder),
            todo="close it there, give another folder, or take memory `exact`, which several processes may share",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
    return lock


def _file_name(name: str) -> str:
    """A memory's name as a folder's name: safe characters kept, others written in hexadecimal."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f"%{ord(c):x}" for c in name)
    return safe or "%"


__all__ = ["ChromaMemory", "ChromaIndex"]  # noqa: RUF022  (a part's class comes first)
