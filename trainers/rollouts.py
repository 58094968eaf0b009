"""Attempts of weights under training, through the loop's own graph, environment, critics and memory.

Every attempt lands in a store of its own beside the weights (`rollouts.db`), so that a training can be read like any
other run (`verbal traces --store OUT/rollouts.db`), and so that a step that was cut off finds what it had made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from verbal.contracts import Reply, Sampling
from verbal.curation import open_memory
from verbal.errors import TrainError
from verbal.loop.branches import Branch
from verbal.loop.context import Context
from verbal.loop.episodes import side_by_side
from verbal.loop.nodes import criticise, lessons, make_attempt, reflect_on
from verbal.recipe import Recipe
from verbal.run import Progress, Workshop, make_context, open_workshop, run_batch
from verbal.store import Store
from verbal.types import Attempt, Message, Reflection, Step, StopReason, Task

if TYPE_CHECKING:
    from .weights import Tokens, Weights

__all__ = ["Kind", "Made", "Rollouts", "Sampled"]

Kind = Literal["initial", "refined", "retry", "supervised", "reflection", "proposer", "solver", "judge", "filler"]
"""What a row is: an answer to the bare prompt; one that was written with a critique in sight; a retry whose guidance
was taken away; something to imitate; words; a role of self-play; or a copy that only fills a group."""

_RUN = "rollouts"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt and its verdict in [0, 1]; None where the critic could not score."""

    attempt: Attempt
    value: float | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row of a group, as it is trained."""

    tokens: Tokens
    reward: float | None
    """None leaves the row out of its group's mean and gives it no weight."""
    kind: Kind = "initial"
    pivot: int = 0
    """First token of the completion that counts; what stands before it is shared with another row."""


