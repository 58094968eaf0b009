"""Benchmarks as people have them on disk: Spider's layout, BIRD's, and JSON lines beside SQLite files.

    spider    dev.json, or train_spider.json and train_others.json; database/<db_id>/<db_id>.sqlite
    bird      dev.json or mini_dev_sqlite.json with `SQL`, `evidence`, `difficulty`; dev_databases/<db_id>/...
    jsonl     lines as `questions.py` reads them; database/<db_id>/<db_id>.sqlite, `db` of a line, or one file

Several states of one database (a test suite, Zhong et al. 2020, arXiv 2010.02840) are all SQLite files of
`suites/<db_id>/`, `test_suite_database/<db_id>/` or of the database's own folder.
"""

from __future__ import annotations

import dataclasses
import filecmp
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, DataError, UnknownName

from .hardness import hardness
from .questions import Question, decoded, read_question, read_questions
from .sources import Source

NAMES = ("spider", "bird")
"""Benchmarks that are asked for by name; any other is the path of a folder or of a file of questions."""

_FILES = {
    "train": (("train.jsonl",), ("train_spider.json", "train_others.json"), ("train.json",)),
    "dev": (("dev.jsonl",), ("dev.json",), ("mini_dev_sqlite.json",)),
    "test": (("test.jsonl",), ("test.json",)),
}
_SQLITE = (".sqlite", ".sqlite3", ".db")
_DATABASES = ("database", "databases", "{split}_databases", "{split}_database")
_SUITES = ("suites", "test_suite_database")
_KEPT = ("question", "query", "SQL", "sql", "db_id", "evidence", "difficulty", "question_syn", "id", "split", "db")
"""Keys that are read; Spider's files hold parsed queries beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """The questions of one split, in the order of the file."""

    name: str
    split: str
    files: tuple[Path, ...]
    questions: tuple[Question, ...]
    """Each with `info` = {db_id, hardness} and, where there is one, evidence, difficulty, states (files, the own
    database first)."""

    @property
    def layout(self) -> str:
        """`bird` where questions bring evidence or a difficulty, else `spider`: whose published rules are used."""
        return "bird" if any(q.info.keys() & {"evidence", "difficulty"} for q in self.questions) else "spider"

    def notes(self, questions: Sequence[Question], *, suite: bool, synonyms: bool) -> list[str]:
        """What a reader of the scores of these questions has to know."""
        told = []
        if synonyms:
            without = sum(not q.info.get("question_syn") for q in questions)
            told.append(f"{len(questions)} questions in synonym wording; {without} have none and are asked as they are")
        alone = Counter(q.info["db_id"] for q in questions if suite and "states" not in q.info)
        if alone:
            named = ", ".join(sorted(alone)[:6])
            told.append(f"{alone.total()} questions have no suite (databases: {named}); suite accuracy leaves them out")
        return told

    def select(self, databases: Sequence[str] = (), limit: int | None = None) -> tuple[Question, ...]:
        """The first `limit` questions about some databases (all, when none is named), whose files are all there.

        Raises:
            UnknownName: nobody asks a database of that name. DataError: the file of one is missing.
        """
        known = sorted({q.info["db_id"] for q in self.questions})
        for name in databases:
            if name not in known:
                raise UnknownName.of("database", name, known, where="--databases")
        chosen = [q for q in self.questions if not databases or q.info["db_id"] in databases][:limit]
        if missing := [q for q in chosen if not _is_url(q.db) and not Path(q.db).exists()]:
            gone = Counter(q.info["db_id"] for q in missing)
            told = f"{missing[0].id!r} asks the database {missing[0].info['db_id']!r}, which is not there"
            more = f" ({len(missing)} questions about {len(gone)} databases in all: {', '.join(list(gone)[:8])})"
            todo = "unpack it, or name the databases that are there with --databases"
            raise DataError(told + (more if len(missing) > 1 else ""), where=str(missing[0].db), todo=todo)
        return tuple(chosen)


def read_benchmark(
    name: str,
    data: str | Path | None = None,
    split: str = "dev",
    *,
    db: str | Path | None = None,
    suite: bool = False,
    made: bool = False,
    synonyms: bool = False,
) -> Benchmark:
    """The questions of a split.

    Args:
        name: One of `NAMES`, or the path of a folder or of a JSON or JSON lines file.
        data: Folder that holds the benchmark of that name.
        split: `train`, `dev` or `test`.
        db: Asked by questions that name no database, or the folder of the databases.
        suite: The states of the databases are wanted.
        made: States are made later for databases that have none, so that none need be there.
        synonyms: The wording of `question_syn` is asked where there is one.

    Raises:
        UnknownName: no such benchmark or split. ConfigError: a name without a folder. DataError: nothing is found
            where it should be, or a file cannot be read.
    """
    if split not in _FILES:
        raise UnknownName.of("split", split, _FILES, where="--split")
    files, base = _find(name, data, split)
    root = _database_root(files[0].parent, split) if db is None else db if _is_url(db) else Path(db).resolve()
    found = [q for file in files for q in _read(file, root, split)]
    title = name if name in NAMES else files[0].parent.name if Path(name).is_dir() else files[0].stem
    chosen = [q for q in found if q.split == split]
    if not chosen:
        raise DataError(f"there is no question of split {split!r}", where=str(files[0]), todo="give another --split")
    if synonyms:
        chosen = _synonyms(chosen, files[0])
    chosen = [_told(q) for q in chosen]
    if suite:
        folders = [p / s for p in dict.fromkeys((files[0].parent, base)) for s in _SUITES]
        chosen = _with_states(chosen, folders, needed=not made)
    return Benchmark(name=title, split=split, files=tuple(files), questions=tuple(chosen))


def _find(name: str, data: str | Path | None, split: str) -> tuple[list[Path], Path]:
    """The files that hold the questions, and the folder to look for suites in."""
    if name not in NAMES:
        path = Path(name).resolve()
        if path.is_file():
            return [path], path.parent
        if not path.is_dir():
            known = UnknownName.of("benchmark", name, NAMES, where="BENCHMARK")
            todo = f"{known.todo}; or give the path of a folder or of a JSON lines file"
            raise UnknownName(known.what, where=known.where, todo=todo)
        places, base = [path, *_below(path, split)], path
    else:
        if data is None:
            todo = f"give --data DIR, the folder that holds {name}, or set VERBAL_DATA"
            raise ConfigError(f"the benchmark {name!r} needs its data", where="--data", todo=todo)
        base = Path(data).resolve()
        if not base.is_dir():
            raise DataError(f"there is no folder {str(data)!r}", where="--data", todo="give the folder of the data")
        own = sorted(p for p in base.glob(f"{name}*") if p.is_dir())
        places = [*own, *(p for o in own for p in _below(o, split)), base, *_below(base, split)]
    for place in places:
        for wanted in _FILES[split]:
            if files := [place / n for n in wanted if (place / n).is_file()]:
                return files, base
    tried = ", ".join(n for wanted in _FILES[split] for n in wanted)
    todo = f"looked for {tried} in {', '.join(dict.fromkeys(p.name for p in places))}"
    raise DataError(f"there are no {split} questions", where=str(base), todo=todo)


def _below(place: Path, split: str) -> list[Path]:
    """Folders of a split, such as BIRD's `dev_20240627`."""
    return sorted(p for pattern in (f"{split}*", "MINIDEV*", "mini*") for p in place.glob(pattern) if p.is_dir())


