"""The compare page: two policies on the same questions, pair by pair. Nothing is learned from it.

A policy is a model that this server was started with (or has adopted) and a memory as it was at a version, which is
read without trials. No other model can be named: whoever may name one could send questions anywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from verbal.errors import STOPS, VerbalError
from verbal.types import Usage

from ..text2sql.answer import Answer
from ..text2sql.assistant import Assistant
from .databases import Source
from .door import read_json, text_of, whole_of
from .events import stream_all
from .faults import Fault, clean
from .people import Person
from .results import Result
from .scopes import may_read, scope_of
from .sql_talk import web_recipe
from .sql_turns import turn_of

if TYPE_CHECKING:
    from .site import Site

MOST_QUESTIONS = 50
"""Questions of one comparison."""
AT_ONCE = 2
"""Comparisons under way on a server."""
_VERSIONS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy that may be compared."""

    model: str
    """As a page calls it."""
    memory: str = ""
    version: int | None = None
    label: str = ""

    def told(self) -> dict[str, Any]:
        """As a page gets it."""
        return {"model": self.model, "memory": self.memory or None, "version": self.version, "label": self.label}


def offered(site: Site, person: Person) -> list[Choice]:
    """What may be compared: each model alone, and with each memory of lessons on databases at its latest versions."""
    memories = [
        (n, v) for n, v in site.store.memories().items() if scope_of(n) in ("sql", "run") and may_read(person, n)
    ]
    found = []
    for model in site.shown:
        found.append(Choice(model, label=f"{model}, no memory"))
        for name, newest in memories[:40]:
            told = [newest, *(v for v in _changes(site, name) if v < newest)][:_VERSIONS]
            found += [Choice(model, name, v, f"{model}, {name} at version {v}") for v in told]
    return found


def _changes(site: Site, name: str) -> list[int]:
    """Versions at which what a memory believes changed, the newest first: before its last changes of standing."""
    since = sorted(set(site.states.read(name).state.since.values()), reverse=True)
    return [v - 1 for v in since[:-1]]


async def list_policies(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/policies."""
    found = await asyncio.to_thread(offered, site, person)
    return web.json_response([choice.told() for choice in found])


async def compare(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/compare: pairs as they come."""
    body = await read_json(request)
    questions = body.get("questions")
    if not isinstance(questions, list) or not all(isinstance(q, str) and q.strip() for q in questions):
        raise Fault(400, "body", "`questions` must be a list of texts")
    if not 1 <= len(questions) <= MOST_QUESTIONS:
        raise Fault(400, "many", f"1 to {MOST_QUESTIONS} questions are compared at once")
    asked = [text_of({"question": q.strip()}, "question", most=4_000) for q in questions]
    source = site.databases.find(person, text_of(body, "db", most=100))
    sides = [await _side(site, person, body.get(k) or {}) for k in ("a", "b")]
    if site.comparing >= AT_ONCE:
        raise Fault(409, "busy", f"{AT_ONCE} comparisons are under way", "try again when one has ended")
    site.comparing += 1

    def ended() -> None:
        site.comparing -= 1

    return await stream_all(request, _pairs(site, person, source, asked, (sides[0], sides[1])), ended)


async def _side(site: Site, person: Person, wanted: Any) -> Choice:
    """The policy that one side names.

    Raises:
        Fault: it is none that is offered (400), or a memory that this person does not see (404).
    """
    if not isinstance(wanted, Mapping):
        raise Fault(400, "body", "`a` and `b` must be objects")
    model, memory = text_of(wanted, "model", most=200), text_of(wanted, "memory", most=200)
    model = model or next(iter(site.shown), "")
    if model not in site.shown:
        raise Fault(400, "model", f"the model {model[:80]!r} is not offered here", f"one of: {', '.join(site.shown)}")
    name, _, version = memory.partition("@")
    number = whole_of(version or wanted.get("version"), "version", 0, 2**53, -1)
    if not name or name == "none":
        return Choice(model, label=model)
    known = await asyncio.to_thread(site.store.memories)
    if name not in known or not may_read(person, name):
        raise Fault(404, "unknown", "there is no such memory")
    at = number if number >= 0 else known[name]
    if at > known[name]:
        raise Fault(400, "version", f"this memory has the versions 0 to {known[name]}")
    return Choice(model, name, at, f"{model}, {name} at version {at}")


async def _pairs(
    site: Site, person: Person, source: Source, questions: list[str], sides: tuple[Choice, Choice]
) -> AsyncGenerator[dict[str, Any], None]:
    began, same, cost = time.perf_counter(), 0, Usage()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(await _assistant(site, person, source, side)) for side in sides]
        for number, question in enumerate(questions, 1):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(_asked(a, question)) for a in opened]
            except* STOPS as stopped:
                raise stopped.exceptions[0] from None
            (a, one), (b, other) = (task.result() for task in tasks)
            for used in (one, other):
                cost = cost + used
            equal = a["status"] == b["status"] and _rows(a) == _rows(b)
            same += equal
            yield {"type": "pair", "n": number, "question": question, "a": a, "b": b, "same": equal}
    seconds = round(time.perf_counter() - began, 2)
    yield {"type": "done", "same": same, "differ": len(questions) - same, "seconds": seconds, "cost": cost.cost}


async def _assistant(site: Site, person: Person, source: Source, side: Choice) -> Assistant:
    about = {"user": person.name, "database": source.name, "compared": True}
    memory = f"{side.memory}@{side.version}" if side.memory else "none"
    return Assistant(
        store=site.store, model=await site.model(site.shown[side.model]),
        recipe=web_recipe(site.shown[side.model], site.max_cost),
        app=await source.opened(),
        memory=memory, about=about,
    )  # fmt: skip


async def _asked(assistant: Assistant, question: str) -> tuple[dict[str, Any], Usage]:
    """The turn of one side; what goes wrong with a question is its answer, what stops a run stops the comparison."""
    try:
        answer = await assistant.ask(question)
    except STOPS:
        raise
    except VerbalError as error:
        answer = Answer(id="", question=question, asked=question, status="failed", reason=clean(error.what))
    result = None
    if answer.status in ("answered", "ambiguous") and not answer.error:
        result = await asyncio.to_thread(Result.of, answer.columns, answer.rows)
    turn = {**turn_of(answer, result, {}), "corrections": [], "verdict": None, "at": time.time()}
    turn["digest"] = hash_rows(answer.rows)
    return turn, sum(answer.usage.values(), Usage())


def hash_rows(rows: list[list[Any]]) -> str:
    """Names what a query gave, whatever the order of its rows."""
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _rows(turn: Mapping[str, Any]) -> tuple[Any, ...]:
    return turn["digest"], turn["row_count"], len(turn["columns"])


__all__ = ["AT_ONCE", "MOST_QUESTIONS", "Choice", "compare", "hash_rows", "list_policies", "offered"]
