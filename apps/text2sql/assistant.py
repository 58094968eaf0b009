"""The assistant: questions about one database, answered, explained, corrected. `verbal ask` and `chat` are this.

    async with Assistant("shop.sqlite", model="openai/gpt-5-mini") as assistant:
        answer = await assistant.ask("how many orders came from Berlin?")
        async for event in assistant.stream("and by month?", after=answer): ...
        await assistant.correct(answer, words="no: returns are no orders")
        await assistant.undo()

A session is one run of the store (`ask-3fa9c`), an answer a group of attempts in it: the graph, the vote, the lots of
lessons and the replay cache are those of the loop. Nothing of a model becomes code, and every query is read-only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from verbal.errors import ConfigError

from . import answered, corrections
from .answer import Answer, Event, Status, agreement_limits, result_fields
from .asked import check_question, pasted_sql
from .clarify import abstention, other_readings, understand
from .corrections import Correction
from .followup import followup_prompt, is_followup, parse_followup, rewritten
from .session import Session
from .teaching import correct
from .turn import Turn, broken

_RAN: tuple[Status, Status] = ("answered", "failed")
_QUERIES = ("answered", "ambiguous", "failed")


class Assistant(Session):
    """Answers questions about a database, and learns from what is said of its answers.

    Args:
        db: What `Text2Sql(db=...)` takes; the demo shop when None.
        model: As `--model` takes it, or a Model; the recipe's when empty.
        store: Where everything is kept: a path, a URL or an open store, which stays open.
        memory: Where lessons are looked up and filed: a name; `sql-<database>` when empty; `none`; or `NAME@VERSION`,
            which is read as it was, without trials.
        recipe: How a question is worked on; the shipped `ask` when None.
        app: An open app to use in place of the recipe's (it stays open).
        new_memory: Whether a memory that is named may be one that nothing was filed in yet.
        words: Whether the model adds what the result means in its words, one more call each.
        moved: Where the database was before it moved (`Record["db"]`): what was answered there is judged here.
        run: A session to go on with (`ask-3fa9c`), or the name of a new one.
        about: Kept with a new session, such as whose it is.

    Raises (on entering):
        DataError: the database cannot be read. ConfigError, ModelError: a part or the model cannot be used.
    """

    # asking -------------------------------------------------------------------------------------------------------

    async def ask(self, question: str, *, after: Answer | None = None) -> Answer:
        """The answer to a question; `after` is the answer that it may follow up.

        Raises:
            DataError: the question is empty or too long, or the database cannot be read any more.
            BudgetError, TransientError, StoreError: what stops a run.
        """
        async for event in self.stream(question, after=after):
            if event.kind == "answer":
                answer: Answer = event.value
        return answer

    async def stream(self, question: str, *, after: Answer | None = None) -> AsyncIterator[Event]:
        """The answer as it comes: asked (a follow-up as a whole question), understood, lessons, then sql, rows, chart,
        explanation, words, limits or readings, and at last `answer`, which is all of it. Raises what `ask` raises.
        """
        turn, why = await self._begin(check_question(question), after)
        if turn.asked != turn.question:
            yield Event("asked", turn.asked)
        if why:
            yield Event("answer", self.conclude(turn, "abstained", reason=why))
            return
        if pasted := pasted_sql(turn.asked, turn.database, self.dialect):
            answer = await self._run_pasted(turn, *pasted)
        elif (remembered := await self._remembered(turn)) is not None:
            answer = remembered
        else:
            await turn.look_up()
            yield Event("understood", turn.named)
            yield Event("lessons", turn.told_lessons())
            answer = await self._solve(turn)
        for event in events(answer):
            yield event

    async def choose(self, answer: Answer | str, number: int) -> Answer:
        """The answer under one of its readings, which the person meant: the outcome of the answer, as thumbs are.

        Raises:
            UnknownName: no such answer. ConfigError: it has no such reading. DataError: it is of another database or
                memory.
        """
        record = self.own(_id(answer))
        if not 1 <= number <= len(record["readings"]):
            what = f"answer {record['id']} has {len(record['readings'])} readings, not {number}"
            raise ConfigError(what, todo="give the number of a reading it showed")
        chosen = record["readings"][number - 1]
        turn = await self.begin(record["question"], record["asked"], record["task"])
        turn.named = understand(turn.asked, turn.database)
        seen = await self.shop.app.execute(turn.task, chosen["sql"])
        fields = result_fields(chosen["sql"], seen, turn.asked, turn.named, self.dialect, self.rows_cap())
        if seen.info.get("error"):
            why = f"reading {number} does not run any more, so the choice was not noted"
            return self.conclude(turn, "failed", reason=why, attempt=chosen["attempt"], **fields)
        made = await corrections.choose(self.shop.store, self.trials(), self.shop.credit, record, number)
        why = f"reading {number} was meant, and that is noted (to take it back: undo {made})"
        return self.conclude(turn, "answered", reason=why, attempt=chosen["attempt"], **fields)

    async def _begin(self, text: str, after: Answer | None) -> tuple[Turn, str]:
        """The turn of a question, and why it cannot be asked."""
        asked, why = text, ""
        turn = await self.begin(text, text)
        if after is not None and is_followup(text) and not pasted_sql(text, turn.database, self.dialect):
            asked, why = await self._whole(turn, text, after)
            if asked != text:
                turn = dataclasses.replace(turn, asked=asked, task=await self.task(asked))
        return turn, why

    async def _whole(self, turn: Turn, text: str, after: Answer) -> tuple[str, str]:
        """A follow-up as a whole question, and why that cannot be made of it."""
        from verbal.loop.nodes import say

        if not getattr(self.shop.roles("followup"), "chats", True):
            if whole := rewritten(text, after.asked, turn.database):
                return whole, ""
            return text, (
                f"this model reads whole questions only, and {text!r} is a change of the question before that no rule "
                "covers: ask the whole question"
            )
        await turn.look_up()
        assert turn.context is not None
        folder = self.shop.recipe.app.options.get("prompts")
        shape = f"{after.says} (columns: {', '.join(map(str, after.columns[:20]))})"
        messages = followup_prompt(text, after.asked, after.answer, shape, turn.database, folder)
        step = await say(turn.context, "followup", messages, turn.id)
        whole = parse_followup(step.text) if step else ""
        if step is not None:
            self.shop.store.put_step(turn.id, "followup", step)
        return (check_question(whole), "") if whole else (text, "")

    async def _run_pasted(self, turn: Turn, kind: str, sql: str) -> Answer:
        if kind == "writes":
            why = "that is SQL that would change the database, which is only read here; nothing was run"
            return self.conclude(turn, "refused", answer=sql, reason=why)
        seen = await self.app.execute(turn.task, sql)
        attempt = turn.pasted(sql, seen)
        fields = result_fields(sql, seen, "", turn.named, self.dialect, self.rows_cap())
        failed = bool(seen.info.get("error"))
        ran = "and as it is it does not run" if failed else "run as it is, read-only, without a model"
        why, status = f"that is SQL and no question, {ran}", _RAN[failed]
        return self.conclude(turn, status, reason=why, attempt=attempt.id, **fields)

    async def _remembered(self, turn: Turn) -> Answer | None:
        """The person's own query for this very question, while it runs; no model has to guess it again."""
        query = turn.task.gold
        if not query or self.trials() is None:
            return None
        seen = await self.app.execute(turn.task, query)
        if seen.info.get("error"):
            return None
        turn.named = understand(turn.asked, turn.database)
        fields = result_fields(query, seen, turn.asked, turn.named, self.dialect, self.rows_cap())
        source = str(turn.task.info.get("corrected", ""))
        why = f"this is your own query for this question, so no model was asked (to change that: undo {source})"
        return self.conclude(turn, "answered", reason=why, attempt=turn.pasted(query, seen).id, **fields)

    async def _solve(self, turn: Turn) -> Answer:
        """Candidates, their readings, and whether they are an answer."""
        attempts, seen, chosen = await turn.candidates()
        found = turn.readings(attempts, seen, chosen)
        if why := broken(attempts):
            return self.conclude(turn, "failed", reason=f"the model gave no answer: {why}", error=attempts[0].error)
        if why := abstention(attempts, seen, found, turn.named):
            fields: dict[str, Any] = {"error": seen[chosen.id].info.get("error") or chosen.error} if not found else {}
            return self.conclude(turn, "abstained", reason=why, answer=chosen.answer, attempt=chosen.id, **fields)
        first, close = found[0], other_readings(found)
        fields = result_fields(first.sql, first.observation, turn.asked, turn.named, self.dialect, self.rows_cap())
        fields["limits"] += agreement_limits(found)
        context = turn.context
        if context is not None:
            fields["agreement"] = context.verdict(context.store.feedback([chosen.id])[chosen.id])
        if len(close) > 1:
            return self.conclude(turn, "ambiguous", attempt=first.attempt, readings=close, **fields)
        if self.words and not fields["error"]:
            folder = self.shop.recipe.app.options.get("prompts")
            fields["words"] = await turn.worded(first.sql, first.observation, folder)
        return self.conclude(turn, "answered", attempt=first.attempt, **fields)

    async def correct(self, answer: Answer | str, words: str = "", sql: str = "") -> Correction:
        """Learns from a person's words or query: verified, filed in quarantine, the answer counted as wrong.

        Raises what `teaching.correct` raises.
        """
        return await correct(self, answer, words, sql)

    # what a person says -------------------------------------------------------------------------------------------

    async def thumbs(self, answer: Answer | str, up: bool) -> Correction:
        """Counts an answer as right or wrong, once.

        Raises:
            UnknownName: no such answer. DataError: it is of another database or memory, or has no query to judge.
        """
        record = self.own(_id(answer))
        return await corrections.thumbs(self.shop.store, self.trials(), self.shop.credit, record["id"], up)

    async def undo(self, wanted: str = "") -> Correction:
        """Takes back the last correction: of this database, of an answer, or that one.

        Raises:
            UnknownName: there is none.
        """
        return await corrections.undo(self.shop.store, wanted, self.location, self.trials())

    def history(self) -> list[answered.Record]:
        """Every answer on this database, oldest first."""
        return answered.answers(self.shop.store, self.location)


def events(answer: Answer) -> list[Event]:
    """The parts of an answer, in the order in which a person reads them."""
    found = [Event("sql", answer.answer)] if answer.answer and answer.status in _QUERIES else []
    if answer.status in ("answered", "ambiguous") and not answer.error:
        found.append(Event("rows", (answer.columns, answer.rows)))
        found += [Event("chart", answer.chart)] if answer.chart else []
        found += [Event("explanation", answer.explanation)] if answer.explanation else []
        found += [Event("words", answer.words)] if answer.words else []
    found += [Event("readings", answer.readings)] if answer.readings else []
    found += [Event("limits", answer.limits)] if answer.limits else []
    return [*found, Event("answer", answer)]


def _id(answer: Answer | str) -> str:
    return answer if isinstance(answer, str) else answer.id


__all__ = ["Answer", "Assistant", "Correction", "Event", "events"]
