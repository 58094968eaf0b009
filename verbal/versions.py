"""Adopted versions: what serves now, how it got there, and the way back. Nothing is adopted but through the gate.

A policy is what answers: a model with the digest of its weights, a memory at a version of its log, a folder of prompts
with their hashes. The log of versions in the store only grows: a promotion adds the candidate with the decision that
let it in, a rollback adds an earlier policy again, exactly. Each proposal is written down before its first task, so
that the hundredth is not a lucky one (`verbal.betting.threshold`), and so that a killed gate goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Memory
from verbal.errors import STOPS, ConfigError, DataError, StoreError, TrainError
from verbal.evaluate import attempt_values
from verbal.gate import BUDGET_ENDED, Rule, gate, refuse_sealed
from verbal.recipe import Recipe
from verbal.run import Workshop
from verbal.store import Store
from verbal.study import Study, open_pinned, plain_usage, tasks_of
from verbal.types import Task
from verbal.verbs import read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What answers a task."""

    model: str
    """As `--model` takes it."""
    opens: str = ""
    """The model that this name opened when the policy was made (a checkpoint's folder); the name itself when empty."""
    weights: dict[str, str] = field(default_factory=dict)
    """File -> digest, of a checkpoint."""
    memory: str = ""
    version: int = 0
    prompts: str = ""
    """A folder of prompts; the app's own when empty."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Prompt -> hash, of a folder of prompts."""

    def words(self) -> str:
        """The policy in words."""
        parts = [self.model]
        parts.append(f"memory {self.memory} at version {self.version}" if self.memory else "no memory")
        return ", ".join([*parts, f"prompts of {self.prompts}"] if self.prompts else parts)

    def plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with this policy's model and prompts."""
        options = {k: v for k, v in recipe.app.options.items() if k != "prompts"}
        options |= {"prompts": self.prompts} if self.prompts else {}
        return dataclasses.replace(
            recipe,
            model=dataclasses.replace(recipe.model, name=self.opens or self.model),
            app=dataclasses.replace(recipe.app, options=options),
        )


def make_policy(store: Store, model: str, memory: str = "", prompts: str = "") -> Policy:
    """The policy that these names mean now.

    Args:
        store: Where memories and checkpoints are.
        model: As `--model` takes it; a checkpoint's files are checked.
        memory: `NAME` (as it is now) or `NAME@VERSION`; none when empty.
        prompts: A folder of prompts.

    Raises:
        ConfigError, DataError: no such memory, version or checkpoint, or a checkpoint whose files were changed.
    """
    opens, weights = "", {}
    if model.startswith("checkpoint:"):
        opens, papers = read_checkpoint(store, model)
        weights = dict(papers["weights"])
    name, _, at = memory.partition("@")
    version = 0
    if name:
        known = store.memories()
        if name not in known:
            raise ConfigError(f"there is no memory {name!r}", where=store.where, todo=f"known: {', '.join(known)}")
        if at and not (at.isdigit() and int(at) <= known[name]):
            raise ConfigError(f"memory {name!r} has no version {at!r}", todo=f"give 0 to {known[name]}")
        version = int(at) if at else known[name]
    hashes = {}
    if prompts:
        from pathlib import Path

        files = sorted(Path(prompts).rglob("*.md"))
        hashes = {f.relative_to(prompts).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files}
        if not hashes:
            raise ConfigError(f"no prompts in {prompts!r}", where="--prompts", todo="give a folder of .md files")
    return Policy(
        model=model, opens=opens, weights=weights, memory=name, version=version, prompts=prompts, hashes=hashes
    )


def active(store: Store) -> tuple[dict[str, Any], Policy] | None:
    """The record and the policy that serve now, checked to be what was adopted; None when nothing was adopted yet.

    Raises:
        DataError: its weights, memory or prompts are not what they were.
    """
    log = store.versions()
    if not log:
        return None
    policy = Policy(**log[-1]["policy"])
    if why := _changed(store, policy):
        raise DataError(
            f"version {log[-1]['number']} is not what was adopted: {why}",
            where=store.where,
            todo="put the files back, or roll back to another version: verbal rollback --to N",
        )
    return log[-1], policy


def _changed(store: Store, policy: Policy) -> str:
    """Why a policy is not there any more as it was; empty when it is."""
    memory = f"{policy.memory}@{policy.version}" if policy.memory else ""
    try:
        now = make_policy(store, policy.model, memory, policy.prompts)
    except (ConfigError, DataError, TrainError) as error:
        return error.what
    changed = [f.name for f in dataclasses.fields(Policy) if getattr(now, f.name) != getattr(policy, f.name)]
    return f"{', '.join(changed)} changed" if changed else ""