class Rollouts:
    """A workshop over weights under training. Used as a context; everything runs in one event loop of its own.

    Args:
        recipe: Says app, critics, loop and limits; its model's name is not used.
        tasks: Ids of the tasks that may be attempted.
        weights: Answer every role that the recipe gives to no other model.
        folder: Where the attempts are kept.
        seed: Of every draw.
        temperature: Of the policy.
        max_tokens: Of one reply.
        memory: `STORE#NAME` of a memory that prompts show reflections of; empty for none.
    """

    def __init__(
        self, recipe: Recipe, tasks: Sequence[str], weights: Weights, folder: Path, *, seed: int, temperature: float,
        max_tokens: int, memory: str = "",
    ) -> None:  # fmt: skip
        model = dataclasses.replace(
            recipe.model, cache="off", logprobs=True, temperature=temperature, max_tokens=max_tokens
        )
        # No lots are drawn and nothing is on trial: nobody credits a memory with what weights under training score.
        name = "" if not memory else recipe.memory.name or "exact"
        table = dataclasses.replace(recipe.memory, name=name, credit="", trials=0)
        self.recipe = dataclasses.replace(recipe, model=model, memory=table, seed=seed)
        self.weights, self.seed = weights, seed
        self.tasks: dict[str, Task] = {}
        self.counts: Counter[str] = Counter()
        """What a method counts, such as what it left out; kept with checkpoints."""
        self.notes: dict[str, float] = {}
        """Figures of the newest step that a method told of in `sample`; they become metrics of the trainer."""
        self.memory: dict[str, Any] = {}
        """What a method remembers from step to step: `memory` of the trainer."""
        self._wanted, self._memory, self._folder = list(dict.fromkeys(tasks)), memory, folder
        self._file = folder / "rollouts.json"
        self._runner, self._stack = asyncio.Runner(), AsyncExitStack()
        self._contexts: dict[tuple[str, int], Context] = {}
        self._progress = Progress()
        self._before = 0  # tokens of the steps that an earlier process took
        self._paid = 0  # tokens it generated for no step that is known
        self._steps: dict[str, int] = {}  # tokens of each generation it finished
        self._shop: Workshop

    @property
    def generated(self) -> int:
        """Tokens that models wrote so far, those of every role."""
        return self._before + self._progress.usage.completion_tokens

    def go_on(self, step: int, generated: int) -> None:
        """Counts on from a saved state.

        Args:
            step: Steps done.
            generated: Tokens generated then.
        """
        self._before = generated
        # What is left belongs to the generation that was cut off.
        self._paid += sum(tokens for key, tokens in self._steps.items() if int(key) < step) - generated

    def finished(self, step: int, generated: int) -> None:
        """Notes the tokens of a step's generation; what an earlier process had paid for it counts as generated now."""
        if (known := self._steps.get(str(step))) is not None:
            self._before += max(0, known - generated)
            return
        self._before += max(0, self._paid)
        self._steps[str(step)] = generated + max(0, self._paid)
        self._paid = 0
        part = self._file.with_name(f"{self._file.name}.part")
        part.write_text(json.dumps(self._steps))
        os.replace(part, self._file)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine gives, in the loop in which the workshop lives."""
        return self._runner.run(work)

    def __enter__(self) -> Rollouts:
        try:
            self.run(self._open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    async def _open(self) -> None:
        store = self._stack.enter_context(Store(self._folder / "rollouts.db"))
        shop = open_workshop(
            dataclasses.replace(self.recipe, memory=dataclasses.replace(self.recipe.memory, name="")),
            store,
            run=_RUN,
            model=self.weights.policy(),
            progress=self._progress,
        )
        self._shop = await self._stack.enter_async_context(shop)
        known = {t.id: t for t in self._shop.app.tasks()}
        self.tasks = {i: known[i] for i in self._wanted if i in known and known[i].split != "test"}
        if missing := [i for i in self._wanted if i not in self.tasks]:
            raise TrainError(
                f"{len(missing)} of {len(self._wanted)} tasks cannot be attempted, such as {missing[0]!r}",
                where=f"[app] {self.recipe.app.name}",
                todo="give the app's options of the run that the rows come from, and no task of the split test",
            )
        paid = sum(used.completion_tokens for used in store.usage(_RUN).values())
        self._steps = json.loads(self._file.read_text()) if paid and self._file.exists() else {}
        self._paid = paid - sum(self._steps.values())
        store.start_run(_RUN, self.recipe.to_dict(), {"command": "distill"})
        store.put_tasks(self.tasks.values())
        if self._memory:
            where, _, name = self._memory.rpartition("#")
            source = self._stack.enter_context(Store(where))
            self._shop.memory = open_memory(self.recipe, source, name, str(source.memory_folder))
            self._stack.callback(self._shop.memory.close)

    def context(self, step: int, *, arm: str = "step", **loop: Any) -> Context:
        """The context of a step: the same attempts whenever it is run again; `loop` changes the recipe's table.

        Args:
            step: Optimiser steps done.
            arm: Beginning of its name, where a step has several.
            loop: Fields of `[loop]`.
        """
        if (arm, step) not in self._contexts:
            table = dataclasses.replace(self.recipe.loop, **loop)
            recipe = dataclasses.replace(self._shop.recipe, loop=table, memory=self.recipe.memory)
            first = make_context(self._shop, list(self.tasks.values()), run=_RUN, arm=f"{arm}-{step}", seed=self.seed)
            self._contexts = {k: c for k, c in self._contexts.items() if k[1] >= step}  # earlier steps are over
            self._contexts[arm, step] = dataclasses.replace(first, recipe=recipe, seed=first.draw(arm, step))
        return self._contexts[arm, step]

    async def groups(self, step: int, tasks: Sequence[str], samples: int) -> list[list[Made]]:
        """So many attempts at each task, side by side, through the graph `group`."""
        context = self.context(step, graph="group", samples=samples, most=0, wave=0, reflect=True)
        await run_batch(context, [self.tasks[t] for t in tasks], Progress())
        found = [[context.attempt(context.attempt_id(t, i)) for i in range(samples)] for t in tasks]
        return [[Made(a, context.score(a)) for a in group if a is not None] for group in found]

    async def attempt(
        self,
        context: Context,
        task: str,
        *,
        sample: int = 0,
        round_: int = 0,
        hints: Sequence[Reflection] = (),
        earlier: Sequence[Attempt] = (),
        sampling: Sampling | None = None,
        branch: Branch | None = None,
    ) -> Made:
        """One more attempt at a task, judged: sampled with the seed of its place unless told otherwise."""
        made = await make_attempt(
            context, self.tasks[task], round_=round_, hints=list(hints), earlier=list(earlier), sample=sample,
            sampling=sampling or context.solving(task, round_, sample), branch=branch,
        )  # fmt: skip
        if not context.store.feedback([made.id])[made.id]:
            await context.judge(self.tasks[task], [made])
        return Made(made, context.score(made))

    async def validate(self, step: int, choose: Callable[[Sequence[Task], int], list[Task]]) -> float:
        """The mean verdict of one greedy attempt at each of the dev tasks that `choose` takes, the same every time.

        Raises:
            TrainError: the app has no dev task, or none could be scored.
        """
        held = choose(self._shop.app.tasks("dev"), self.seed)
        self.tasks |= {task.id: task for task in held}
        self._shop.store.put_tasks(held)
        context = self.context(step, arm="dev")
        made = await side_by_side(
            [self.attempt(context, task.id, sampling=context.solving(task.id, greedy=True)) for task in held]
        )
        values = [one.value for one in made if one.value is not None]
        if not values:
            what = f"none of {len(held)} dev tasks gave a value to choose the best weights by"
            raise TrainError(what, where="validate", todo="give the app dev tasks with gold answers, or validate 0")
        return fmean(values)

    async def words(self, context: Context, attempt: Attempt, correction: str = "") -> list[Reflection]:
        """What the loop's critic and reflector say of an attempt, as reflections that a retry can read."""
        await criticise(context, attempt)
        await reflect_on(context, attempt, correction)
        return lessons(context, attempt)

    def row(self, made: Made, kind: Kind = "initial") -> Sampled | None:
        """The row of an attempt under the prompt it saw; None when it has no tokens (an attempt that failed)."""
        tokens = self.weights.tokens(made.attempt)
        return Sampled(tokens, made.value, kind) if tokens is not None and tokens.completion else None

    def said(
        self, messages: Sequence[Message], reply: Reply | Step, reward: float | None, kind: Kind
    ) -> Sampled | None:
        """The row of what a role said to a prompt, as it was sampled; None when its tokens were not told."""
        from .weights import Tokens, turns_of

        if not reply.token_ids:
            return None
        ids, logprobs = list(reply.token_ids), None if reply.logprobs is None else list(reply.logprobs)
        prompt = self.weights.prompt_ids(turns_of(messages))
        return Sampled(Tokens(prompt, ids, [1] * len(ids), logprobs), reward, kind)

    def moved(self, prompt: list[int], messages: Sequence[Any], made: Made, kind: Kind) -> Sampled | None:
        """The row of an attempt of one turn under another prompt: its reply in the tokens that it would have there.

        None when the weights cannot say it there, it said nothing, was cut at its limit, or took several turns.
        """
        from .weights import Tokens, turns_of

        said = [s for s in made.attempt.steps if s.author == "policy"]
        if len(said) != 1 or not made.attempt.answer or made.attempt.stop == StopReason.LENGTH:
            return None
        try:
            ids = self.weights.answer_ids(turns_of(messages), said[0].text)
        except TrainError:
            return None
        return Sampled(Tokens(prompt, ids, [1] * len(ids), None), made.value, kind)
