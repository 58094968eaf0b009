"""Scenarios: who is talked to, about what, and what they keep to themselves. Read from JSONL, made into tasks and back.

A line holds what the policy is told (`person`, `setting`, `goal`, `opening`) and what it is not (`temper`, `secret`,
`wish`): the latter stands in `task.info["hidden"]` only, which no prompt of a policy is made of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from verbal.errors import DataError
from verbal.types import Split, Task

from .people import TEMPERS, Person

SHIPPED = Path(__file__).with_name("scenarios.jsonl")
"""Thirty scenarios written by hand: twenty to learn on, ten to score on."""
AIMS = ("agreement", "secret")
"""What can be talked for: a yes to a request, or what the other keeps to themselves."""
_HIDDEN = ("temper", "secret", "wish")
_PUBLIC = ("kind", "person", "setting", "goal", "opening", "aim")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One conversation to practise."""

    id: str
    person: str
    """Who is talked to, as anybody can see them."""
    setting: str
    goal: str
    """What the policy is to reach."""
    temper: str
    """A name of `people.TEMPERS`; hidden."""
    secret: str
    """What the person keeps back; hidden until they tell."""
    wish: str = ""
    """What the person wants for themselves; hidden."""
    opening: str = ""
    """Their first words; empty where the policy begins."""
    aim: str = "agreement"
    kind: str = "persuasion"
    split: Split = "train"

    def __post_init__(self) -> None:
        blank = [k for k in ("id", "person", "setting", "goal", "secret") if not getattr(self, k).strip()]
        problems = [f"{k} is empty" for k in blank]
        if self.temper not in TEMPERS:
            problems.append(f"temper {self.temper!r} is none of {', '.join(TEMPERS)}")
        if self.aim not in AIMS:
            problems.append(f"aim {self.aim!r} is none of {', '.join(AIMS)}")
        if self.split not in get_args(Split):
            problems.append(f"split {self.split!r} is none of {', '.join(get_args(Split))}")
        shown = " ".join(" ".join((self.person, self.setting, self.goal, self.opening)).lower().split())
        if self.secret.strip() and " ".join(self.secret.lower().split()) in shown:
            problems.append("the secret stands in what the policy is told")
        if problems:
            raise ValueError("; ".join(problems))

    def task(self) -> Task:
        """The scenario as a task; its messages are filled by the app."""
        plain = dataclasses.asdict(self)
        info = {k: plain[k] for k in _PUBLIC}
        info |= {"question": f"{self.person}. {self.setting} {self.goal}", "hidden": {k: plain[k] for k in _HIDDEN}}
        return Task(id=self.id, kind="social", messages=(), info=info, split=self.split)

    def somebody(self) -> Person:
        """The person, by rules, before the first word."""
        return Person(temper=self.temper, secret=self.secret, aim=self.aim, seed=self.id)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def scenario_of(task: Task) -> Scenario:
    """The scenario that a task was made of.

    Raises:
        DataError: the task is no conversation.
    """
    try:
        fields = {k: task.info[k] for k in _PUBLIC} | dict(task.info["hidden"])
        return Scenario(id=task.id, split=task.split, **fields)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the task is no conversation: {error}", where=f"task {task.id}", todo="see Scenario"
        ) from error


def read_scenario(data: Mapping[str, Any], **defaults: Any) -> Scenario:
    """The scenario that a mapping holds.

    Raises:
        ValueError: a field is missing, unknown, no text, or says what it may not.
    """
    known = {f.name for f in dataclasses.fields(Scenario)}
    if unknown := sorted(set(map(str, data)) - known):
        raise ValueError(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    fields = {**defaults, **data}
    if wrong := [k for k, v in fields.items() if not isinstance(v, str)]:
        raise ValueError(f"{wrong[0]} is a text, found {fields[wrong[0]]!r}")
    try:
        return Scenario(**fields)
    except TypeError as error:
        raise ValueError(str(error).partition("__init__() ")[2] or str(error)) from error


def read_scenarios(path: str | Path) -> list[Scenario]:
    """The scenarios of a JSONL file, in order.

    Raises:
        DataError: it cannot be read, a line is no scenario (names it), or an id is there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"the scenarios cannot be read: {error}"
        raise DataError(what, where=str(path), todo="give a UTF-8 JSONL file") from error
    found: dict[str, Scenario] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ValueError("a line is an object")
            made = read_scenario(data)
        except ValueError as error:
            raise DataError(f"not a scenario: {error}", where=where, todo=f"see {SHIPPED.name}") from error
        if made.id in found:
            raise DataError(f"the id {made.id!r} is there twice", where=where, todo="give each scenario its own")
        found[made.id] = made
    return list(found.values())


def scenario_id(text: str) -> str:
    """An id that depends on a text only."""
    return "talk-" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


__all__ = ["AIMS", "SHIPPED", "Scenario", "read_scenario", "read_scenarios", "scenario_id", "scenario_of"]
