"""Our environments in TRL's protocol: `GRPOTrainer(environment_factory=...)` drives the turns, our app answers.

    factory = environment_factory("social")
    trainer = GRPOTrainer(model, train_dataset=factory.dataset(), environment_factory=factory, args=...)
    ...
    factory.close()

TRL makes one environment for each rollout, calls `reset` with the columns of its row, offers the model the tool
`reply`, and asks `get_reward` at the end: the verdict critic of the recipe. A model that calls no tool said nothing.
Every rollout is kept as an attempt of run `trl` in the store, so that it can be read like any other (`verbal traces`).
Our own trainers (`verbal distill`) need none of this; it is for trainings of your own. The protocol is TRL's
experimental one, held still by tests/trainers/test_trainers_environments.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from verbal.contracts import Environment, Observation, Reply, Sampling
from verbal.errors import ConfigError, DataError, TrainError
from verbal.loop.context import Context
from verbal.loop.nodes import unsealed
from verbal.recipe import Recipe, load_recipe
from verbal.run import make_context, open_workshop
from verbal.store import Store
from verbal.types import Attempt, Message, Step, StopReason, Task

__all__ = ["AppEnvironment", "EnvironmentFactory", "environment_factory"]

_RUN = "trl"
_T = TypeVar("_T")


def environment_factory(
    recipe: str | Path | Recipe, *, split: str = "train", store: str | Path = "trl.db", overrides: Sequence[str] = ()
) -> EnvironmentFactory:
    """What TRL's `environment_factory` takes: called without arguments it makes an environment.

    Args:
        recipe: Names app, verdict critic, and models of other roles (`model.roles.judge`, `model.roles.user`).
        split: Tasks that may be attempted; never `test`.
        store: Where attempts are kept.
        overrides: As `--set`.

    Raises:
        UnknownName, ConfigError: no such recipe or part. TrainError: the split is sealed.
    """
    made = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    made.resolve()
    if split == "test":
        raise TrainError("the split 'test' is sealed", where="environment_factory", todo="train on another split")
    return EnvironmentFactory(made, split, str(store))


class EnvironmentFactory:
    """Makes environments of one app; they share its workers, and one event loop in a thread of its own.

    Opened by the first environment, closed by `close`. It can be pickled: what is open stays behind.
    """

    def __init__(self, recipe: Recipe, split: str, store: str) -> None:
        """See `environment_factory`."""
        self.recipe, self.split, self.store = recipe, split, store
        self._lock = threading.Lock()
        self._open: _Opened | None = None

    def __call__(self) -> AppEnvironment:
        """An environment for one rollout after another."""
        return AppEnvironment(self._opened())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of a training set: an empty prompt, which `reset` fills, and the id of the task."""
        tasks = self._opened().tasks
        return [{"prompt": [{"role": "user", "content": ""}], "task": task} for task in tasks]

    def tasks(self) -> list[Task]:
        """The tasks that may be attempted, without gold."""
        return [unsealed(task) for task in self._opened().tasks.values()]

    def dataset(self) -> Any:
        """The rows as a `datasets.Dataset`."""
        import datasets

        return datasets.Dataset.from_list(self.rows())

    def close(self) -> None:
        """Closes app, models and store; closing twice is harmless."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> EnvironmentFactory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "split": self.split, "store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _opened(self) -> _Opened:
        with self._lock:
            if self._open is None:
                self._open = _Opened(self.recipe, self.split, self.store)
            return self._open


class AppEnvironment:
    """One rollout at a time: `reset`, the tool `reply` as often as the app goes on, then `get_reward`."""

    def __init__(self, opened: _Opened) -> None:
        """Made by a factory."""
        self._opened = opened
        self._environment: Environment | None = None
        self._seen: Observation | None = None
        self._made: Attempt | None = None
        self._messages: list[Message] = []

    @property
    def over(self) -> bool:
        """Whether the app has ended the rollout."""
        return self._seen is not None and self._seen.done

    def reset(self, task: str = "", **row: Any) -> str:
        """What opens the task, to be read by the model.

        Args:
            task: Id of the task, a column of the row. It cannot be left to chance: a group of GRPO has one task.
            row: Other columns, not read.

        Raises:
            DataError: the row names no task of the split.
        """
        opened = self._opened
        if task not in opened.tasks:
            named = f"the row names no task of split {opened.split!r}: {task!r}"
            what = named if task else "the row has no column `task`"
            raise DataError(what, where="environment_factory", todo="train on factory.dataset()")
        opened.run(opened.leave(self._environment))
        self._environment, self._seen = opened.enter(), None
        self._made = opened.attempt(task)
        if hasattr(self._environment, "user"):
            self._environment.user = opened.context.roles("user")
        self._messages = opened.run(self._environment.start(unsealed(opened.tasks[task])))
        return "\n\n".join(m.content for m in self._messages)

    def reply(self, text: str) -> str:
        """Gives your answer, or says the next thing to the other person, and returns what happens then.

        Args:
            text: The answer, or what you say.

        Returns:
            What happens: the result of the answer, or what the other person says.
        """
        if self._environment is None or self._made is None:
            raise DataError("the environment was not reset", todo="call reset first")
        if self.over:
            return "It is over: nothing more is heard."
        made, seen = self._made, self._opened.run(self._environment.step(Reply(text=str(text))))
        step = Step(author="policy", text=str(text), observation=seen.text, prompt=tuple(self._messages))
        self._messages = [*self._messages, Message(role="assistant", content=str(text)),
                          Message(role="user", content=seen.text)]  # fmt: skip
        self._seen = seen
        stop = seen.stop if seen.done else StopReason.STEP_LIMIT
        self._made = made.replace(steps=(*made.steps, step, *seen.steps), answer=seen.answer, stop=stop)
        return seen.text

    def get_reward(self) -> float | None:
        """The verdict on what was said, from 0 to 1; None where the critic could not score (TRL leaves it out)."""
        if self._made is None:
            raise DataError("the environment was not reset", todo="call reset first")
        return self._opened.run(self._opened.judged(self._made, self._seen))


class _Policy:
    """Stands for the model that TRL trains: the app asks it nothing."""

    name = "scripted/trained-by-trl"

    async def generate(self, *_: Any) -> Any:
        todo = "name models for the other roles, such as model.roles.judge or model.roles.user"
        raise ConfigError("a role asks the model that TRL trains", where="environment_factory", todo=todo)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> Any:
        return await self.generate(messages, 1, sampling)

    async def check(self) -> str:
        return "trained by TRL"

    async def aclose(self) -> None:
        """Nothing is open."""


class _Opened:
    """App, verdict critic and store, in an event loop of their own."""

    def __init__(self, recipe: Recipe, split: str, store: str) -> None:
        self.split = split
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="verbal-environments", daemon=True)
        self._thread.start()
        self._stack, self._lock = AsyncExitStack(), threading.Lock()
        self._live: dict[int, Environment] = {}
        try:
            self.context: Context = self.run(self._context(recipe, store))
            tasks = self.context.app.tasks(split)
            self.tasks: dict[str, Task] = {t.id: t for t in tasks if t.split != "test"}
            if not self.tasks:
                what = f"the app {recipe.app.name!r} has no task of split {split!r}"
                raise DataError(what, where="environment_factory", todo="name another split")
            self.context.store.put_tasks(list(self.tasks.values()))
        except BaseException:
            self.close()
            raise
        self._numbers = {task: self._next(task) for task in self.tasks}

    def enter(self) -> Environment:
        """A fresh environment, closed by `leave` or with everything."""
        made: Environment = self.context.app.environment()
        self._live[id(made)] = made
        return made

    async def leave(self, environment: Environment | None) -> None:
        """Closes an environment."""
        if environment is not None:
            self._live.pop(id(environment), None)
            await environment.aclose()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What a coroutine gives, awaited in the loop of the environments."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def attempt(self, task: str) -> Attempt:
        """An attempt that has not begun."""
        context = self.context
        with self._lock:
            number = next(self._numbers[task])
        return Attempt(
            id=context.attempt_id(task, number), run=_RUN, task=task, sample=number, arm=context.arm,
            model=_Policy.name, stop=StopReason.STEP_LIMIT,
        )  # fmt: skip

    async def judged(self, made: Attempt, seen: Observation | None) -> float | None:
        """Keeps an attempt and gives the verdict on it."""
        context, task = self.context, self.tasks[made.task]
        if seen is not None:
            context.observations[made.id] = seen
        await context.put_attempt(made)
        feedback = (await context.judge(task, [made]))[made.id]
        context.observations.pop(made.id, None)
        context.made.pop(made.id, None)
        said = next((f for f in feedback if f.critic == context.recipe.critics.verdict), None)
        return None if said is None or said.value is None else (said.value - said.low) / (said.high - said.low)

    def close(self) -> None:
        """Closes everything and ends the thread."""
        for environment in [*self._live.values()]:
            self.run(self.leave(environment))
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _context(self, recipe: Recipe, place: str) -> Context:
        store = self._stack.enter_context(Store(place))
        # Roles that name no model of their own would ask the one under training.
        model = dataclasses.replace(recipe.model, name=_Policy.name)
        quiet = dataclasses.replace(recipe, model=model, memory=dataclasses.replace(recipe.memory, name=""))
        shop = await self._stack.enter_async_context(open_workshop(quiet, store, run=_RUN, model=_Policy()))
        store.start_run(_RUN, quiet.to_dict(), {"command": "environment_factory"})
        verdict = [c for c in shop.critics if c.name == shop.recipe.critics.verdict]
        return make_context(shop, [], run=_RUN, arm=self.split, seed=recipe.seed, critics=verdict, learning=False)

    def _next(self, task: str) -> Iterator[int]:
        """Numbers of attempts that the store does not have yet."""
        return (n for n in itertools.count() if self.context.attempt(self.context.attempt_id(task, n)) is None)
