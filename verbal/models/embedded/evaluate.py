"""How well the embedded model answers: held-out synthetic databases, hints and distractors, k samples, retries, Spider.

Accuracy is execution accuracy: the same rows (as a multiset; in order where the right query orders), columns in the
same order, one answer. On synthetic databases the rows must agree on two differently filled databases. A model is
anything that maps fields to k answers (`Solve`), so that this file needs neither numpy nor torch.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from random import Random

from verbal.models.embedded.codec import Answer
from verbal.models.embedded.corpus.build import world
from verbal.models.embedded.corpus.examples import Bench, describe
from verbal.models.embedded.corpus.questions import Question, question
from verbal.models.embedded.corpus.terms import Term, distractor
from verbal.models.embedded.corpus.words import lexicon
from verbal.models.embedded.corpus.world import World
from verbal.models.embedded.fields import Fields
from verbal.models.embedded.lexicon import stem

Solve = Callable[[Fields, int, float], Sequence[Answer]]
"""(fields, k, temperature) -> k answers; temperature 0 is greedy."""

Rows = list[tuple[object, ...]]
"""What a query gave."""

HINT_CONDITIONS = ("hint", "no_hint", "one_distractor", "two_distractors", "four_distractors")
"""How questions with a private term are asked: with the right hint alone, without any, with it and others."""

_STEPS = 20_000_000


@dataclass(slots=True)
class Case:
    """One held-out question, its database twice, and the hints that may be shown."""

    asked: Question
    world: World
    seed: int
    extra: tuple[Term, ...] = ()
    rows: list[Rows | str] = field(default_factory=list)

    @property
    def ordered(self) -> bool:
        """Whether the order of rows counts."""
        return bool(self.asked.query.order_by)


def run(connection: sqlite3.Connection, sql: str, limit: int = 20_000) -> Rows | str:
    """Rows of a query, at most `limit`, or the error's message; a query that runs too long is stopped."""
    spent = [0]

    def tick() -> int:
        spent[0] += 100_000
        return int(spent[0] > _STEPS)

    connection.set_progress_handler(tick, 100_000)
    try:
        return connection.execute(sql).fetchmany(limit)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return str(error)
    finally:
        connection.set_progress_handler(None, 0)


def same_rows(found: Rows | str, wanted: Rows | str, ordered: bool) -> bool:
    """Whether a query gave the rows that were wanted; numbers that differ by rounding count as equal."""
    if isinstance(found, str) or isinstance(wanted, str) or len(found) != len(wanted):
        return False
    one, two = [tuple(map(_cell, row)) for row in found], [tuple(map(_cell, row)) for row in wanted]
    return one == two if ordered else Counter(one) == Counter(two)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    return float(value) if isinstance(value, int) else value


def held_out(count: int, seed: int = 1_000_003, *, hinted: bool = False, tables: int | None = None) -> list[Case]:
    """Questions on databases made of held-out words; every right query runs and gives rows on both fillings.

    Args:
        count: number of questions; two a database.
        seed: of databases and questions.
        hinted: whether each needs a private term.
        tables: tables of each database; None for the training mix (1 to 10).
    """
    rng, words = Random(seed), lexicon(test=True)
    cases: list[Case] = []
    while len(cases) < count:
        made = world(rng, words, tables)
        for _ in range(2):
            asked = question(rng, made, words, level=0 if hinted else len(cases) % 5 + 1, hinted=hinted, noise=False)
            if asked is None or (not hinted and asked.level != len(cases) % 5 + 1):
                continue
            extra = _distractors(rng, made, asked) if hinted else ()
            case = Case(asked, made, rng.getrandbits(30), extra)
            case.rows = outcomes(case, asked.sql)
            if all(rows and not isinstance(rows, str) and _telling(rows) for rows in case.rows):
                cases.append(case)
    return cases[:count]


def _telling(rows: Rows) -> bool:
    return any(cell not in (None, 0) for row in rows for cell in row)


