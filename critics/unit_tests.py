"""Tests in words that a model writes to tell the answers to one task apart, and by which it then judges each answer."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from typing import ClassVar

from verbal.contracts import CriticContext, Model, Sampling
from verbal.errors import ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Task

from .candidates import Candidates, ask, filled, pick

_TEST = re.compile(r"^[ \t>*\-\d.]*TEST\**:\**[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_VERDICT = re.compile(r"[-*\s`]*SQL\s?([0-9]+)[`*]*\s*:\s*[`*]*(passed|failed)[`*.]*\s*", re.IGNORECASE)
_TRIES = 3
_LONGEST = 300


class UnitTests:
    """Value in [0, 1]: the share of the readable tests that an answer passes; `parts["chosen"]` is 1 for the winner.

    The model sees the different answers with what each gave, writes tests that a right answer passes and at least one
    of these does not, then judges all answers by each test, in a shuffled order. A judgement that does not say
    `passed` or `failed` of exactly each answer is asked for again, at most three times, and then the test is not
    counted. An answer that does not run has value 0. Without a test that could be judged the results vote, as in
    `group`. Ties for `chosen` go to the result that more answers gave, then by seed.

    Args:
        tests: Tests wanted (the paper's k, 10 there); those that are missing in the reply are done without.
        distinct: Answers with one result are one candidate; they share the value.
        previews: Show what each answer gave.
        prompts: A folder of the user's that overrides `critic/tests` (writes them) and `critic/test` (judges by one).
        temperature: Of the judgements; None leaves the provider's default.
        max_tokens: Of one reply.

    Source: CHESS, arXiv 2405.16755, unit tester: tests from a model, each judged over all candidates, most passed wins.
    Differs: orders are shuffled, verdicts are read strictly, ties go to the majority.
    """

    name = "unit_tests"
    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        tests: int = 5,
        distinct: bool = True,
        previews: bool = True,
        prompts: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
    ) -> None:
        if tests < 1:
            raise ConfigError(f"tests {tests} is below 1", where="critic unit_tests", todo="give 1 or more")
        self._tests, self._distinct, self._previews = tests, distinct, previews
        self._write, self._judge = load_prompt("critic/tests", prompts), load_prompt("critic/test", prompts)
        self._temperature, self._max_tokens = temperature, max_tokens

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; None for an attempt without an answer, and where one answer is left.

        Raises:
            ConfigError: the context has no model, or a prompt wants a field that nothing here has.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            raise ConfigError("`unit_tests` has no model", where="[critics]", todo="give a model for role judge")
        candidates = Candidates.of(self.name, group, context, distinct=self._distinct)
        if len(candidates.shown) < 2:
            return candidates.too_few()
        rng, model = random.Random(context.seed), context.model
        tests, calls, failure = await self._written(task, candidates, model, rng)
        if not tests:
            return candidates.voted(rng, f"no test was written in {calls} calls{failure}")
        seeds = [rng.randrange(2**31) for _ in tests]
        judged = await asyncio.gather(
            *(self._by(task, candidates, t, model, s) for t, s in zip(tests, seeds, strict=True))
        )
        calls += sum(made for _, made in judged)
        rows = [(test, row) for test, (row, _) in zip(tests, judged, strict=True) if row is not None]
        if not rows:
            return candidates.voted(rng, f"no verdict on {len(tests)} tests could be read in {calls} calls")
        return self._scored(candidates, rows, len(tests), calls, rng)

    def _scored(
        self, candidates: Candidates, rows: Sequence[tuple[str, list[bool]]], tests: int, calls: int, rng: random.Random
    ) -> list[Feedback]:
        count, votes = len(candidates.shown), candidates.votes
        passed = [sum(row[i] for _, row in rows) for i in range(count)]
        said = [
            f"passes {n} of {len(rows)} tests"
            + "".join(f"; fails: {test}" for test, row in rows if not row[i])
            for i, n in enumerate(passed)
        ]  # fmt: skip
        winner = pick([float(v) if n == max(passed) else -1.0 for n, v in zip(passed, votes, strict=True)], rng)
        parts = [
            {"passed": float(n), "judged": float(len(rows)), "tests": float(tests), "votes": float(v),
             "calls": float(calls)}
            for n, v in zip(passed, votes, strict=True)
        ]  # fmt: skip
        return candidates.scored([n / len(rows) for n in passed], said, parts, winner)

    async def _written(
        self, task: Task, candidates: Candidates, model: Model, rng: random.Random
    ) -> tuple[list[str], int, str]:
        """The tests, calls made, and the last failure in words."""
        order = rng.sample(range(len(candidates.shown)), len(candidates.shown))
        lines, failure = candidates.listed(order, previews=self._previews), ""
        text = filled(
            self._write, f"critic {self.name}", task, candidates.group,
            candidates=lines, count=str(len(order)), tests=str(self._tests),
        )  # fmt: skip
        for tried in range(1, _TRIES + 1):
            reply = await ask(model, text, self._sampling(rng.randrange(2**31), tried))
            if isinstance(reply, ModelError):
                failure = f"; the last failed: {reply.what}"
            elif tests := read_tests(reply, self._tests):
                return tests, tried, failure
        return [], _TRIES, failure

    async def _by(
        self, task: Task, candidates: Candidates, test: str, model: Model, seed: int
    ) -> tuple[list[bool] | None, int]:
        """Whether each candidate passes a test (None when no reply could be read), and calls made."""
        rng, count = random.Random(seed), len(candidates.shown)
        for tried in range(1, _TRIES + 1):
            order = rng.sample(range(count), count)
            lines = candidates.listed(order, previews=self._previews)
            text = filled(
                self._judge, f"critic {self.name}", task, candidates.group,
                candidates=lines, count=str(count), test=test,
            )  # fmt: skip
            reply = await ask(model, text, self._sampling(rng.randrange(2**31), tried))
            verdicts = None if isinstance(reply, ModelError) else read_verdicts(reply, count)
            if verdicts is not None:
                return [verdicts[order.index(i)] for i in range(count)], tried
        return None, _TRIES

    def _sampling(self, seed: int, tried: int) -> Sampling:
        """A reply that could not be read is asked for again at a temperature at which it can differ."""
        warm = max(self._temperature or 0.0, 0.7) if tried > 1 and self._temperature is not None else self._temperature
        return Sampling(temperature=warm, max_tokens=self._max_tokens, seed=seed)


def read_tests(text: str, most: int) -> list[str]:
    r"""The different `TEST:` lines of a reply, at most `most`, none of more than 300 characters.

    >>> read_tests("Thinking.\nTEST: It counts each once.\n- TEST: It is sorted.\nTEST: It is sorted.", 5)
    ['It counts each once.', 'It is sorted.']
    """
    found = dict.fromkeys(" ".join(test.split()).strip("*` ") for test in _TEST.findall(text))
    return [test for test in found if 0 < len(test) <= _LONGEST][:most]


def read_verdicts(text: str, count: int) -> list[bool] | None:
    r"""The verdicts of `SQL0: passed` to `SQL(count-1)` at the end of a reply, or None when they are not exactly that.

    >>> read_verdicts("So:\nSQL0: passed\nSQL1: failed", 2), read_verdicts("SQL0: passed", 2), read_verdicts("no", 1)
    ([True, False], None, None)
    """
    verdicts: list[tuple[int, bool]] = []
    for line in reversed([line for line in text.splitlines() if line.strip(" `")]):
        found = _VERDICT.fullmatch(line)
        if not found:
            break
        verdicts.insert(0, (int(found[1]), found[2].lower() == "passed"))
    return [v for _, v in verdicts] if [i for i, _ in verdicts] == list(range(count)) else None


__all__ = ["UnitTests"]
