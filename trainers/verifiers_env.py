"""Our tasks and environments as a taskset of `verifiers` (v1): its harness drives the model, our app answers.

    env = load_environment("social", split="dev")          # from Python

or as a plugin for its commands (`eval`, prime-rl), a file `verbal_taskset.py` on the path:

    from verbal.trainers.verifiers_env import VerbalEnv, VerbalTaskset
    __all__ = ["VerbalEnv", "VerbalTaskset"]

Each reply of the agent goes to our environment, whose answer is its next user turn, until the app ends it; the verdict
critic of the recipe is the reward `verdict`. A verdict that could not be given fails the episode. Attempts are kept in
the store as with TRL (`environments.py`). `verifiers` is no dependency of ours (its pins of `openai` and `mcp` differ):
install both in an environment of your own. Written for verifiers 0.4; its classes are made when they are asked for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from verbal.errors import MissingExtra, TrainError

from .environments import AppEnvironment, EnvironmentFactory, environment_factory

__all__ = ["load_environment", "VerbalEnv", "VerbalTaskset"]  # noqa: F822, RUF022  (made by __getattr__)

PLUGIN = "verbal_taskset"
"""Name of the taskset among verifiers' plugins."""


def load_environment(
    recipe: str = "social", *, split: str = "train", store: str = "verifiers.db", overrides: Iterable[str] = (),
    harness: str = "null", runtime: str = "subprocess",
) -> Any:  # fmt: skip
    """A `verifiers` environment over the tasks of a recipe's app.

    Args:
        recipe: A shipped recipe or a file: app, verdict critic, models of other roles.
        split: Tasks that may be attempted; never `test`.
        store: Where attempts are kept.
        overrides: As `--set`.
        harness: Id of verifiers' harness; `null` is a plain chat.
        runtime: Where the harness runs; `subprocess` is this machine, enough for a harness that runs no code.

    Raises:
        MissingExtra: verifiers is not installed. TrainError: the split is sealed.
    """
    made = _classes()
    if split == "test":
        raise TrainError("the split 'test' is sealed", where="load_environment", todo="take another split")
    sys.modules.setdefault(PLUGIN, sys.modules[__name__])
    taskset = {"id": PLUGIN, "recipe": recipe, "split": split, "store": store, "overrides": list(overrides)}
    agent = {"harness": {"id": harness}, "runtime": {"type": runtime}}
    config = made["VerbalEnvConfig"](taskset=taskset, agent=agent)
    return made["VerbalEnv"](config)


def __getattr__(name: str) -> Any:
    if name in ("VerbalEnv", "VerbalTaskset"):
        return _classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _factory(recipe: str, split: str, store: str, overrides: tuple[str, ...]) -> EnvironmentFactory:
    return environment_factory(recipe, split=split, store=store, overrides=overrides)


def _of(config: Any) -> EnvironmentFactory:
    return _factory(config.recipe, config.split, config.store, tuple(config.overrides))


@cache
def _classes() -> dict[str, Any]:
    try:
        import verifiers.v1 as vf  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        todo = "pip install verifiers, in an environment of its own"
        raise MissingExtra("the package 'verifiers' is not installed", where="load_environment", todo=todo) from error

    class VerbalConfig(vf.TasksetConfig):  # type: ignore[misc, unused-ignore]
        """Which tasks, and where attempts are kept."""

        recipe: str = "social"
        split: str = "train"
        store: str = "verifiers.db"
        overrides: list[str] = []  # noqa: RUF012  (pydantic copies it)

    class VerbalTask(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):  # type: ignore[misc, unused-ignore]
        """One task; it is scored by the environment."""

    class VerbalTaskset(vf.Taskset[VerbalTask, VerbalConfig]):  # type: ignore[misc, unused-ignore]
        """The tasks of an app."""

        def load(self) -> Iterable[Any]:
            """Each task of the split, with the prompt that opens it."""
            for task in _of(self.config).tasks():
                prompt = "\n\n".join(m.content for m in task.messages)
                yield VerbalTask(vf.TaskData(id=task.id, name=task.id, prompt=prompt), self.config.task)

    class VerbalEnvConfig(vf.EnvConfig):  # type: ignore[misc, unused-ignore]
        """One agent."""

        agent: vf.AgentConfig = vf.AgentConfig()

    class VerbalEnv(vf.Env[VerbalEnvConfig]):  # type: ignore[misc, unused-ignore]
        """The agent talks, our environment answers."""

        async def run(self, task: Any, agents: Any) -> None:
            """One rollout."""
            ours: AppEnvironment = await asyncio.to_thread(_of(self.config.taskset))
            await asyncio.to_thread(ours.reset, task=task.data.id)
            async with agents.agent.interaction(task) as talk:
                segment = await talk.turn()
                while not segment.terminated:
                    heard = await asyncio.to_thread(ours.reply, segment.last_reply)
                    if ours.over:
                        break
                    segment = await talk.turn(heard)
            if not talk.trace.ok:
                return  # the provider or the harness failed: that is on the trace, and no verdict on the agent
            value = await asyncio.to_thread(ours.get_reward)
            if value is None:
                todo = "look at its feedback: verbal traces"
                raise TrainError("the verdict could not be given", where=f"task {task.data.id}", todo=todo)
            talk.trace.record_reward("verdict", value, 1.0)

    made = (VerbalConfig, VerbalTask, VerbalTaskset, VerbalEnvConfig, VerbalEnv)
    return {c.__name__: c for c in made}