def declare(
    store: Store,
    recipe: Recipe,
    candidate: Policy,
    tasks: Sequence[Task],
    guard: Sequence[Task],
    *,
    rule: Rule,
    seeds: int,
    budget: int | None,
    incumbent: Policy | None = None,
) -> tuple[str, dict[str, Any]]:
    """Writes a proposal down before its first task is run; gives its id and spec. An equal unfinished one goes on.

    With nothing adopted yet, `incumbent` may be what the candidate has to beat in place of the recipe's model alone.

    Raises:
        ConfigError: the candidate is what serves already, or a task is of the sealed split.
    """
    refuse_sealed([*tasks, *guard])
    refuse_known(store, candidate, tasks)
    serving = active(store)
    served = serving[1] if serving else make_policy(store, recipe.model.name)
    incumbent = served if serving or incumbent is None else incumbent
    if candidate in (served, incumbent):
        raise ConfigError(f"this serves already: {candidate.words()}", todo="propose another memory, model or prompts")
    asked = {
        "command": "gate", "incumbent": incumbent.plain(), "candidate": candidate.plain(), "seeds": list(range(seeds)),
        "tasks": [t.id for t in tasks], "guard": [t.id for t in guard], "rule": dataclasses.asdict(rule),
        "budget": budget, "seed": recipe.seed, "version": serving[0]["number"] if serving else 0,
    }  # fmt: skip
    if served != incumbent:
        asked["served"] = served.plain()
    digest = tasks_digest(tasks)
    with store.transaction():  # two processes that propose at once get two numbers
        past = store.proposals()
        for old in past:
            if old["status"] == "declared" and all(old["spec"].get(k) == v for k, v in asked.items()):
                return old["id"], old["spec"]
        spec = {
            **asked, "proposal": len(past) + 1, "accepted_before": sum(p["status"] == "accept" for p in past),
            "dev_set": digest, "dev_uses": 1 + sum(p["spec"].get("dev_set") == digest for p in past),
        }  # fmt: skip
        name = f"gate-{len(past) + 1}"
        store.put_tasks([*tasks, *guard])
        store.put_proposal(name, "declared", {"spec": spec})
        return name, spec


def refuse_known(store: Store, candidate: Policy, tasks: Sequence[Task]) -> None:
    """Raises ConfigError when a checkpoint was trained on a task that is to judge it.

    Words need no such check: a lesson is never shown for the task it came from.
    """
    trained = sorted(trained_on(store, candidate.model) & {t.id for t in tasks})
    if trained:
        raise ConfigError(
            f"{candidate.model} was trained on {len(trained)} of the {len(tasks)} tasks that would judge it, "
            f"such as {trained[0]!r}",
            where="the checkpoint's papers",
            todo="give held-out tasks: another --split, or questions it never saw",
        )


def trained_on(store: Store, model: str) -> set[str]:
    """Ids of the tasks on whose attempts a registered checkpoint was trained; none for another kind of model."""
    if not model.startswith("checkpoint:"):
        return set()
    # Who opens the checkpoint has its files checked: its papers need not be read again.
    papers = store.checkpoint(model.removeprefix("checkpoint:"))["info"]
    return {a.task for i in papers.get("attempts", ()) if (a := store.attempt(i))}


async def propose(
    study: Study,
    candidate: Policy,
    tasks: Sequence[Task],
    guard: Sequence[Task] = (),
    *,
    rule: Rule | None = None,
    seeds: int = 3,
    budget: int | None = None,
    incumbent: Policy | None = None,
) -> dict[str, Any]:
    """Declares a candidate, lets the gate decide, keeps what it said; gives the decision and the new `version`, if any.

    A budget of money or calls that ends before there is an answer leaves the proposal open: the same call goes on.
    """
    run, spec = declare(
        study.store, study.recipe, candidate, tasks, guard,
        rule=rule or Rule(), seeds=seeds, budget=budget, incumbent=incumbent,
    )  # fmt: skip
    study.stage(f"{run}: use {spec['dev_uses']} of these tasks")
    decision = await decide(dataclasses.replace(study, run=run), spec)
    ended = decision["reason"].startswith(BUDGET_ENDED)
    return {**decision, "version": None if ended else adopt(study.store, run, spec, decision)}


