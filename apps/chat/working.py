"""A turn under way: what its message teaches, the lessons that fit it, its prompt, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from verbal.contracts import Sampling
from verbal.errors import DataError
from verbal.loop.context import Context
from verbal.loop.offers import offer
from verbal.prompt import load_prompt
from verbal.types import Attempt, Message, Reflection, StopReason, Task, Usage

from . import kept, outcomes
from .answering import Answered, visible
from .budget import Past, Window, tokens, window
from .fit import SHOWN, Fitting, fits, goes_on
from .kept import Record
from .reading import read_feedback
from .session import Scope, Session, alias, draw
from .turn import Status, Turn, Understanding
from .understanding import Before, may_teach, understand_all
from .wording import says

_ALIVE = ("answered", "noted", "refused")
_STOPS = {"length": StopReason.LENGTH, "error": StopReason.ERROR}


@dataclass(frozen=True, slots=True)
class Shown:
    """A lesson in the prompt of a turn."""

    item: Reflection
    memory: str
    scope: Scope
    chance: float

    @property
    def alias(self) -> str:
        """How the prompt calls it."""
        return alias(self.scope, self.item.id)


@dataclass(slots=True, kw_only=True)
class Working:
    """One turn of a conversation, from its beginning to what is kept."""

    session: Session
    chat: str
    record: Record
    text: str
    earlier: list[Record]
    """The turns before, oldest first."""
    began: float = field(default_factory=time.perf_counter)
    before: dict[str, Usage] = field(default_factory=dict)
    """What the conversation had used."""
    shown: list[Shown] = field(default_factory=list)
    carried: set[str] = field(default_factory=set)
    """Lessons (`memory:id`) that fit because the turn goes on with one where they did."""
    reason: str = ""
    """Why the answer before is asked for again."""
    made: Answered = field(default_factory=Answered)
    past: list[Message] = field(default_factory=list)
    """What was said before, as the prompt held it; without lessons and tools."""
    over: bool = False
    """Whether it is kept with its end."""

    @property
    def id(self) -> str:
        """Of the turn."""
        return str(self.record["id"])

    # what the message teaches ----------------------------------------------------------------------------------------

    async def learn(self, text: str) -> Understanding:
        """What a person's words teach, filed in their memory; kind `none` when they teach nothing.

        Raises:
            BudgetError, TransientError, StoreError: what stops a run.
        """
        if not may_teach(text):
            return Understanding(kind="none", asks=True)
        last, before = self._last()
        known = [r for r in self.session.own.items().values() if r.status != "retired"]
        if self.session.roles(self.chat)("feedback").chats:
            ask = partial(self.session.ask, self.chat, "feedback")
            reads = await read_feedback(lambda key, messages: ask(f"{self.id}:{key}", messages), text, before, known)
        else:
            reads = understand_all(text, before, known)
        read = reads[0]
        again = bool(self.record["replaces"])  # what is asked again counts as wrong already
        if read.kind == "none" or (again and read.kind == "complaint"):
            return read
        about_it = any(
            r.kind == "teach" and fits(Reflection(id="", text=r.lesson, when=r.when), before.text) for r in reads
        )
        if (read.complains or about_it) and last is not None and before.reply and not again:
            await self._counted(last, text)
        several = [await self._file(one) for one in reads]
        made = self._together(several)
        if read.complains:
            self.carried |= self._fitted(last) | {f"{self.session.own.name}:{m.id}" for m in several if m.id}
        kept.change(self.session.store, self.id, lambda r: r.update(understood=made.to_dict()))
        return made

    async def _file(self, read: Understanding) -> Understanding:
        """Writes down what was understood; what must not be kept is told."""
        store, own = self.session.store, self.session.own
        item: Reflection | None = None
        correction: Record | None = None
        known = False
        try:
            if read.kind == "teach":
                item, correction, known = await outcomes.teach(store, own, read, self.id)
            elif read.about == "*":
                items = [r for r in own.items().values() if r.status != "retired"]
                if not items:
                    return dataclasses.replace(read, status="refused", says="Nothing was taught yet.")
                correction = await outcomes.retire(store, own, items, self.id)
                told = "; ".join(f"{r.text} ({alias('user', r.id)})" for r in items)
                return dataclasses.replace(
                    read, status="retired", correction=correction["id"],
                    says=f"Forgotten, all that you taught: {told}. To have it back: undo.",
                )  # fmt: skip
            elif read.kind in ("narrow", "widen", "forget"):
                item = own.items().get(read.about)
                if item is None or item.status == "retired":
                    return dataclasses.replace(read, status="refused", says=says(read, None, ""))
                if read.kind == "forget":
                    correction = await outcomes.retire(store, own, [item], self.id)
                else:
                    new = outcomes.changed(item, read)
                    item, correction = await outcomes.reword(store, own, item, new, self.id, kind=read.kind)
        except DataError as error:
            why = f"Nothing was kept: {error.what}" + (f" ({error.todo})" if error.todo else "")
            return dataclasses.replace(read, status="refused", says=f"{why}.")
        if item is None:  # a complaint teaches nothing by itself
            return dataclasses.replace(read, says="Noted: that answer was not right.")
        return dataclasses.replace(
            read, lesson=item.text, when=item.when, boundary=item.boundary, polarity=item.polarity, id=item.id,
            memory=own.name, status="retired" if read.kind == "forget" else item.status,
            says=says(read, item, alias("user", item.id), known=known),
            correction=correction["id"] if correction else "",
        )  # fmt: skip

    def _together(self, several: list[Understanding]) -> Understanding:
        """What one message came to: its first lesson, told with the others; they are taken back together."""
        ids = [m.correction for m in several if m.correction]
        if len(ids) > 1:
            kept.change(
                self.session.store, self.id,
                lambda record: [c.update(group=ids) for c in record["corrections"] if c["id"] in ids],
            )  # fmt: skip
        first = next((m for m in several if m.status != "refused"), several[0])
        return dataclasses.replace(first, says="\n".join(m.says for m in several if m.says))

    async def _counted(self, last: Record, words: str) -> None:
        session = self.session
        attempt = session.store.attempt(last["attempt"])
        if attempt is not None and attempt.model:
            await outcomes.count(session.store, session.memories, session.credit, last, 0.0, kind="words", words=words)

    def _last(self) -> tuple[Record | None, Before]:
        """The turn that the message comes after."""
        alive = [t for t in self.earlier if t["status"] in _ALIVE and not t["replaced"]]
        if not alive:
            return None, Before()
        last, store = alive[-1], self.session.store
        task, attempt = store.tasks([last["id"]]).get(last["id"]), store.attempt(last["attempt"])
        turn = kept.turn(last, task, attempt)
        own = self.session.own.name
        about = turn.understood.id if turn.understood and turn.understood.kind != "forget" else ""
        used = [x["id"] for x in turn.lessons if x["memory"] == own and (x["used"] or len(turn.lessons) == 1)]
        about = about or (used[0] if len(used) == 1 else "")
        reply = turn.reply if attempt is not None and attempt.model else ""
        return last, Before(text=turn.text, reply=reply, about=about)

    def _fitted(self, last: Record | None) -> set[str]:
        return {f"{x['memory']}:{x['id']}" for x in (last["lessons"] if last else ())}

    # the lessons that fit ---------------------------------------------------------------------------------------------

    async def look_up(self) -> None:
        """Finds the lessons to show: the person's own for certain, those of team and all by lot."""
        session = self.session
        if goes_on(self.text) or self.reason:
            self.carried |= self._fitted(self._last()[0])
        own: list[Reflection] = []
        for status in ("quarantined", "active"):
            own += await self._fitting(session.own, newest=True).search(self.text, SHOWN, status=cast(Any, status))
        own.sort(key=lambda r: (not r.when, -r.version))
        self.shown = [Shown(r, session.own.name, "user", 1.0) for r in own[:SHOWN]]
        offers = {session.own.name: {"offered": {s.item.id: 1.0 for s in self.shown}, "shown": [*_ids(self.shown)]}}
        said = {_folded(s.item) for s in self.shown}
        for name, scope in session.names.items():
            if scope == "user":
                continue
            drawn = await offer(self._context(name), self._task(), self.text)
            double = {r.id for r in drawn.shown if _folded(r) in said}
            chances = {i: c for i, c in drawn.chances.items() if i not in double}
            new = [r for r in drawn.shown if r.id not in double]
            self.shown += [Shown(r, name, scope, chances.get(r.id, 1.0)) for r in new]
            said |= {_folded(r) for r in new}
            offers[name] = {"offered": chances, "shown": [r.id for r in new]}
        self.record["offers"] = {name: o for name, o in offers.items() if o["offered"]}

    def told_lessons(self) -> list[dict[str, Any]]:
        """The lessons as events and records tell of them."""
        return [
            {"id": s.item.id, "alias": s.alias, "text": s.item.text, "when": s.item.when, "boundary": s.item.boundary,
             "scope": s.scope, "status": s.item.status, "chance": s.chance, "memory": s.memory,
             "used": s.alias.lower() in self.made.used}
            for s in self.shown
        ]  # fmt: skip

    def _fitting(self, memory: Any, *, newest: bool = False) -> Fitting:
        carried = {c.removeprefix(f"{memory.name}:") for c in self.carried if c.startswith(f"{memory.name}:")}
        judged = self.session.recipe.app.options.get("fit", "words") == "model"
        return Fitting(memory, carried, newest=newest, judged=judged)

    def _context(self, name: str) -> Context:
        """What lots are drawn in: those of two memories must not agree, and those of two turns neither."""
        session = self.session
        return Context(
            run=self.chat, arm="chat", recipe=session.recipe, app=cast(Any, None), critics=[], store=session.store,
            roles=cast(Any, session.roles(self.chat)), tasks={}, seed=draw(self.id, name),
            memory=cast(Any, self._fitting(session.memories[name])),
        )  # fmt: skip

    def _task(self) -> Task:
        message = Message(role="user", content=self.text)
        return Task(id=self.id, kind="chat", messages=(message,), info={"question": self.text})

    # the prompt -------------------------------------------------------------------------------------------------------

    async def prompt(self, budget: int) -> tuple[list[Message], Window]:
        """The messages of the answer within a budget of tokens, and what went out of them.

        Raises:
            DataError: the message is longer than the budget.
            BudgetError, TransientError, StoreError: what stops a run.
        """
        session, own = self.session, [Message(role="user", content=self.text)]
        if self.reason:
            last = kept.turn(*self._kept(self.record["replaces"]))
            own += [Message(role="assistant", content=last.reply), Message(role="user", content=self.reason)]
        lessons = load_prompt("chat/lessons").fill(lessons="\n".join(map(_line, self.shown))) if self.shown else ""
        fixed = load_prompt("chat/answer").fill(sections=lessons)
        run = session.store.run(self.chat)
        summary = dict((run["info"].get("summary") if run else None) or {"text": "", "upto": ""})
        past = self._past(summary["upto"])
        left = budget - tokens(fixed) - tokens(own) - tokens(json.dumps(session.toolbox.definitions)) - 40
        ask = partial(session.ask, self.chat, "summary")
        found = await window(past, summary["text"], left, lambda key, m: ask(f"{self.id}:{key}", m))
        if found.went:
            session.store.set_info(self.chat, {"summary": {"text": found.summary, "upto": found.upto}})
        earlier = load_prompt("chat/earlier").fill(summary=found.summary) if found.summary else ""
        system = load_prompt("chat/answer").fill(sections="\n".join(p for p in ("", earlier, lessons) if p))
        told = [m for turn in found.turns for m in turn.messages]
        self.past = [Message(role="system", content=earlier.strip())] * bool(earlier)
        self.past += [m for m in told if m.role == "user" or (m.role == "assistant" and not m.tool_calls)]
        return [Message(role="system", content=system.strip()), *told, *own], found

    def sampling(self) -> Sampling:
        """How the answer is sampled: each turn by a seed of its own."""
        table = self.session.recipe.model
        return Sampling(temperature=table.temperature, max_tokens=table.max_tokens, seed=draw(self.id, "answer"))

    def _past(self, upto: str) -> list[Past]:
        """The turns after those in the summary, as messages."""
        ids = [t["id"] for t in self.earlier]
        rest = self.earlier[ids.index(upto) + 1 :] if upto in ids else self.earlier
        rest = [t for t in rest if t["status"] in _ALIVE and not t["replaced"] and t["id"] != self.record["replaces"]]
        tasks = self.session.store.tasks([t["id"] for t in rest])
        attempts = {a.id: a for a in self.session.store.attempts(self.chat)} if rest else {}
        return [
            Past(id=t["id"], messages=tuple(_messages(kept.turn(t, tasks.get(t["id"]), a), a)))
            for t in rest
            for a in [attempts.get(t["attempt"])]
        ]

    def _kept(self, turn: str) -> tuple[Record, Task | None, Attempt | None]:
        store = self.session.store
        record = next(t for t in self.earlier if t["id"] == turn)
        return record, store.tasks([turn]).get(turn), store.attempt(record["attempt"])

    # the end ----------------------------------------------------------------------------------------------------------

    def conclude(self, status: Status, *, reply: str = "", reason: str = "", model: str = "") -> Turn:
        """Keeps the end of the turn; gives it."""
        store, made = self.session.store, self.made
        used = sum(self.usage().values(), Usage())
        steps = made.steps
        if steps:
            chances = {f"{s.memory}:{s.item.id}": s.chance for s in self.shown}
            offered = {
                f"{name}:{i}": c for name, o in self.record["offers"].items() for i, c in o["offered"].items()
            } | chances
            cited = tuple(f"{s.memory}:{s.item.id}" for s in self.shown if s.alias.lower() in made.used)
            steps = [steps[0].replace(offered=offered), *steps[1:]]
            steps[-1] = steps[-1].replace(cited=cited)
        attempt = Attempt(
            id=f"{self.chat}/chat/{self.id}/0.0", run=self.chat, task=self.id, arm="chat", answer=reply or made.text,
            steps=tuple(steps), model=model, prompts=_hashes(), usage=used,
            seed=self.sampling().seed if model else None,
            stop=StopReason.ERROR if status == "failed" else _STOPS.get(made.finish, StopReason.ANSWERED),
            error=reason if status == "failed" else None,
        )  # fmt: skip
        fields = {
            "attempt": attempt.id, "status": status, "reason": reason, "lessons": self.told_lessons(),
            "offers": self.record["offers"] if model else {}, "usage": self.told_usage(used),
        }  # fmt: skip
        with store.transaction():
            if model:  # a row of a training set has the task's prompt: the answer was to all of the conversation
                own = self._task()
                info = store.tasks([self.id])[self.id].info
                store.put_tasks([own.replace(messages=(*self.past, *own.messages), info=info)])
            store.put_attempt(attempt)
            self.record = kept.change(store, self.id, lambda r: r.update(fields))
        store.finish_run(self.chat, "done")
        self.over = True
        return kept.turn(self.record, store.tasks([self.id]).get(self.id), attempt)

    def drop(self, reason: str) -> None:
        """Keeps that the turn was stopped, and what it used until then."""
        used = sum(self.usage().values(), Usage())
        fields = {"reason": reason, "usage": self.told_usage(used)}
        self.record = kept.change(self.session.store, self.id, lambda r: r.update(fields))
        self.session.store.finish_run(self.chat, "stopped")
        self.over = True

    def usage(self) -> dict[str, Usage]:
        """What this turn used, by role."""
        now = self.session.used(self.chat)
        spent = {role: _minus(used, self.before.get(role, Usage())) for role, used in now.items()}
        return {role: used for role, used in spent.items() if used.calls or used.tokens}

    def told_usage(self, used: Usage) -> dict[str, Any]:
        """Usage as turns tell of it."""
        roles = {role: {"calls": u.calls, "tokens": u.tokens, "cost": u.cost} for role, u in self.usage().items()}
        return {
            "calls": used.calls, "tokens": used.tokens, "cost": used.cost, "first": self.made.first,
            "seconds": round(time.perf_counter() - self.began, 3), "roles": roles,
        }  # fmt: skip


