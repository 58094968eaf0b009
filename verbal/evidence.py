"""The verbs of evidence: promote, rollback, replay, diff."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError, DataError
from verbal.gate import Rule
from verbal.parts import make_part
from verbal.screen import Screen
from verbal.store import Store
from verbal.tables import diff_table, estimate_words, gates_table, versions_table
from verbal.types import Task, Usage
from verbal.verbs import make_recipe, open_store, pick_tasks

if TYPE_CHECKING:
    from verbal.study import Study
    from verbal.versions import Policy


def run_promote(
    options: dict[str, Any],
    url: str,
    *,
    memory: str,
    model: str,
    prompts: str,
    split: str,
    limit: int | None,
    guard: str,
    seeds: int,
    rule: Rule,
    quiet: bool,
) -> dict[str, Any]:
    """Puts a candidate through the gate against what serves now; it serves from now on if it is accepted.

    Args:
        options: Recipe, app, overrides (`verbal.cli`); the model there is what serves before anything was adopted.
        url: The store.
        memory: `NAME` or `NAME@VERSION` of the candidate; that of what serves when empty, none when `none`.
        model: The candidate's model; that of what serves when empty.
        prompts: The candidate's folder of prompts; those of what serves when empty.
        split: Held-out tasks: `dev` or `train`.
        limit: Most of them to use.
        guard: A file of questions on which nothing may be lost, `app` for the app's own, or `none`.
        seeds: Samples of each task on each side.
        rule: Margins and levels.
        quiet: Print nothing.
    """
    from verbal.run import Progress
    from verbal.study import Study
    from verbal.versions import active, make_policy

    with open_store(url) as store, Screen("verbal promote", quiet=quiet) as screen:
        recipe = make_recipe(options, store)
        serving = active(store)
        now = serving[1] if serving else make_policy(store, recipe.model.name)
        kept = f"{now.memory}@{now.version}" if now.memory else ""
        candidate = make_policy(
            store, model or now.model, "" if memory == "none" else memory or kept, prompts or now.prompts
        )

        study = Study(
            store=store, recipe=recipe, run="gate", progress=Progress(changed=screen.show), stage=screen.stage
        )
        screen.print(f"candidate: {candidate.words()}", f"serving:   {now.words()}")
        decision = asyncio.run(ask_gate(study, screen, candidate, split, limit, guard, seeds, rule))
        if candidate.model.startswith("checkpoint:"):
            note_decision(store, candidate.model, decision)
        return decision


async def ask_gate(
    study: Study,
    screen: Screen,
    candidate: Policy,
    split: str,
    limit: int | None,
    guard: str,
    seeds: int,
    rule: Rule,
    incumbent: Policy | None = None,
) -> dict[str, Any]:
    """Declares a proposal, lets the gate decide, says and keeps what it decided; see `run_promote`.

    Args:
        study: Store, recipe and run of the gate.
        screen: Told what happens.
        candidate: What may serve.
        split: Held-out tasks.
        limit: Most of them to use.
        guard: As `run_promote`.
        seeds: Samples of each task on each side.
        rule: Margins and levels.
        incumbent: What the candidate has to beat while nothing is adopted; the recipe's model alone when not given.
    """
    from verbal.estimate import check_budget, estimate
    from verbal.versions import propose

    recipe = study.recipe
    async with study.open({}, recipe=candidate.recipe(recipe)) as shop:
        guarded = guard_tasks(shop.app, recipe.app, guard)
        aside = {t.id for t in guarded}
        tasks = pick_tasks([t for t in shop.app.tasks(split) if t.id not in aside], split, None)
        expected = await estimate(shop, [*tasks[:limit], *guarded], passes={"score": 2 * seeds})
        screen.print(
            f"{len(tasks[:limit])} tasks and {len(guarded)} guard tasks, {seeds} samples a side, at most: "
            + estimate_words(expected.plain())
        )
        check_budget(shop, expected)
    decision = await propose(
        study, candidate, tasks, guarded, rule=rule, seeds=seeds, budget=limit, incumbent=incumbent
    )
    screen.stage("")
    screen.print(gates_table([decision]), decision["reason"])
    number = decision["version"]
    told = f"version {number} serves from now on" if number else "what serves is left as it is"
    screen.print(told if guarded else f"{told}; no guard set was given")
    return decision


def note_decision(store: Store, model: str, decision: Mapping[str, Any]) -> Path:
    """Keeps a decision of the gate in the papers of a checkpoint and on its card; gives the card's path."""
    from verbal.model_card import decision_papers, keep

    name = model.removeprefix("checkpoint:")
    before = [g for g in store.checkpoint(name)["info"].get("gates", []) if g.get("id") != decision["id"]]
    return keep(store, name, {"gates": [*before, {"at": _iso(time.time()), **decision_papers(decision)}]})