def _distractors(rng: Random, made: World, asked: Question) -> tuple[Term, ...]:
    found: list[Term] = []
    for _ in range(60):
        other = distractor(rng, made, lexicon(test=True), asked.terms)
        known = {term.phrase for term in (*asked.terms, *found)}
        if other is not None and other.phrase not in known and other.phrase.lower() not in asked.text.lower():
            found.append(other)
        if len(found) == 4:
            break
    return tuple(found)


def outcomes(case: Case, sql: str) -> list[Rows | str]:
    """Rows of a query on both fillings of the case's database."""
    with closing(case.world.connect()) as first, closing(case.world.connect(Random(case.seed))) as second:
        return [run(first, sql), run(second, sql)]


def right(case: Case, answer: Answer) -> bool:
    """Whether an answer's query gives the right rows on both fillings."""
    if not answer.sql:
        return False
    found = outcomes(case, answer.sql)
    return all(same_rows(one, two, case.ordered) for one, two in zip(found, case.rows, strict=True))


def fields_of(case: Case, condition: str = "hint") -> Fields:
    """The solver's prompt for a case under one of `HINT_CONDITIONS`."""
    extra = {"one_distractor": 1, "two_distractors": 2, "four_distractors": 4}.get(condition, 0)
    terms = () if condition == "no_hint" else (*case.asked.terms, *case.extra[:extra])
    lines = [term.hint for term in terms]
    Random(case.seed).shuffle(lines)
    return Fields("solver", case.world.schema, case.asked.text, tuple(lines), case.asked.values)


def accuracy(solve: Solve, cases: Sequence[Case], condition: str = "hint") -> dict[str, float]:
    """Greedy accuracy over cases as a fraction, overall and by level, with the number of questions."""
    good: dict[str, list[bool]] = {"all": []}
    for case in cases:
        mark = right(case, solve(fields_of(case, condition), 1, 0.0)[0])
        good["all"].append(mark)
        good.setdefault(f"level {case.asked.level}", []).append(mark)
    return {"n": len(cases)} | {name: sum(marks) / len(marks) for name, marks in sorted(good.items())}


def by_kind(solve: Solve, cases: Sequence[Case]) -> dict[str, tuple[int, int]]:
    """Right answers and questions of each kind of question."""
    found: dict[str, tuple[int, int]] = {}
    for case in cases:
        good, count = found.get(case.asked.kind, (0, 0))
        found[case.asked.kind] = (good + right(case, solve(fields_of(case), 1, 0.0)[0]), count + 1)
    return found


def voted(answers: Sequence[Answer], outcome: Callable[[str], Rows | str]) -> Answer:
    """The answer whose result most answers share; failing and empty results come last, ties go to the first."""
    groups: dict[object, list[int]] = {}
    for at, answer in enumerate(answers):
        rows = outcome(answer.sql) if answer.sql else "no SQL"
        key: object = rows if isinstance(rows, str) else tuple(tuple(map(_cell, row)) for row in rows)
        groups.setdefault(key, []).append(at)
    best = max(
        groups.items(), key=lambda item: (not isinstance(item[0], str) and item[0] != (), len(item[1]), -item[1][0])
    )
    return answers[best[1][0]]


def sampled(solve: Solve, cases: Sequence[Case], k: int = 8, temperature: float = 0.7) -> dict[str, float]:
    """Accuracy of the greedy answer, of the vote over it and k samples, and of the best of the k samples."""
    greedy = vote = best = mean = 0.0
    for case in cases:
        fields = fields_of(case)
        first = solve(fields, 1, 0.0)[0]
        samples = list(solve(fields, k, temperature))
        marks = [right(case, answer) for answer in samples]
        greedy += right(case, first)
        best += any(marks)
        mean += sum(marks) / k
        with closing(case.world.connect()) as connection:
            chosen = voted([first, *samples], lambda sql: run(connection, sql))
        vote += right(case, chosen)
    n = len(cases)
    return {
        "n": n,
        "k": k,
        "greedy": greedy / n,
        "mean_of_samples": mean / n,
        f"vote@{k}": vote / n,
        f"pass@{k}": best / n,
    }


