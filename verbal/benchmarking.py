"""`verbal eval BENCHMARK`: a benchmark scored on the terminal, with progress, tables and a page.

The work is the app's (`evaluation.py` of Text-to-SQL): it reads the benchmark, lets a model answer or reads a file of
predictions, and scores. Here stand the store and the recipe of a model's run, and what a person sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError
from verbal.parts import load_function
from verbal.screen import Screen, usage_table
from verbal.store import Store
from verbal.tables import literal
from verbal.text import percent
from verbal.verbs import make_recipe

if TYPE_CHECKING:
    from rich.table import Table

    from verbal.recipe import Recipe

_FILE = "text2sql.evaluation"


def run_benchmark(
    options: dict[str, Any],
    url: str,
    wanted: Mapping[str, Any],
    *,
    run: str = "",
    out: Path | None = None,
    test: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Scores a model, or a file of predictions, on a benchmark.

    Args:
        options: Recipe, model, overrides (`verbal.options.command_options`).
        url: The store of a model's run; a predictions file needs none.
        wanted: Fields of the app's `Asked`: `benchmark`, `split` and so on; `data` is VERBAL_DATA when not given.
        run: Name of the run; made from benchmark, split and model when not given.
        out: The page to write.
        test: The split is `test`, which is sealed otherwise.
        quiet: Print nothing.

    Raises:
        ConfigError, DataError: something cannot be used; nothing was called or run.
    """
    asked = _asked(wanted, test=test)
    title = f"verbal eval {asked.benchmark}: {asked.split}"
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(Screen(title, quiet=quiet))
        store = stack.enter_context(Store(url)) if asked.predictions is None else None
        found = asyncio.run(_evaluate(options, store, asked, screen, run))
        screen.stage("")
        _show(screen, found)
        if store is not None:
            store.set_info(found["run"], {"study": {k: v for k, v in found.items() if k not in _LONG}})
    if out is not None:
        page = load_function("apps", "text2sql.results_page", "write_results_page")(found, out)
        found["page"] = str(page)
    with Screen(title, quiet=quiet) as screen:
        screen.print(
            f"page: {found['page']}" if out else "--out page.html shows every wrong answer beside the gold one"
        )
    return found


def _asked(wanted: Mapping[str, Any], *, test: bool) -> Any:
    if wanted["split"] == "test" and not test:
        todo = "give --test; no gold query is shown then"
        raise ConfigError("the split 'test' is sealed", where="--split", todo=todo)
    if wanted["predictions"] is not None and wanted["samples"] > 1:
        todo = "leave out --samples, or ask a model"
        raise ConfigError("a predictions file has one answer a question", where="--samples", todo=todo)
    fields = {**wanted, "data": wanted["data"] or os.environ.get("VERBAL_DATA") or None}
    return load_function("apps", _FILE, "Asked")(**fields | ({"split": "test"} if test else {}))


_LONG = ("wrong", "gold_failed")
"""What the store keeps no second copy of: the attempts are there."""


async def _evaluate(
    options: dict[str, Any], store: Store | None, asked: Any, screen: Screen, run: str
) -> dict[str, Any]:
    from verbal.run import Progress
    from verbal.study import Study

    recipe, study = make_recipe(options, store), None
    app = {k: v for k, v in recipe.app.options.items() if k not in ("db", "questions")}
    if store is not None:
        run = run or _run_name(asked, recipe)
        study = Study(store=store, recipe=recipe, run=run, progress=Progress(changed=screen.show), stage=screen.stage)
    found: dict[str, Any] = await load_function("apps", _FILE, "evaluate")(
        asked, study, options=app, progress=Progress(changed=screen.show), stage=screen.stage, say=screen.print
    )
    return found


def _run_name(asked: Any, recipe: Recipe) -> str:
    """The name of a run: whatever changes questions or answers makes another one."""
    parts = [Path(asked.benchmark).stem or "benchmark", asked.split, recipe.model.name]
    parts += [recipe.name] if recipe.name != "reflect" else []
    parts += ["syn"] if asked.synonyms else []
    parts += [f"k{asked.samples}"] if asked.samples > 1 else []
    parts += [*asked.databases, *([f"n{asked.limit}"] if asked.limit else [])]
    return re.sub(r"[^A-Za-z0-9_.:-]+", "_", "-".join(parts))[:120]


def _show(screen: Screen, found: Mapping[str, Any]) -> None:
    if not found["scores"]:
        screen.print("Nothing could be scored.")
        return
    screen.print(_scores_table(found))
    screen.print(_groups_table("By hardness", found["by_hardness"], found["arms"]))
    if len(found["by_database"]) > 1:
        screen.print(_groups_table("By database", found["by_database"], found["arms"]))
    if found["causes"]:
        screen.print(_causes_table(found["causes"]))
    for note in found["notes"]:
        screen.print(note)
    if found["usage"]:
        screen.print(usage_table(found["usage"]))


def _table(title: str, first: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _scores_table(found: Mapping[str, Any]) -> Table:
    from rich.bar import Bar

    table = _table("Share of the questions, with its 95 % interval", "", "", "share", "interval", "questions")
    rows = [(arm["label"], arm) for arm in found["arms"]]
    rows += [
        (f"{'EX' if n == 'ex' else 'Suite'} pass@{each['k']}", each[n])
        for each in found["pass_at_k"] for n in ("ex", "suite") if n in each
    ]  # fmt: skip
    for label, score in rows:
        bar = Bar(1.0, 0.0, score["mean"], width=12, color="cyan")
        ends = " to ".join(percent(score[k]).removesuffix(" %") for k in ("low", "high"))
        table.add_row(literal(label), bar, percent(score["mean"]), ends, f"{score['questions']:,}")
    return table


def _groups_table(title: str, groups: Sequence[Mapping[str, Any]], arms: Sequence[Mapping[str, Any]]) -> Table:
    """EX and suite accuracy of each group; the page has every score."""
    shown = [(a["name"], a["label"]) for a in arms if a["name"] in ("ex", "suite")]
    table = _table(title, "", "questions", *(label for _, label in shown))
    for group in groups:
        cells = [_ends(group["scores"].get(name)) for name, _ in shown]
        table.add_row(literal(group["name"], 60), f"{group['questions']:,}", *cells)
    return table


def _ends(score: Mapping[str, Any] | None) -> str:
    if not score:
        return "–"
    low, high = (percent(score[k], 0).removesuffix(" %") for k in ("low", "high"))
    return f"{percent(score['mean'])}  [{low}, {high}]"


def _causes_table(causes: Sequence[Mapping[str, Any]]) -> Table:
    total = sum(c["count"] for c in causes)
    table = _table(f"{total:,} wrong answers: the first thing that differs", "cause", "answers", "share")
    for cause in causes:
        table.add_row(literal(cause["cause"], 80), f"{cause['count']:,}", percent(cause["count"] / total))
    return table


__all__ = ["run_benchmark"]
