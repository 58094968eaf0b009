"""Profiles on disk, by the content of the file they describe.

One JSON file a content, written beside and renamed, so that processes which write the same one at once do no harm. What
cannot be read, was made by other code or does not match its checksum is made anew; a folder that cannot be written
costs time, not the answer. Profiles hold cells, so only the user may read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .profile import LEAST_ROWS, SCANNED_CELLS, SCANNED_IN_ALL, ColumnProfile, Profile, TableProfile
from .schema import SCANNED_ROWS, ForeignKey
from .user_cache import user_cache

VERSION = 1
"""Raised when a profile's content or meaning changes."""

_BLOCK = 1 << 20
_hashes: dict[tuple[str, int, int, int], str] = {}
"""(path, inode, size, time in ns) of the file and its log -> hash, so that a process reads each content once."""


def kept(path: Path, make: Callable[[], Profile], folder: Path | None = None) -> Profile:
    """The profile of the file at `path`: from disk, else made and put there.

    Args:
        path: A file that holds a whole database, of any engine; a folder's profile is made each time.
        make: Profiles it.
        folder: Where profiles are; None is the user's cache folder.
    """
    try:
        key = content_hash(path)
    except OSError:
        return make()  # which says what is wrong with the file
    where = (folder or cache_folder()) / f"{key}.json"
    found = _read(where)
    if found is None:
        found = make()
        if _unchanged(path, key):  # else nobody knows which content it describes
            _write(where, found)
    return found


def cache_folder() -> Path:
    """Where profiles are kept if not said otherwise."""
    return user_cache() / "profiles"


def content_hash(path: Path) -> str:
    """A hash of the file, of its write-ahead log where it has one, and of how deep profiles look.

    Raises:
        OSError: it cannot be read.
    """
    marks = [path, *(p for p in (Path(f"{path}-wal"), Path(f"{path}.wal")) if p.exists() and p.stat().st_size)]
    stats = [p.stat() for p in marks]
    known = (str(path.resolve()), stats[0].st_ino, sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))
    if known not in _hashes:
        digest = hashlib.sha256(f"{VERSION} {SCANNED_ROWS} {SCANNED_CELLS} {SCANNED_IN_ALL} {LEAST_ROWS}".encode())
        for mark in marks:
            digest.update(f"\n{mark.stat().st_size}\n".encode())
            with mark.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        _hashes[known] = digest.hexdigest()
    return _hashes[known]


def to_json(profile: Profile) -> str:
    """The profile as one line of JSON."""
    return json.dumps(asdict(profile), ensure_ascii=True, separators=(",", ":"))


def from_json(text: str) -> Profile:
    """The profile that `to_json` wrote.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    data: dict[str, Any] = json.loads(text)
    return Profile(data["dialect"], tuple(_table(table) for table in data["profiles"]))


def _unchanged(path: Path, key: str) -> bool:
    try:
        return content_hash(path) == key
    except OSError:
        return False


def _table(data: dict[str, Any]) -> TableProfile:
    columns = tuple(ColumnProfile(**{**c, "examples": tuple(c["examples"])}) for c in data["columns"])
    links = tuple(
        ForeignKey(tuple(k["columns"]), k["target"], tuple(k["target_columns"]), k["declared"])
        for k in data["foreign_keys"]
    )
    parts = {"columns": columns, "foreign_keys": links, "primary_key": tuple(data["primary_key"])}
    return TableProfile(**{**data, **parts})


def _read(path: Path) -> Profile | None:
    try:
        check, _, body = path.read_text(encoding="ascii").partition("\n")
        return from_json(body) if check == hashlib.sha256(body.encode()).hexdigest() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, profile: Profile) -> None:
    body = to_json(profile)
    made = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=".made-")  # readable by its owner alone
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
        os.replace(made, path)
    except OSError:
        if made:
            Path(made).unlink(missing_ok=True)
