"""A study: one run as its spec says, learning or scoring. What was recorded is repeated by the same function.

The spec stands in the store with the run (`info`): command, tasks, seeds, memories and their versions, names and
fingerprints of the models. `perform` does what a spec says, for the first time, resumed or as a replay, and gives the
results that a page shows. Several seeds are several runs: `NAME` (the first seed, whose memory is kept under the name
that was asked for), `NAME:1`, `NAME:2`, and `NAME:eval`, which scores what they learned on tasks nobody learned on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from verbal.cache import Cache
from verbal.contracts import Memory
from verbal.errors import STOPS, ConfigError, DataError, StoreError
from verbal.evaluate import ARMS, LABELS, Scores, compare, difference, evaluate_arm
from verbal.parts import make_part
from verbal.recipe import Recipe
from verbal.run import Progress, Workshop, learn, meter_embedder, open_ledger, open_workshop
from verbal.store import Store
from verbal.types import Reflection, Task, Usage


@dataclasses.dataclass(slots=True, kw_only=True)
class Study:
    """Where a run happens: its store, and for a replay the recording.

    Args:
        store: Where the run is kept.
        recipe: Names of the parts.
        run: Id of the run.
        progress: Told of every call and task.
        stage: Told the name of what happens next.
        source: The store of the recording; a replay when given.
        others: Runs whose spending counts against the same limits.
        began: When the time that is limited began, by `time.monotonic`; now when not given.
        model: A Model to use in place of the recipe's.
        app: An open app to use in place of the recipe's.
    """

    store: Store
    recipe: Recipe
    run: str
    progress: Progress = dataclasses.field(default_factory=Progress)
    stage: Callable[[str], None] = lambda _: None
    source: Store | None = None
    others: Sequence[str] = ()
    began: float | None = None
    model: Any = None
    app: Any = None

    def open(
        self, spec: Mapping[str, Any], *, memory: str = "", recipe: Recipe | None = None, beside: Workshop | None = None
    ) -> Any:
        """The workshop of the run.

        Args:
            spec: What a replay needs to know of the recording.
            memory: Name of the memory that learns; none is open when not given.
            recipe: In place of the study's own.
            beside: An open workshop of the same run: its ledger is shared, and its app where the recipe has the same.
        """
        recipe = recipe or self.recipe
        app = beside.app if beside and beside.recipe.app == recipe.app else self.app
        if not memory:
            recipe = dataclasses.replace(recipe, memory=dataclasses.replace(recipe.memory, name=""))
        cache = Cache(self.store, self.run, mode="replay", source=self.source) if self.source else None
        return open_workshop(
            recipe, self.store, run=self.run, progress=self.progress, model=self.model, app=app, cache=cache,
            memory_name=memory or None,
            ledger=beside.ledger if beside else open_ledger(recipe, self.store, self.run, self.others, self.began),
            recorded=spec if self.source else None,
        )  # fmt: skip


async def perform(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Does what a spec says; gives its results.

    Raises:
        DataError: the store does not know the spec's command, or a task of it. What stops a run (`errors.STOPS`).
        ConfigError: the run was begun for something else (other tasks, another memory).
    """
    from verbal.two_by_two import cross
    from verbal.versions import decide

    commands = {"learn": _learn, "eval": _score, "gate": decide, "two_by_two": cross}
    if spec.get("command") not in commands:
        what = f"run {study.run!r} was made by {spec.get('command')!r}, which is not repeated on its own"
        raise DataError(what, where=study.store.where, todo=f"runs of: {', '.join(commands)}")
    _go_on(study.store, study.run, json.loads(json.dumps(spec)))
    return await commands[spec["command"]](study, spec)


def _go_on(store: Store, run: str, spec: Mapping[str, Any]) -> None:
    """Refuses to go on with a run that was begun for something else: what is kept would be taken for the answer.

    More seeds are no other thing: their runs and memories are noted.
    """
    if (known := store.run(run)) is None:
        return
    begun = known["info"]
    differs = [k for k in _BEGUN if begun.get(k) != spec.get(k)]
    names = [(i.get("memory") or {}).get("name", "") for i in (begun, spec)]
    differs += ["memory"] if names[0] != names[1] else []
    old, new = begun.get("memories") or {}, spec.get("memories") or {}
    differs += ["memories"] if bool(old) != bool(new) or any(old[s] != new[s] for s in old.keys() & new.keys()) else []
    differs += ["seeds"] if not set(begun.get("seeds") or ()) <= set(spec.get("seeds") or ()) else []
    if differs:
        told = "; ".join(f"{k}: {_short(begun.get(k))}, now {_short(spec.get(k))}" for k in differs)
        raise ConfigError(
            f"the run {run!r} was begun for something else ({told})",
            where=store.where,
            todo="choose another --run, or give the options it began with",
        )
    if grown := {k: spec[k] for k in ("seeds", "memories", "parts") if k in spec and spec[k] != begun.get(k)}:
        store.set_info(run, grown)


_BEGUN = (
    "command", "arm", "tasks", "guard", "rounds", "sealed", "incumbent", "candidate", "rule", "budget", "seed", "base",
    "weights",
)  # fmt: skip
"""What a run must go on with as it began."""


def _short(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, list) and len(value) > 4 else json.dumps(value)


