"""A person's lessons and conversations: looked at, changed, shared, taken out. The agent's half that never talks."""

from __future__ import annotations

import time
from typing import Any, Literal

from verbal.errors import ConfigError, DataError
from verbal.types import Reflection, Usage

from .._said import check_for_others, lesson_ops, write
from . import kept, outcomes
from .session import Scope, Session, alias, memory_of
from .turn import Said, Turn
from .wording import applies


class Keeping(Session):
    """Lessons and conversations of one person."""

    chat = ""
    """The conversation that was spoken in last."""
    last: Turn | None = None
    """The last turn of it."""

    # lessons ----------------------------------------------------------------------------------------------------------

    async def narrow(self, reflection: str, *, when: str | None = None, boundary: str | None = None) -> Said:
        """Sets when a lesson applies, and adds where it must not be applied.

        Raises:
            UnknownName: no such lesson. DataError: nothing is set, or the words must not be kept.
            ConfigError: it is the team's or everybody's, and this is no admin.
        """
        memory, item, scope = await self._writable(reflection)
        if when is None and not (boundary or "").strip():
            raise DataError("nothing was narrowed", todo='say when it applies, or where not: "not when ..."')
        new = item.replace(
            when=item.when if when is None else " ".join(when.split()),
            boundary=outcomes.joined(item.boundary, " ".join((boundary or "").split())),
        )
        item, made = await outcomes.reword(self.store, memory, item, new, self.place(), kind="narrow")
        told = f"narrowed ({alias(scope, item.id)}): {item.text}. {applies(item)}"
        return self.said_of(made, "narrow", told, memory.name, item, scope)

    async def forget(self, reflection: str) -> Said:
        """Retires a lesson.

        Raises:
            UnknownName: no such lesson. ConfigError: it is the team's or everybody's, and this is no admin.
        """
        memory, item, scope = await self._writable(reflection)
        made = await outcomes.retire(self.store, memory, [item], self.place(), words=item.text)
        told = f"forgotten: {item.text}"
        return self.said_of(made, "forget", told, memory.name, item.replace(status="retired"), scope)

    async def share(self, reflection: str, to: Literal["team", "global"]) -> Said:
        """Files a lesson of the person for the team or for all, quarantined: shown by lot until outcomes speak for it.

        Raises:
            UnknownName: no such lesson. ConfigError: there is no team, or it is shared already.
            DataError: the words must not be kept.
        """
        if to == "team" and not self.team:
            raise ConfigError("you are in no team", todo="start with --team NAME, or share it with all: global")
        await self.refresh()
        _, item, scope = self.find(reflection)
        if scope == to or (scope == "global" and to == "team"):
            raise ConfigError(f"{alias(scope, item.id)} is shared there already", todo="share one of your own: u1")
        if not self.admin:
            check_for_others(item)
        name = memory_of(to, self.team)
        memory, chat = self.memories[name], self.chat or kept.chat_of(self.place())
        lesson = item.replace(id="", task=None, attempts=(), rival="")
        proposed = await lesson_ops(memory, self.curator(chat), lesson, self.place(), todo=outcomes.SAY)
        logged = await write(self.store, memory, None, proposed)
        ids = [op["reflection"] for op in logged if op["op"] in ("ADD", "UPDATE")]
        if not ids:
            return Said(id="", turn="", kind="share", kept=False, says="it is known there already; nothing was added")
        made = kept.add_correction(
            self.store, self.place(), {"kind": "share", "ops": {name: logged}, "words": item.text}
        )
        held = memory.items()[ids[-1]]
        told = f"shared as {alias(to, held.id)}: tried by lot there until outcomes speak for it"
        return self.said_of(made, "share", told, name, held, to)

    def lessons(self) -> list[dict[str, Any]]:
        """The lessons that this person may see: id, alias, text, when, boundary, status, scope, memory, counts."""
        return [
            {"id": r.id, "alias": alias(scope, r.id), "text": r.text, "when": r.when, "boundary": r.boundary,
             "status": r.status, "scope": scope, "memory": name, "shown": r.counters.shown,
             "helped": r.counters.helped, "harmed": r.counters.harmed, "value": r.value, "applies": applies(r)}
            for name, scope in self.names.items() for r in self.memories[name].items().values()
            if r.status != "retired"
        ]  # fmt: skip

    # conversations ----------------------------------------------------------------------------------------------------

    def history(self, chat: str) -> list[Turn]:
        """The turns of a conversation, oldest first, replaced ones included.

        Raises:
            UnknownName: no such conversation of this person.
        """
        self.check_own(chat)
        return kept.turns_of(self.store, chat)

    def open_chat(self, chat: str) -> list[Turn]:
        """Goes on with a conversation; gives its turns.

        Raises:
            UnknownName: no such conversation of this person.
        """
        turns = self.history(chat)
        self.chat, self.last, self._known[chat] = chat, turns[-1] if turns else None, len(turns)
        return turns

    def chats(self) -> list[dict[str, Any]]:
        """The person's conversations, newest first: id, kind `chat`, title, updated, turns."""
        found = [
            {"id": r["id"], "kind": "chat", "title": r["info"].get("title", ""), "db": None,
             "updated": r["info"].get("updated", r["started"]), "turns": len(r["info"].get("turns", ()))}
            for r in kept.runs(self.store, self.user) if not r["info"].get("hidden")
        ]  # fmt: skip
        return sorted(found, key=lambda c: -float(c["updated"]))

    def rename(self, chat: str, title: str) -> None:
        """Gives a conversation another title."""
        self.check_own(chat)
        self.store.set_info(chat, {"title": " ".join(title.split())[: kept.TITLE] or chat})

    def hide(self, chat: str) -> None:
        """Leaves a conversation out of `chats`; the store keeps it."""
        self.check_own(chat)
        self.store.set_info(chat, {"hidden": True, "updated": time.time()})

    def busy(self, chat: str) -> bool:
        """Whether an answer in a conversation is under way here."""
        return chat in self._busy

    def cost(self, chat: str) -> Usage:
        """What a conversation used so far."""
        return sum(self.used(chat).values(), Usage())

    def export(self, chat: str) -> str:
        """A conversation as Markdown."""
        from .export import markdown

        return markdown(self.check_own(chat), self.history(chat))

    # ----------------------------------------------------------------------------------------------------------------

    def said_of(
        self, made: kept.Record | None, kind: str, told: str, memory: str, item: Reflection, scope: Scope
    ) -> Said:
        """What became of something that was said of a lesson."""
        lesson = {
            "id": item.id, "alias": alias(scope, item.id), "text": item.text, "when": item.when,
            "boundary": item.boundary, "status": item.status, "scope": scope, "memory": memory,
        }  # fmt: skip
        id_ = made["id"] if made else ""
        return Said(id=id_, turn=id_.partition(".")[0], kind=kind, kept=made is not None, says=told, lesson=lesson)

    async def _writable(self, reflection: str) -> tuple[Any, Reflection, Scope]:
        await self.refresh()
        memory, item, scope = self.find(reflection)
        if scope != "user" and not self.admin:
            what = f"{alias(scope, item.id)} is a lesson of {'the team' if scope == 'team' else 'all'}, not of yours"
            raise ConfigError(what, todo="say how you want it yourself, or ask whoever looks after it")
        return memory, item, scope

    def place(self) -> str:
        """The turn that a change of a lesson is noted with: the last one; empty when there is none."""
        if self.chat and (turns := kept.read(self.store, self.chat)):
            return str(turns[-1]["id"])
        known = [r for r in kept.runs(self.store, self.user) if r["info"].get("turns")]
        return str(known[-1]["info"]["turns"][-1]["id"]) if known else ""


__all__ = ["Keeping"]