def _database_root(folder: Path, split: str) -> Path:
    names = [n.format(split=split) for n in _DATABASES]
    names += ["test_database"] if split == "test" else []
    return next((folder / n for n in names if (folder / n).is_dir()), folder / "database")


def _read(file: Path, root: Path | str, split: str) -> list[Question]:
    if file.suffix != ".json":
        return read_questions(file, root)
    found: list[Question] = []
    seen: dict[str, str] = {}
    for number, (where, entry) in enumerate(_entries(file), start=1):
        parsed = ["sql"] if isinstance(entry.get("sql"), dict) else []  # Spider's own parse of the query
        data = {k: v for k, v in entry.items() if k in _KEPT and k not in parsed and v is not None}
        layout = "bird" if "SQL" in entry else "spider"
        index = entry.get("question_id", number - 1)
        kind = "train-others" if "others" in file.stem else split
        data = {"id": f"{layout}-{kind}-{index}", "split": split} | data
        question = read_question(data, file, number, root, where)
        if question.id in seen:
            raise DataError(f"the id {question.id!r} is used twice", where=f"{seen[question.id]} and entry {number}")
        seen[question.id] = where
        found.append(question)
    return found


def _entries(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each entry of a JSON list, with its place."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(file)!r}: {error.strerror}", todo="give a file that can be read") from error
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    text = "\n".join(decoded(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1))
    try:
        entries = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError("the file is not JSON", where=f"{file}{place}", todo="give a list of objects") from error
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else type(entries).__name__
        raise DataError(f"a list of questions is needed, found {found}", where=str(file), todo="give a list of objects")
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"an entry is a JSON object, found {type(entry).__name__}", where=where)
        yield where, entry