def guard_tasks(app: Any, table: Any, guard: str) -> list[Task]:
    """The guard tasks that `--guard` names; sealed ones are left alone.

    Raises:
        ConfigError: the app has none of its own and none were named.
    """
    if guard == "none":
        return []
    if guard == "app":
        found = app.guard() if hasattr(app, "guard") else []
        if not found:
            todo = "give --guard QUESTIONS.jsonl with questions that should stay as they are, or --guard none"
            raise ConfigError(f"the app {table.name!r} has no guard tasks of its own", where="--guard", todo=todo)
    else:
        if not Path(guard).is_file():
            raise DataError(f"no file {guard!r}", where="--guard", todo="give a file of questions, `app` or `none`")
        found = make_part("apps", table.name, where="--guard", **{**table.options, "questions": guard}).tasks()
    return [t for t in found if t.split != "test"]


def run_rollback(url: str, to: int | None, *, quiet: bool) -> dict[str, Any]:
    """Makes an earlier version serve again."""
    from verbal.versions import rollback

    with open_store(url) as store, Screen("verbal rollback", quiet=quiet) as screen:
        made = rollback(store, to)
        screen.print(versions_table(adopted(store)))
        screen.print(f"version {made['number']} serves from now on: {made['policy_words']}")
        return made


def run_replay(url: str, run: str, pack_to: Path | None, *, quiet: bool) -> dict[str, Any]:
    """Repeats a run and its companions from their recording, or writes them into one file."""
    from verbal.replay import known_run, pack, replay
    from verbal.run import Progress

    with open_store(url) as store, Screen("verbal replay", quiet=quiet) as screen:
        if pack_to is not None:
            card = pack(store, run, pack_to)
            screen.print(f"{pack_to} holds {', '.join(card['runs'])}; its card is {pack_to.with_suffix('.md')}")
            return {**card, "file": str(pack_to)}
        found = []
        for part in [run, *known_run(store, run)["info"].get("parts", [])]:
            if store.run(part) is None:
                continue  # what was planned and never begun
            screen.stage(f"replaying {part}")
            found.append(asyncio.run(replay(store, part, progress=Progress(changed=screen.show))))
        screen.stage("")
        for made in found:
            word = "equal" if made["equal"] else "DIFFERENT"
            records = sum(s["records"] for s in made["sections"].values())
            screen.print(
                f"{made['run']}: {word}, {records:,} records, {made['replies']:,} replies from the recording, "
                f"{made['model_calls']} model calls, digest {made['digest']}"
            )
            if made["first_difference"]:
                screen.print(made["first_difference"])
        return {"run": run, "equal": all(m["equal"] for m in found), "runs": found}


def run_diff(url: str, run: str, other: str, other_url: str, *, quiet: bool) -> dict[str, Any]:
    """Shows where two runs part."""
    from verbal.differences import diff_runs

    with open_store(url) as store, Screen("verbal diff", quiet=quiet) as screen:
        if other_url:
            with open_store(other_url) as second:
                made = diff_runs(store, run, second, other)
        else:
            made = diff_runs(store, run, store, other)
        if made["rows"]:
            screen.print(diff_table(made["rows"], run, other))
        screen.print("the runs are equal" if made["equal"] else f"{len(made['rows'])} differences")
        return made


def decisions(store: Store) -> list[dict[str, Any]]:
    """What the gate decided in this store, oldest first."""
    made = [{"at": _iso(p["at"]), **p["decision"], "id": p["id"]} for p in store.proposals() if "decision" in p]
    return [{**d, "cost": _sum(d.get("cost"))} for d in made]


def adopted(store: Store) -> list[dict[str, Any]]:
    """The log of versions, oldest first; the last one serves."""
    from verbal.versions import Policy

    log = store.versions()
    return [
        {"number": v["number"], "at": _iso(v["at"]), "action": v["action"], "policy": Policy(**v["policy"]).words(),
         "evidence": v["evidence"], "active": v is log[-1]}
        for v in log
    ]  # fmt: skip


def sealed(store: Store) -> list[dict[str, Any]]:
    """Every use of the sealed test tasks."""
    return [{**u, "at": _iso(u["at"])} for u in store.sealed_uses()]


def _sum(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    from verbal.study import plain_usage

    if usage is None:
        return None
    made: dict[str, Any] = plain_usage({"all": sum((Usage(**u) for u in usage.values()), Usage())})["all"]
    return made


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


__all__: Sequence[str] = (
    "adopted", "ask_gate", "decisions", "guard_tasks", "note_decision", "run_diff", "run_promote", "run_replay",
    "run_rollback", "sealed",
)  # fmt: skip
