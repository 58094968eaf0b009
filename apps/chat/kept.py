"""What is kept of a conversation: a run of the store, with a short record of each turn in its info.

A turn is a Task (the message) and an Attempt (the answer); the record names what belongs to it: lessons with their
chances, what was understood, what was said of it, what it used. It is written when the turn begins, as `stopped`, and
again when it ends, so that a process that is killed loses at most the answer under way.
"""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from verbal.errors import UnknownName
from verbal.store import Store
from verbal.types import Attempt, Message, Task

from .turn import Stale, Turn, Understanding

Record = dict[str, Any]
"""A turn: id, attempt, status, reason, at, lessons, offers (memory -> offered and shown), understood, corrections,
counts (memory -> the VALUE operations by which it counts), usage, edited, replaces, replaced."""
PREFIX = "chat-"
"""How the runs of conversations are called."""
TITLE = 60
"""Characters of a title at most."""


def new_id(store: Store) -> str:
    """The id of a new conversation, short enough to be typed."""
    while store.run(made := f"{PREFIX}{uuid.uuid4().hex[:5]}") is not None:
        pass
    return made


def chat_of(id: str) -> str:
    """The conversation that a turn or a correction belongs to."""
    return id.partition(".")[0].rpartition("-")[0]


def begin(store: Store, chat: str, recipe: dict[str, Any], info: Mapping[str, Any], text: str, expect: int) -> Record:
    """Adds a turn to a conversation, which begins with its first one.

    Raises:
        Stale: the conversation has another number of turns than `expect`.
    """
    with store.transaction():
        run = store.run(chat)
        turns: list[Record] = list((run["info"].get("turns") if run else None) or ())
        if len(turns) != expect:
            what = f"conversation {chat} has {len(turns)} turns, and {expect} are known here"
            raise Stale(what, where=store.where, todo="it went on elsewhere (another tab or window): load it again")
        made = _record(f"{chat}-{len(turns) + 1}")
        if run is None:
            title = " ".join(text.split())[:TITLE]
            store.start_run(chat, recipe, {"command": "chat", "tasks": [], "title": title, "turns": [], **info})
        _write(store, chat, [*turns, made])
        message = {"question": text, "chat": chat, "user": info.get("user", "")}
        store.put_tasks(
            [Task(id=made["id"], kind="chat", messages=(Message(role="user", content=text),), info=message)]
        )
    return made


def change(store: Store, turn: str, make: Callable[[Record], object]) -> Record:
    """Reads, changes and writes the record of a turn as one; gives it."""
    with store.transaction():
        turns = read(store, chat_of(turn))
        record = next(t for t in turns if t["id"] == turn)
        make(record)
        _write(store, chat_of(turn), turns)
    return record


def add_correction(store: Store, turn: str, made: Record, counts: Mapping[str, list[Record]] | None = None) -> Record:
    """Adds what was said of a turn, under the next id; gives it. `counts`: how the turn counts from now on.

    What is said of no turn, for nothing was said yet, has no id and is not kept: the log of the memory has it.
    """
    correction: Record = {"outcome": None, "ops": {}, "words": "", **made, "id": ""}
    if not turn:
        return correction

    def add(record: Record) -> None:
        number = len(record["corrections"]) + 1
        correction.update(id=f"{turn}.{number}", at=time.time())
        record["corrections"].append(correction)
        record["counts"].update(counts or {})

    change(store, turn, add)
    return correction


def read(store: Store, chat: str) -> list[Record]:
    """The records of a conversation, oldest first."""
    run = store.run(chat)
    return list((run["info"].get("turns") if run else None) or ())


def runs(store: Store, user: str) -> list[dict[str, Any]]:
    """The runs of a person's conversations, oldest first."""
    return [r for r in store.runs() if r["id"].startswith(PREFIX) and r["info"].get("user") == user]