def _messages(turn: Turn, attempt: Attempt | None) -> list[Message]:
    """A turn as the model reads it later: calls of tools with their results, and the answer as it stands."""
    told = [Message(role="user", content=turn.text)]
    steps = attempt.steps if attempt else ()
    for at, step in enumerate(steps):
        if step.author == "policy" and step.tool_calls and at + len(step.tool_calls) < len(steps):
            told.append(Message(role="assistant", content=visible(step.text), tool_calls=step.tool_calls))
        elif step.author == "tool" and step.tool_calls:
            call = step.tool_calls[0]
            said: Mapping[str, str] = {"error": step.observation} if step.observation else {"result": step.text}
            content = json.dumps({"tool": call.name, **said}, ensure_ascii=False)
            told.append(Message(role="tool", content=content, tool_call_id=call.id))
    return [*told, Message(role="assistant", content=turn.reply)] if turn.reply else told


def _line(shown: Shown) -> str:
    """A lesson in the prompt: one JSON object on a line, so that no text in it can end it."""
    item, fields = shown.item, {"id": shown.alias, "do": shown.item.text}
    fields |= {"when": item.when} if item.when else {}
    fields |= {"not_for": item.boundary} if item.boundary else {}
    return json.dumps(fields, ensure_ascii=False)


def _hashes() -> dict[str, str]:
    return {n: load_prompt(n).hash for n in ("chat/answer", "chat/lessons", "chat/earlier")}


def _ids(shown: Collection[Shown]) -> list[str]:
    return [s.item.id for s in shown]


def _folded(item: Reflection) -> tuple[str, str]:
    return (" ".join(item.text.casefold().split()).rstrip("."), " ".join(item.when.casefold().split()))


def _minus(now: Usage, before: Usage) -> Usage:
    cost = None if now.cost is None or before.cost is None else now.cost - before.cost
    return Usage(
        calls=now.calls - before.calls, prompt_tokens=now.prompt_tokens - before.prompt_tokens, cost=cost,
        completion_tokens=now.completion_tokens - before.completion_tokens, seconds=now.seconds - before.seconds,
    )  # fmt: skip


__all__ = ["Shown", "Working"]
