"""What each verb of the command line does: opens parts, runs them with progress, gives plain data back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import DataError, UnknownName
from verbal.parts import load_function, load_part
from verbal.recipe import Recipe, load_recipe
from verbal.store import Store
from verbal.types import Task


def make_recipe(options: dict[str, Any], store: Store | None = None) -> Recipe:
    """The recipe of a command: a file or name, overrides, then `--model`, `--db` and `--questions`."""
    return apply_options(load_recipe(options["recipe"], options["overrides"]), options, store)


def apply_options(recipe: Recipe, options: Mapping[str, Any], store: Store | None = None) -> Recipe:
    """A recipe with the model and the app of a command; with a store, `checkpoint:NAME` becomes what opens it."""
    if options["model"]:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=options["model"]))
    if options["app"]:
        app = dataclasses.replace(recipe.app, options={**recipe.app.options, **options["app"]})
        recipe = dataclasses.replace(recipe, app=app)
    return recipe if store is None else opened(recipe, store)


def opened(recipe: Recipe, store: Store) -> Recipe:
    """The recipe with what opens them in place of checkpoints, `checkpoint:NAME`, that it names as models."""

    def opens(name: str) -> str:
        return resolve_checkpoint(store, name) if name.startswith("checkpoint:") else name

    roles = {role: opens(name) for role, name in recipe.model.roles.items()}
    return dataclasses.replace(
        recipe, model=dataclasses.replace(recipe.model, name=opens(recipe.model.name), roles=roles)
    )


def resolve_checkpoint(store: Store, name: str) -> str:
    """The `--model` string that opens a registered checkpoint, `checkpoint:NAME`; its files are checked.

    Raises:
        UnknownName: none of that name. DataError: its files are gone or were changed.
    """
    return read_checkpoint(store, name)[0]


def read_checkpoint(store: Store, name: str) -> tuple[str, dict[str, Any]]:
    """The `--model` string of a registered checkpoint, and its papers; see `resolve_checkpoint`."""
    found = load_function("trainers", "checkpoint", "resolve")(store, name)
    model = str(found["model"])
    return model if model.startswith("embedded") else f"hf:{model}", found["info"]


def run_doctor(models: list[str], *, quiet: bool) -> dict[str, Any]:
    """Findings about this machine, the installed packages and the given models."""
    from verbal.doctor import doctor
    from verbal.screen import Screen

    found = asyncio.run(doctor(models))
    with Screen("verbal doctor", quiet=quiet) as screen:
        for finding in found:
            screen.print(f"[{finding.level}] {finding.what}" + (f"\n        {finding.todo}" if finding.todo else ""))
    return {"findings": [dataclasses.asdict(f) for f in found]}


def show_traces(path: str, run: str, attempt: str, *, quiet: bool) -> Any:
    """Runs, the attempts of a run, or the steps of an attempt."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal traces", quiet=quiet) as screen:
        if attempt:
            found = store.attempt(attempt)
            if found is None:
                raise UnknownName.of("attempt", attempt, [a.id for a in store.attempts(run or None)], where=store.where)
            for step in found.steps:
                screen.print(f"--- {step.author} ({step.role})\n{step.text}\n--> {step.observation}")
            for feedback in store.feedback([attempt])[attempt]:
                screen.print(f"{feedback.critic}: {feedback.value} {feedback.text or feedback.reason}")
            return found.to_dict()
        if run:
            attempts = store.attempts(run)
            for a in attempts:
                screen.print(f"{a.id}  {a.stop}  {a.answer[:100]!r}" + (f"  {a.error}" if a.error else ""))
            return [a.to_dict() for a in attempts]
        runs = store.runs()
        for r in runs:
            screen.print(f"{r['id']}  {r['status']}  recipe {r['recipe'].get('name')}")
        return runs


def run_export(
    path: str, out: Path, format_: str, run: str, parquet: bool, *, successes: float = 0.0, quiet: bool
) -> dict[str, Any]:
    """Writes a training set."""
    from verbal.screen import Screen

    export = load_function("trainers", "data", "export")
    with open_store(path) as store, Screen("verbal export", quiet=quiet) as screen:
        made: dict[str, Any] = export(store, out, format=format_, run=run or None, parquet=parquet, successes=successes)
        screen.print(f"{made.get('rows', 0)} rows in {out}")
        return made


def check_app(target: str, *, quiet: bool) -> dict[str, Any]:
    """Runs an app's own proof (`check` of its class)."""
    from verbal.screen import Screen

    app = load_part("apps", target.removeprefix("apps/").strip("/"))()

    async def work() -> list[Any]:
        try:
            found: list[Any] = await app.check()
            return found
        finally:
            await app.aclose()

    found = asyncio.run(work())
    failed = [f for f in found if not f["ok"]]
    with Screen(f"verbal check {target}", quiet=quiet) as screen:
        for finding in failed:
            screen.print(f"FAILED {finding['check']}: {finding['what']}")
        screen.print(f"{len(found) - len(failed)} passed, {len(failed)} failed")
    return {"target": target, "passed": len(found) - len(failed), "failed": len(failed), "findings": failed}


def train_embedded(out: Path, minutes: float, seed: int, *, quiet: bool) -> dict[str, Any]:
    """Trains the embedded model from nothing."""
    from verbal.models.embedded.train import train

    made: dict[str, Any] = train(out, minutes, seed, report=(lambda line: None) if quiet else print)
    return made


def pick_tasks(tasks: Sequence[Task], split: str, limit: int | None) -> list[Task]:
    """The first `limit` tasks of a split.

    Raises:
        DataError: there are none.
    """
    if not tasks:
        raise DataError(f"there is no task of split {split!r}", todo="give --questions, or another --split")
    return list(tasks[:limit])


def open_store(path: Path | str) -> Store:
    """The store at a path that must exist, or at a URL.

    Raises:
        DataError: there is none.
    """
    if "://" not in str(path) and not Path(path).exists():
        raise DataError(f"there is no store at {str(path)!r}", todo="run `verbal learn` first, or give --store PATH")
    return Store(path)
