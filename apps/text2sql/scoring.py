"""Scores of answers, each against its question's gold: execution match, suite, partial, the cause when it is wrong.

Every answer of a question is run once, and its rows are compared with words; the verdicts over the states of a suite
and those by the rules of the published evaluators come from the processes that run the queries (`matching.py`). A
question whose gold does not run, or an answer that could not be run for a reason that is not its own (a locked file, a
server that is down), has no score: it is counted apart, never as wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.contracts import Match, Observation
from verbal.parts import load_function
from verbal.rows import OUTAGES, compare, is_ordered
from verbal.types import Task

from .app import Text2Sql
from .causes import Cause, cause_of
from .matching import Pair, Rules, match
from .questions import Question
from .sources import Source
from .states import Suite, make_states

SHOWN_ROWS = 6
"""Rows of a result that are kept for who looks at a wrong answer."""
SHOWN_COLUMNS = 12
"""Columns of a result that are kept."""

_AT_ONCE = 64
PARTIAL = ("faithful", "hardened")
"""Modes of the partial match (PaVeRL-SQL, arXiv 2509.07159): as published, and without its exploits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one answer scored."""

    sql: str
    right: bool | None
    """Execution match on the question's own database; None when it has no score, `text` then has the reason."""
    suite: bool | None = None
    """On every state; None when there is one state only, or it was not asked for."""
    official: bool | None = None
    """Right by the rules of the benchmark's published evaluator (Spider's drops DISTINCT; BIRD's compares sets)."""
    official_suite: bool | None = None
    """The same on every state."""
    partial: Mapping[str, float]
    """Mode -> a tenth of the reward, in [0, 1]."""
    text: str
    cause: Cause | None = None
    """Why it is wrong."""
    shown: Mapping[str, Any] | None = None
    """First rows of the result: columns, rows, row_count, error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One question with the scores of its answers."""

    task: Task
    scores: tuple[Score, ...]
    """In the order of the answers; empty when the gold does not run."""
    gold_error: str = ""
    """Why the gold query could not be run."""
    gold_shown: Mapping[str, Any] | None = None
    chosen: int = 0
    """The answer that counts."""

    @property
    def score(self) -> Score | None:
        """Of the answer that counts."""
        return self.scores[self.chosen] if self.scores else None


class BenchmarkApp(Text2Sql):
    """The app over questions that were read elsewhere."""

    def __init__(self, questions: Sequence[Question], **options: Any) -> None:
        """`options`: of `Text2Sql`; the first question's database stands for the app's own."""
        super().__init__(questions[0].db, **options)
        self._chosen = tuple(questions)

    def _questions(self) -> list[Question]:
        return list(self._chosen)

    async def make_suites(self, questions: Sequence[Question], told: Callable[[str], None] = lambda _: None) -> int:
        """Makes states for the databases that have none; gives the number of questions that now have some.

        Args:
            questions: All questions about the databases: their gold queries decide which states are made.
            told: Given the name of each database before its states are made.

        Raises:
            DataError: a database cannot be read.
        """
        golds: dict[str, list[str]] = {}
        for question in questions:
            golds.setdefault(str(question.db), []).append(question.sql or "")
        suites: dict[str, Suite] = {}
        changed, made = [], 0
        for question in self._chosen:
            db, info = str(question.db), dict(question.info)
            if "states" not in info and Source.of(db).kind == "sqlite":
                if db not in suites:
                    told(info["db_id"])
                    suites[db] = await make_states(self._pool, db, golds[db])
                if states := suites[db].of(question.sql or ""):
                    info |= {"states": [db, *states], "made_suite": True}
                    made += 1
            changed.append(dataclasses.replace(question, info=info))
        self._chosen, self._tasks = tuple(changed), None
        return made

    async def compared(self, pairs: Sequence[Pair], rules: Rules) -> list[Match]:
        """The verdict on each pair of answer and gold query, over its states."""
        return await match(self._pool, pairs, rules=rules)


