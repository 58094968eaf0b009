"""Vectors in a Chroma folder (the default index): approximate search that stays fast with many reflections.

Two processes writing one folder lose vectors without an error (measured: 31 % of them), so a folder has one owner at a
time, by a file lock; several processes share a server (`[memory] options = {server = "http://HOST:PORT"}`). Chroma
believes whatever lies in its files, so they are kept with digests and checked before it reads them. Everything in a
folder can be deleted: the memory fills it again from the store. chromadb itself is imported when an index is opened
(about one second).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from verbal.errors import ConfigError, StoreError

from .chroma_collection import CONFIGURATION, ChromaCollection
from .chroma_server import ChromaServerIndex
from .reflections import ReflectionMemory

if TYPE_CHECKING:
    from verbal.store import Store

_DATABASE = "chroma.sqlite3"


class ChromaMemory(ReflectionMemory):
    """Reflections found through Chroma.

    Args:
        store: Where the op log is.
        name: Name of the memory in the store.
        folder: Where the index lies, one folder a memory; beside the store when not given.
        server: URL of a Chroma server that has the index instead, for several processes.
        options: As for `ReflectionMemory`.

    Raises:
        ConfigError: folder and server are both given, or the URL cannot be read.
        StoreError: another process (or another open memory of this one) holds the folder, it cannot be written, or no
            server answers.
    """

    def __init__(
        self,
        store: Store,
        name: str = "main",
        folder: str | Path | None = None,
        server: str | None = None,
        **options: Any,
    ) -> None:
        index: ChromaIndex | ChromaServerIndex
        if server is not None:
            if folder is not None:
                raise ConfigError("a Chroma index is in a folder or on a server", todo="give `folder` or `server`")
            index = ChromaServerIndex(server, store.identity, name)
        else:
            index = ChromaIndex((Path(folder) if folder is not None else store.memory_folder) / _file_name(name))
        super().__init__(store, index, name, **options)


class ChromaIndex(ChromaCollection):
    """Vectors in one Chroma collection under a folder.

    The folder holds `lock` (who has it open), `state.json` (what the index holds, and digests of the files that hold
    it) and `chroma-<n>` (Chroma's own files; each time they are made anew under the next number, because a process
    keeps what it knew of an earlier path).

    Raises:
        StoreError: the folder is open elsewhere, or cannot be written.
    """

    quick: ClassVar[bool] = True
    """A search takes milliseconds, so that it need not leave its thread; a write may take seconds."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        super().__init__(
            str(folder), "nothing is lost (log and vectors are in the store); check the disk, or delete this folder"
        )
        self._lock = _lock(self.folder)
        self._known: dict[str, list[Any]] = {}
        try:
            with self._explained():
                made = self._made()
                self._files = made[-1] if made else self.folder / "chroma-1"
                if made and not self._intact():
                    self._wipe()
                elif state := self.state():
                    self.mark(state)  # from now on the database changes, until it is closed
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

    def state(self) -> dict[str, Any]:
        """What `mark` was last given; empty when new or damaged."""
        held = self._read_state().get("holds")
        return held if isinstance(held, dict) and isinstance(held.get("version"), int) else {}

    def mark(self, state: dict[str, Any]) -> None:
        """Keeps what the index now holds, whole or not at all."""
        with self._explained():
            self._known = self._digests(self._known)
            self._write_state({"holds": state, "files": self._known})

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
                was_open = self._client is not None
                self._disconnect()
                if was_open and (held := self.state()) and (database := self._files / _DATABASE).is_file():
                    self._known = self._digests(self._known)
                    self._write_state({"holds": held, "files": self._known, "database": _digest(database)})
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _intact(self) -> bool:
        """Whether Chroma's files are those that were marked. The database changes all the time: it is as it was closed,
        or, when nobody came to close it, it is sound in itself.
        """
        told, database = self._read_state(), self._files / _DATABASE
        files = told.get("files")
        if not self.state() or not isinstance(files, dict) or not database.is_file():
            return False
        if {k: v[0] for k, v in self._digests({}).items()} != {k: v[0] for k, v in files.items()}:
            return False
        if "database" in told:
            return bool(told["database"] == _digest(database))
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
                return bool(db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error:
            return False

    def _digests(self, known: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """File of vectors -> digest, size and time; a digest that is known of the same size and time stays."""
        found: dict[str, list[Any]] = {}
        for path in sorted(p for p in self._files.glob("*/*") if p.is_file()):
            name, now = str(path.relative_to(self._files)), path.stat()
            old = known.get(name)
            same = old is not None and old[1:] == [now.st_size, now.st_mtime_ns]
            found[name] = [old[0] if same and old else _digest(path), now.st_size, now.st_mtime_ns]
        return found

    def _made(self) -> list[Path]:
        """Folders of Chroma's files, the newest last."""
        return sorted(self.folder.glob("chroma-*"), key=lambda path: int(path.name.removeprefix("chroma-")))

    def _wipe(self) -> None:
        self._state_file.unlink(missing_ok=True)
        self._known = {}
        self._files = self.folder / f"chroma-{int(self._files.name.removeprefix('chroma-')) + 1}"
        for path in self._made():
            shutil.rmtree(path, ignore_errors=True)

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _write_state(self, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._state_file.with_suffix(".new")
        new.write_text(json.dumps(state), encoding="utf-8")
        os.replace(new, self._state_file)

    def _connect(self) -> None:
        import chromadb
        from chromadb.config import Settings

        self._files.mkdir(parents=True, exist_ok=True)
        self._client = chromadb.PersistentClient(str(self._files), settings=Settings(anonymized_telemetry=False))
        self._collection = self._client.get_or_create_collection(
            "reflections", embedding_function=None, configuration=CONFIGURATION
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            todo="close it there, or share it: memory `exact`, or a Chroma server (option `server`)",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
    return lock


def _file_name(name: str) -> str:
    """A memory's name as a folder's name: safe characters kept, others written in hexadecimal."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f"%{ord(c):x}" for c in name)
    return safe or "%"


__all__ = ["ChromaMemory", "ChromaIndex", "ChromaServerIndex"]  # noqa: RUF022  (a part's class comes first)
