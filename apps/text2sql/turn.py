"""One question on its way through the loop: lessons with their lots, candidates, readings. Used by the assistant.

The graph, the critics, the store and the offers are the loop's own (`verbal/loop`), so that what a person asked is kept
as attempts like any other. The lots of an answer are drawn from its id, not from its question: who asks again takes
part in another draw. Its samples are drawn from the question, so that an equal prompt finds its recorded replies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Memory, Observation
from verbal.errors import ModelError
from verbal.loop.context import Context, query
from verbal.prompt import load_prompt
from verbal.run import Workshop, make_context
from verbal.types import Attempt, Message, Reflection, Step, StopReason, Task, Usage

from .clarify import Reading, Understood, readings, understand
from .prompts import fenced, one_line
from .values import Database

_ROWS_TOLD = 20


@dataclass(slots=True, kw_only=True)
class Turn:
    """A question under way."""

    id: str
    """Of the answer."""
    run: str
    question: str
    asked: str
    shop: Workshop
    task: Task
    database: Database
    dialect: str
    memory: Memory | None = None
    """Where lessons are looked up."""
    trials: bool = True
    """Whether lots are drawn; False for a memory that is pinned at a version."""
    began: float = field(default_factory=time.perf_counter)
    before: dict[str, Usage] = field(default_factory=dict)
    """What the session had used."""
    lessons: list[Reflection] = field(default_factory=list)
    named: Understood = field(default_factory=Understood)
    context: Context | None = None

    @property
    def arm(self) -> str:
        """Under which its attempts are kept: each answer of a session has its own."""
        return f"ask:{self.id.rpartition('-')[2]}"

    async def look_up(self) -> Context:
        """Finds the lessons to show, draws the lots, and sees what the question names."""
        from verbal.loop.offers import Offer, offer

        made = make_context(
            self.shop, [self.task], run=self.run, arm=self.arm, seed=self.shop.recipe.seed, memory=self.memory,
            learning=self.trials,
        )  # fmt: skip
        digest = hashlib.blake2b(self.id.encode(), digest_size=4).digest()
        lots = dataclasses.replace(made, seed=int.from_bytes(digest, "big"))
        drawn = await offer(lots, self.task, query(self.task))
        chances, shown = dict(drawn.chances), list(drawn.shown)
        for item in self._own():
            # What was learned from this very question: shown for certain, which is no experiment.
            chances[item.id] = 1.0
            if item.id not in {r.id for r in shown}:
                shown = [*(r for r in shown if r.id != item.rival), item]
        made.offers[self.task.id] = Offer(shown, chances if self.trials else {})
        self.context, self.lessons = made, shown
        self.named = understand(self.asked, self.database, shown)
        return made

    def _own(self) -> list[Reflection]:
        """Lessons that were drawn from the same question."""
        items: Mapping[str, Reflection] = getattr(self.memory, "items", dict)()
        own = [r for r in items.values() if r.status != "retired" and folded(r.when) == folded(self.asked)]
        return own[-self.shop.recipe.memory.k :]

    def told_lessons(self) -> list[dict[str, Any]]:
        """The lessons as an answer tells of them."""
        chances = self.context.offers[self.task.id].chances if self.context else {}
        return [
            {"id": r.id, "text": r.text, "status": r.status, "chance": chances.get(r.id, 1.0)} for r in self.lessons
        ]

    async def candidates(self) -> tuple[list[Attempt], dict[str, Observation], Attempt]:
        """The attempts of the recipe's graph, what each gave, and the one that its verdict chose."""
        from verbal.loop.graphs import build

        context = self.context or await self.look_up()
        graph = build(context.recipe.loop.graph)
        await graph.ainvoke({"task": self.task.id}, context=context, stream_mode=[])
        group = context.store.group(self.run, context.group_key(self.task), self.arm)
        assert group is not None and group.chosen is not None
        attempts = [a for i in group.attempts if (a := context.attempt(i))]
        seen = {a.id: await context.observation(a) for a in attempts}
        return attempts, seen, next(a for a in attempts if a.id == group.chosen)

    def readings(self, attempts: Sequence[Attempt], seen: Mapping[str, Observation], chosen: Attempt) -> list[Reading]:
        """What the candidates come to, the chosen one first."""
        return readings(attempts, seen, chosen.id, self.dialect)

    async def tried(self, lesson: Reflection | None, round_: int) -> tuple[Attempt, Observation]:
        """One more attempt, greedy, that is shown a lesson beside those of this turn; kept like any other."""
        from verbal.loop.nodes import make_attempt

        context = self.context or await self.look_up()
        # No lots here, so it is no experiment: nothing was offered.
        context = dataclasses.replace(context, offers={})
        made = await make_attempt(
            context, self.task, round_=round_, hints=[*self.lessons, *([lesson] if lesson else [])],
            sampling=context.sampling(self.task.id, round_, greedy=True),
        )  # fmt: skip
        return made, await context.observation(made)

    async def reflected(
        self, attempt: Attempt, seen: Observation, correction: str, words: str, key: str
    ) -> tuple[str, Step | None]:
        """The lesson of the reflector role from an answer and the query that a person gave for it, and its step."""
        from verbal.loop.nodes import say, unsealed

        context = self.context or await self.look_up()
        told = f"{seen.text}. user says: {words}" if words else seen.text
        messages = context.app.messages(
            "reflector", unsealed(self.task), attempt=attempt, observation=dataclasses.replace(seen, text=told),
            correction=correction,
        )  # fmt: skip
        step = await say(context, "reflector", messages, f"{attempt.id}/{key}")
        if step is None:
            return "", None
        step = context.store.put_step(attempt.id, key, step)
        text = context.app.parse("reflector", step.text)
        known = isinstance(text, str) and text.strip().lower() not in ("", "none")
        return (text.strip() if known else ""), step

    async def worded(self, sql: str, seen: Observation, folder: str | None) -> str:
        """What the result means in a model's words; empty where the model follows no instructions, or fails to."""
        from verbal.loop.nodes import say

        context = self.context or await self.look_up()
        if not getattr(context.roles("explainer"), "chats", True):
            return ""
        rows = [one_line(str(row))[:300] for row in seen.info.get("rows", ())[:_ROWS_TOLD]]
        prompt = load_prompt("text2sql/words", folder).fill(
            question=one_line(self.asked), query=fenced(sql), rows="\n".join(rows) or "none",
            columns=one_line(", ".join(map(str, seen.info.get("columns", ()))))[:500], count=one_line(seen.text)[:300],
        )  # fmt: skip
        step = await say(context, "explainer", [Message(role="user", content=prompt)], f"{self.id}/words")
        if step is None:
            return ""
        found = re.findall(r"^[ \t>*-]*answer\**:\**[ \t]*(\S.*)$", step.text, re.IGNORECASE | re.MULTILINE)
        self.shop.store.put_step(self.id, "words", step)
        return " ".join(found[0].split())[:600] if len(found) == 1 else ""

    def pasted(self, sql: str, seen: Observation) -> Attempt:
        """The person's own query as an attempt, which no trainer takes for the policy's."""
        step = Step(author="user", role="user", text=sql, observation=seen.text)
        name = f"{self.run}/{self.arm}/{self.task.id}/0.0"
        made = Attempt(
            id=name, run=self.run, task=self.task.id, arm=self.arm, answer=sql, steps=(step,), stop=StopReason.ANSWERED
        )
        self.shop.store.put_attempt(made)
        return made

    def usage(self) -> dict[str, Usage]:
        """What this question used, by role."""
        now = self.shop.store.usage(self.run)
        return {
            role: _minus(used, self.before.get(role, Usage()))
            for role, used in now.items()
            if _new(used, self.before.get(role))
        }


def broken(attempts: Sequence[Attempt]) -> str:
    """Why the model gave nothing at all, or an empty text."""
    if attempts and all(a.stop is StopReason.ERROR and not a.answer for a in attempts):
        return str(attempts[0].error or ModelError.__name__).partition("\n")[0].partition(": ")[2]
    return ""


def _new(now: Usage, before: Usage | None) -> bool:
    return before is None or now != before


def _minus(now: Usage, before: Usage) -> Usage:
    cost = None if now.cost is None or before.cost is None else now.cost - before.cost
    return Usage(
        calls=now.calls - before.calls, prompt_tokens=now.prompt_tokens - before.prompt_tokens,
        completion_tokens=now.completion_tokens - before.completion_tokens, cost=cost,
        seconds=now.seconds - before.seconds,
    )  # fmt: skip


def folded(text: str) -> str:
    """A question without what does not change it: capitals, spacing, the mark at its end."""
    return " ".join(text.casefold().split()).rstrip("?.! ")


__all__ = ["Turn", "broken", "folded"]
