"""Attempts that leave another one at a turn: its first replies are played again in a fresh environment, and from there
on the policy goes its own way, with advice in sight or without.

A replay that does not meet the observations of the first time is no replay: such an attempt ends there, with an error
that begins with `Diverged` (`Attempt.error`).

Source: the retry of R3L (arXiv 2601.03715).
Differs: the observation at the turn of leaving stands once in the prompt (the released code repeats it); a replay that
diverges is seen and ends the attempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from verbal.contracts import Environment, Observation, Reply
from verbal.errors import ConfigError, EnvironmentFault
from verbal.types import Attempt, Message, Reflection, Step, Task

__all__ = ["Branch", "Diverged", "Place", "diverged", "unguided"]

Place = Literal["system", "user"]
"""Where advice stands: a system message of its own (that at the start, where there is one and nothing is played again),
or the end of the last user message, for chat templates that allow no system message there."""


class Diverged(EnvironmentFault):
    """A replay saw something else than the attempt that it repeats."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Where an attempt leaves another one of the same task."""

    parent: Attempt
    at: int = 0
    """Turns of the parent that are played again; its turn `at` is the first that is made anew."""
    advice: str = ""
    """Words for the policy from that turn on; empty for none."""
    place: Place = "system"

    def __post_init__(self) -> None:
        turns = len(_turns(self.parent))
        if not 0 <= self.at < max(1, turns):
            what = f"turn {self.at} of an attempt of {turns} turns"
            raise ConfigError(what, where=f"attempt {self.parent.id}", todo="name a turn that it has, from 0")

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the attempt begins with: the parent's turns, and the advice as a step of author `hint`."""
        told = (Step(author="hint", text=self.advice),) if self.advice else ()
        return (*_turns(self.parent)[: self.at], *told)

    def advised(self, messages: Sequence[Message]) -> list[Message]:
        """Messages up to the turn of leaving, with the advice in sight; `unguided` takes it out again."""
        return _advised(list(messages), self.advice, self.place)

    def environment(self, fresh: Environment) -> Environment:
        """A fresh environment as it stands at the turn of leaving, once it was started."""
        return _Replayed(fresh, self)


class _Replayed:
    """An environment whose start plays some turns again."""

    def __init__(self, fresh: Environment, branch: Branch) -> None:
        self._fresh, self._branch = fresh, branch

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        messages = await self._fresh.start(task, hints=hints, tried=tried)
        turns = _turns(self._branch.parent)[: self._branch.at]
        if turns and turns[0].prompt and tuple(messages) != turns[0].prompt:
            raise self._diverged("the opening is another one", 0)
        for number, turn in enumerate(turns):
            seen = await self._fresh.step(Reply(text=turn.text, tool_calls=turn.tool_calls))
            if seen.done or seen.text != turn.observation:
                told = "it ended" if seen.done else f"{seen.text[:60]!r} in place of {(turn.observation or '')[:60]!r}"
                raise self._diverged(told, number)
            said = Message(role="assistant", content=turn.text, tool_calls=turn.tool_calls)
            messages = [*messages, said, Message(role="user", content=seen.text)]
        return self._branch.advised(messages)

    async def step(self, reply: Reply) -> Observation:
        return await self._fresh.step(reply)

    async def aclose(self) -> None:
        await self._fresh.aclose()

    def _diverged(self, what: str, turn: int) -> Diverged:
        where = f"turn {turn} of {self._branch.parent.id}, played again"
        todo = "seed the environment, so that the same replies give the same observations"
        return Diverged(f"the replay saw something else: {what}", where=where, todo=todo)


def diverged(attempt: Attempt) -> bool:
    """Whether an attempt ended because its replay saw something else."""
    return (attempt.error or "").startswith(f"{Diverged.__name__}:")


def unguided(attempt: Attempt) -> Attempt:
    """The attempt as if nobody had advised it: the advice taken out of its steps and of the prompts of its turns."""
    told = [s.text for s in attempt.steps if s.author == "hint"]
    steps = tuple(s.replace(prompt=_without(s.prompt, told)) for s in attempt.steps if s.author != "hint")
    return attempt.replace(steps=steps)


def _turns(attempt: Attempt) -> tuple[Step, ...]:
    return tuple(s for s in attempt.steps if s.author == "policy")


def _advised(messages: list[Message], advice: str, place: Place) -> list[Message]:
    if not advice:
        return messages
    if place == "user" and messages and messages[-1].role == "user":
        return [*messages[:-1], _joined(messages[-1], advice)]
    if any(m.role == "assistant" for m in messages):
        return [*messages, Message(role=place, content=advice)]
    if messages and messages[0].role == "system":
        return [_joined(messages[0], advice), *messages[1:]]
    return [Message(role="system", content=advice), *messages]


def _joined(message: Message, advice: str) -> Message:
    return dataclasses.replace(message, content=f"{message.content}\n\n{advice}")


def _without(messages: Sequence[Message], told: Sequence[str]) -> tuple[Message, ...]:
    found = list(messages)
    for advice in told:
        for i in reversed(range(len(found))):
            if found[i].role != "assistant" and found[i].content == advice:
                del found[i]
                break
            if found[i].role != "assistant" and found[i].content.endswith(f"\n\n{advice}"):
                found[i] = dataclasses.replace(found[i], content=found[i].content.removesuffix(f"\n\n{advice}"))
                break
    return tuple(found)