def own_run(store: Store, chat: str, user: str) -> dict[str, Any]:
    """The run of a person's conversation.

    Raises:
        UnknownName: the person has no such conversation; names the nearest.
    """
    run = store.run(chat) if chat.startswith(PREFIX) else None
    if run is None or run["info"].get("user") != user:
        known = [r["id"] for r in runs(store, user)]
        near = difflib.get_close_matches(chat, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        latest = f"the latest: {', '.join(known[-3:])}" if known else "there is none yet"
        raise UnknownName(f"unknown conversation {chat[:80]!r}", where=store.where, todo=f"{hint}{latest}")
    return run


def record_of(store: Store, turn: str, user: str) -> Record:
    """The record of a person's turn, also by the id of something that was said of it.

    Raises:
        UnknownName: the person has no such turn.
    """
    wanted = turn.strip().partition(".")[0]
    own = own_run(store, chat_of(wanted), user)
    found: Record | None = next((t for t in own["info"].get("turns", ()) if t["id"] == wanted), None)
    if found is None:
        known = [t["id"] for t in own["info"].get("turns", ())]
        raise UnknownName(f"unknown turn {turn[:80]!r}", where=store.where, todo=f"the latest: {', '.join(known[-3:])}")
    return found


def latest_correction(store: Store, wanted: str, user: str) -> tuple[Record, Record]:
    """What is to be taken back, and the record of its turn: that id, the last of that turn, or the person's last.

    Raises:
        UnknownName: there is none that is not taken back already.
    """
    pool = [record_of(store, wanted, user)] if wanted else list(_all(store, user))
    made = [(c, t) for t in pool for c in t["corrections"] if "undone" not in c]
    if "." in wanted:
        made = [(c, t) for c, t in made if c["id"] == wanted.strip()]
    if not made:
        what = f"nothing to take back for {wanted[:80]!r}" if wanted else "nothing to take back"
        raise UnknownName(what, where=store.where, todo="all that was said is taken back already, if anything was")
    return max(made, key=lambda pair: float(pair[0]["at"]))


def turns_of(store: Store, chat: str) -> list[Turn]:
    """The turns of a conversation as a person sees them, oldest first."""
    records = read(store, chat)
    tasks = store.tasks([r["id"] for r in records])
    attempts = {a.id: a for a in store.attempts(chat)}
    return [turn(r, tasks.get(r["id"]), attempts.get(r["attempt"])) for r in records]


def turn(record: Mapping[str, Any], task: Task | None, attempt: Attempt | None) -> Turn:
    """A turn from what is kept of it."""
    said = [c for c in record["corrections"] if "undone" not in c and c["outcome"] is not None]
    read = record.get("understood")
    edited = record.get("edited")
    return Turn(
        id=record["id"], chat=chat_of(record["id"]), text=str(task.info["question"]) if task else "",
        status=record["status"], reply=edited if edited is not None else attempt.answer if attempt else "",
        reason=record["reason"], lessons=tuple(record["lessons"]), tools=tuple(tools_of(attempt)),
        understood=Understanding(**read) if read else None,
        corrections=tuple(_told(c) for c in record["corrections"]),
        verdict=("up" if said[-1]["outcome"] else "down") if said else None, edited=edited is not None,
        replaces=record["replaces"], replaced=record["replaced"], usage=record["usage"], at=record["at"],
    )  # fmt: skip


def tools_of(attempt: Attempt | None) -> list[dict[str, Any]]:
    """What an answer called: name, arguments, result and error of each."""
    found = []
    for step in attempt.steps if attempt else ():
        if step.author == "tool" and step.tool_calls:
            call, failed = step.tool_calls[0], step.observation or ""
            result = "" if failed else step.text
            found.append({"name": call.name, "arguments": call.arguments, "result": result, "error": failed})
    return found


def _record(id: str) -> Record:
    return {
        "id": id, "attempt": "", "status": "stopped", "reason": "", "at": time.time(), "lessons": [], "offers": {},
        "understood": None, "corrections": [], "counts": {}, "usage": {}, "edited": None, "replaces": "",
        "replaced": "",
    }  # fmt: skip


def _told(correction: Mapping[str, Any]) -> dict[str, Any]:
    made = {k: correction[k] for k in ("id", "kind", "words")}
    return {**made, "undone": "undone" in correction}


def _write(store: Store, chat: str, turns: Sequence[Record]) -> None:
    store.set_info(chat, {"turns": list(turns), "tasks": [t["id"] for t in turns], "updated": time.time()})


def _all(store: Store, user: str) -> Iterator[Record]:
    for run in runs(store, user):
        yield from run["info"].get("turns") or ()


__all__ = [
    "PREFIX", "TITLE", "Record", "add_correction", "begin", "change", "chat_of", "latest_correction", "new_id",
    "own_run", "read", "record_of", "runs", "tools_of", "turn", "turns_of",
]  # fmt: skip
