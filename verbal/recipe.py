"""Recipes: one TOML file -> frozen dataclasses. Names of parts, and numbers.

An unknown key is an error that names the nearest one; `--set loop.rounds=3` overrides a value; `resolve` (the dry run)
finds every part and prompt by name without making a call. There is no inheritance and no global setting.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, UnknownName
from verbal.parts import load_part
from verbal.prompt import load_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class AppTable:
    """`[app]`: what is solved."""

    name: str = "text2sql"
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the app's constructor (`db`, `questions`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """`[model]`: who solves. Every role uses `name` unless `roles` names another."""

    name: str = "embedded"
    roles: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the adapter (`extra`, `url`)."""
    price_in: float | None = None
    """US dollars per million prompt tokens, where the price table does not know the model."""
    price_out: float | None = None
    temperature: float = 0.8
    """Of every attempt but the first, which is greedy."""
    max_tokens: int = 1024
    logprobs: bool = False
    """Ask for the log-probabilities of the tokens that attempts and roles say (for the critic `vote`, and to train on
    them); some providers give none."""
    concurrency: int = 20
    """Calls under way at once, to start with; it adapts."""
    timeout: float = 120.0
    """Seconds for one call."""
    retries: int = 6
    """Tries of one call that fails for a passing reason, the first included."""
    retry_first: float = 0.5
    """Seconds; the wait before the second try is at most this, and doubles from try to try."""
    cache: str = "record"
    """Replay cache: `record` (look first, record what had to be asked), `replay` or `off`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopTable:
    """`[loop]`: how one task is worked on."""

    graph: str = "reflect"
    """`reflect`, `group` or `self_play`."""
    rounds: int = 2
    """Attempts in a row on one task, the first included (graph `reflect`)."""
    samples: int = 8
    """Attempts side by side on one task (graphs `group` and `self_play`)."""
    most: int = 0
    """Graph `group`: attempts drawn at most until `samples` of them run; 0 draws `samples`, whether they run or not."""
    empty: bool = True
    """With `most`: an answer whose result is empty counts as one that runs."""
    wave: int = 0
    """Graph `group`: attempts drawn at once; 0 is all. In waves, drawing ends when the verdict cannot change."""
    turns: int = 8
    """Model replies in one attempt before it is stopped."""
    timeout: float | None = None
    """Seconds for one attempt, its calls and their retries included; None is no limit."""
    critique: bool = True
    """Ask the critic role for words about a failed attempt."""
    reflect: bool = True
    """Ask the reflector role for a lesson after a failed attempt."""
    learns: str = "lessons"
    """What changes: `lessons` of a memory, or `prompts` (GEPA, extra `gepa`)."""
    lessons: str = "failures"
    """What is reflected on: `failures` (each attempt that failed), `all` (successes too), or `contrast` (a right and a
    wrong attempt of one group, with graph `group`)."""
    guidance: str = ""
    """A prompt, such as `memory/reasoningbank`, that tells the reflector what kind of lesson is wanted."""
    words: str = "lessons"
    """What a retry reads of the attempts before it: `lessons`, or `critiques` (Self-Refine)."""
    epochs: int = 1
    """Passes over the tasks while learning."""
    verify: bool = True
    """Keep a lesson only when the next attempt on its task, which saw it, was solved."""
    batch: int = 16
    """Tasks that see the same version of the memory; lessons are curated between batches."""
    questions: int = 16
    """Questions to propose (graph `self_play`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticsTable:
    """`[critics]`: who judges. Options of a critic stand in `options.NAME`."""

    names: tuple[str, ...] = ("sql_result", "self_check")
    verdict: str = "sql_result"
    """The critic whose value 1 means solved."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTable:
    """`[memory]`: where lessons live. An empty name is no memory."""

    name: str = "chroma"
    k: int = 3
    """Reflections shown to an attempt at most, beside those on trial."""
    quarantine: bool = True
    """A new lesson is shown in trial slots only, until outcomes speak for it."""
    trials: int = 1
    """Trial slots of a prompt: quarantined lessons that fit, each shown with a chance of one half."""
    withhold: float = 0.1
    """The chance that a lesson which is believed is left out, so that its effect can be measured."""
    curator: str = "curator"
    curator_options: dict[str, Any] = field(default_factory=dict)
    credit: str = "credit"
    """Who turns outcomes into credit; an empty name is nobody."""
    credit_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerTable:
    """`[trainer]`: who learns from the attempts, in weights. An empty name is nobody."""

    name: str = ""
    """A part of `trainers`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the method's constructor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsTable:
    """`[limits]`: hard stops before the call that would exceed them. None is no limit."""

    max_cost: float | None = None
    """US dollars."""
    max_tokens: int | None = None
    max_calls: int | None = None
    max_minutes: float | None = None
    prices: str = ""
    """A TOML file of prices that the table does not know: `["provider/model"] prompt = 1.2, completion = 4.8`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe, checked."""

    name: str = "reflect"
    about: str = ""
    seed: int = 0
    app: AppTable = field(default_factory=AppTable)
    model: ModelTable = field(default_factory=ModelTable)
    loop: LoopTable = field(default_factory=LoopTable)
    critics: CriticsTable = field(default_factory=CriticsTable)
    memory: MemoryTable = field(default_factory=MemoryTable)
    trainer: TrainerTable = field(default_factory=TrainerTable)
    limits: LimitsTable = field(default_factory=LimitsTable)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON types, as it is kept: without the passwords of URLs."""
        plain: dict[str, Any] = without_passwords(json.loads(json.dumps(dataclasses.asdict(self))))
        return plain

    def resolve(self) -> list[str]:
        """One line for every part the recipe names, each found but none made (the dry run).

        Raises:
            UnknownName, ConfigError: a part does not exist or a number is out of range.
        """
        counts = {k: getattr(self.loop, k) for k in ("rounds", "samples", "batch", "turns", "epochs")}
        counts |= {"model.retries": self.model.retries, "memory.k": self.memory.k}
        if low := {k: v for k, v in counts.items() if v < 1}:
            raise ConfigError(
                f"{', '.join(f'{k} is {v}' for k, v in low.items())}, at least 1 is needed", where=self.name
            )
        if negative := [k for k in ("most", "wave") if getattr(self.loop, k) < 0]:
            raise ConfigError(f"loop.{negative[0]} is below 0", where=self.name, todo="give 0 (off) or more")
        if 0 < self.loop.most < self.loop.samples:
            what = f"loop.most is {self.loop.most}, below loop.samples, which is {self.loop.samples}"
            raise ConfigError(what, where=self.name, todo="give more, or 0 to draw once")
        if self.model.cache not in CACHES:
            raise UnknownName.of("cache mode", self.model.cache, CACHES, where=f"recipe {self.name}: model.cache")
        if self.loop.graph not in GRAPHS:
            raise UnknownName.of("graph", self.loop.graph, GRAPHS, where=f"recipe {self.name}: loop.graph")
        for key, known in (("learns", LEARNS), ("lessons", LESSONS), ("words", WORDS)):
            if getattr(self.loop, key) not in known:
                raise UnknownName.of(key, getattr(self.loop, key), known, where=f"recipe {self.name}: loop.{key}")
        if self.loop.guidance:
            load_prompt(self.loop.guidance, self.app.options.get("prompts"))
        if self.memory.trials < 0:
            raise ConfigError(f"memory.trials is {self.memory.trials}", where=self.name, todo="give 0 or more")
        if not 0 <= self.memory.withhold < 1:
            todo = "give a chance from 0 (nothing is withheld) to below 1"
            raise ConfigError(f"memory.withhold is {self.memory.withhold}", where=self.name, todo=todo)
        if self.critics.verdict not in self.critics.names:
            raise ConfigError(f"critics.verdict {self.critics.verdict!r} is not among critics.names", where=self.name)
        named = [("apps", self.app.name), *(("critics", c) for c in self.critics.names)]
        if self.memory.name:
            named += [("memory", n) for n in (self.memory.name, self.memory.curator, self.memory.credit) if n]
        if self.trainer.name:
            named.append(("trainers", self.trainer.name))
        found = [(room, name, load_part(room, name, where=f"recipe {self.name}")) for room, name in named]
        return [f"{room:8} {name:12} {part.__module__}.{part.__qualname__}" for room, name, part in found]


GRAPHS = ("reflect", "group", "self_play")
"""Graphs of `verbal.loop`."""
LEARNS = ("lessons", "prompts")
"""What learning can change."""
LESSONS = ("failures", "contrast", "all")
"""What can be reflected on."""
WORDS = ("lessons", "critiques")
"""What a retry can read."""
CACHES = ("record", "replay", "off")
"""Modes of `verbal.cache`."""


def without_passwords(value: Any) -> Any:
    """Plain JSON types with the passwords of URLs taken out, in whatever form a URL may have one."""
    if isinstance(value, dict):
        return {k: without_passwords(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_passwords(v) for v in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    scheme, _, rest = value.partition("://")
    user, at, place = rest.rpartition("@")
    kept = f"{user.partition(':')[0]}@{place}" if at else rest
    return f"{scheme}://" + re.sub(r"(?i)([?&])password=[^&]*(&?)", lambda m: m[1] if m[2] else "", kept)


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or of a name shipped with the package, with `table.key=value` overrides applied.

    Raises:
        ConfigError: not TOML, an unknown key, a wrong type, a malformed override. UnknownName: no such recipe.
    """
    path = Path(source)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"no recipe file {str(path)!r}", todo=f"or a shipped one: {', '.join(recipe_names())}")
        try:
            text, where = path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise ConfigError(f"the recipe is not UTF-8: {error}", where=str(path), todo="save it as UTF-8") from error
    else:
        if str(source) not in recipe_names():
            raise UnknownName.of("recipe", str(source), recipe_names(), where="--recipe")
        text, where = resources.files("verbal").joinpath("recipes", f"{source}.toml").read_text("utf-8"), str(source)
    return parse_recipe(text, overrides, where=where)


