"""What `verbal ask`, `verbal chat` and `verbal sql` do: the assistant of a database on the terminal.

The assistant is `apps/text2sql/assistant.py`, found by name; here is only what a person sees and types.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, DataError
from verbal.parts import load_function
from verbal.recipe import Recipe
from verbal.screen import Screen, rows_table
from verbal.store import Store
from verbal.text import money, visible
from verbal.types import Usage
from verbal.verbs import make_recipe, open_store

SHOWN_ROWS = 20
"""Rows on the terminal, when no number is given."""


def make_assistant(
    options: dict[str, Any], store: Store, memory: str, *, adopted: bool = False, words: bool = False
) -> Any:
    """The assistant that the options of a command mean; to be entered.

    Args:
        options: Recipe, model, app, overrides (`verbal.cli`).
        store: Where everything is kept.
        memory: As `Assistant` takes it.
        adopted: The version that serves answers: its model, memory and prompts.
        words: The model adds what results mean.

    Raises:
        ConfigError: nothing is adopted.
    """
    recipe = make_recipe(options, store)
    if adopted:
        from verbal.versions import active

        if (serving := active(store)) is None:
            raise ConfigError(
                "nothing is adopted yet", where=store.where, todo="verbal promote, or leave out --adopted"
            )
        policy = serving[1]
        recipe, memory = policy.recipe(recipe), f"{policy.memory}@{policy.version}" if policy.memory else "none"
    return load_function("apps", "text2sql.assistant", "Assistant")(
        store=store, memory=memory, recipe=recipe, words=words
    )


def run_ask(
    options: dict[str, Any],
    path: str,
    question: str,
    memory: str = "",
    *,
    adopted: bool = False,
    reading: int | None = None,
    rows: int | None = None,
    chart: Path | None = None,
    words: bool = False,
    quiet: bool,
) -> dict[str, Any]:
    """Answers one question: what was understood, SQL, rows, chart, words, limits, lessons; with readings where it asks.

    Args:
        options: Recipe, model, app, overrides.
        path: The store.
        question: In plain language.
        memory: A memory, `NAME@VERSION`, `none`; the database's own when empty.
        adopted: The adopted version answers.
        reading: The reading that is meant, where the question was ambiguous before.
        rows: Rows at most, on the terminal and in the result.
        chart: A file for the Vega-Lite specification.
        words: The model adds what the result means.
        quiet: Print nothing.
    """
    with Store(path) as store, Screen("verbal ask", quiet=quiet) as screen:

        async def work() -> Any:
            async with make_assistant(options, store, memory, adopted=adopted, words=words) as assistant:
                if reading is not None:
                    return await _read(assistant, screen, question, reading, rows)
                async for event in assistant.stream(question):
                    show_event(screen, event, rows)
                    if event.kind == "answer":
                        answer = event.value
                return answer

        answer = asyncio.run(work())
        if answer.status == "ambiguous":
            screen.print("Above is reading 1. If another is meant: the same command with --reading 2.")
        if chart is not None:
            _write_chart(answer, chart)
            screen.print(
                f"chart: {chart}" if answer.chart else f"no chart fits this result, so {chart} was not written"
            )
    plain: dict[str, Any] = answer.to_dict()
    plain["rows"] = plain["rows"] if rows is None else plain["rows"][:rows]
    return plain


async def _read(assistant: Any, screen: Screen, question: str, reading: int, rows: int | None) -> Any:
    """The answer under one reading of the question, which is asked first when it was not."""
    mine = [a for a in assistant.history() if a["memory"] == assistant.memory]
    same = [a for a in mine if a["question"].strip() == question.strip() and a["readings"]]
    asked = same[-1]["id"] if same else None
    if asked is None:
        answer = await assistant.ask(question)
        if not answer.readings:
            screen.print("the question has one reading:")
            show_answer(screen, answer, rows)
            return answer
        asked = answer.id
    answer = await assistant.choose(asked, reading)
    show_answer(screen, answer, rows)
    return answer


def show_answer(screen: Screen, answer: Any, rows: int | None = None) -> None:
    """An answer that came at once."""
    for event in load_function("apps", "text2sql.assistant", "events")(answer):
        show_event(screen, event, rows)


def show_event(screen: Screen, event: Any, rows: int | None = None) -> None:
    """One part of an answer, as it comes."""
    value = event.value
    if event.kind == "asked":
        screen.print(f"understood as: {value}")
    elif event.kind == "understood":
        if value.text:
            screen.print(value.text, style="dim")
    elif event.kind == "lessons":
        for lesson in value:
            trial = ", on trial" if lesson["status"] == "quarantined" else ""
            screen.print(f"used {lesson['id']}{trial}: {lesson['text']}", style="dim")
    elif event.kind == "sql":
        screen.print("", value, "")
    elif event.kind == "rows":
        columns, cells = value
        screen.print(rows_table(columns, cells, rows if rows is not None else SHOWN_ROWS))
    elif event.kind == "chart":
        if drawn := load_function("apps", "text2sql.charts", "text_chart")(value):
            screen.print(drawn)
    elif event.kind == "explanation":
        screen.print(f"The query {value}.")
    elif event.kind == "words":
        screen.print(value)
    elif event.kind == "limits":
        for limit in value:
            screen.print(f"Note: {limit}.")
    elif event.kind == "answer":
        _show_end(screen, value)


def _show_end(screen: Screen, answer: Any) -> None:
    """What is left to say of an answer: why there is none, its readings, what it took."""
    if answer.status == "ambiguous":
        screen.print(f"\nThis can be read in {len(answer.readings)} ways:")
        for reading in answer.readings:
            screen.print(f"  ({reading.number}) {reading.words or reading.sql}", f"      {reading.observation.text}")
    elif answer.status in ("abstained", "refused"):
        screen.print(f"No answer: {answer.reason}.")
    elif answer.reason:
        screen.print(f"{answer.reason[:1].upper()}{answer.reason[1:]}.")
    if answer.error:
        screen.print(f"error: {answer.error}")
    votes = f"{100 * answer.agreement:.0f} % agree, " if answer.agreement is not None else ""
    screen.print(f"[{answer.id}] {votes}{used_words(answer.usage, answer.seconds)}", style="dim")


def used_words(usage: Mapping[str, Usage], seconds: float) -> str:
    """Tokens, cost and time in words."""
    total = sum(usage.values(), Usage())
    if not total.calls:
        return f"no model call, {seconds:.2f} s"
    return f"{total.tokens:,} tokens, {money(total.cost)}, {seconds:.2f} s"


def _write_chart(answer: Any, path: Path) -> None:
    if answer.chart is None:
        return
    try:
        path.write_text(json.dumps(answer.chart, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the chart cannot be written: {error.strerror}", where=str(path), todo="give another --chart"
        ) from error


# verbal sql ---------------------------------------------------------------------------------------------------------


def run_correct(
    path: str, answer: str, words: str, sql: str, *, model: str, db: str, rows: int | None, quiet: bool
) -> dict[str, Any]:
    """Corrects an answer by words or a query; what was learned, and the answer now."""
    with open_store(path) as store, Screen("verbal sql correct", quiet=quiet) as screen:
        record = load_function("apps", "text2sql.answered", "answer_of")(store, answer)
        recipe = _recipe_of(store, record, model, db)

        async def work() -> Any:
            opened = load_function("apps", "text2sql.assistant", "Assistant")
            name, moved = record["memory"] or "none", record["db"] if db else ""
            async with opened(store=store, memory=name, recipe=recipe, new_memory=True, moved=moved) as made:
                return await made.correct(answer, words, sql)

        made = asyncio.run(work())
        show_correction(screen, made, rows)
        plain: dict[str, Any] = made.to_dict()
        return plain


def run_thumbs(path: str, answer: str, up: bool, *, quiet: bool) -> dict[str, Any]:
    """Counts an answer as right or wrong."""
    load = load_function
    with open_store(path) as store, Screen("verbal sql thumbs", quiet=quiet) as screen:
        record = load("apps", "text2sql.answered", "answer_of")(store, answer)
        recipe = _recipe_of(store, record)

        async def work() -> Any:
            from verbal.curation import make_credit

            name = record["memory"]
            memory = (
                load("apps", "text2sql.corrections", "open_trials")(store, name, recipe.memory.options)
                if name
                else None
            )
            try:
                return await load("apps", "text2sql.corrections", "thumbs")(
                    store, memory, make_credit(recipe), answer, up
                )
            finally:
                if memory is not None:
                    memory.close()

        made = asyncio.run(work())
        show_correction(screen, made)
        if made.kind == "down" and made.kept:
            hint = f'what should have been known? verbal sql correct {made.answer_id} "..." (or --sql "SELECT ...")'
            screen.print(hint, style="dim")
        plain: dict[str, Any] = made.to_dict()
        return plain


def run_undo(path: str, wanted: str, *, quiet: bool) -> dict[str, Any]:
    """Takes back what the last correction did, or a named one."""
    with open_store(path) as store, Screen("verbal sql undo", quiet=quiet) as screen:
        made = asyncio.run(load_function("apps", "text2sql.corrections", "undo")(store, wanted))
        show_correction(screen, made)
        plain: dict[str, Any] = made.to_dict()
        return plain


def show_correction(screen: Screen, made: Any, rows: int | None = None, *, undo: str = "verbal sql undo") -> None:
    """What became of something a person said; `undo` is the command that takes it back, where this is shown."""
    if made.lesson is not None:
        trial = " (on trial until outcomes speak for it)" if made.lesson["status"] == "quarantined" else ""
        screen.print(f"lesson {made.lesson['id']} of memory {made.memory}: {made.lesson['text']}{trial}")
    if made.credited and made.kind not in ("up", "down", "undo"):
        screen.print(f"the answer counts as wrong for: {', '.join(made.credited)}")
    screen.print(f"{made.says[:1].upper()}{made.says[1:]}.")
    if made.answer is not None:
        show_answer(screen, made.answer, rows)
    if made.id and made.kind != "undo":
        screen.print(f"[{made.id}] to take it back: {undo} {made.id}", style="dim")


def show_history(path: str, db: str, *, limit: int, quiet: bool) -> list[dict[str, Any]]:
    """What was asked of a database, the latest last, and what was said of the answers."""
    with open_store(path) as store, Screen("verbal sql history", quiet=quiet) as screen:
        location = load_function("apps", "text2sql.session", "location_of")(db) if db else ""
        found: list[dict[str, Any]] = load_function("apps", "text2sql.answered", "answers")(store, location)[-limit:]
        for record in found:
            show_record(screen, record)
        if not found:
            screen.print("nothing was asked yet")
        return found


def show_record(screen: Screen, record: Mapping[str, Any]) -> None:
    """An answer in one line, and below it what was said of it."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["at"]))
    screen.print(f"{record['id']:10} {when}  {record['status']:9} {visible(record['question'], 80, line=True)}")
    for said in record["corrections"]:
        words = visible(said.get("words") or said.get("sql") or "", 80, line=True)
        gone = ", taken back" if "undone" in said else ""
        screen.print(f"    {said['id']}  {said['kind']}{gone}{': ' if words else ''}{words}", style="dim")


def _recipe_of(store: Store, record: Mapping[str, Any], model: str = "", db: str = "") -> Recipe:
    """The recipe under which an answer was made, with another model or database where one is named."""
    from verbal.recipe import recipe_from_dict

    run = store.run(load_function("apps", "text2sql.answered", "run_of")(record["id"]))
    recipe = recipe_from_dict(run["recipe"] if run else {})
    if model:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=model))
    if db:
        recipe = dataclasses.replace(
            recipe, app=dataclasses.replace(recipe.app, options={**recipe.app.options, "db": db})
        )
    return recipe


def run_sql_learn(options: dict[str, Any], path: str, memory: str, **given: Any) -> dict[str, Any]:
    """The loop over a question set, into the memory that the database's answers are given with."""
    from verbal.learning import run_learn

    name = memory or load_function("apps", "text2sql.session", "memory_of")(options["app"]["db"])
    return run_learn(options, path, memory=name, run=given.pop("run") or f"{name}-learn", **given)


__all__ = [
    "SHOWN_ROWS", "make_assistant", "run_ask", "run_correct", "run_sql_learn", "run_thumbs", "run_undo", "show_answer",
    "show_correction", "show_event", "show_history", "show_record", "used_words",
]  # fmt: skip
