"""The app `social`: conversations to practise, as tasks with a simulated person.

What the loop uses beside the `App` contract is as in every app that learns by reflection: `messages`, `parse`, `task`,
`preflight`, `prompt_hashes` (see `apps/text2sql/app.py`). Fields of prompts:
    solver     hints=(), tried=()
    critic     attempt, observation, hints=()
    reflector  attempt, observation, correction, guidance=""
    proposer   level; `task` is shown as an example (the first scenario if None)
    judge      answers, hints=(): rates a proposed scenario
Replies: solver str; critic and reflector str; proposer Proposal(question, answer), whose question is a scenario as
JSON and whose answer is a conversation that works in it by rules; judge a tuple of n scores in [0, 1].
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verbal.contracts import Observation
from verbal.errors import ConfigError, DataError, UnknownName
from verbal.prompt import load_prompt
from verbal.types import Attempt, Message, Reflection, StopReason, Task

from .conversation import Conversation, Transcript, read_transcript
from .people import TEMPERS
from .prompts import NONE, hint_line, lines_of, one_line
from .scenarios import SHIPPED, Scenario, read_scenario, read_scenarios, scenario_id, scenario_of
from .speaker import good_script

ROLES = ("solver", "user", "critic", "reflector", "proposer", "judge")
"""Roles that have a prompt."""
_MARK = re.compile(r"^[\s*_`-]*TALK(\d+)\s*:\s*([01](?:\.\d+)?|\.\d+)[\s*_`]*$", re.I | re.M)


class Proposal(NamedTuple):
    """What a proposer said."""

    question: str
    """The scenario, as one line of JSON."""
    answer: str
    """A transcript that reaches its goal by rules; empty when none was found."""


class Social:
    """Conversations with simulated people: persuasion, negotiation, support, inquiry."""

    name = "social"
    least_turns = 2
    """Replies that an attempt takes at least, about."""

    def __init__(
        self, scenarios: str | Path | None = None, *, user: str = "rules", turns: int = 8, prompts: str | None = None
    ) -> None:
        """Reads the scenarios.

        Args:
            scenarios: A JSONL file (see `scenarios.py`); the thirty shipped ones when None.
            user: Who plays the person: `rules` (deterministic, no model) or `model` (the model of the role `user`).
            turns: Things the person answers at most.
            prompts: A folder with prompts of the user's.

        Raises:
            DataError: the file cannot be read. ConfigError: an option has no such value.
        """
        if user not in ("rules", "model"):
            raise ConfigError(f"user is {user!r}", where="app social", todo="write rules or model")
        if turns < 1:
            raise ConfigError(f"turns is {turns}", where="app social", todo="give 1 or more")
        self.turns = turns
        """Replies that an attempt takes at most."""
        self.calls_a_turn = 2 if user == "model" else 1
        """Model calls that one turn takes: the reply, and what the person says to it."""
        self._user, self._folder = user, prompts
        self._where = str(scenarios or SHIPPED)
        self._scenarios = {s.id: s for s in read_scenarios(scenarios or SHIPPED)}

    def tasks(self, split: str | None = None) -> list[Task]:
        """All tasks, or those of one split; with a person by rules each has a conversation that works as its gold."""
        if split is not None and split not in ("train", "dev", "test"):
            raise UnknownName.of("split", split, ("train", "dev", "test"))
        return [self._task(s) for s in self._scenarios.values() if split in (None, s.split)]

    def task(self, question: str, *, id: str | None = None, db: str | None = None) -> Task:
        """The task of a scenario given as JSON, without gold; the id follows from its text.

        Raises:
            DataError: it is no scenario.
        """
        try:
            made = read_scenario(json.loads(question), id=id or scenario_id(question))
        except ValueError as error:
            raise DataError(
                f"not a scenario: {error}", where="task", todo="give one line of scenarios.jsonl"
            ) from error
        return self._task(made, gold=False)

    def environment(self) -> Conversation:
        """A fresh conversation, for one task."""
        return Conversation(self, turns=self.turns, played_by_model=self._user == "model")

    async def execute(self, task: Task, answer: str) -> Observation:
        """How a transcript ends with the person of the task; one that cannot be read is an observation."""
        read = read_transcript(answer)
        if read is None:
            what = "nothing was said" if not answer.strip() else "not a transcript of lines `ME: ...` and `THEM: ...`"
            info = {"error": what, "reached": False, "end": "malformed", "turns": 0, "moves": []}
            return Observation(text=f"error: {what}", done=True, stop=StopReason.MALFORMED, info=info)
        return self.environment().play(task, read)

    async def preflight(self, split: str | None = None) -> int:
        """The number of scenarios that can be won by rules: all of them.

        Raises:
            DataError: there is none, or one cannot be won.
        """
        tasks = self.tasks(split)
        if not tasks:
            raise DataError("there is no scenario", where=self._where, todo="give a file that holds one")
        if self._user == "model":
            return len(tasks)
        for task in tasks:
            if not (await self.execute(task, task.gold or "")).info["reached"]:
                what = f"the scenario {task.id!r} cannot be won in {self.turns} turns"
                raise DataError(what, where=self._where, todo="allow more turns")
        return len(tasks)

    def messages(self, role: str, task: Task | None, **fields: Any) -> list[Message]:
        """The prompt of `role` (see the module's first lines for the fields).

        Raises:
            UnknownName: no such role. ConfigError: a field is missing or unknown.
        """
        if role not in ROLES or role == "user":
            raise UnknownName.of("role", role, [r for r in ROLES if r != "user"])
        made = next(iter(self._scenarios.values())) if task is None else scenario_of(task)
        try:
            found: list[Message] = getattr(self, f"_{role}")(made, **fields)
        except TypeError as error:
            raise ConfigError(f"fields of the {role}'s prompt: {error}", todo="see apps/social/app.py") from error
        return found

    def parse(self, role: str, text: str, *, n: int = 0) -> Any:
        """What a reply of `role` says, or None when it does not follow the form.

        Raises:
            UnknownName: no such role.
        """
        if role not in ROLES:
            raise UnknownName.of("role", role, ROLES)
        if role == "proposer":
            return self._proposal(text)
        if role == "judge":
            marks = _MARK.findall(text)
            right = [int(i) for i, _ in marks] == list(range(n)) and all(float(m) <= 1 for _, m in marks)
            return tuple(float(m) for _, m in marks) if right and marks else None
        return one_line(text) or None

    def prompt_hashes(self, *roles: str) -> dict[str, str]:
        """Prompt name -> hash of its template, for these roles (all when none is named)."""
        return {f"social/{r}": load_prompt(f"social/{r}", self._folder).hash for r in roles or ROLES}

    def filled(self, name: str, **fields: str) -> list[Message]:
        """The prompt `social/NAME` with its variables filled."""
        return [Message(role="user", content=load_prompt(f"social/{name}", self._folder).fill(**fields))]

    async def check(self) -> list[dict[str, Any]]:
        """All findings on the scenarios (`verbal check apps/social`)."""
        from .check import check_app

        return await check_app(self)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _task(self, made: Scenario, *, gold: bool = True) -> Task:
        task = made.task()
        task = task.replace(messages=tuple(self.messages("solver", task)))
        return task.replace(gold=self._gold(task)) if gold and self._user == "rules" else task

    def _gold(self, task: Task) -> str:
        talk = Conversation(self, turns=self.turns, played_by_model=False)
        mine = tuple(("ME", said) for said in good_script(scenario_of(task)))
        return talk.play(task, Transcript(mine)).answer

    def _proposal(self, text: str) -> Proposal | None:
        found = re.findall(r"^\s*(?:QUESTION:\s*)?(\{.*\})\s*$", text, re.M)
        if len(found) != 1:
            return None
        try:
            data = json.loads(found[0])
            made = read_scenario({k: v for k, v in data.items() if k not in ("id", "split")}, id=scenario_id(found[0]))
        except (AttributeError, ValueError):
            return None
        plain = {k: v for k, v in json.loads(made.to_json()).items() if k not in ("id", "split")}
        fences = re.findall(r"```\w*\n(.*?)```", text, re.S)
        own = read_transcript(fences[-1]) if fences else None
        seen = Conversation(self, turns=self.turns, played_by_model=False).play(made.task(), own) if own else None
        # A person by rules may not be won as the proposer thinks; somebody who knows them is then the reference.
        answer = seen.answer if seen and seen.info["reached"] else self._gold(made.task())
        return Proposal(json.dumps(plain, ensure_ascii=False), answer)

    def _solver(self, made: Scenario, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        return self.filled(
            "solver", **_public(made), hints="\n".join(hint_line(h) for h in hints) or NONE, tried=lines_of(tried),
            opening=one_line(made.opening) or "(nothing yet: you begin)",
        )  # fmt: skip

    def _critic(
        self, made: Scenario, attempt: Attempt | str, observation: Observation, hints: Sequence[Reflection] = ()
    ) -> list[Message]:
        result = one_line(observation.text)
        return self.filled("critic", **_public(made), dialogue=lines_of([_answer(attempt)]), result=result)

    def _reflector(
        self, made: Scenario, attempt: Attempt | str, observation: Observation, correction: str, guidance: str = ""
    ) -> list[Message]:
        return self.filled(
            "reflector", **_public(made), dialogue=lines_of([_answer(attempt)]), result=one_line(observation.text),
            right=lines_of([correction] if correction else []),
            guidance=(guidance or load_prompt("social/lesson", self._folder).fill()).strip(),
        )  # fmt: skip

    def _proposer(self, made: Scenario, level: int) -> list[Message]:
        plain = {k: v for k, v in json.loads(made.to_json()).items() if k not in ("id", "split")}
        tempers = "; ".join(f"`{name}` ({temper.words})" for name, temper in TEMPERS.items())
        return self.filled(
            "proposer", example=json.dumps(plain, ensure_ascii=False), level=str(level), tempers=tempers
        )  # fmt: skip

    def _judge(self, made: Scenario, answers: Sequence[str], hints: Sequence[Reflection] = ()) -> list[Message]:
        talks = "\n\n".join(f"TALK{i}:\n{lines_of([answer])}" for i, answer in enumerate(answers))
        return self.filled("judge", scenario=one_line(made.to_json()), candidates=talks or NONE)


def _public(made: Scenario) -> dict[str, str]:
    return {k: one_line(getattr(made, k)) for k in ("person", "setting", "goal")}


def _answer(attempt: Attempt | str) -> str:
    return attempt if isinstance(attempt, str) else attempt.answer