def retried(solve: Solve, cases: Sequence[Case], rounds: int = 3, temperature: float = 0.8) -> dict[str, float]:
    """Accuracy of the first answer, and after retries of wrong ones (told by an oracle): critiques or resampling.

    Both get the same number of attempts. A critique is asked of the model itself, with the execution result; its
    rewritten query is the next attempt. Resampling draws an answer that differs from those tried.
    """
    first = rewritten = resampled = 0
    for case in cases:
        fields = fields_of(case)
        answer = solve(fields, 1, 0.0)[0]
        if right(case, answer):
            first, rewritten, resampled = first + 1, rewritten + 1, resampled + 1
            continue
        rewritten += _rewrites(solve, case, fields, answer, rounds)
        tried = (answer.sql,) if answer.sql else ()
        for _ in range(rounds):
            other = solve(replace(fields, tried=tried), 1, temperature)[0]
            if right(case, other):
                resampled += 1
                break
            tried = (*tried, other.sql) if other.sql and other.sql not in tried else tried
    n = len(cases)
    return {"n": n, "first": first / n, "critique": rewritten / n, "resampling": resampled / n, "rounds": rounds}


def _rewrites(solve: Solve, case: Case, fields: Fields, answer: Answer, rounds: int) -> bool:
    for at in range(rounds):
        if not answer.sql:
            return False
        with closing(case.world.connect()) as connection:
            result = describe(run(connection, answer.sql))
        asked = replace(fields, role="critic", sql=answer.sql, result=result)
        answer = solve(asked, 1, 0.0 if at == 0 else 0.8)[0]
        if answer.sql and right(case, answer):
            return True
    return False


def judged(solve: Solve, seed: int, count: int) -> dict[str, float]:
    """The critic's verdicts on spoiled and right queries: accuracy, wrong ones caught, false alarms.

    Also the share of wrong ones whose rewritten query gives the right rows.
    """
    rng, words = Random(seed), lexicon(test=True)
    caught = wrong = alarms = fine = repaired = 0
    while wrong + fine < count:
        made = world(rng, words)
        bench = Bench(rng, made, words)
        example = bench.criticise()
        if example is not None:
            answer = solve(example.fields, 1, 0.0)[0]
            if example.answer.verdict == "wrong":
                wrong += 1
                caught += answer.verdict == "wrong"
                ordered = bool(example.asked.query.order_by)
                repaired += bool(answer.sql) and same_rows(
                    bench.rows(answer.sql), bench.rows(example.asked.sql), ordered
                )
            else:
                fine += 1
                alarms += answer.verdict == "wrong"
        bench.close()
    return {
        "n": wrong + fine, "accuracy": (caught + fine - alarms) / (wrong + fine), "caught": caught / wrong,
        "false_alarms": alarms / fine, "repaired": repaired / wrong,
    }  # fmt: skip


def reflected(solve: Solve, seed: int, count: int) -> dict[str, float]:
    """Hints from a wrong and a right query: share equal to the true hint, and of silence where none is due."""
    rng, words = Random(seed), lexicon(test=True)
    exact = due = silent = none = 0
    while due + none < count:
        made = world(rng, words)
        bench = Bench(rng, made, words)
        example = bench.reflect()
        bench.close()
        if example is None:
            continue
        hint = solve(example.fields, 1, 0.0)[0].hint
        if example.answer.hint:
            due += 1
            exact += _plain(hint) == _plain(example.answer.hint)
        else:
            none += 1
            silent += not hint
    return {"n": due + none, "exact": exact / max(due, 1), "silent_where_none_due": silent / max(none, 1)}


def _plain(hint: str) -> tuple[str, str]:
    """A hint's term in base forms and its meaning without brackets and table names, to compare two hints."""
    term, _, meaning = hint.lower().partition(" means ")
    bare = re.sub(r"\b\w+\.(?=\w)", "", meaning.replace("(", " ").replace(")", " "))
    return " ".join(stem(word) for word in term.split()), " ".join(bare.split())
