"""Training and test examples for every role: what the prompt says and what the answer should be. No torch, no numpy."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from random import Random

from verbal.models.embedded.ast import Query, Unsupported, differing_clauses, to_sql
from verbal.models.embedded.codec import Answer
from verbal.models.embedded.corpus.corrupt import corrupted, without_term
from verbal.models.embedded.corpus.questions import Question, hints, question
from verbal.models.embedded.corpus.terms import Term
from verbal.models.embedded.corpus.words import Lexicon
from verbal.models.embedded.corpus.world import World
from verbal.models.embedded.fields import Fields

ROLES = ("solve", "solve_hinted", "criticise", "reflect", "propose")
"""Kinds of examples."""
SHARES = (42, 32, 8, 16, 2)
"""Their shares in training, in percent."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answer."""

    kind: str
    fields: Fields
    answer: Answer
    trees: dict[str, Query]
    """Queries behind the SQL texts of the prompt and the answer, so that nothing needs parsing."""
    asked: Question


def lesson(term: Term) -> str:
    """The hint that the reflector is taught: the term's own words and what they mean."""
    return f"{term.phrase} means {term.plain.split(' means ', 1)[1]}"


class Bench:
    """Makes examples about one database; opens it only when an example needs execution."""

    def __init__(self, rng: Random, world: World, words: Lexicon) -> None:
        self.rng = rng
        self.world = world
        self.words = words
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the database if it was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def example(self, kind: str = "") -> Example | None:
        """One example of a kind of `ROLES`, any if empty; None where the database lends itself to none."""
        kind = kind or self.rng.choices(ROLES, SHARES)[0]
        make = {
            "solve": self.solve, "solve_hinted": self.solve_hinted, "criticise": self.criticise,
            "reflect": self.reflect, "propose": self.propose,
        }[kind]  # fmt: skip
        return make()

    def solve(self) -> Example | None:
        """A plain question, at times with hints that do not matter or with failed attempts."""
        asked = question(self.rng, self.world, self.words)
        if asked is None:
            return None
        stray: tuple[str, ...] = ()
        if self.rng.random() < 0.12:
            stray = self._stray(asked)
        fields = Fields("solver", self.world.schema, asked.text, stray, asked.values)
        trees = {asked.sql: asked.query}
        if self.rng.random() < 0.05:
            wrong = corrupted(self.rng, self.world, asked.query)
            text = self._sql(wrong)
            if wrong is not None and text and text != asked.sql:
                fields, trees[text] = replace(fields, tried=(text,)), wrong
        return Example("solve", fields, Answer(sql=asked.sql), trees, asked)

    def _stray(self, asked: Question) -> tuple[str, ...]:
        from verbal.models.embedded.corpus.terms import invent

        found = [invent(self.rng, self.world, self.words) for _ in range(self.rng.randint(1, 3))]
        lowered = asked.text.lower()
        return tuple(term.hint for term in found if term is not None and term.phrase.lower() not in lowered)

    def solve_hinted(self) -> Example | None:
        """A question with a private term and the hint that defines it; in one of eight the hint is missing."""
        asked = question(self.rng, self.world, self.words, hinted=True)
        if asked is None:
            return None
        fields = Fields("solver", self.world.schema, asked.text, hints(self.rng, asked), asked.values)
        return Example("solve_hinted", fields, Answer(sql=asked.sql), {asked.sql: asked.query}, asked)

    def criticise(self) -> Example | None:
        """A question with a wrong (three of five) or right query and its result: the verdict and the right query."""
        hinted = self.rng.random() < 0.2
        asked = question(self.rng, self.world, self.words, hinted=hinted)
        if asked is None:
            return None
        shown: Query | None = asked.query
        if self.rng.random() < 0.6:
            shown = None
            if asked.terms and self.rng.random() < 0.5:
                shown = without_term(self.rng, self.world, asked.query, asked.terms[0])
            shown = shown or corrupted(self.rng, self.world, asked.query)
        text = self._sql(shown)
        if shown is None or not text:
            return None
        right = text == asked.sql or self._same(text, asked.sql)
        if right and shown != asked.query:
            return None
        answer = Answer(verdict="right", sql=asked.sql)
        if not right:
            answer = Answer(verdict="wrong", clauses=differing_clauses(shown, asked.query), sql=asked.sql)
        lines = hints(self.rng, asked) if asked.terms else ()
        fields = Fields(
            "critic", self.world.schema, asked.text, lines, asked.values, sql=text, result=self.result(text)
        )
        return Example("criticise", fields, answer, {text: shown, asked.sql: asked.query}, asked)

    def reflect(self) -> Example | None:
        """A wrong and a right query: the hint that would have helped, or none where no term explains the mistake."""
        hinted = self.rng.random() < 0.9
        asked = question(self.rng, self.world, self.words, hinted=hinted)
        if asked is None or len(asked.terms) > 1:
            return None
        wrong = None
        if asked.terms:
            wrong = without_term(self.rng, self.world, asked.query, asked.terms[0])
            if wrong is not None and self.rng.random() < 0.25:
                wrong = corrupted(self.rng, self.world, wrong, 1) or wrong
        else:
            wrong = corrupted(self.rng, self.world, asked.query)
        text = self._sql(wrong)
        if wrong is None or not text or text == asked.sql:
            return None
        fields = Fields(
            "reflector",
            self.world.schema,
            asked.text,
            (),
            asked.values,
            sql=text,
            result=self.result(text),
            right=asked.sql,
        )
        # The hint names the private words alone: a table's name is a link in the prompt, which no answer can repeat.
        answer = Answer(hint=lesson(asked.terms[0]) if asked.terms else "")
        return Example("reflect", fields, answer, {text: wrong, asked.sql: asked.query}, asked)

    def propose(self) -> Example | None:
        """A level: a question of that level with its query."""
        level = self.rng.randint(1, 5)
        asked = question(self.rng, self.world, self.words, level=level)
        if asked is None:
            return None
        fields = Fields("proposer", self.world.schema, level=level)
        return Example("propose", fields, Answer(question=asked.text, sql=asked.sql), {asked.sql: asked.query}, asked)

    def _sql(self, query: Query | None) -> str:
        try:
            return to_sql(query, self.world.schema) if query is not None else ""
        except Unsupported:
            return ""

    def rows(self, sql: str) -> list[tuple[object, ...]] | str:
        """Rows of a query on this database, or the error's message."""
        if self._connection is None:
            self._connection = self.world.connect()
        try:
            return self._connection.execute(sql).fetchmany(5000)
        except sqlite3.Error as error:
            return str(error)

    def result(self, sql: str) -> str:
        """What execution says of a query, in the words a critic is shown."""
        found = self.rows(sql)
        return describe(found)

    def _same(self, first: str, second: str) -> bool:
        one, two = self.rows(first), self.rows(second)
        return not isinstance(one, str) and not isinstance(two, str) and bool(one) and one == two


def describe(found: list[tuple[object, ...]] | str) -> str:
    """Rows, or an error's message, as one line: `3 rows, 2 columns`, `error: no such column`."""
    if isinstance(found, str):
        return f"error: {found}"
    columns = len(found[0]) if found else 0
    nulls = ", nulls" if any(cell is None for row in found[:20] for cell in row) else ""
    rows = f"{len(found)} row{'s' if len(found) != 1 else ''}"
    return f"{rows}, {columns} column{'s' if columns != 1 else ''}{nulls}" if found else "0 rows"