def _told(question: Question) -> Question:
    """The question with its database's name and its hardness."""
    name = str(question.info.get("db_id") or Path(question.db).stem)
    level = str(question.info.get("difficulty") or hardness(question.sql, _dialect(question.db)))
    return dataclasses.replace(question, info={**question.info, "db_id": name, "hardness": level})


def _is_url(db: Path | str) -> bool:
    return "://" in str(db)


def _dialect(db: Path | str) -> str:
    """The dialect of a database, which need not be there, by sqlglot's name."""
    if Path(db).suffix in _SQLITE:
        return "sqlite"
    try:
        return Source.of(str(db)).dialect
    except DataError:
        return "sqlite"


def _with_states(questions: Sequence[Question], folders: Sequence[Path], *, needed: bool) -> list[Question]:
    """The questions with the states of their databases, where there are several.

    Raises:
        DataError: no database has several, and some are needed.
    """
    files = {q.db: q.info["db_id"] for q in questions if not _is_url(q.db)}
    states = {db: _states(Path(db), name, folders) for db, name in files.items()}
    several = {db: [str(p) for p in found] for db, found in states.items() if len(found) > 1}
    if needed and not several:
        todo = "put the states of a database in suites/<db_id>/*.sqlite, or give --make-suite"
        raise DataError("no database has several states", where=", ".join(map(str, folders)), todo=todo)
    return [
        dataclasses.replace(q, info={**q.info, "states": several[q.db]}) if q.db in several else q for q in questions
    ]


def _states(db: Path, name: str, folders: Sequence[Path]) -> tuple[Path, ...]:
    """The own database and, by name, every other state of it; a copy of the own one is left out."""
    places = [*(f / name for f in folders), *([db.parent] if db.parent.name == name else [])]
    found = next((f for p in places if len(f := sorted(p.glob("*.sqlite"))) > 1), [])
    return (db, *(p for p in found if p != db and not (p.stem == name and _same(p, db))))


def _same(a: Path, b: Path) -> bool:
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


def _synonyms(questions: Sequence[Question], file: Path) -> list[Question]:
    """The questions in their other wording; those without one keep theirs."""
    if not any(q.info.get("question_syn") for q in questions):
        todo = "Spider-Syn's wording stands under question_syn in each question"
        raise DataError("no question has another wording", where=str(file), todo=todo)
    return [
        dataclasses.replace(q, text=str(q.info.get("question_syn") or q.text), info={**q.info, "wording": "synonyms"})
        for q in questions
    ]


__all__ = ["NAMES", "Benchmark", "read_benchmark"]
