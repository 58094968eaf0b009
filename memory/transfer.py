"""Memories out to files and in from files: JSONL, an Agent Skill, a Markdown playbook. Whatever comes in is a claim.

What is read becomes ADD operations. Ids are made of the words, so that a file imported twice, or an import that was
killed and repeated, changes nothing the second time. A secret is neither written nor read; words that speak to the
model are not read, nor written where an agent would take them for instructions (a skill).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verbal.errors import ConfigError, DataError, UnknownName
from verbal.types import Counters, MemoryOp, Reflection

from .leaks import find_secrets
from .playbooks import best_first, read_playbook, write_playbook
from .screening import instruction
from .skills import LARGEST, read_skills, skill_files, skill_name

FORMATS = ("jsonl", "skill", "markdown")
"""Formats by name."""
LONGEST = 200_000
"""Characters of a lesson that is read."""

_TEXTS = ("text", "memory", "content", "lesson", "value", "data")
_LISTS = ("results", "memories", "items", "data", "entries")
_CHOICES = {
    "kind": ("reflection", "rule", "strategy", "case"),
    "scope": ("task", "family", "global"),
    "polarity": ("do", "avoid"),
}


class Left(NamedTuple):
    """Something that was not taken over."""

    place: str
    """Id, line or file."""
    why: str


class Taken(NamedTuple):
    """What came of reading or of choosing what to write."""

    items: list[Reflection]
    left: list[Left]


# out ---------------------------------------------------------------------------------------------------------------


def write_memory(
    items: Sequence[Reflection], out: Path, format: str, *, name: str, description: str = "", force: bool = False
) -> Taken:
    """Writes items; gives those that were written, and those left out with the reason.

    Args:
        items: What to write.
        out: A file, or for `skill` the folder in which the skill's folder is made.
        format: One of FORMATS.
        name: Of the memory.
        description: Of the skill: what it is for and when to use it.
        force: Whether a file that is there is replaced.

    Raises:
        UnknownName: no such format. DataError: a file is there already, or cannot be written.
    """
    _known(format)
    taken = _fit_to_write(items, format)
    if format == "skill":
        files = {out / path: text for path, text in skill_files(taken.items, name, description).items()}
        stale = out / skill_name(name) / "references" / "more.md"
    elif format == "jsonl":
        files = {out: "".join(item.replace(embedding=()).to_json() + "\n" for item in taken.items)}
    else:
        files = {out: write_playbook(best_first(taken.items), name)}
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not force:
        raise DataError(f"{str(there[0])!r} is there already", todo="give another name, or --force to replace it")
    for path, text in files.items():
        _write(path, text)
    if format == "skill" and stale not in files:
        stale.unlink(missing_ok=True)  # of a larger memory before: its lessons would come back
    return taken


def _fit_to_write(items: Sequence[Reflection], format: str) -> Taken:
    taken = Taken([], [])
    for item in items:
        if secrets := find_secrets(_words(item)):
            taken.left.append(
                Left(item.id, f"holds what looks like: {', '.join(dict.fromkeys(s.kind for s in secrets))}")
            )
        elif format == "skill" and (why := instruction(item)):
            taken.left.append(Left(item.id, why))
        else:
            taken.items.append(item)
    return taken


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair has no UTF-8 form.
        part.write_bytes(text.encode("utf-8", "replace"))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"the file cannot be written: {error.strerror}", where=str(path), todo="check the path"
        ) from error


# in ----------------------------------------------------------------------------------------------------------------


def read_memory(path: Path, format: str) -> Taken:
    """The lessons of a file or folder, and what was left out with its place.

    Raises:
        UnknownName: no such format. DataError: there is no such file, or nothing in it can be read.
    """
    _known(format)
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}", todo="check the path")
    if path.is_dir() and format != "skill":
        raise DataError(f"{str(path)!r} is a folder", todo="name a file, or give --format skill")
    if format == "skill":
        found, wrong = read_skills(path)
    elif format == "markdown":
        found, wrong = read_playbook(text_of(path))
    else:
        found, wrong = _read_jsonl(text_of(path, 200 * LARGEST))
    taken = fit_to_read(found, wrong)
    if not taken.items:
        first = f": {taken.left[0].place}: {taken.left[0].why}" if taken.left else ""
        raise DataError(f"no lesson can be read from {str(path)!r}{first}", todo=f"is it {format}?")
    return taken


def fit_to_read(found: Sequence[Reflection], wrong: Sequence[tuple[str, str]]) -> Taken:
    """What was read, without what is too long or holds a secret: these are left out too."""
    taken = Taken([], [Left(*w) for w in wrong])
    for item in found:
        if len(item.text) > LONGEST:
            taken.left.append(Left(item.id, f"has {len(item.text):,} characters, at most {LONGEST:,} are read"))
        elif secrets := find_secrets(_words(item)):
            taken.left.append(
                Left(item.id, f"holds what looks like: {', '.join(dict.fromkeys(s.kind for s in secrets))}")
            )
        else:
            taken.items.append(item)
    return taken


def import_ops(
    items: Sequence[Reflection], source: str, *, trust: bool = False, again: bool = False
) -> tuple[list[MemoryOp], list[Left]]:
    """ADD operations for what was read, and what was left out: words that speak to the model, and words said twice.

    Args:
        items: As `read_memory` gives them.
        source: Where they are from, for the log.
        trust: Whether a person answers for them: they keep their standing, counts and value. Else they are
            quarantined and start from nothing.
        again: Whether what was retired where it comes from is taken too, into quarantine.
    """
    ids = {item.id: _id(item) for item in items}
    ops: dict[str, MemoryOp] = {}
    left: list[Left] = []
    for item in items:
        new = _id(item)
        if why := instruction(item):
            left.append(Left(item.id, why))
        elif new in ops:
            left.append(Left(item.id, f"says what {new} says already"))
        elif item.status == "retired" and not again:
            left.append(Left(item.id, "was retired where it comes from (--again takes it in)"))
        else:
            kept: dict[str, Any] = {"id": new, "rival": ids.get(item.rival, ""), "version": 0, "embedding": ()}
            if not trust or item.status == "retired":
                kept |= {"status": "quarantined", "counters": Counters(), "value": None}
            told = f"from {source}" + (", trusted by a person" if trust else "")
            ops[new] = MemoryOp(op="ADD", reflection=new, item=item.replace(**kept), reason=told, author="import")
    return list(ops.values()), left


def _id(item: Reflection) -> str:
    """An id made of what an item says and where it holds."""
    told = (item.title, item.text, item.when, item.boundary, item.polarity, item.kind, item.scope, item.task or "")
    text = json.dumps(told)  # pure ASCII, whatever the words are
    return f"i-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _words(item: Reflection) -> str:
    sources = (item.id, item.task or "", *item.attempts, item.rival)
    return "\n".join((item.title, item.when, item.text, item.boundary, *sources))


def _known(format: str) -> None:
    if format not in FORMATS:
        raise UnknownName.of("format", format, FORMATS)


def text_of(path: Path, limit: int = 20 * LARGEST) -> str:
    """The text of a file of at most so many bytes.

    Raises:
        DataError: it is larger, or no UTF-8.
    """
    try:
        if (size := path.stat().st_size) > limit:
            raise DataError(
                f"the file has {size:,} bytes, at most {limit:,} are read", where=str(path), todo="split it"
            )
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the file cannot be read: {error}", where=str(path), todo="save it as UTF-8") from error


def _read_jsonl(text: str) -> tuple[list[Reflection], list[tuple[str, str]]]:
    items: list[Reflection] = []
    wrong: list[tuple[str, str]] = []
    whole = list_in(text)
    lines = [(f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()] if whole is None else []
    for place, row in [(f"entry {n}", row) for n, row in enumerate(whole or (), 1)] or lines:
        try:
            items.append(_reflection(json.loads(row) if whole is None else row, place))
        except (DataError, ValueError, RecursionError) as error:
            wrong.append((place, str(getattr(error, "what", error))[:200]))
    return items, wrong


def list_in(text: str) -> list[Any] | None:
    """The entries of a file that is one JSON value: a list, or an object that holds one (mem0: {"results": [...]})."""
    start = text.lstrip()[:1]
    if start != "[" and (start != "{" or "\n{" in text.strip().replace("\r\n", "\n")):
        return None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(whole, dict) and not isinstance(whole.get("text"), str):
        whole = next((whole[k] for k in _LISTS if isinstance(whole.get(k), list)), None)
    return whole if isinstance(whole, list) else None


def _reflection(row: Any, place: str) -> Reflection:
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, dict):
        raise DataError(f"a lesson is a JSON object, found {type(row).__name__}")
    if "v" in row and isinstance(row.get("text"), str):
        item = Reflection.from_dict(row).replace(embedding=())
    else:
        item = _foreign(row, place)
    if not item.text.strip():
        raise DataError("it has no words")
    return item


def _foreign(row: Mapping[str, Any], place: str) -> Reflection:
    """A record of another program: its words under one of several names, with the few fields that mean the same."""
    nested = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    text = next((row[k] for k in _TEXTS if isinstance(row.get(k), str) and row[k].strip()), None)
    if text is None:
        raise DataError(f"no words under {', '.join(_TEXTS)}; it has {', '.join(map(str, row))[:80] or 'no keys'}")
    said: dict[str, Any] = {}
    for source in (nested or {}, row):
        said |= {k: source[k] for k in ("title", "when", "boundary") if isinstance(source.get(k), str)}
        said |= {k: source[k] for k, known in _CHOICES.items() if source.get(k) in known}
    own = row.get("id")
    return Reflection(id=own if isinstance(own, str) and own else place, text=text, **said)


def format_of(path: Path) -> str:
    """The format that a path looks like.

    Raises:
        ConfigError: it looks like none.
    """
    if path.is_dir() or path.name == "SKILL.md":
        return "skill"
    known = {".jsonl": "jsonl", ".json": "jsonl", ".md": "markdown", ".markdown": "markdown"}
    if path.suffix.lower() not in known:
        raise ConfigError(f"{str(path)!r} does not say what it is", todo=f"give --format {' or '.join(FORMATS)}")
    return known[path.suffix.lower()]


__all__ = [
    "FORMATS", "Left", "Taken", "fit_to_read", "format_of", "import_ops", "list_in", "read_memory", "text_of",
    "write_memory",
]  # fmt: skip
