"""Questions files: JSON lines with a question each, checked line by line.

    {"question": "How many singers are there?", "sql": "SELECT COUNT(*) FROM singer", "split": "dev", "id": "s1"}

Only `question` is needed. `db` names the database (a path relative to the file); without it, the one given beside the
file is asked. Spider's columns are read as well: `query` is the gold SQL and `db_id` means
`database/<db_id>/<db_id>.sqlite`; so are BIRD's `SQL`, `evidence` and `difficulty`. The split is, in this order: the
line's `split`; the file's name when that is a split (`dev.jsonl`); else drawn from the question's text, 60 % train,
20 % dev, 20 % test, always the same.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from verbal.errors import DataError
from verbal.types import Split

_KEYS = {
    "question", "sql", "query", "SQL", "id", "split", "db", "db_id", "terms", "question_syn", "gold_rows", "info",
    "level", "evidence", "difficulty",
}  # fmt: skip
_TOLD = ("level", "question_syn", "db_id", "evidence", "difficulty")
"""Keys that go into `Question.info` as they are."""
_SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about one database."""

    id: str
    text: str
    db: Path | str
    """A path, or the URL of a server."""
    sql: str | None = None
    """The gold query."""
    split: Literal["train", "dev", "test"] = "train"
    terms: tuple[str, ...] = ()
    """Business terms it needs (the demo's questions name theirs)."""
    where: str = ""
    """File and line."""
    info: dict[str, Any] = field(default_factory=dict)


def read_questions(path: Path, db: Path | str | None = None) -> list[Question]:
    """The questions of the file at `path`; `db` is asked by those that name no database.

    Raises:
        DataError: the file is missing, not UTF-8, holds no question, or a line is malformed: names line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"no questions file {str(path)!r}: {error.strerror}", todo="give a JSON lines file") from error
    found: list[Question] = []
    seen: dict[str, str] = {}
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        line = decoded(raw, where)
        if not line.strip():
            continue
        question = read_question(_object(line, where), path, number, db, where)
        if question.id in seen:
            raise DataError(f"the id {question.id!r} is used twice", where=f"{seen[question.id]} and line {number}")
        seen[question.id] = where
        found.append(question)
    if not found:
        raise DataError(f"the questions file {str(path)!r} holds no question", todo='add lines {"question": "..."}')
    return found


def decoded(raw: bytes, where: str) -> str:
    """The line `raw` as text.

    Raises:
        DataError: it is not UTF-8; names the column.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode("utf-8")) + 1
        raise DataError(
            f"not UTF-8 text: byte 0x{raw[error.start]:02x}",
            where=f"{where}, column {column}",
            todo="save the file as UTF-8",
        ) from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        column = error.colno if isinstance(error, json.JSONDecodeError) else 1
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise DataError(f"not JSON: {what}", where=f"{where}, column {column}", todo="one object a line") from error
    if not isinstance(data, dict):
        raise DataError(
            f"a line is a JSON object, found {type(data).__name__}",
            where=f"{where}, column 1",
            todo='write {"question": "...", "sql": "..."}',
        )
    return data


def read_question(data: dict[str, Any], path: Path, number: int, db: Path | str | None, where: str) -> Question:
    """The question that one entry of the file at `path` holds.

    Args:
        data: The entry.
        path: Databases are named relative to it.
        number: Its line, which makes an id where none is given.
        db: The database asked when none is named, or the folder of those that `db_id` names.
        where: File and line, for errors.

    Raises:
        DataError: an unknown key, or a value of the wrong kind.
    """
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}", where=where, todo=f"known: {', '.join(sorted(_KEYS))}")
    text = _text(data, "question", where)
    if text is None:
        raise DataError("no question", where=where, todo='add "question": "..." to the line')
    split = _text(data, "split", where) or _split(path.stem, text)
    if split not in _SPLITS:
        raise DataError(f"unknown split {split!r}", where=where, todo=f"one of: {', '.join(_SPLITS)}")
    terms = data.get("terms") or ()
    if not isinstance(terms, list | tuple) or not all(isinstance(term, str) for term in terms):
        raise DataError(f"terms is a list of texts, found {terms!r}", where=where)
    identifier = data.get("id", f"{path.stem}-{number}")
    if not isinstance(identifier, str | int) or isinstance(identifier, bool) or identifier == "":
        raise DataError(f"id is a text or a number, found {identifier!r}", where=where)
    return Question(
        id=str(identifier),
        text=text,
        db=_database(data, path, db, where),
        sql=next((sql for key in ("sql", "query", "SQL") if (sql := _text(data, key, where))), None),
        split=split,  # type: ignore[arg-type]  # checked above
        terms=tuple(terms),
        where=where,
        info={key: data[key] for key in _TOLD if data.get(key) is not None},
    )


def _text(data: dict[str, Any], key: str, where: str) -> str | None:
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{key} is a text, found {value!r}", where=where, todo=f"put the {key} in quotes")
    return value.strip() or None if value is not None else None


def _split(stem: str, text: str) -> str:
    if stem in _SPLITS:
        return stem
    share = zlib.crc32(text.encode("utf-8", "replace")) % 10
    return "train" if share < 6 else "dev" if share < 8 else "test"


def _database(data: dict[str, Any], path: Path, db: Path | str | None, where: str) -> Path | str:
    if (named := _text(data, "db", where)) is not None:
        return (path.parent / named).resolve()
    if (name := _text(data, "db_id", where)) is not None:
        if db is not None and (isinstance(db, str) or db.is_file()) and not Path(db).is_dir():
            return db
        root = Path(db) if db is not None else path.parent / "database"
        return (root / name / f"{name}.sqlite").resolve()
    if db is None:
        raise DataError("the question names no database", where=where, todo='add "db": "FILE.sqlite" or give one')
    return db
