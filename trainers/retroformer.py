"""Retroformer: the model that reflects is trained; the one that acts is frozen, and says by its next try what a
reflection was worth.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from verbal.contracts import Reply
from verbal.errors import ConfigError, TrainError
from verbal.recipe import Recipe
from verbal.types import Message, Reflection

from .grpo import GRPO
from .words import answers_of, shows

if TYPE_CHECKING:
    from .group import GroupTrainer
    from .rollouts import Made, Rollouts, Sampled

__all__ = ["Retroformer"]

_T = TypeVar("_T")
_POLICY = "policy"
"""Name of the weights under training among the models of a recipe; the actor keeps its own."""
_OTHERS = ("solver", "critic", "judge", "proposer", "curator")
_LEAKED, _ACTOR = "reflections that show the answer", "actor_sha256"


@dataclass(frozen=True, kw_only=True)
class Retroformer(GRPO):
    """A group of reflections on one failed attempt; each earns G_{i+1} - G_i, the return of the actor's retry that read
    it minus that of the attempt.

    Source: Retroformer (arXiv 2308.02151), the reward of section 4. Differs: no reward model, no value head: each
    reflection is tried by the actor, and a group's mean is the baseline; one reflection per attempt, not a chain.
    A reflection that shows a right answer is not tried: it counts as one whose retry failed. Within a group G_i and
    `baseline` cancel (they are the same for all): they matter to the figures that are told.
    """

    name: ClassVar[str] = "retroformer"
    role: ClassVar[str] = "reflector"
    """Who the trained weights are in a loop: `--set model.roles.reflector=checkpoint:NAME`."""
    tells: ClassVar[tuple[str, ...]] = ("before", "after", "retry_only", "leaked", "silent")

    entropy: float = 0.0
    """As of GRPO; none, because over short reflections even a small bonus outweighs what they earn."""
    actor: str = ""
    """Who attempts, as `--model` takes it; the weights as they were before training when empty (a second copy of them
    in memory)."""
    successes: float = 0.1
    """Right first attempts among the tasks, for each failed one: they teach that there is nothing to mend."""
    baseline: Literal["none", "retry"] = "none"
    """`retry`: the reward is G_{i+1} minus what retries without a reflection return."""
    retry_temperature: float = 0.0
    """Of the actor's retries. At 0 a retry is the same whenever it is made, so equal reflections are tried once."""

    def __post_init__(self) -> None:
        GRPO.__post_init__(self)
        if not 0 <= self.successes < math.inf or self.retry_temperature < 0:
            what = f"successes is {self.successes}, retry_temperature {self.retry_temperature}"
            raise ConfigError(what, where="successes, retry_temperature", todo="give 0 or more")

    def plan(self, recipe: Recipe, model: str) -> Recipe:
        """The weights under training reflect, and the actor plays all other roles."""
        own = model if model.startswith("embedded") else f"hf:{model.removeprefix('hf:')}"
        roles = {**dict.fromkeys(_OTHERS, self.actor or own), "reflector": _POLICY}
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=_POLICY, roles=roles))

    async def choose(self, rollouts: Rollouts, tasks: Sequence[str]) -> list[str]:
        """The tasks whose first attempt failed, and a few whose first attempt was right.

        Raises:
            TrainError: the actor fails none, or no failed attempt can be reflected on.
        """
        rollouts.memory[_ACTOR] = await _weights(rollouts.recipe.model.roles["solver"])
        firsts = [m for m in await _all(self._first(rollouts, t) for t in tasks) if m.value is not None]
        failed = [m for m in firsts if m.value != 1.0]
        right = sorted((m for m in firsts if m.value == 1.0), key=lambda m: _digest(m.attempt.task))
        rollouts.counts["first attempts without a score"] = len(tasks) - len(firsts)
        kept = [m for m in failed if await self._readable(rollouts, m)]
        rollouts.counts["failed attempts that cannot be reflected on"] = len(failed) - len(kept)
        if not kept:
            raise TrainError(
                f"of {len(tasks)} first attempts {len(failed)} failed, and {len(failed) - len(kept)} of them cannot be "
                "put into a prompt of the reflector: there is nothing to reflect on",
                where=f"actor {rollouts.recipe.model.roles['solver']}",
                todo="choose tasks that the actor fails, and critics that say what was wrong (the embedded reflector "
                "needs a correction: critic `user`)",
            )
        most = math.floor(self.successes * len(kept) + 1e-9)
        kept += [m for m in right if await self._readable(rollouts, m)][:most]
        chosen = {m.attempt.task for m in kept}
        return [t for t in tasks if t in chosen]

    async def sample(self, rollouts: Rollouts, tasks: Sequence[str], step: int) -> list[list[Sampled]]:
        """The reflections on each task's first attempt, each with what it changed."""
        found = await _all(self._group(rollouts, task, step) for task in tasks)
        told: Counter[str] = sum((Counter(notes) for _, notes in found), Counter())
        rollouts.notes |= {figure: told[figure] / len(found) for figure in self.tells}
        return [rows for rows, _ in found]

    async def _group(self, rollouts: Rollouts, task: str, step: int) -> tuple[list[Sampled], dict[str, float]]:
        first, context = await self._first(rollouts, task), rollouts.context(step, arm="reflect")
        messages = await self._asks(rollouts, first)
        replies = await context.roles("reflector").generate(messages, self.group, context.solving(task, "reflect"))
        returns, notes = await self.returns(rollouts, first, replies, step)
        below = notes["retry_only"] if self.baseline == "retry" else notes["before"]
        rewards = [None if after is None else after - below for after in returns]
        rows = [rollouts.said(messages, *each, "reflection") for each in zip(replies, rewards, strict=True)]
        return [row for row in rows if row], notes

    async def returns(
        self, rollouts: Rollouts, first: Made, replies: Sequence[Reply], step: int
    ) -> tuple[list[float | None], dict[str, float]]:
        """What the actor's retry returns after each reflection, in [0, 1], and the means that are told of the group.

        0 for a reflection that shows a right answer; that of a retry without words for one that says nothing; None
        where the critic could not score.
        """
        context = rollouts.context(0, arm="first")
        feedback = context.store.feedback([first.attempt.id])[first.attempt.id]
        known = answers_of(rollouts.tasks[first.attempt.task], feedback)
        words = [_words(context, first, reply) for reply in replies]
        leaked = [any(shows(r.text, known) for r in said) for said in words]
        plain = await self._controls(rollouts, first)
        again = self.retry_temperature == 0.0
        places = [_digest(*(r.text for r in said)) if again else i for i, said in enumerate(words)]
        tries = {p: said for p, said, bad in zip(places, words, leaked, strict=True) if said and not bad}
        made = await _all(self._retry(rollouts, first, said, p, step) for p, said in tries.items())
        values = dict(zip(tries, made, strict=True))
        returns = [
            0.0 if bad else values[p] if said else plain
            for p, said, bad in zip(places, words, leaked, strict=True)
        ]  # fmt: skip
        rollouts.counts[_LEAKED] += sum(leaked)
        scored = [value for value in returns if value is not None]
        return returns, {
            "before": first.value or 0.0,
            "after": fmean(scored) if scored else 0.0,
            "retry_only": plain or 0.0,
            "leaked": fmean(leaked),
            "silent": fmean(not said for said in words),
        }

    async def _first(self, rollouts: Rollouts, task: str) -> Made:
        context = rollouts.context(0, arm="first")
        hints = await context.hints(rollouts.tasks[task])
        return await rollouts.attempt(context, task, hints=hints, sampling=context.solving(task, 0, greedy=True))

    async def _asks(self, rollouts: Rollouts, first: Made) -> list[Message]:
        from verbal.loop.nodes import reflection_prompt

        return await reflection_prompt(rollouts.context(0, arm="first"), first.attempt)

    async def _readable(self, rollouts: Rollouts, first: Made) -> bool:
        try:
            return bool(rollouts.weights.prompt_ids(_turns(await self._asks(rollouts, first))))
        except TrainError:
            return False

    async def _controls(self, rollouts: Rollouts, first: Made) -> float | None:
        """The mean return of as many retries without words (of one where all are the same); made once per task."""
        many = self.group if self.retry_temperature else 1
        values = await _all(self._retry(rollouts, first, [], i, 0) for i in range(many))
        scored = [value for value in values if value is not None]
        return fmean(scored) if scored else None

    async def _retry(
        self, rollouts: Rollouts, first: Made, said: Sequence[Reflection], place: int, step: int
    ) -> float | None:
        repeats = not said or self.retry_temperature == 0.0
        context = rollouts.context(0 if repeats else step, arm="retry" if said else "control")
        task = first.attempt.task
        sampling = context.solving(task, 1, *([place] if self.retry_temperature else []), greedy=True)
        made = await rollouts.attempt(
            context, task, sample=place, round_=1, hints=[*await context.hints(rollouts.tasks[task]), *said],
            earlier=[first.attempt], sampling=dataclasses.replace(sampling, temperature=self.retry_temperature),
        )  # fmt: skip
        return made.value

    def figures(self, trainer: GroupTrainer) -> dict[str, Any]:
        """The actor with the digest of its weights, and what was left out.

        Raises:
            TrainError: the weights of the actor changed meanwhile.
        """
        rollouts = trainer.rollouts
        actor, before = rollouts.recipe.model.roles["solver"], rollouts.memory[_ACTOR]
        if (after := rollouts.run(_weights(actor))) != before:
            what = f"the weights of the actor changed: {before[:12]} before, {after[:12]} after"
            raise TrainError(what, where=actor, todo="let nobody write to the actor's folder during a training")
        return {"role": self.role, "actor": actor, _ACTOR: before, "counts": dict(rollouts.counts)}


async def _all(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What all of it gives, side by side; the first failure ends the rest."""
    from verbal.loop.episodes import side_by_side

    return await side_by_side(list(work))


def _words(context: Any, first: Made, reply: Reply) -> list[Reflection]:
    from verbal.loop.nodes import lessons_in

    return lessons_in(context, first.attempt, reply.text)


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


async def _weights(model: str) -> str:
    """A digest of the weights behind a `--model` string; empty where they are not here."""
    from verbal.models import open_model

    opened = open_model(model)
    try:
        return str(getattr(opened, "fingerprint", ""))
    finally:
        await opened.aclose()


def _digest(*texts: str) -> int:
    """A number below 2**62 that stands for texts."""
    return int.from_bytes(hashlib.blake2b("\n".join(texts).encode(), digest_size=8).digest(), "big") >> 2
