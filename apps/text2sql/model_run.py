"""A benchmark answered by a model: a run of the store like any other, which goes on after a stop and can be replayed.

What is scored is the answer that a recipe arrives at without gold. A recipe whose verdict reads gold would be told when
to stop, or what to choose: it is run plain, with one attempt a question, or with several samples, of which the first
counts and the others matter in pass@k only. Nobody remembers anything from one question to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from verbal.errors import ConfigError, TransientError
from verbal.estimate import check_budget, estimate
from verbal.parts import load_part
from verbal.recipe import Recipe
from verbal.study import Study, perform
from verbal.tables import estimate_words
from verbal.text import money
from verbal.types import Attempt, Task, Usage

ARM = "benchmark"
"""Arm of the run that holds a model's attempts."""


async def model_answers(
    study: Study, tasks: Sequence[Task], samples: int, stage: Callable[[str], None], say: Callable[[str], None]
) -> tuple[dict[str, tuple[str, ...]], dict[str, int], list[str]]:
    """Answers of each task, index of the one that counts, notes.

    Args:
        study: Where the run happens; its recipe becomes the one that is run (`solving`).
        tasks: The questions.
        samples: Answers drawn for each.
        stage: Told what happens next.
        say: Told what it will cost.

    Raises:
        ConfigError: a task is of the sealed split, the recipe does not answer questions, or the budget is too small.
        BudgetError, TransientError: a limit was reached, or the model could not be reached; the same command goes on.
    """
    recipe, selects = solving(study.recipe, samples)
    # A replay opens the app by the recipe, and takes the tasks from the store: any of their databases will do.
    options = {k: v for k, v in recipe.app.options.items() if k != "questions"} | {"db": str(tasks[0].info["db"])}
    study.recipe = dataclasses.replace(recipe, app=dataclasses.replace(recipe.app, options=options))
    if any(t.split == "test" for t in tasks):
        todo = "evaluate on dev; the sealed split is scored once for each adopted version: verbal eval --test"
        raise ConfigError("no model is run on a sealed test split here", where="--split test", todo=todo)
    async with study.open({}) as shop:
        expected = await estimate(shop, tasks, passes={"learn": 1})
        say(f"{len(tasks)} questions: {estimate_words(expected.plain())}")
        if buys := check_budget(shop, expected):
            say(buys)
    study.store.put_tasks(tasks)
    stage(f"answering {len(tasks)} questions")
    spec = {"command": "learn", "arm": ARM, "tasks": [t.id for t in tasks], "memory": {"name": ""}}
    made = await perform(study, spec)
    if left := made["unfinished"]:
        what = f"{len(left)} questions could not be finished, because the model could not be reached"
        todo = "the same command goes on with them"
        raise TransientError(what, where=f"run {study.run}, such as {left[0]}", todo=todo)
    return _read(study, tasks, selects=selects)


def _read(
    study: Study, tasks: Sequence[Task], *, selects: bool
) -> tuple[dict[str, tuple[str, ...]], dict[str, int], list[str]]:
    """What the store holds of the run."""
    sampled = study.recipe.loop.graph == "group"
    answers, chosen, spent = {}, {}, Usage()
    for task in tasks:
        group = study.store.group(study.run, task.id, ARM)
        attempts = [a for i in (group.attempts if group else ()) if (a := study.store.attempt(i))]
        spent = sum((a.usage for a in attempts), spent)
        best = next((i for i, a in enumerate(attempts) if selects and group and a.id == group.chosen), 0)
        # Attempts in a row are no samples: only the one that the recipe ended with is an answer.
        kept: list[Attempt] = attempts if sampled else attempts[best : best + 1]
        answers[task.id] = tuple(a.answer for a in kept) or ("",)
        chosen[task.id] = best if sampled else 0
    count = len(tasks)
    notes = [
        f"a question took {spent.calls / count:.1f} calls and {spent.tokens / count:,.0f} tokens to answer, "
        f"{money(None if spent.cost is None else spent.cost / count)}, as recorded when the replies were made"
    ]
    if selects:
        notes.append(f"of several answers the one that {study.recipe.critics.verdict} chose counts")
    elif sampled:
        notes.append("of several samples the first one counts; the others matter in pass@k only")
    return answers, chosen, notes


def solving(recipe: Recipe, samples: int = 1) -> tuple[Recipe, bool]:
    """The recipe as it answers a benchmark, and whether it chooses (or stops) without gold.

    Raises:
        ConfigError: it is no recipe that answers this app's questions.
    """
    if recipe.app.name != "text2sql" or recipe.loop.graph == "self_play":
        what = f"the recipe {recipe.name!r} answers no questions of a SQL benchmark"
        told = f"app {recipe.app.name}, graph {recipe.loop.graph}"
        raise ConfigError(what, where=told, todo="choose another --recipe, such as ask")
    where = f"recipe {recipe.name}"
    blind = tuple(n for n in recipe.critics.names if not load_part("critics", n, where=where).oracle)
    selects = recipe.critics.verdict in blind
    loop = dataclasses.replace(recipe.loop, learns="lessons", epochs=1)
    names = blind
    if not selects:
        graph = "group" if samples > 1 else "reflect"
        loop = dataclasses.replace(loop, graph=graph, rounds=1, samples=samples, critique=False, reflect=False)
        names = (recipe.critics.verdict,)
    elif samples > 1:
        loop = dataclasses.replace(loop, graph="group", samples=samples)
    return (
        dataclasses.replace(
            recipe,
            loop=loop,
            critics=dataclasses.replace(recipe.critics, names=names),
            memory=dataclasses.replace(recipe.memory, name=""),
        ),
        selects,
    )


__all__ = ["ARM", "model_answers", "solving"]
