"""What `verbal distill` is about to do: recipe, method, base model, rows and where they came from, what it will take.

All of it is found and checked before torch is loaded and before anything is written. The hub imports no room: methods,
papers and the estimate are found by name.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import re
import shutil
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbal.contracts import Example
from verbal.errors import ConfigError, MissingExtra, StoreError, TrainError, UnknownName
from verbal.parts import load_function, load_part, make_part
from verbal.recipe import AppTable, Recipe, load_recipe, parse_recipe, recipe_from_dict, recipe_names
from verbal.screen import Screen
from verbal.store import Store
from verbal.text import clock, money
from verbal.types import Attempt, Group, Task
from verbal.verbs import apply_options

PACKAGES = ("torch", "transformers", "trl", "datasets")
"""What every shipped method needs to train, and nobody needs before."""

_NO_WEIGHTS = re.compile(r"scripted:|https?:|(http|openai|anthropic|litellm)/|.+\.py:\w+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training that was checked and not begun."""

    recipe: Recipe
    """With the model that is trained, the app it is scored on, and the seed."""
    method: Any
    """A `Method`, made."""
    base: str
    """What is trained: `embedded`, `embedded:FOLDER`, or a Hugging Face folder or name."""
    runs: tuple[str, ...]
    """Whose attempts; empty for all."""
    examples: Sequence[Example]
    papers: Mapping[str, Any]
    """What the papers will say of the rows (`trainers/checkpoint.py`)."""
    filtered: Mapping[str, int]
    """Reason -> attempts that gave no row, where the method tells."""
    estimate: Mapping[str, Any]
    """`parameters`, `memory_gb`, `memory_parts`, `seconds`, `note`, and `cost` in US dollars."""

    @property
    def tasks(self) -> set[str]:
        """Ids of the tasks that are learned from."""
        return {t for row in self.examples if isinstance(t := getattr(row, "task", None), str)}

    def plain(self) -> dict[str, Any]:
        """As plain JSON types, the rows by their figures."""
        kept = ("rows", "tasks", "oracle_rows", "rows_sha256", "licences", "origins", "models", "critics")
        return {
            "recipe": self.recipe.to_dict(), "method": self.recipe.trainer.name, "base": self.base,
            "seed": self.recipe.seed, "runs": list(self.papers["runs"]), "filtered": dict(self.filtered),
            **{k: self.papers[k] for k in kept}, "estimate": dict(self.estimate),
        }  # fmt: skip


def training_recipe(options: Mapping[str, Any], store: Store, *, method: str, seed: int | None) -> Recipe:
    """The recipe of a training: by name or file, or one that names a method and nothing else.

    Args:
        options: Recipe (may be empty), model, app, overrides (`verbal.options.command_options`).
        store: Where checkpoints are, for a model `checkpoint:NAME`.
        method: A part of `trainers` in place of a recipe.
        seed: In place of the recipe's.

    Raises:
        ConfigError, UnknownName: no such recipe, key or part (the nearest is named); a recipe without a trainer.
    """
    if method and options["recipe"]:
        raise ConfigError(
            f"both --recipe {options['recipe']} and --method {method} were given", where="--method", todo="give one"
        )
    _refuse_bare(options["overrides"])
    if method:
        text = f"name = {json.dumps(method)}\n[memory]\nname = ''\n[trainer]\nname = {json.dumps(method)}\n"
        recipe = parse_recipe(text, options["overrides"], where="--method")
    else:
        recipe = load_recipe(options["recipe"] or "sft", options["overrides"])
    recipe = apply_options(recipe, options, store)
    if not recipe.trainer.name:
        trains = [n for n in recipe_names() if load_recipe(n).trainer.name]
        todo = f"add [trainer] with a name to it, or take one of: {', '.join(trains)}"
        raise ConfigError(
            f"the recipe {recipe.name!r} names no trainer, so it trains nothing", where="--recipe", todo=todo
        )
    recipe.resolve()
    return recipe if seed is None else dataclasses.replace(recipe, seed=seed)


def make_method(recipe: Recipe) -> Any:
    """The training method that a recipe names, made with its options.

    Raises:
        UnknownName: no such method or option (the nearest is named). ConfigError: an option of the wrong type.
    """
    table, where = recipe.trainer, f"recipe {recipe.name}: options of the trainer {recipe.trainer.name}"
    kind = load_part("trainers", table.name, where=f"recipe {recipe.name}: trainer.name")
    known = _options_of(kind)
    options = {}
    for key, value in table.options.items():
        if key not in known:
            error = UnknownName.of("trainer option", key, known, where=where)
            short = [k for k in known if "".join(word[:1] for word in k.split("_")) == key]  # lr
            raise UnknownName(error.what, where=where, todo=f"did you mean {short[0]!r}?") if short else error
        if not _fits(known[key], value):
            raise ConfigError(f"trainer.options.{key} must be {_told(known[key])}, found {value!r}", where=where)
        options[key] = tuple(value) if isinstance(value, list) else value
    return make_part("trainers", table.name, where=where, **options)