def tasks_of(store: Store, ids: Sequence[str]) -> list[Task]:
    """The tasks of those ids, in that order.

    Raises:
        DataError: one is not in the store.
    """
    known = store.tasks(ids)
    if missing := [i for i in ids if i not in known]:
        raise DataError(f"task {missing[0]!r} is not in the store", where=store.where)
    return [known[i] for i in ids]


async def _learn(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    tasks = tasks_of(study.store, spec["tasks"])
    study.progress.update(total=len(tasks), done=0, solved=0)
    async with study.open(spec, memory=(spec.get("memory") or {}).get("name", "")) as shop:
        # A critic of a user's file is recorded under its own name; a replay has to find the file again.
        extra = {"critics": dict(zip(shop.recipe.critics.names, study.recipe.critics.names, strict=True))}
        extra |= {"parts": spec["parts"]} if "parts" in spec else {}
        summary = await learn(shop, tasks, run=study.run, arm=spec.get("arm", "learn"), info=extra)
        lessons = [r.to_dict() for r in items(shop.memory)]
    made = dataclasses.asdict(summary)
    made["usage"] = plain_usage(study.store.usage(study.run))  # what is written when the workshop closes included
    return {**made, "lessons": [{k: v for k, v in x.items() if k != "embedding"} for x in lessons]}


async def _score(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    tasks, seeds = tasks_of(study.store, spec["tasks"]), list(spec["seeds"])
    pinned = {int(s): tuple(m) for s, m in (spec.get("memories") or {}).items()}
    store, status = study.store, "failed"
    async with study.open(spec) as shop, AsyncExitStack() as stack:
        store.start_run(study.run, study.recipe.to_dict(), {**spec, **shop.info})
        memories: dict[int, Memory] = {}
        for seed, (name, version) in pinned.items():
            memories[seed] = open_pinned(shop, name, version)
            stack.callback(memories[seed].close)
        try:
            scores: dict[str, Scores] = {}
            for arm, hints in ARMS.items() if memories else [("retry", "none")]:
                study.stage(arm)
                study.progress.update(total=len(tasks) * len(seeds), done=0, solved=0)
                scores[arm] = await evaluate_arm(
                    shop, tasks, run=study.run, arm=arm, seeds=seeds, hints=hints, memories=memories,
                    rounds=spec.get("rounds"), progress=study.progress, unsealed="sealed" in spec,
                )  # fmt: skip
            results = {**_head(study, spec, tasks), **compare(scores), **_spent(store, study.run, scores)}
            status = "done"
        except STOPS:
            status = "stopped"
            raise
        finally:
            with contextlib.suppress(StoreError) if status != "done" else contextlib.nullcontext():
                store.finish_run(study.run, status, {"results": results} if status == "done" else None)
    return results


def open_pinned(shop: Workshop, name: str, version: int) -> Memory:
    """A memory of the store as it was at a version, read-only: found exactly, so that nothing is kept on disk."""
    table = shop.recipe.memory
    options = {k: v for k, v in table.options.items() if k not in ("name", "folder", "server", "version")}
    memory: Memory = make_part("memory", "exact", store=shop.store, name=name, version=version, **options)
    meter_embedder(memory, shop.ledger)
    return memory


def items(memory: Any) -> list[Reflection]:
    """What a memory believes: its items that are not retired."""
    return [r for r in memory.at(len(memory.history())).values() if r.status != "retired"] if memory else []


def usage_of(store: Store, runs: Iterable[str]) -> dict[str, Usage]:
    """What several runs used together, by role."""
    total: dict[str, Usage] = {}
    for run in runs:
        for role, used in store.usage(run).items():
            total[role] = total.get(role, Usage()) + used
    return total


def plain_usage(usage: Mapping[str, Usage]) -> dict[str, Any]:
    """Usage by role as plain JSON types."""
    return {role: {k: v for k, v in u.to_dict().items() if k != "v"} for role, u in usage.items()}


def _head(study: Study, spec: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Any]:
    split = ", ".join(sorted({t.split for t in tasks}))
    rounds = spec.get("rounds") or study.recipe.loop.rounds
    return {
        "title": f"{study.recipe.app.name}: {len(tasks)} {split} tasks",
        "subtitle": f"{len(spec['seeds'])} seeds, at most {rounds} attempts a task, the same in every arm",
        "model": study.recipe.model.name,
        "run": study.run,
    }


def _spent(store: Store, run: str, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Cost by role, and by arm what its attempts cost (as recorded, whoever paid) against what it gained over base."""
    rows = []
    for arm, score in scores.items():
        made = [a for s in range(len(score.first)) for a in store.attempts(run, arm=f"{arm}:{s}")]
        used = sum((a.usage for a in made), Usage())
        gain = difference(score.within, scores["retry"].first)
        rows.append(
            {"name": LABELS[arm][0], "arm": arm, "cost": used.cost, "tokens": used.tokens, "calls": used.calls,
             "gain": gain.mean, "low": gain.low, "high": gain.high}
        )  # fmt: skip
    return {"usage": plain_usage(store.usage(run)), "cost_gain": rows}


__all__ = ["Study", "items", "open_pinned", "perform", "plain_usage", "tasks_of", "usage_of"]
