"""The chat agent: answers, tools, and lessons that a person teaches by saying what was wrong. `verbal chat` is this.

    async with ChatAgent(model="openai/gpt-5-mini", user="me") as agent:
        async for event in agent.stream("don't use emojis when you write to my boss"): ...
        async for event in agent.stream("write to my boss that I am late", chat=agent.chat): ...
        await agent.thumbs(agent.last, up=True)
        await agent.undo()

A message that teaches is answered by what was understood: when the lesson applies, and where it does not. The lesson is
filed in the person's own memory and followed from then on where it fits; what came of that is counted. Beyond the
person it needs evidence: `share` files it for the team or for all, where it is tried by lot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from verbal.errors import STOPS, ContextLengthError, DataError, ModelError
from verbal.types import Reflection

from .._said import check_lesson, own_words
from . import kept, outcomes
from .answering import answer
from .edits import edit_lesson
from .keeping import Keeping
from .reading import read_edit
from .session import alias
from .turn import Busy, Event, Said, Turn, Understanding
from .understanding import situation, understand
from .wording import applies
from .working import Working

LONGEST = 100_000
"""Characters of a message at most."""


class ChatAgent(Keeping):
    """Converses with one person, and learns from what they say of its answers.

    Args:
        model: As `--model` takes it, or an open Model (which stays open); the recipe's when empty.
        store: A path, a URL or an open store, which stays open.
        user: Whose conversations and lessons these are: letters, digits and `._@-`.
        team: The person's team, if any.
        tools: Plain functions with types, or `./mine.py:function`.
        mcp: MCP servers: a command (stdio; a line, or a list of words) or a URL.
        budget: Tokens of a prompt at most; older turns are summarised.
        max_cost: US dollars for one conversation; the call that could exceed it is not made.
        recipe: The shipped `chat` when None.
        admin: Whether lessons of the team and of all may be narrowed and forgotten.

    Raises (on entering):
        ConfigError, ModelError: a name, model, tool or server cannot be used. StoreError: the store cannot be opened.
    """

    # talking --------------------------------------------------------------------------------------------------------

    async def stream(
        self, text: str, *, chat: str | None = None, etag: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """A turn as it comes; a new conversation when `chat` is None. The last event is `done`.

        Closing the iterator (a client that hung up) cancels the work; the turn stays as `stopped`.

        Raises:
            Stale: the conversation has another number of turns than `etag` (what this agent knows, when None).
            Busy: an answer in it is under way here.
            UnknownName: no such conversation of this person. DataError: the message is empty or too long.
            BudgetError, TransientError, StoreError: what stops a run; the turn is kept as `stopped`.
        """
        async with self._under_way(self._turn(_checked(text), chat, etag)) as events:
            async for event in events:
                yield event

    async def regenerate(self, turn: Turn | str, reason: str = "") -> AsyncGenerator[Event, None]:
        """Asks again, in a turn that takes the place of the one before, which counts as wrong. Events as of `stream`.

        Raises:
            DataError: it is not the last answer of its conversation. What `stream` raises.
        """
        record = kept.record_of(self.store, _id(turn), self.user)
        chat = kept.chat_of(record["id"])
        outcomes.judged(self.store, record)
        alive = [t for t in kept.read(self.store, chat) if not t["replaced"]]
        if alive[-1]["id"] != record["id"]:
            what = f"turn {record['id']} is not the last one of its conversation"
            raise DataError(what, todo="ask again in a new message")
        words = " ".join(reason.split())[:1000]
        text = str(self.store.tasks([record["id"]])[record["id"]].info["question"])
        await self._count(record, 0.0, kind="regenerate", words=words)
        async with self._under_way(self._turn(text, chat, None, replaces=record["id"], reason=words)) as events:
            async for event in events:
                yield event

    def new_chat(self, name: str = "") -> str:
        """The id of a new, empty conversation (`name`, where nobody has it yet); it is kept with its first turn."""
        self.chat, self.last = name or kept.new_id(self.store), None
        self._known[self.chat] = 0
        return self.chat

    async def _turn(
        self, text: str, chat: str | None, etag: int | None, *, replaces: str = "", reason: str = ""
    ) -> AsyncGenerator[Event, None]:
        working = await self._begin(text, chat or self.new_chat(), etag, replaces, reason)
        self._busy.add(working.chat)
        try:
            async with aclosing(self._work(working)) as events:
                async for event in events:
                    yield event
        except STOPS as error:
            working.drop(error.what)
            raise
        finally:
            self._busy.discard(working.chat)
            if not working.over:
                working.drop("it was stopped before it was answered")

    async def _begin(self, text: str, chat: str, etag: int | None, replaces: str, reason: str) -> Working:
        if chat in self._busy:
            raise Busy(f"an answer in {chat} is under way", todo="wait for it, or stop it")
        if chat not in self._known or self.store.run(chat) is not None:
            run = self.check_own(chat)
            self._known.setdefault(chat, len(run["info"].get("turns", ())))
        await self.refresh()
        expect = self._known[chat] if etag is None else etag
        earlier = kept.read(self.store, chat)
        self._known[chat] = len(earlier)  # whoever is told that it went on elsewhere may say it again
        info = {"user": self.user, "team": self.team, "model": self.roles(chat)("solver").name}
        # The person judges: what is exported, reported or compared reads their verdict.
        plain = {**self.recipe.to_dict(), "critics": {"names": ["user"], "verdict": "user", "options": {}}}
        record = kept.begin(self.store, chat, plain, info, text, expect)
        self._known[chat], self.chat = len(earlier) + 1, chat
        if replaces:
            kept.change(self.store, replaces, lambda r: r.update(replaced=record["id"]))
            record = kept.change(self.store, record["id"], lambda r: r.update(replaces=replaces))
        return Working(
            session=self, chat=chat, record=record, text=text, earlier=earlier, before=self.used(chat), reason=reason
        )

    async def _work(self, working: Working) -> AsyncGenerator[Event, None]:
        read = await working.learn(working.reason if working.record["replaces"] else working.text)
        if read.says:
            yield Event(type="understood", data=read.to_dict())
        if read.kind not in ("none", "complaint") and not read.asks and not working.record["replaces"]:
            status: Literal["refused", "noted"] = "refused" if read.status == "refused" else "noted"
            yield Event(type="text", data={"delta": read.says})
            yield self._done(working.conclude(status, reply=read.says))
            return
        await working.look_up()
        yield Event(type="lessons", data={"lessons": working.told_lessons()})
        async with aclosing(self._answered(working)) as events:
            async for event in events:
                yield event

    async def _answered(self, working: Working) -> AsyncGenerator[Event, None]:
        """The model's answer; one that breaks is a turn that failed."""
        made, caller = working.made, self.roles(working.chat)("solver")
        names = [f"{s.memory}:{s.item.id}" for s in working.shown]
        too_long = ""
        for budget in (self.budget, self.budget // 2):
            try:
                messages, window = await working.prompt(budget)
            except DataError as error:
                if not too_long:
                    raise
                yield self._done(working.conclude("failed", reason=f"{too_long}; {error.what}", model=caller.name))
                return
            if window.went:
                yield Event(type="summary", data={"turns": window.went, "dropped": window.dropped})
            try:
                pieces = answer(
                    caller,
                    messages,
                    working.sampling(),
                    self.toolbox,
                    made,
                    rounds=self.rounds,
                    shown=names,
                    budget=budget,
                )
                async with aclosing(pieces) as events:
                    async for event in events:
                        yield event
                break
            except STOPS:
                raise
            except ModelError as error:
                too_long = error.what
                if not isinstance(error, ContextLengthError) or made.text or made.steps or budget != self.budget:
                    yield self._done(working.conclude("failed", reason=error.what, model=caller.name))
                    return
        if made.used:
            yield Event(type="lessons", data={"lessons": working.told_lessons()})
        yield self._done(_ended(working, caller.name))

    def _done(self, turn: Turn) -> Event:
        self.last = turn
        return Event(type="done", data={"turn": turn.to_dict(), "etag": self._known[turn.chat]})

    # what is said of answers ------------------------------------------------------------------------------------------

    async def thumbs(self, turn: Turn | str, up: bool) -> Said:
        """Counts an answer as right or wrong, once.

        Raises:
            UnknownName: no such turn of this person. DataError: it holds no answer of a model.
        """
        record, kind = kept.record_of(self.store, _id(turn), self.user), "up" if up else "down"
        made = await self._count(record, float(up), kind=kind)
        if made is None:
            told = f"it counts as {'right' if up else 'wrong'} already, so nothing was added"
            return Said(id="", turn=record["id"], kind=kind, kept=False, says=told)
        lessons = outcomes.credited(made)
        told = f"noted as {'right' if up else 'wrong'}"
        told += f"; that counts for {', '.join(map(self._alias, lessons))}" if lessons else ""
        return Said(id=made["id"], turn=record["id"], kind=kind, kept=True, says=told, credited=tuple(lessons))

    async def correct(self, turn: Turn | str, words: str) -> Said:
        """Learns from words about an answer, which counts as wrong. Words without a situation are about its request.

        Raises:
            UnknownName: no such turn of this person. DataError: it holds no answer of a model, or the words must not be
                kept (too long, a secret, an instruction).
        """
        record = kept.record_of(self.store, _id(turn), self.user)
        outcomes.judged(self.store, record)
        said = own_words(words)
        read = understand(said)
        if read.kind != "teach" or not read.lesson:
            read = Understanding(kind="teach", lesson=said)
        if not read.when:
            asked = self._asked(record)
            where = situation(asked) or " ".join(asked.split())[:120]
            read = dataclasses.replace(read, when=where)
        check_lesson(Reflection(id="", text=read.lesson, when=read.when), todo=outcomes.SAY)
        await self._count(record, 0.0, kind="words", words=said)
        return await self._taught(record, read, kind="words")

    async def edit(self, turn: Turn | str, text: str) -> Said:
        """Puts the person's own text in place of an answer, and learns from the difference, by a model or by rule.

        Raises:
            UnknownName: no such turn of this person. DataError: it holds no answer of a model, or the text is empty,
                too long, or the answer as it is.
        """
        record = kept.record_of(self.store, _id(turn), self.user)
        attempt, new = outcomes.judged(self.store, record), _checked(text)
        old = record["edited"] if record["edited"] is not None else attempt.answer
        if new.strip() == old.strip():
            raise DataError("the text is the answer as it is", todo="change it, or say /up")
        made = await self._count(record, 0.0, kind="edit", words="", before=record["edited"], text=new)
        kept.change(self.store, record["id"], lambda r: r.update(edited=new))
        asked, chat = self._asked(record), kept.chat_of(record["id"])
        read = None
        if self.roles(chat)("feedback").chats:
            number = len(record["corrections"]) + 1
            read = await read_edit(
                lambda key, m: self.ask(chat, "feedback", f"{record['id']}:{key}:{number}", m), asked, old, new
            )
        read = read or edit_lesson(asked, old, new)
        if read.kind != "teach":
            told = "your version stands in the conversation now; no lesson could be drawn from the change"
            return Said(id=made["id"] if made else "", turn=record["id"], kind="edit", kept=True, says=told)
        return await self._taught(record, read, kind="edit")

    async def undo(self, id: str = "") -> Said:
        """Takes back the last thing that was said of answers or lessons, of a turn, or that one.

        Raises:
            UnknownName: there is none.
        """
        made, record = kept.latest_correction(self.store, id, self.user)
        told: list[str] = []
        for wanted in made.get("group") or [made["id"]]:  # what one message taught goes together
            one = next(c for c in record["corrections"] if c["id"] == wanted)
            if "undone" not in one:
                told += await outcomes.take_back(self.store, self.memories, one, record, self._alias)
                record = kept.record_of(self.store, record["id"], self.user)
        says = "; ".join([f"taken back: {made['kind']} ({made['id']})", *told])
        return Said(id=made["id"], turn=record["id"], kind="undo", kept=True, says=says)

    # ------------------------------------------------------------------------------------------------------------------

    async def _count(self, record: kept.Record, outcome: float, *, kind: str, **fields: Any) -> kept.Record | None:
        return await outcomes.count(self.store, self.memories, self.credit, record, outcome, kind=kind, **fields)

    async def _taught(self, record: kept.Record, read: Understanding, *, kind: str) -> Said:
        """A lesson drawn from what was said of an answer."""
        item, made, known = await outcomes.teach(self.store, self.own, read, record["id"])
        name = alias("user", item.id)
        told = f"you told me before ({name}): {item.text}" if known else f"noted ({name}): {item.text}. {applies(item)}"
        said = self.said_of(made, kind, told, self.own.name, item, "user")
        last = kept.record_of(self.store, record["id"], self.user)["corrections"]
        credited = next((outcomes.credited(c) for c in reversed(last) if c["kind"] == kind), [])
        return dataclasses.replace(said, turn=record["id"], credited=tuple(credited), kept=True)

    def _asked(self, record: kept.Record) -> str:
        return str(self.store.tasks([record["id"]])[record["id"]].info["question"])

    def _alias(self, reference: str) -> str:
        memory, _, id = reference.rpartition(":")
        return alias(self.names[memory], id)


def _ended(working: Working, model: str) -> Turn:
    """The turn of an answer that came to its end."""
    made = working.made
    if made.finish == "content_filter":
        return working.conclude("refused", reason="the provider refused to answer this", model=model)
    if made.cut:
        return working.conclude("failed", reason="it still called tools when it had to answer", model=model)
    if not made.text.strip():
        return working.conclude("failed", reason="the model gave an empty answer", model=model)
    reason = "the answer was cut at its limit of tokens" if made.finish == "length" else ""
    return working.conclude("answered", reason=reason, model=model)


def _checked(text: str) -> str:
    """A message that can be answered.

    Raises:
        DataError: it is empty or too long.
    """
    if not text.strip():
        raise DataError("the message is empty", todo="say something")
    if len(text) > LONGEST:
        raise DataError(f"a message of {len(text):,} characters, at most {LONGEST:,}", todo="say it in parts")
    return text


def _id(turn: Turn | str) -> str:
    return turn if isinstance(turn, str) else turn.id


__all__ = ["LONGEST", "ChatAgent", "Event", "Said", "Turn"]