def base_of(recipe: Recipe) -> str:
    """The weights that a recipe's model names, as a method takes them.

    Raises:
        ConfigError: the model is only reached by calls, so there is nothing here to train.
    """
    name = recipe.model.name
    if _NO_WEIGHTS.match(name):
        todo = "give embedded, checkpoint:NAME, or a Hugging Face folder or name (hf:ORG/MODEL)"
        raise ConfigError(f"the model {name!r} has no weights here that could be trained", where="--model", todo=todo)
    return name.removeprefix("hf:")


def opened_as(base: str) -> str:
    """The `--model` string that opens these weights."""
    return base if base == "embedded" or base.startswith("embedded:") else f"hf:{base}"


def make_plan(
    store: Store,
    recipe: Recipe,
    runs: Sequence[str],
    out: Path,
    *,
    export: Path | None = None,
    own_app: bool = False,
    gpu_price: float = 0.0,
) -> Plan:
    """The rows of some runs for a recipe, and what training on them will take.

    Args:
        store: Where the attempts are.
        recipe: From `training_recipe`.
        runs: Whose attempts; all when empty.
        out: Where the weights will be; earlier trainings beside them tell how long a step takes.
        export: A folder of `verbal export` whose rows are taken instead; they stay on disk.
        own_app: The app was chosen; otherwise a recipe that chooses none gets that of the runs, where they agree.
        gpu_price: US dollars for an hour of the machine.

    Raises:
        ConfigError, UnknownName: an option, a model or a run that cannot be.
        TrainError: the attempts cannot feed the method, or a sealed task is among the rows.
    """
    method, base = make_method(recipe), base_of(recipe)
    if export is not None and runs:
        raise ConfigError("both --from and --from-export were given", where="--from-export", todo="give one")
    known = [r["id"] for r in store.runs()]
    for run in runs:
        if run not in known and not store.attempts(run):
            raise UnknownName.of("run", run, known, where=f"--from, {store.where}")
    if not own_app and recipe.app == AppTable():
        recipe = dataclasses.replace(recipe, app=_app_of(store, runs) or recipe.app)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=opened_as(base)))
    view = store if len(runs) < 2 else typing.cast(Store, RunsOf(store, runs))
    if export is None:
        examples = method.examples(view, run=runs[0] if len(runs) == 1 else None)
    else:
        examples = load_function("trainers", "exported", "rows_from_export")(export)
    if not len(examples):
        raise TrainError(f"{recipe.trainer.name} found no rows", where=store.where, todo="collect more attempts")
    if check := getattr(method, "check", None):
        check(examples)
    refuse_sealed_rows(store, examples, recipe.trainer.name)
    kind = "embedded" if opened_as(base) == base else "huggingface"
    papers = load_function("trainers", "checkpoint", "describe")(
        examples, method=recipe.trainer.name, kind=kind, base=base, seed=recipe.seed,
        recipe=recipe if hasattr(method, "sample") else None,
    )  # fmt: skip
    expected = dict(load_function("trainers", "estimate", "estimate")(method, examples, base, near=out.parent))
    seconds = expected.get("seconds")
    expected["cost"] = None if seconds is None or not gpu_price else seconds / 3600 * gpu_price
    return Plan(
        recipe=recipe, method=method, base=base, runs=tuple(runs), examples=examples, papers=papers,
        filtered=dict(getattr(examples, "filtered", {})), estimate=expected,
    )  # fmt: skip


def tell_plan(screen: Screen, plan: Plan, out: Path) -> None:
    """Says what was built, what was left out, and what training will take."""
    papers, expected = plan.papers, plan.estimate
    runs = ", ".join(plan.papers["runs"]) or "none"
    screen.print(
        f"recipe {plan.recipe.name}: {plan.recipe.trainer.name} trains {plan.base}, seed {plan.recipe.seed}: {out}",
        f"{papers['rows']:,} rows of {papers['tasks']:,} tasks, from {len(papers['attempts']):,} attempts of: {runs}; "
        f"a gold answer decided {papers['oracle_rows']:,} of them; no hint and no test task is in a row",
    )
    if plan.filtered:
        screen.print("left out: " + ", ".join(f"{reason}: {n:,}" for reason, n in plan.filtered.items()))
    size = expected.get("parameters") or 0
    told = [f"{size / 1e6:,.1f} M parameters" if size >= 1e5 else f"{size:,} parameters"] if size else []
    if expected.get("memory_gb") is not None:
        told.append(f"{expected['memory_gb']:.2g} GB of memory")
    if expected.get("seconds") is not None:
        cost = expected.get("cost")
        told.append(f"about {clock(expected['seconds'])}" + (f", {money(cost)}" if cost is not None else ""))
    parts = ", ".join(f"{k} {v:.2g}" for k, v in (expected.get("memory_parts") or {}).items() if v >= 0.001)
    screen.print(f"estimate: {', '.join(told) or 'none'}")
    for more in (f"memory in GB: {parts}" if parts else "", expected.get("note")):
        if more:
            screen.print(f"  {more}", style="dim")
    most = plan.recipe.limits.max_cost
    if most is not None and expected.get("cost") is not None and expected["cost"] > most:
        screen.print(f"that is above the limit of {money(most)}: it will stop before it is exceeded")


