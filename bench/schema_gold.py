"""What bench/schema.py measures with: what a gold query needs of a schema, BM25 by names, a schema of 200 tables."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import sqlglot
from sqlglot import exp

from verbal.apps.text2sql.schema import Table, read_catalog

WIDE = 200
"""Tables of the large schemas."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a gold query reads, in the schema's own spelling."""

    tables: frozenset[str]
    columns: frozenset[tuple[str, str]]
    literals: tuple[str, ...]
    """Texts that it compares with."""


def need(sql: str, tables: Sequence[Table]) -> Need | None:
    """What `sql` needs, or None when it names a table that is not there."""
    known = {table.name.lower(): table for table in tables}
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    used, columns, literals = set[str](), set[tuple[str, str]](), []
    for scope in tree.find_all(exp.Select):
        inside = [t for t in scope.find_all(exp.Table) if t.find_ancestor(exp.Select) is scope]
        if any(t.name.lower() not in known for t in inside):
            return None
        names = {(t.alias or t.name).lower(): known[t.name.lower()] for t in inside}
        used |= {table.name for table in names.values()}
        for column in (c for c in scope.find_all(exp.Column) if c.find_ancestor(exp.Select) is scope):
            owners = [names[column.table.lower()]] if column.table.lower() in names else list(names.values())
            places = [(t.name, c.name) for t in owners for c in t.columns if c.name.lower() == column.name.lower()]
            columns |= set(places[:1])
            if not places and column.this.quoted and not column.table:
                literals.append(column.name)  # SQLite reads "France" as a text where no column has that name
        literals += [
            t.name for t in scope.find_all(exp.Literal) if t.is_string and t.find_ancestor(exp.Select) is scope
        ]
    return Need(frozenset(used), frozenset(columns), tuple(dict.fromkeys(literals)))


class Bm25:
    """Okapi BM25 (k1 = 1.2, b = 0.75) over the words of names alone: the baseline."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._documents = [Counter(split(text)) for text in documents]
        self._count = Counter(word for document in self._documents for word in document)
        self._mean = sum(sum(d.values()) for d in self._documents) / max(1, len(documents))

    def ranked(self, question: str) -> list[int]:
        """Numbers of the documents, best first."""
        words = set(split(question))
        scores = [sum(self._score(word, document) for word in words) for document in self._documents]
        return sorted(range(len(scores)), key=lambda i: (-scores[i], i))

    def _score(self, word: str, document: Counter[str]) -> float:
        seen = self._count[word]
        rare = math.log(1 + (len(self._documents) - seen + 0.5) / (seen + 0.5))
        size = 1.2 * (0.25 + 0.75 * sum(document.values()) / self._mean)
        return rare * document[word] * 2.2 / (document[word] + size) if document[word] else 0.0


@cache
def split(text: str) -> tuple[str, ...]:
    """Lower-case words; identifiers are split at underscores and capitals, a plural s is cut."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", text)
    return tuple(part.lower().removesuffix("s") if len(part) > 3 else part.lower() for part in parts)


def baseline(tables: Sequence[Table]) -> tuple[Bm25, Bm25, list[tuple[str, str]]]:
    """BM25 over tables (name and columns), over columns (name and table), and the columns by number."""
    columns = [(t.name, c.name) for t in tables for c in t.columns]
    by_table = Bm25([f"{t.name} {t.name} {' '.join(c.name for c in t.columns)}" for t in tables])
    return by_table, Bm25([f"{column} {column} {table}" for table, column in columns]), columns


def questions(data: Path, split_name: str) -> list[dict[str, Any]]:
    """Spider's lines."""
    return [json.loads(line) for line in (data / "spider" / f"{split_name}.jsonl").read_text("utf-8").splitlines()]


def database_path(data: Path, name: str) -> Path:
    """A database of Spider."""
    return data / "spider" / "database" / name / f"{name}.sqlite"


def widened(data: Path, name: str, others: Iterable[str], folder: Path, rows: int = 200) -> Path:
    """The database `name` in one file with tables of `others`, `WIDE` in all, the first `rows` rows of each."""
    path = folder / f"{name}_wide.sqlite"
    rng, order = Random(name), [other for other in others if other != name]
    rng.shuffle(order)
    taken: set[str] = set()
    chosen: dict[str, list[str]] = {}
    for source in [name, *order]:  # all tables of a database or none, so that keys stay whole
        names = [table.name for table in read_catalog(database_path(data, source))] if len(taken) < WIDE else []
        if names and not taken & {n.lower() for n in names} and len(taken) + len(names) <= WIDE:
            chosen[source] = names
            taken |= {n.lower() for n in names}
    places = list(chosen)
    rng.shuffle(places)  # the tables that are asked for stand anywhere among the others
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda b: b.decode("utf-8", "replace")
        connection.execute("PRAGMA journal_mode = OFF")
        for source in places:
            most = rows if source != name else 1_000_000
            copied(connection, database_path(data, source), chosen[source], most)
    return path


def copied(connection: sqlite3.Connection, source: Path, names: Sequence[str], rows: int) -> None:
    """Copies tables of `source`."""
    connection.execute("ATTACH ? AS far", (str(source),))
    for name in names:
        (sql,) = connection.execute(
            "SELECT sql FROM far.sqlite_master WHERE type = 'table' AND name = ?", (name,)
        ).fetchone()
        quoted = '"' + name.replace('"', '""') + '"'
        connection.execute(sql)
        connection.execute(f"INSERT INTO main.{quoted} SELECT * FROM far.{quoted} LIMIT {rows}")
    connection.commit()
    connection.execute("DETACH far")


def noisy(text: str, rng: Random) -> str:
    """The text with one edit in its longest word: a letter lost, doubled, changed, or two swapped."""
    words = re.findall(r"\w+", text)
    word = max(words, key=len, default="")
    if len(word) < 5:
        return text
    place = rng.randrange(1, len(word) - 1)
    other = rng.choice("aeionrst")
    made = rng.choice((
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
        word[:place] + other + word[place + 1 :],
        word[:place] + word[place + 1] + word[place] + word[place + 2 :],
    ))  # fmt: skip
    return text.replace(word, made, 1)