def parse_recipe(text: str, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """The recipe that a TOML text holds; see `load_recipe`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=where, todo="see a shipped recipe for the form") from error
    for override in overrides:
        _override(table, override)
    recipe: Recipe = _build(Recipe, table, where, "")
    return recipe


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_dict` wrote.

    Raises:
        ConfigError: a key or value is not one of a recipe.
    """
    tables = {k: {n: x for n, x in v.items() if x is not None} if isinstance(v, dict) else v for k, v in data.items()}
    recipe: Recipe = _build(Recipe, tables, "a recorded recipe", "")
    return recipe


def recipe_names() -> list[str]:
    """The recipes shipped with the package, sorted."""
    folder = resources.files("verbal").joinpath("recipes")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def _override(table: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"cannot read the override {text!r}", where="--set", todo="write it as loop.rounds=3")
    try:
        parsed = tomllib.loads(f"x = {value.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *path, last = key.strip().split(".")
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name!r} in the override {text!r} is not a table", where="--set")
    table[last] = parsed


def _build(cls: type[Any], table: Mapping[str, Any], where: str, prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise UnknownName.of("recipe key", f"{prefix}{key}", [f"{prefix}{h}" for h in hints], where=where)
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix}{key} is a table, found {value!r}", where=where, todo=f"write [{key}]")
            values[key] = _build(typing.cast(type[Any], hints[key]), value, where, f"{prefix}{key}.")
        else:
            values[key] = _checked(hints[key], value, f"{prefix}{key}", where)
    return cls(**values)


def _checked(hint: Any, value: Any, key: str, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    wanted = typing.get_origin(hint) or hint
    if wanted is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{key} must be of type {wanted.__name__}, found {value!r}", where=where)
    return value