def refuse_sealed_rows(store: Store, examples: Sequence[Example], method: str) -> None:
    """Raises TrainError when a row comes from a task of the sealed split, whatever method built it."""
    asked: set[str] = set()
    for row in examples:
        named = str(getattr(row, "task", ""))
        asked |= {named} if named else {a.task for i in row.attempts if (a := store.attempt(i))}
    if sealed := sorted(t.id for t in store.tasks(sorted(asked - {""})).values() if t.split == "test"):
        raise TrainError(
            f"{method} gave rows of {len(sealed)} test tasks, such as {sealed[0]!r}: they are sealed",
            where="split test",
            todo="leave them out in the method's `examples`",
        )


def require_packages(recipe: Recipe, out: Path, expected: Mapping[str, Any]) -> None:
    """What training needs on this machine, looked at without loading it.

    Raises:
        MissingExtra: a package. StoreError: the disk has no room for the weights alone.
    """
    if ".py:" not in recipe.trainer.name:
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtra.of(package, "train")
    place = next(p for p in (out, *out.absolute().parents) if p.is_dir())
    need, free = 2 * int(expected.get("parameters") or 0), shutil.disk_usage(place).free
    if free < need:
        raise StoreError(
            f"{free / 1e9:.1f} GB are free, the weights alone take {need / 1e9:.1f} GB",
            where=str(place),
            todo="free some space, or give another folder: --out",
        )


class RunsOf:
    """A view of a store that holds the attempts, groups and tasks of some runs, and all else as it is.

    Test tasks stay in it, so that what asks the same as one of them is sealed too.
    """

    def __init__(self, store: Store, runs: Sequence[str]) -> None:
        self._store, self._runs = store, set(runs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def attempts(self, run: str | None = None, **narrowed: Any) -> list[Attempt]:
        """As `Store.attempts`."""
        return [a for a in self._store.attempts(run, **narrowed) if a.run in self._runs]

    def groups(self, run: str | None = None) -> list[Group]:
        """As `Store.groups`."""
        return [g for r in sorted(self._runs if run is None else self._runs & {run}) for g in self._store.groups(r)]

    def tasks(self, ids: Sequence[str] | None = None) -> dict[str, Task]:
        """As `Store.tasks`."""
        asked = {a.task for a in self.attempts()}
        return {i: t for i, t in self._store.tasks(ids).items() if i in asked or t.split == "test"}


def _refuse_bare(overrides: Sequence[str]) -> None:
    """An option of the method without its table is what people write first."""
    tables = {f.name for f in dataclasses.fields(Recipe)}
    for text in overrides:
        key = text.partition("=")[0].strip()
        if "." not in key and key not in tables:
            what = f"unknown recipe key {key!r}"
            raise UnknownName(what, where="--set", todo=f"an option of the method is trainer.options.{text.strip()}")


def _options_of(kind: type[Any]) -> dict[str, Any]:
    """Option -> type, of a method's constructor."""
    if dataclasses.is_dataclass(kind):
        return {f.name: _hint(kind, f.name) for f in dataclasses.fields(kind) if f.init}
    found = inspect.signature(kind).parameters.values()
    return {p.name: Any for p in found if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _hint(kind: type[Any], name: str) -> Any:
    """The type of one option; Any where its file imports the type for readers only."""
    owner = next(c for c in kind.__mro__ if name in inspect.get_annotations(c))
    one = {"__annotations__": {name: inspect.get_annotations(owner)[name]}, "__module__": owner.__module__}
    try:
        return typing.get_type_hints(type(owner.__name__, (), one))[name]
    except NameError:
        return Any


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value of TOML may be of that type; types that TOML does not have are not judged."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(h, value) for h in typing.get_args(hint))
    wanted = origin or hint
    if wanted in (int, float) and isinstance(value, bool):
        return False
    plain: dict[Any, Any] = {float: (int, float), tuple: (list, tuple), int: int, bool: bool, str: str, dict: dict}
    return isinstance(value, plain[wanted]) if wanted in plain else wanted is not type(None)


def _told(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_told(h) for h in typing.get_args(hint) if h is not type(None))
    return str(getattr(typing.get_origin(hint) or hint, "__name__", hint))


def _app_of(store: Store, runs: Sequence[str]) -> AppTable | None:
    """The app that these runs (all that learned, when none is named) worked on, if it is one."""
    found: list[AppTable] = []
    for run in store.runs():
        if run["id"] in runs or (not runs and run["info"].get("command") == "learn"):
            try:
                app = recipe_from_dict(run["recipe"]).app
            except ConfigError:  # of another version
                continue
            found += [app] if app not in found else []
    return found[0] if len(found) == 1 else None
