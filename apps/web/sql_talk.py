"""A chat about a database: the assistant of one person's session, open while it is spoken to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from verbal.errors import DataError
from verbal.recipe import Recipe, load_recipe

from ..text2sql import answered
from ..text2sql.answer import Answer
from ..text2sql.answered import Record
from ..text2sql.asked import pasted_sql
from ..text2sql.assistant import Assistant, events
from .databases import CANDIDATE_ROWS, Source
from .faults import Fault
from .people import Person
from .results import Result, run_again
from .scopes import scope_of
from .sql_turns import keep_turn, lessons_of, readings_of, turn_of, turns_of, with_record

if TYPE_CHECKING:
    from .site import Site

Happening = dict[str, Any]
"""An event as a page gets it."""


def web_recipe(model: str, max_cost: float | None = None) -> Recipe:
    """How a question is worked on: the shipped `ask`, with a model, and a limit on what a chat may cost."""
    made = load_recipe("ask")
    app = dataclasses.replace(made.app, options={**made.app.options, "rows": CANDIDATE_ROWS})
    limits = dataclasses.replace(made.limits, max_cost=max_cost)
    return dataclasses.replace(made, app=app, limits=limits, model=dataclasses.replace(made.model, name=model))


class SqlTalk:
    """A chat about a database.

    Args:
        site: Store, models and results.
        person: Whose chat it is.
        chat: Its id, `ask-3fa9c`; its run.
        source: The database; None where it is not served here, and the chat can be read only.
    """

    kind = "sql"

    def __init__(self, site: Site, person: Person, chat: str, source: Source | None) -> None:
        self._site, self._person, self.chat, self._source = site, person, chat, source
        self._assistant: Assistant | None = None
        self._last: Answer | None = None

    async def open(self, title: str = "") -> Assistant:
        """The assistant, opened when it is first needed.

        Raises:
            VerbalError: the database or the model cannot be used.
        """
        if self._assistant is None:
            if self._source is None:
                raise Fault(409, "database", "the database of this chat is not served here any more")
            model = self._site.models[0]
            about = {"user": self._person.name, "database": self._source.name, "title": title[:120], "kind": "sql"}
            made = Assistant(
                store=self._site.store, model=await self._site.model(model),
                recipe=web_recipe(model, self._site.max_cost),
                app=await self._source.opened(), memory=self._source.memory(self._person), new_memory=True,
                run=self.chat, about=about,
            )  # fmt: skip
            await made.__aenter__()
            self._assistant = made
            self._last = self._spoken(await asyncio.to_thread(self.records))
        return self._assistant

    async def aclose(self) -> None:
        """Ends the session; it can be gone on with."""
        if self._assistant is not None:
            await self._assistant.__aexit__(None, None, None)
            self._assistant = None

    def records(self) -> list[Record]:
        """What is kept of its answers, oldest first."""
        run = self._site.store.run(self.chat)
        return list((run["info"].get("answers") if run else None) or ())

    async def etag(self) -> int:
        """Number of its turns."""
        return len(await asyncio.to_thread(self.records))

    async def turns(self) -> list[Happening]:
        """Its turns, oldest first."""
        records = await asyncio.to_thread(self.records)
        return await turns_of(self._site.store, self._site.results, records, self._source)

    def memory(self) -> str:
        """Where its lessons are filed."""
        if self._assistant is not None:
            return self._assistant.memory
        records = self.records()
        return str(records[-1]["memory"]) if records else self._named()

    def _named(self) -> str:
        return self._source.memory(self._person) if self._source else ""

    # what a person says -------------------------------------------------------------------------------------------

    async def say(self, text: str) -> AsyncGenerator[Happening, None]:
        """The answer to a question as it comes; the last event is `done`."""
        assistant = await self.open(title=text)
        async with aclosing(self._told(assistant.stream(text, after=self._last))) as made:
            async for event in made:
                yield event

    async def run(self, sql: str) -> AsyncGenerator[Happening, None]:
        """What a person's own query gives, read-only, without a model.

        Raises:
            DataError: it is no query.
        """
        assistant = await self.open(title=sql)
        database = await asyncio.to_thread(assistant.app.database, assistant.location)
        text = f"```sql\n{sql.strip()}\n```"  # in a fence it counts as written
        if await asyncio.to_thread(pasted_sql, text, database, assistant.dialect) is None:
            raise DataError("that is no query that reads", todo="write one SELECT")
        async with aclosing(self._told(assistant.stream(text), spoken=False)) as made:
            async for event in made:
                yield event

    async def heard(self, turn: str, said: Mapping[str, Any]) -> AsyncGenerator[Happening, None]:
        """What becomes of feedback on a turn; a new answer comes as events, and `done` holds `feedback`."""
        kind, words = said["kind"], said["text"]
        assistant = await self.open()
        if kind in ("up", "down"):
            made = await assistant.thumbs(turn, kind == "up")
        elif kind in ("words", "sql"):
            made = await assistant.correct(turn, words=words, sql=said["sql"] if kind == "sql" else "")
        elif kind == "choose":
            answer = await assistant.choose(turn, said["number"])
            noted = {"kept": True, "says": answer.reason, "correction": self._newest(turn), "lesson": None}
            async with aclosing(self._told(_at_once(answer), feedback=noted)) as parts:
                async for event in parts:
                    yield event
            return
        elif kind == "regenerate":
            async with aclosing(self._again(assistant, turn, words)) as parts:
                async for event in parts:
                    yield event
            return
        else:
            todo = "correct it by words, or by the query as it should be"
            raise Fault(400, "kind", "an answer from a database is not edited as text", todo)
        async with aclosing(self._after(made)) as parts:
            async for event in parts:
                yield event

    async def _again(self, assistant: Assistant, turn: str, reason: str) -> AsyncGenerator[Happening, None]:
        """The same question once more, after the reason was learned from where one is given."""
        record = assistant.own(turn)
        noted: Happening = {"kept": False, "says": "asked again", "correction": None, "lesson": None}
        if reason:
            made = await assistant.correct(turn, words=reason)
            if made.answer is not None:
                async with aclosing(self._after(made)) as parts:
                    async for event in parts:
                        yield event
                return
            noted = self._feedback(made)
        async with aclosing(self._told(assistant.stream(record["asked"]), feedback=noted)) as parts:
            async for event in parts:
                yield event

    async def _after(self, made: Any) -> AsyncGenerator[Happening, None]:
        """A correction, and the answer it leads to."""
        if made.answer is None:
            yield {"type": "done", "turn": None, "etag": await self.etag(), "feedback": self._feedback(made)}
            return
        async with aclosing(self._told(_at_once(made.answer), feedback=self._feedback(made))) as parts:
            async for event in parts:
                yield event

    async def undo(self, correction: str) -> Happening:
        """Takes back a correction."""
        assistant = await self.open()
        return {"says": (await assistant.undo(correction)).says, "etag": await self.etag()}

    # how it is told -----------------------------------------------------------------------------------------------

    async def _told(
        self, source: AsyncIterator[Any], feedback: Happening | None = None, *, spoken: bool = True
    ) -> AsyncGenerator[Happening, None]:
        """Events of the assistant as a page gets them; a stream that is dropped drops the work behind it."""
        result: Result | None = None
        async with aclosing(source) as parts:  # type: ignore[type-var]
            async for event in parts:
                value = event.value
                if event.kind == "rows":
                    result = await asyncio.to_thread(Result.of, *value)
                    yield {"type": "rows", **result.first()}
                elif event.kind == "lessons":
                    yield {"type": "lessons", "lessons": self._lessons(value)}
                elif event.kind == "readings":
                    yield {"type": "readings", "readings": readings_of(value)}
                elif event.kind in _PLAIN:
                    name, key = _PLAIN[event.kind]
                    yield {"type": name, key: value}
                elif event.kind == "answer":
                    yield await self._done(value, result, feedback, spoken=spoken)

    async def _done(
        self, answer: Answer, result: Result | None, feedback: Happening | None, *, spoken: bool
    ) -> Happening:
        if result is not None:
            if any(_CUT in limit for limit in answer.limits):
                # Candidates are compared by their first rows; the one that won is read whole.
                result, answer = await self._whole(answer, result)
            self._site.results.keep(answer.id, result)
        turn = turn_of(answer, result, self._items())
        if turn["text"].startswith("```sql\n"):
            turn["text"] = turn["asked"] = answer.answer
        store = self._site.store

        def kept() -> Happening:
            keep_turn(store, turn)
            return with_record(turn, answered.answer_of(store, answer.id))

        whole = await asyncio.to_thread(kept)
        if spoken and answer.status in ("answered", "ambiguous"):
            self._last = dataclasses.replace(answer, rows=[], chart=None)
        told = {"feedback": feedback} if feedback else {}
        return {"type": "done", "turn": whole, "etag": await self.etag(), **told}

    async def _whole(self, answer: Answer, result: Result) -> tuple[Result, Answer]:
        """A result as far as a page can show it, and the answer without a limit that is none any more."""
        try:
            found = await run_again(self._source, answer.answer) if self._source else result
        except Fault:
            found = dataclasses.replace(result, truncated=True)
        limits = [limit for limit in answer.limits if _CUT not in limit]
        if found.truncated:
            limits.insert(0, f"these are the first {len(found.rows):,} rows, there are more")
        return found, dataclasses.replace(answer, limits=limits, row_count=len(found.rows))

    def _feedback(self, made: Any) -> Happening:
        """A correction as a page gets it."""
        lesson = None
        if made.lesson is not None:
            item = self._items().get(made.lesson["id"])
            more = {"when": item.when, "boundary": item.boundary} if item is not None else {}
            lesson = {**made.lesson, "memory": made.memory, "scope": scope_of(made.memory), **more}
        return {"kept": made.kept, "says": made.says, "correction": made.id or None, "lesson": lesson}

    def _lessons(self, told: Any) -> list[dict[str, Any]]:
        return lessons_of(told, self._assistant.memory if self._assistant else "", self._items())

    def _items(self) -> Mapping[str, Any]:
        memory = self._assistant.trials() if self._assistant else None
        return memory.items() if memory is not None else {}

    def _newest(self, turn: str) -> str | None:
        said = answered.answer_of(self._site.store, turn)["corrections"]
        return str(said[-1]["id"]) if said else None

    @staticmethod
    def _spoken(records: list[Record]) -> Answer | None:
        """The answer that the next question may follow up, as far as it is kept."""
        told = [r for r in records if r["status"] in ("answered", "ambiguous")]
        if not told:
            return None
        last = told[-1]
        fields = {k: last[k] for k in ("id", "question", "asked", "status", "db", "memory", "attempt")}
        return Answer(**fields, answer=last["sql"], says=last.get("says", ""))


_CUT = " cap reached: "
_PLAIN = {
    "asked": ("asked", "text"), "sql": ("sql", "sql"), "chart": ("chart", "spec"), "words": ("text", "delta"),
    "explanation": ("explanation", "text"), "limits": ("limits", "limits"),
}  # fmt: skip
"""Kinds of events that go through as they are -> their type and the name of their value."""


async def _at_once(answer: Answer) -> AsyncIterator[Any]:
    """The events of an answer that is there."""
    for event in events(answer):
        yield event


__all__ = ["Happening", "SqlTalk", "web_recipe"]