async def decide(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the gate as a proposal's spec says; gives the decision with its evidence, which the store keeps too."""
    store, status = study.store, "failed"
    tasks, guard = tasks_of(store, spec["tasks"]), tasks_of(store, spec["guard"])
    policies = {side: Policy(**spec[side]) for side in ("incumbent", "candidate")}
    async with AsyncExitStack() as stack:
        sides: dict[str, PolicySide] = {}
        first: Workshop | None = None
        for side, policy in policies.items():
            opened = study.open(spec, recipe=policy.recipe(study.recipe), beside=first)
            shop: Workshop = await stack.enter_async_context(opened)
            first = first or shop
            memory = open_pinned(shop, policy.memory, policy.version) if policy.memory else None
            if memory is not None:
                stack.callback(memory.close)
            sides[side] = PolicySide(policy, shop, study.run, side, spec["seeds"], memory)
        models = {k: v for s in sides.values() for k, v in s.shop.info["models"].items()}
        store.start_run(study.run, study.recipe.to_dict(), {**spec, "models": models})
        study.progress.update(total=min(len(tasks), spec["budget"] or len(tasks)), done=0, solved=None)
        try:
            made = await gate(
                sides["incumbent"], sides["candidate"], tasks, spec["budget"], rule=Rule(**spec["rule"]), guard=guard,
                seed=spec["seed"], proposal=spec["proposal"], accepted_before=spec["accepted_before"],
                on_task=lambda used, wealth: study.progress.update(done=used, note=f"wealth {wealth:,.1f}"),
            )  # fmt: skip
            facts = {k: spec[k] for k in ("dev_set", "dev_uses", "version")}
            decision = {"id": study.run, **made.plain(), **facts}
            status = "stopped" if decision["reason"].startswith(BUDGET_ENDED) else "done"
        except STOPS:
            status = "stopped"
            raise
        finally:
            with contextlib.suppress(StoreError) if status == "failed" else contextlib.nullcontext():
                store.finish_run(study.run, status, {"results": decision} if status == "done" else None)
    return {**decision, "cost": plain_usage(store.usage(study.run))}


class PolicySide:
    """A policy as a side of the gate: first attempts only, for nobody says right or wrong to what serves."""

    def __init__(
        self, policy: Policy, shop: Workshop, run: str, arm: str, seeds: Sequence[int], memory: Memory | None
    ) -> None:
        self.name, self.shop = policy.words(), shop
        self._run, self._arm, self._seeds, self._memory = run, arm, seeds, memory

    async def scores(self, tasks: Sequence[Task]) -> list[list[float | None]]:
        """For each task the value of the verdict critic on the first attempt of each seed, in [0, 1]."""
        found = [
            await attempt_values(self.shop, tasks, run=self._run, arm=f"{self._arm}:{s}", seed=s, memory=self._memory)
            for s in self._seeds
        ]
        return [list(values) for values in zip(*found, strict=True)]


def adopt(store: Store, proposal: str, spec: Mapping[str, Any], decision: Mapping[str, Any]) -> int | None:
    """Keeps what the gate said; on `accept` the candidate serves from now on, under the number that is given.

    Raises:
        StoreError: another version was adopted meanwhile, against which the candidate was never compared.
    """
    number = None
    with store.transaction():
        if decision["verdict"] == "accept":
            before = spec["version"]
            if before == 0:  # what served so far is the version to go back to
                served = spec.get("served", spec["incumbent"])
                start = {"action": "start", "policy": served, "evidence": ""}
                before = store.add_version(start, expect=0)
            record = {"action": "promote", "policy": spec["candidate"], "evidence": proposal}
            number = store.add_version(record, expect=before)
        store.put_proposal(proposal, decision["verdict"], {"spec": dict(spec), "decision": dict(decision)})
    return number


def rollback(store: Store, to: int | None = None) -> dict[str, Any]:
    """Makes an earlier version serve again, exactly; gives the new record.

    Args:
        store: Where the log of versions is.
        to: Number of the version; the policy that served before this one when not given.

    Raises:
        ConfigError: there is no such version, or nothing to go back to.
        DataError: what it was is not there any more; nothing is changed.
    """
    log = store.versions()
    if to is None:
        earlier = [v for v in log[:-1] if v["policy"] != log[-1]["policy"]]
        found = earlier[-1] if earlier else None
    else:
        found = next((v for v in log if v["number"] == to), None)
    if found is None:
        known = ", ".join(str(v["number"]) for v in log) or "none"
        what = (
            f"there is no version {to} to go back to" if to is not None else "there is no earlier version to go back to"
        )
        raise ConfigError(what, where=store.where, todo=f"adopted versions: {known}")
    policy = Policy(**found["policy"])
    if why := _changed(store, policy):
        what = f"version {found['number']} ({policy.words()}) is not there any more as it was: {why}"
        raise DataError(what, where=store.where, todo="put its files back, or choose another version")
    record = {"action": "rollback", "policy": found["policy"], "evidence": found["evidence"], "of": found["number"]}
    number = store.add_version(record, expect=len(log))
    return {"number": number, **record, "policy_words": policy.words()}


def tasks_digest(tasks: Sequence[Task]) -> str:
    """Names a set of tasks, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(t.id for t in tasks)).encode()).hexdigest()[:12]


__all__ = [
    "Policy", "PolicySide", "active", "adopt", "decide", "declare", "make_policy", "propose", "refuse_known",
    "rollback", "tasks_digest", "trained_on",
]  # fmt: skip
