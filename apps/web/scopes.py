"""Who may see and change what: chats, memories, runs. Names decide, so nothing is looked up to refuse somebody.

A memory `chat-user-NAME` and `sql-of-NAME:DATABASE` (lessons on a database that NAME brought) is of one person,
`chat-team-TEAM` of a team, everything else is everybody's. Conversations are of the person who had them, whatever else
was captured is for admins; what was learned and measured is everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from verbal.store import Store
from verbal.types import MemoryOp, Reflection

from .people import Person

CHATS = ("chat-", "ask-")
"""How runs that are conversations are called."""
SHARED = ("learn", "eval", "gate", "two_by_two", "distill", "scope", "absorbed", "gepa")
"""Commands whose runs are everybody's."""
_TURN = re.compile(r"\b(chat-|ask-)?([0-9a-f]{5})-\d+\b")
Scope = Literal["user", "team", "global", "sql", "run"]
"""Whose a memory is, or what it is about."""


def own_memory(person: Person, scope: str) -> str:
    """The memory of chats that a scope means for a person; empty where there is none (nobody's team).

    >>> own_memory(Person("ann", "ops"), "team"), own_memory(Person("ann"), "team"), own_memory(Person("ann"), "user")
    ('chat-team-ops', '', 'chat-user-ann')
    """
    names = {"user": f"chat-user-{person.name}", "team": f"chat-team-{person.team}", "global": "chat-global"}
    return "" if scope == "team" and not person.team else names.get(scope, "")


def brought_memory(person: Person, database: str) -> str:
    """The memory of lessons on a database that a person brought."""
    return f"sql-of-{person.name}:{database}"


def scope_of(memory: str) -> Scope:
    """What a memory is, by its name."""
    kinds: tuple[tuple[str, Scope], ...] = (
        ("chat-user-", "user"), ("chat-team-", "team"), ("chat-", "global"), ("sql-", "sql")
    )  # fmt: skip
    return next((scope for start, scope in kinds if memory.startswith(start)), "run")


def may_read(person: Person, memory: str) -> bool:
    """Whether a person may see a memory."""
    if person.admin:
        return True
    if memory.startswith("chat-"):
        return memory in {own_memory(person, s) for s in ("user", "team", "global")}
    return not memory.startswith("sql-of-") or memory.startswith(f"sql-of-{person.name}:")


def may_write(person: Person, memory: str) -> bool:
    """Whether a person may change any lesson of a memory they see: their own ones; admins all."""
    own = memory == own_memory(person, "user") or memory.startswith(f"sql-of-{person.name}:")
    return person.admin or own


def author_of(store: Store, item: Reflection, added: MemoryOp | None) -> str:
    """Name of the person a lesson is from, empty where it is nobody's: who filed it, or whose conversation it is of."""
    if added is not None and added.author.startswith("user:"):
        return added.author.removeprefix("user:")
    # The id of an attempt begins with its run; what no conversation led to is nobody's.
    runs = [run for name in item.attempts[:4] if (run := name.partition("/")[0]).startswith(CHATS)]
    if added is not None and added.author == "user":
        # A lesson that was shared names no attempts, but the turn in which its author said so.
        runs += [f"{kind or 'ask-'}{name}" for kind, name in _TURN.findall(added.reason)[:1]]
    for name in runs:
        found = store.run(name)
        if found is not None and found["info"].get("user"):
            return str(found["info"]["user"])
    return ""


def is_chat(run: Mapping[str, Any]) -> bool:
    """Whether a run is a conversation."""
    return str(run["id"]).startswith(CHATS)


def may_see_run(person: Person, run: Mapping[str, Any]) -> bool:
    """Whether a person may see a run and its attempts."""
    info = run["info"]
    if person.admin or (info.get("user") and info["user"] == person.name):
        return True
    memory, more = info.get("memory"), info.get("memories")
    names = [memory.get("name") if isinstance(memory, Mapping) else memory]
    names += [name for name, _ in more.values()] if isinstance(more, Mapping) else []  # one for each seed
    shared = not is_chat(run) and info.get("command") in SHARED and not info.get("user")
    return shared and all(may_read(person, str(name)) for name in names if name)


__all__ = [
    "CHATS", "SHARED", "Scope", "author_of", "brought_memory", "is_chat", "may_read", "may_see_run", "may_write",
    "own_memory", "scope_of",
]  # fmt: skip
