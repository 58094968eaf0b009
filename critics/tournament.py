"""Pairs of answers judged against each other, each pair in both orders, every answer against every other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from verbal.contracts import CriticContext, Model, Sampling
from verbal.errors import ConfigError, ModelError
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Task

from .candidates import Candidates, ask, filled, pick, read_marks


@dataclass(slots=True)
class Table:
    """Points of a tournament: of each answer what it won, how often it was judged, and what is still to come."""

    points: list[float]
    judged: list[int]
    left: list[int]
    swayed: int = 0
    """Pairs whose two orders were won by different answers: the judge went by the place."""
    calls: int = 0
    failure: str = ""
    values: list[float | None] = field(default_factory=list)

    def decided(self) -> bool:
        """Whether no answer can reach the leader's share any more, however the rest is judged.

        A comparison that cannot be read is not counted, so shares are bounded with anything from none to all of what
        is left being counted.
        """
        low = [min(_share(p, n), _share(p, n + left)) for p, n, left in self._rows()]
        high = [_share(p + left, n + left) if n + left else 0.0 for p, n, left in self._rows()]
        leader = max(range(len(low)), key=lambda i: low[i])
        return all(low[leader] > high[i] + 1e-9 for i in range(len(low)) if i != leader)

    def _rows(self) -> Iterator[tuple[float, int, int]]:
        return zip(self.points, self.judged, self.left, strict=True)


class Tournament:
    """Value in [0, 1]: the share of its comparisons that an answer won; `parts["chosen"]` is 1 for the winner.

    Every pair of different answers is shown twice, once in each order. In each the one of higher mark gets a point,
    equal marks half a point each; so a pair whose orders disagree (the judge goes by the place) counts half each. An
    unreadable reply is no comparison: it counts for nobody. Pairs are played in rounds in which each answer plays at
    most once; after a round the tournament ends when nobody can reach the leader any more. An answer that does not
    run has value 0. Without a single comparison the results vote, as in `group`. Ties for `chosen` go to the result
    that more answers gave, then by seed.

    Args:
        distinct: Answers with one result play once; they share the value. Ten answers are 90 calls, four results 12.
        previews: Show the judge what each answer gave.
        early: Stop when nobody can reach the leader any more.
        prompt, prompts, temperature, max_tokens: As in `group`; the prompt is that of a group of two.

    Source: pairwise selection of CHASE-SQL, arXiv 2410.01943: each ordered pair judged once, points added.
    Differs: no fine-tuned selector; no point without a comparison that could be read; ends early.
    """

    name = "tournament"
    oracle: ClassVar[bool] = False

    def __init__(
        self,
        *,
        distinct: bool = True,
        previews: bool = True,
        early: bool = True,
        prompt: str = "critic/group",
        prompts: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
    ) -> None:
        self._distinct, self._previews, self._early = distinct, previews, early
        self._prompt, self._temperature, self._max_tokens = load_prompt(prompt, prompts), temperature, max_tokens

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order; None for an attempt without an answer, and where one answer is left.

        Raises:
            ConfigError: the context has no model, or the prompt wants a field that nothing here has.
            BudgetError, TransientError: a limit was reached or the model is gone; the run can be resumed.
        """
        if context.model is None:
            raise ConfigError("`tournament` has no model", where="[critics]", todo="give a model for role judge")
        candidates = Candidates.of(self.name, group, context, distinct=self._distinct)
        if len(candidates.shown) < 2:
            return candidates.too_few()
        rng = random.Random(context.seed)
        table = await self._play(task, candidates, context.model, rng)
        if not any(table.judged):
            return candidates.voted(rng, f"no comparison could be read in {table.calls} calls{table.failure}")
        values = [p / n if n else None for p, n in zip(table.points, table.judged, strict=True)]
        votes = candidates.votes
        said = [
            f"won {p:g} of {n} comparisons with other answers" if n else "no comparison of this answer could be read"
            for p, n in zip(table.points, table.judged, strict=True)
        ]
        parts = [
            {"points": p, "compared": float(n), "votes": float(v), "swayed": float(table.swayed),
             "calls": float(table.calls)}
            for p, n, v in zip(table.points, table.judged, votes, strict=True)
        ]  # fmt: skip
        best = max(round(v, 9) for v in values if v is not None)
        winner = pick(
            [float(v) if s is not None and round(s, 9) == best else -1.0 for s, v in zip(values, votes, strict=True)],
            rng,
        )
        return candidates.scored(values, said, parts, winner)

    async def _play(self, task: Task, candidates: Candidates, model: Model, rng: random.Random) -> Table:
        count = len(candidates.shown)
        table = Table([0.0] * count, [0] * count, [2 * (count - 1)] * count)
        places = rng.sample(range(count), count)
        for pairs in rounds(count):
            met = [(places[a], places[b]) for a, b in pairs]
            games = [order for a, b in met for order in ((a, b), (b, a))]
            seeds = [rng.randrange(2**31) for _ in games]
            asks = [self._ask(task, candidates, g, model, seed) for g, seed in zip(games, seeds, strict=True)]
            replies = await asyncio.gather(*asks)
            wins = [self._count(table, game, reply) for game, reply in zip(games, replies, strict=True)]
            table.swayed += sum(
                one is not None and other is not None and one != other
                for one, other in zip(wins[::2], wins[1::2], strict=True)
            )
            if self._early and table.decided():
                break
        return table

    def _count(self, table: Table, game: tuple[int, int], reply: str | ModelError) -> int | None:
        """Writes a game into the table; its winner, None of a draw and where it could not be read."""
        table.calls += 1
        for player in game:
            table.left[player] -= 1
        if isinstance(reply, ModelError):
            table.failure = f"; the last failed: {reply.what}"
            return None
        marks = read_marks(reply, 2)
        if marks is None:
            return None
        first, second = game
        points = 0.5 if marks[0] == marks[1] else float(marks[0] > marks[1])
        for player, won in ((first, points), (second, 1.0 - points)):
            table.points[player] += won
            table.judged[player] += 1
        return None if points == 0.5 else (first if points else second)

    async def _ask(
        self, task: Task, candidates: Candidates, game: tuple[int, int], model: Model, seed: int
    ) -> str | ModelError:
        lines = candidates.listed(game, previews=self._previews)
        text = filled(self._prompt, f"critic {self.name}", task, candidates.group, candidates=lines, count="2")
        return await ask(
            model, text, Sampling(temperature=self._temperature, max_tokens=self._max_tokens, seed=seed)
        )  # fmt: skip


def rounds(count: int) -> Iterator[list[tuple[int, int]]]:
    """Every pair of `count` players once, in rounds in which nobody plays twice (the circle method).

    >>> [sorted(pairs) for pairs in rounds(3)]
    [[(1, 2)], [(0, 2)], [(0, 1)]]
    """
    players = [*range(count), *([count] if count % 2 else [])]
    for _ in range(len(players) - 1):
        half = len(players) // 2
        met = zip(players[:half], reversed(players[half:]), strict=True)
        yield [(min(a, b), max(a, b)) for a, b in met if count not in (a, b)]
        players = [players[0], players[-1], *players[1:-1]]


def _share(points: float, judged: int) -> float:
    return points / judged if judged else 0.0


__all__ = ["Tournament"]
