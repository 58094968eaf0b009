"""Attempts of several turns: each turn's prompt is what the environment answers to the turn before.

din:   tables and columns -> class and sub-questions -> query -> the query corrected after a look at its result
dail:  a preliminary query -> the query, after examples whose questions and query skeletons are near

A query in a turn before the last counts as the answer when the loop's limit of turns ends the attempt there.

Source: DIN-SQL, arXiv 2304.11015 (linking, classification and decomposition, generation, self-correction); DAIL-SQL,
arXiv 2308.15363 (a preliminary query selects examples).
Differs: instructions in our own words without the papers' worked examples; the correction sees what execution said.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re

from verbal.contracts import Observation, Reply
from verbal.errors import ConfigError, UnknownName
from verbal.types import Task

from .environment import Chain, SqlEnvironment, malformed, without_query
from .prompts import fenced, one_line, shown_examples
from .replies import parse_sql

_CLASS = re.compile(r"^[^\w\n]*class[^\w\n:]*:[^\w\n]*(simple|joined|nested)\b", re.IGNORECASE | re.MULTILINE)
_HOW = {
    "simple": "It needs one table: write its query directly.",
    "joined": "It needs tables joined: name the joins first, then write the query.",
    "nested": "It needs a query inside a query, or a set operation: answer each sub-question with a query of its own, "
    "then put them together.",
    "": "No class could be read from your reply: think through joins and sub-questions, then write the query.",
}


class Din(Chain):
    """DIN-SQL: link, class, query, correction."""

    template = "din_link"
    turns = 4
    draft: Observation
    """What the query of the third turn gave."""

    async def after(self, task: Task, reply: Reply) -> Observation:
        """A reply without a query ends it in the third turn; in the fourth the query of the third stands."""
        sql = parse_sql(reply.text)
        if self.turn < 3:
            if not reply.text.strip():
                return malformed("the reply is empty")
            found = _CLASS.search(reply.text) if self.turn == 2 else None
            how = _HOW[found[1].lower() if found else ""]
            return self.ask(task, "din_query", how=how) if self.turn == 2 else self.ask(task, "din_class")
        if self.turn == 3:
            if sql is None:
                return without_query(reply)
            self.draft = await self._app.execute(task, sql)
            return self.ask(task, "din_correct", self.draft, sql=fenced(sql), result=one_line(self.draft.text))
        if sql is None:
            return dataclasses.replace(self.draft, text=f"{self.draft.text} (no correction could be read: it stands)")
        return await self._app.execute(task, sql)


class Dail(Chain):
    """DAIL-SQL: a preliminary query, then examples that are like the question and like that query."""

    turns = 2

    async def after(self, task: Task, reply: Reply) -> Observation:
        """Without a preliminary query the questions alone select the examples."""
        sql = parse_sql(reply.text)
        if self.turn > 1:
            return without_query(reply) if sql is None else await self._app.execute(task, sql)
        shots = await asyncio.to_thread(self._app.examples, task, sql)
        return self.ask(task, "dail_again", Observation(text="", done=False, answer=sql or ""),
                        examples=shown_examples(shots))  # fmt: skip


CHAINS: dict[str, type[Chain]] = {"din": Din, "dail": Dail}
"""Name of an app's option `chain` -> its environment."""


def environment_of(chain: str, examples: int) -> type[SqlEnvironment]:
    """The environment of a chain; an empty name is a single turn.

    Raises:
        UnknownName: no such chain. ConfigError: its number of examples makes no sense.
    """
    if examples < 0:
        raise ConfigError(f"examples is {examples}", where="[app] options", todo="give 0 or more")
    if not chain:
        return SqlEnvironment
    if chain not in CHAINS:
        raise UnknownName.of("chain", chain, CHAINS, where="[app] options")
    if (chain == "dail") != (examples > 0):
        todo = "give examples = 5 or so" if chain == "dail" else "leave them out, or leave the chain out"
        raise ConfigError(f"the chain {chain!r} with {examples} examples", where="[app] options", todo=todo)
    return CHAINS[chain]
