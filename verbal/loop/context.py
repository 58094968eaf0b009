"""What the nodes of a graph share while one run works: parts, options, ids, seeds. Nothing of it is checkpointed."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from verbal.contracts import App, Critic, CriticContext, Memory, Model, Observation, Sampling
from verbal.loop.offers import Offer, offer
from verbal.prompt import load_prompt
from verbal.recipe import Recipe
from verbal.store import Store
from verbal.types import Attempt, Feedback, Group, Message, Reflection, Task


class Roles(Protocol):
    """Gives the model that plays a role; each call is counted under that role."""

    def __call__(self, role: str) -> Model:
        """The model of `role` (solver, critic, reflector, judge, proposer, curator, user)."""
        ...


class Prompted(App, Protocol):
    """An app that also writes the prompts of the other roles and reads their replies."""

    def messages(self, role: str, task: Task, **fields: Any) -> list[Message]:
        """The prompt of a role for a task."""
        ...

    def parse(self, role: str, text: str, *, n: int = 0) -> Any:
        """What a reply of that role says, or None when it cannot be read; `n` candidates for a judge."""
        ...

    def task(self, question: str, *, id: str, db: str | None = None) -> Task:
        """The task that a question makes, without gold; `db` names the world it is about, the app's own if None."""
        ...

    async def preflight(self, split: str | None = None) -> int:
        """The number of golds that work: all of them, found before anything is paid for.

        Raises:
            DataError: names the one that does not.
        """
        ...


@dataclass(slots=True)
class Context:
    """One arm of one run."""

    run: str
    arm: str
    recipe: Recipe
    app: Prompted
    roles: Roles
    critics: Sequence[Critic]
    store: Store
    tasks: Mapping[str, Task]
    memory: Memory | None = None
    retrieve: Callable[[Task], Any] | None = None
    """Replaces the memory's own search (the shuffled-memory control)."""
    seed: int = 0
    learning: bool = True
    """False in an evaluation: nobody reflects, and no lesson leaves."""
    observations: dict[str, Observation] = field(default_factory=dict)
    made: dict[str, Attempt] = field(default_factory=dict)
    """Attempts of episodes under way that were kept from here: nobody has to read them back."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """What was found for a task: the same for each of its attempts."""
    asked: dict[str, asyncio.Future[str]] = field(default_factory=dict)
    """What each proposal of a self-play asks, once that is known; an empty text when nothing could be read."""

    def attempt_id(self, task: str, sample: int = 0, round_: int = 0) -> str:
        """The id of an attempt: the same whenever a run is resumed."""
        return f"{self.run}/{self.arm}/{task}/{round_}.{sample}"

    def place(self, attempt_id: str) -> str:
        """An attempt's id without run and arm: what chance and prompts depend on, whatever the run is called."""
        return attempt_id.removeprefix(f"{self.run}/{self.arm}/")

    def group_key(self, task: Task) -> str:
        """The task under which an episode's group is kept: in self-play that of the proposal."""
        own = self.recipe.loop.graph == "self_play"
        return f"{self.run}/{self.arm}/{task.id}" if own else task.id

    def draw(self, *parts: object) -> int:
        """A seed in [0, 2**31) that depends on the run's seed and on `parts` only."""
        text = "/".join(str(p) for p in (self.seed, *parts))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1

    def sampling(self, *parts: object, greedy: bool = False) -> Sampling:
        """Greedy, or the recipe's temperature with a seed drawn from `parts`."""
        table = self.recipe.model
        return Sampling(
            temperature=0.0 if greedy else table.temperature, max_tokens=table.max_tokens, seed=self.draw(*parts)
        )

    def solving(self, *parts: object, greedy: bool = False) -> Sampling:
        """The same, with log-probabilities where the recipe asks for them."""
        return dataclasses.replace(self.sampling(*parts, greedy=greedy), logprobs=self.recipe.model.logprobs)

    def attempt(self, id: str) -> Attempt | None:
        """The attempt of that id as the store keeps it, or None."""
        return self.made.get(id) or self.store.attempt(id)

    async def put_attempt(self, attempt: Attempt) -> None:
        """Keeps an attempt in the store; one that is there stays."""
        if await self.store.together(lambda: self.store.put_attempt(attempt)):
            self.made[attempt.id] = attempt

    async def put_group(self, group: Group) -> None:
        """Keeps a group in the store; with it an episode ends."""
        await self.store.together(lambda: self.store.put_group(self.run, group, key=self.arm))
        for id in group.attempts:
            self.made.pop(id, None)

    async def observation(self, attempt: Attempt) -> Observation:
        """The last observation of an attempt; made again by executing its answer when another process made it."""
        if attempt.id not in self.observations:
            # A question that was proposed in the run is a task of the store only.
            task = self.tasks.get(attempt.task) or self.store.tasks([attempt.task])[attempt.task]
            self.observations[attempt.id] = await self.app.execute(task, attempt.answer)
        return self.observations[attempt.id]

    async def hints(self, task: Task) -> list[Reflection]:
        """The reflections shown for a task: found once, the same for each of its attempts in this arm."""
        if task.id not in self.offers:
            if self.retrieve is not None:
                self.offers[task.id] = Offer(list(await self.retrieve(task)))
            else:
                self.offers[task.id] = await offer(self, task, query(task))
        return self.offers[task.id].shown

    def guidance(self) -> str:
        """What the reflector is told of the kind of lesson that is wanted."""
        name = self.recipe.loop.guidance
        return load_prompt(name, self.recipe.app.options.get("prompts")).fill() if name else ""

    async def judge(self, task: Task, attempts: Sequence[Attempt]) -> dict[str, list[Feedback]]:
        """Feedback of every critic on attempts of one task, by attempt id; kept in the store."""
        observed = {a.id: await self.observation(a) for a in attempts}
        context = CriticContext(
            observations=observed,
            execute=self.app.execute,
            model=self.roles("judge"),
            seed=self.draw(task.id, "judge"),
            match=getattr(self.app, "match", None),
        )
        found: dict[str, list[Feedback]] = {a.id: [] for a in attempts}
        for critic in self.critics:
            for feedback in await critic.evaluate(task, attempts, context):
                found[feedback.attempt].append(feedback)
        await self.store.together(lambda: self.store.put_feedback([f for fs in found.values() for f in fs]))
        return found

    def verdict(self, feedback: Sequence[Feedback]) -> float | None:
        """The value of the critic that decides, or None when it could not score."""
        return next((f.value for f in feedback if f.critic == self.recipe.critics.verdict), None)

    def score(self, attempt: Attempt) -> float | None:
        """The verdict on an attempt in [0, 1]; 0 for one that failed, None where the critic could not score."""
        said = [f for f in self.store.feedback([attempt.id])[attempt.id] if f.critic == self.recipe.critics.verdict]
        if said and said[0].value is not None:
            return (said[0].value - said[0].low) / (said[0].high - said[0].low)
        return 0.0 if attempt.error or not attempt.answer else None


def query(task: Task) -> str:
    """The text under which lessons for a task are searched."""
    question = task.info.get("question")
    return question if isinstance(question, str) else task.messages[-1].content
