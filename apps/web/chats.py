"""Chats over HTTP: lists, turns as they come, feedback, taking back, export."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .door import attached, read_json, text_of, whole_of
from .events import stream_all, wants_events
from .faults import Fault
from .people import Person
from .talks import chat_of

if TYPE_CHECKING:
    from .site import Site
    from .talks import Chat

FEEDBACK = ("up", "down", "words", "edit", "regenerate", "sql", "choose")
"""What may be said of an answer."""
_EXPORTED_ROWS = 20


async def list_chats(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/chats."""
    return web.json_response([chat.told() for chat in await site.talks.mine(person)])


async def create_chat(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/chats."""
    body = await read_json(request)
    kind = text_of(body, "kind", most=10, need=True)
    if kind not in ("sql", "chat") or (kind == "chat" and not site.chats_too):
        raise Fault(400, "kind", f"there are no chats of the kind {kind!r} here")
    source = site.databases.find(person, text_of(body, "db", most=100)) if kind == "sql" else None
    return web.json_response(site.talks.create(person, kind, source).told(), status=201)


async def show_chat(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/chats/{id}."""
    chat = await site.talks.find(person, request.match_info["id"])
    turns, memory = await _turns(site, person, chat)
    if turns:  # a message whose answer was stopped is a turn as well
        chat.turns, chat.fresh, chat.title = len(turns), False, chat.title or str(turns[0]["text"])[:120]
    told = {**chat.told(), "memory": memory, "turns": turns, "etag": len(turns), "busy": site.talks.busy(chat)}
    return web.json_response(told)


async def _turns(site: Site, person: Person, chat: Chat) -> tuple[list[dict[str, Any]], str]:
    """The turns of a chat and its memory, also where its database is gone or it is somebody else's."""
    if chat.owner == person.name and (chat.kind != "sql" or await site.talks.source(person, chat) is not None):
        talk = await site.talks.talk(person, chat)
        return await talk.turns(), await asyncio.to_thread(talk.memory)
    made = site.make_talk(Person(chat.owner), chat, await site.talks.source(person, chat))
    try:
        return await made.turns(), await asyncio.to_thread(made.memory)
    finally:
        await made.aclose()


async def rename_chat(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """PATCH /api/chats/{id}: another title."""
    title = " ".join(text_of(await read_json(request), "title", most=120, need=True).split())
    chat = await site.talks.find(person, request.match_info["id"], speak=True)
    await site.talks.rename(chat, title or chat.title)
    return web.json_response(chat.told())


async def hide_chat(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """DELETE /api/chats/{id}."""
    await site.talks.hide(await site.talks.find(person, request.match_info["id"], speak=True))
    return web.json_response({})


async def export_chat(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/chats/{id}/export: Markdown."""
    chat = await site.talks.find(person, request.match_info["id"])
    turns, _ = await _turns(site, person, chat)
    return attached(request, f"{chat.id}.md", markdown(chat.title or chat.id, turns), "text/markdown")


def markdown(title: str, turns: list[dict[str, Any]]) -> str:
    """A chat as Markdown; what comes from people, models and data stands in quotes, fences and tables."""
    lines = [f"# {_plain(title)}", ""]
    for turn in turns:
        lines += ["> " + _plain(line) for line in str(turn["text"]).splitlines() or [""]]
        lines += ["", str(turn["reply"]), ""] if turn["reply"] else [""]
        lines += [*_fenced(turn["sql"], "sql"), ""] if turn.get("sql") else []
        if turn.get("rows"):
            lines += [f"| {' | '.join(map(_cell, turn['columns']))} |", "|" + " --- |" * len(turn["columns"])]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in turn["rows"][:_EXPORTED_ROWS]]
            more = turn["row_count"] - _EXPORTED_ROWS
            lines += ["", f"and {more:,} more rows", ""] if more > 0 else [""]
        lines += [f"* used {x['id']}: {_plain(x['text'])}" for x in turn.get("lessons") or () if x.get("used")]
        lines += [f"* note: {_plain(x)}" for x in turn.get("limits") or ()]
        lines += [f"* said: {c['kind']} {_plain(c['words'])}" for c in turn["corrections"] if not c["undone"]]
        lines += [""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _plain(text: Any) -> str:
    """One line of words that no reader of Markdown takes for a picture, a link, a tag or the end of a cell."""
    return re.sub(r"([\\|<\[\]`])", r"\\\1", " ".join(str(text).split()))


def _cell(value: Any) -> str:
    return "" if value is None else _plain(value)


def _fenced(text: str, kind: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{kind}", text, fence]


# what is said -------------------------------------------------------------------------------------------------------


async def say(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/chats/{id}/turns: the answer as a stream."""
    body = await read_json(request)
    text = text_of(body, "text", most=100_000, need=True)
    if not text.strip():
        raise Fault(400, "body", "the message is empty")
    chat = await site.talks.find(person, request.match_info["id"], speak=True)
    talk = await site.talks.begin(person, chat, whole_of(body.get("etag"), "etag", 0, 10**9, 0))
    return await stream_all(request, site.talks.spoken(chat, talk.say(text)), lambda: site.talks.end(chat))


async def run_query(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/chats/{id}/run: a person's own query."""
    body = await read_json(request)
    sql = text_of(body, "sql", most=20_000, need=True)
    chat = await site.talks.find(person, request.match_info["id"], speak=True)
    if chat.kind != "sql":
        raise Fault(400, "kind", "this chat has no database")
    talk = await site.talks.begin(person, chat, _etag(body))
    return await _answered(site, request, chat, talk.run(sql), whole=False)


async def give_feedback(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/turns/{id}/feedback."""
    body = await read_json(request)
    kind = text_of(body, "kind", most=20, need=True)
    if kind not in FEEDBACK:
        raise Fault(400, "kind", f"feedback is one of: {', '.join(FEEDBACK)}")
    said = {
        "kind": kind, "number": whole_of(body.get("number"), "number", 1, 1000, 0),
        "text": text_of(body, "text", most=100_000, need=kind in ("words", "edit")),
        "sql": text_of(body, "sql", most=20_000, need=kind == "sql"),
    }  # fmt: skip
    turn = request.match_info["id"]
    chat = await site.talks.find(person, chat_of(turn), speak=True)
    talk = await site.talks.begin(person, chat, _etag(body))
    return await _answered(site, request, chat, talk.heard(turn, said), whole=True)


def _etag(body: Mapping[str, Any]) -> int | None:
    return None if body.get("etag") is None else whole_of(body["etag"], "etag", 0, 10**9, 0)


async def _answered(
    site: Site, request: web.Request, chat: Chat, made: AsyncGenerator[dict[str, Any], None], *, whole: bool
) -> web.StreamResponse:
    """A stream where one is asked for, else the last event as JSON: the turn, or (`whole`) what was noted with it."""
    told = site.talks.spoken(chat, made)
    if wants_events(request):
        return await stream_all(request, told, lambda: site.talks.end(chat))
    last: dict[str, Any] = {}
    try:
        async with aclosing(told):
            async for event in told:
                last = event
    finally:
        site.talks.end(chat)
    if not whole:
        return web.json_response({**last["turn"], "etag": last["etag"]})
    feedback = last.get("feedback") or {"kept": True, "says": "", "correction": None, "lesson": None}
    return web.json_response({**feedback, "turn": last.get("turn"), "etag": last["etag"]})


async def undo(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/corrections/{id}/undo."""
    name = request.match_info["id"]
    chat = await site.talks.find(person, chat_of(name.rpartition(".")[0] or name), speak=True)
    talk = await site.talks.begin(person, chat, None)
    try:
        return web.json_response(await talk.undo(name))
    finally:
        site.talks.end(chat)


__all__ = [
    "FEEDBACK", "create_chat", "export_chat", "give_feedback", "hide_chat", "list_chats", "markdown", "rename_chat",
    "run_query", "say", "show_chat", "undo",
]  # fmt: skip