class Scorer:
    """Scores the answers of many questions through one app."""

    def __init__(self, app: BenchmarkApp, *, suite: bool = False, bird: bool = False) -> None:
        """`suite`: compare on every state of a database; `bird`: what is published is scored by BIRD's rules."""
        self._app, self._suite, self._bird = app, suite, bird
        self._reward = load_function("critics", "partial_match", "reward")
        self._schemas: dict[str, dict[str, Set[str]]] = {}

    async def all(
        self,
        tasks: Sequence[Task],
        answers: Mapping[str, Sequence[str]],
        chosen: Mapping[str, int] | None = None,
        told: Callable[[Scored], None] = lambda _: None,
    ) -> list[Scored]:
        """The scores of every question, in order.

        Args:
            tasks: The questions.
            answers: Answers of each, one at least, by task id.
            chosen: Index of the answer that counts; the first one where none is given.
            told: Called with each question when it is scored.
        """
        found: list[Scored] = []
        for at in range(0, len(tasks), _AT_ONCE):
            part = tasks[at : at + _AT_ONCE]
            states = await self._verdicts(part, answers, "verbal") if self._suite else {}
            published = {} if self._bird else await self._verdicts(part, answers, "test_suite")
            made = [self._one(t, answers[t.id], (chosen or {}).get(t.id, 0), states, published) for t in part]
            for scored in await asyncio.gather(*made):
                told(scored)
                found.append(scored)
        return found

    async def _verdicts(self, tasks: Sequence[Task], answers: Mapping[str, Sequence[str]], rules: Rules) -> _Verdicts:
        """(task, query, whether over all states) -> verdict; over all states only where there are several."""
        keys = [(t.id, a, False) for t in tasks for a in dict.fromkeys(answers[t.id]) if a.strip()]
        keys = [] if rules == "verbal" else keys  # on the own database the rows are compared here, with words
        wide = [t for t in tasks if self._suite and t.info.get("states")]
        wide = wide if rules == "verbal" else [t for t in wide if not t.info.get("made_suite")]
        keys += [(t.id, a, True) for t in wide for a in dict.fromkeys(answers[t.id]) if a.strip()]
        by = {t.id: t for t in tasks}
        pairs = [Pair(a, by[i].gold or "", _states(by[i], several=several)) for i, a, several in keys]
        return dict(zip(keys, await self._app.compared(pairs, rules), strict=True))

    async def _one(
        self, task: Task, answers: Sequence[str], chosen: int, states: _Verdicts, published: _Verdicts
    ) -> Scored:
        gold = await self._app.execute(task, task.gold or "")
        if gold.info.get("error") or gold.info.get("truncated"):
            error = gold.info.get("error") or "it gives more rows than are fetched"
            return Scored(task=task, scores=(), gold_error=str(error), chosen=chosen)
        known = {a: await self._score(task, a, gold, states, published) for a in dict.fromkeys(answers)}
        made = tuple(known[a] for a in answers)
        return Scored(task=task, scores=made, gold_shown=first_rows(gold), chosen=chosen)

    async def _score(
        self, task: Task, answer: str, gold: Observation, states: _Verdicts, published: _Verdicts
    ) -> Score:
        seen = await self._app.execute(task, answer)
        if answer.strip() and seen.info.get("error_class") in OUTAGES:
            return Score(sql=answer, right=None, partial={}, text=str(seen.info["error"]), shown=first_rows(seen))
        found = compare(seen.info, gold.info, ordered=is_ordered(task.gold or ""))
        right = found.match and not seen.info.get("error") and bool(answer.strip())
        wide = bool(self._suite and task.info.get("states"))
        over = states.get((task.id, answer, True))
        suite = (over.right if over and right else right) if wide else None
        official = self._official(task, answer, seen, gold, published, wide=wide)
        cause = None
        if not right or suite is False:
            failed = Path(over.failed).stem if over and right else ""
            schema, dialect = self._schema(task), self._app.database(task.info["db"]).dialect
            cause = cause_of(
                answer, task.gold or "", seen, gold, found, schema=schema, failed=failed, dialect=dialect
            )  # fmt: skip
        text = str(seen.info["error"]) if seen.info.get("error") else over.text if right and over else found.text
        partial = self._shares(task, answer, seen, gold)
        return Score(
            sql=answer, right=right, suite=suite, official=official[0], official_suite=official[1], partial=partial,
            text=text, cause=cause, shown=first_rows(seen),
        )  # fmt: skip

    def _official(
        self, task: Task, answer: str, seen: Observation, gold: Observation, published: _Verdicts, *, wide: bool
    ) -> tuple[bool | None, bool | None]:
        """Right by the rules of the published evaluator: on the own database, and over all states."""
        if self._bird:
            error = seen.info.get("error") or not answer.strip()
            return not error and _bag(seen) == _bag(gold), None
        one, every = (published.get((task.id, answer, several)) for several in (False, True))
        wide = wide and not task.info.get("made_suite")
        return one.right if one else False, (every.right if every else False) if wide else None

    def _shares(self, task: Task, answer: str, seen: Observation, gold: Observation) -> dict[str, float]:
        """Mode of the partial match -> share."""
        ordered = is_ordered(task.gold or "")
        table = None if seen.info.get("error") or not answer.strip() else seen.info
        return {m: self._reward(answer, table, [gold.info], mode=m, ordered=ordered) / 10 for m in PARTIAL}

    def _schema(self, task: Task) -> dict[str, Set[str]]:
        db = str(task.info["db"])
        if db not in self._schemas:
            tables = self._app.database(db).tables
            self._schemas[db] = {t.name.lower(): frozenset(c.name.lower() for c in t.columns) for t in tables}
        return self._schemas[db]


_Verdicts = dict[tuple[str, str, bool], Match]


def _states(task: Task, *, several: bool) -> tuple[str, ...]:
    return tuple(task.info["states"]) if several else (str(task.info["db"]),)


def _bag(seen: Observation) -> set[tuple[Any, ...]]:
    """The rows as BIRD compares them: each once, in no order."""
    return {tuple(row) for row in seen.info.get("rows") or ()}


def first_rows(seen: Observation) -> dict[str, Any]:
    """The first rows of a result, for who looks at it."""
    info = seen.info
    return {
        "columns": list(info.get("columns") or ())[:SHOWN_COLUMNS],
        "rows": [list(row)[:SHOWN_COLUMNS] for row in (info.get("rows") or ())[:SHOWN_ROWS]],
        "row_count": int(info.get("row_count") or 0),
        "column_count": len(info.get("columns") or ()),
        "error": info.get("error"),
    }


__all__ = ["PARTIAL", "BenchmarkApp", "Score", "Scored", "Scorer", "first_rows"]
