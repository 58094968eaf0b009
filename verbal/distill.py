"""The closed circle: traces of runs become a checkpoint, scored before and after, judged by the gate, with its card.

In this order: the plan (`distill_plan.py`), which needs no torch and which `--dry-run` shows; a training in the store
(`distill_state.py`), which goes on after a kill; scores before; the training; papers, registration and card
(`model_card.py`); scores after; with `--gate` the decision of the evidence gate. Each step is kept when it is done, so
that `--resume` does what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from verbal.distill_meter import Meter
from verbal.distill_plan import Plan, make_plan, opened_as, require_packages, tell_plan, training_recipe
from verbal.distill_state import Training, begin
from verbal.errors import STOPS, ConfigError, DataError, StoreError, VerbalError
from verbal.gate import Rule, refuse_sealed
from verbal.ledger import Ledger, Limits
from verbal.model_card import keep, thinned, unwritten
from verbal.parts import load_function, load_part, make_part
from verbal.recipe import without_passwords
from verbal.screen import Screen
from verbal.store import Store
from verbal.tables import points
from verbal.text import percent
from verbal.types import Task, Usage
from verbal.verbs import open_store, pick_tasks, resolve_checkpoint

__all__ = ["Asked", "run_distill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for beside the recipe."""

    name: str = "distilled"
    """Of the checkpoint."""
    export: Path | None = None
    """A folder of `verbal export` whose rows are taken in place of those of runs."""
    out: Path | None = None
    """Folder of the weights; beside the store when not given."""
    split: str = "dev"
    """Split to score before and after on, and for the gate; empty for no scores."""
    limit: int | None = None
    """At most so many of its tasks, evenly spread."""
    gate: bool = False
    """Ask the evidence gate after training."""
    guard: str = "app"
    """Of the gate: as `verbal promote --guard`."""
    samples: int = 3
    """Of the gate: samples of each task on each side."""
    resume: bool = False
    dry_run: bool = False
    accelerate: str = ""
    """Train in several processes: a configuration of `trainers/launch.py`, or a file of one's own."""
    gpu_price: float = 0.0
    """US dollars for an hour of the machine that trains."""


def run_distill(
    options: dict[str, Any],
    url: str | Path,
    *,
    runs: Sequence[str] = (),
    method: str = "",
    seed: int | None = None,
    asked: Asked | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains weights on what runs collected, scores them, asks the gate; gives what is kept of it.

    Args:
        options: Recipe (empty: `sft`), model that is trained, app, overrides (`verbal.options.command_options`).
        url: The store.
        runs: Whose attempts; all when empty.
        method: A part of `trainers`, in place of a recipe that only names it.
        seed: In place of the recipe's.
        asked: Everything else.
        quiet: Print nothing.

    Returns:
        Of a dry run `recipe method base seed runs rows tasks oracle_rows rows_sha256 licences origins models critics
        filtered estimate`. Otherwise also `name path card run resumed`, `papers` (the whole of `verbal.json`),
        `scores` (`before`, `after` and `gain`, each mean, low, high, or empty), `before`, `after` (means), `usage` by
        role, and `gate` (the decision, or None when it was not asked).

    Raises:
        ConfigError, UnknownName: the recipe, an option, a run or a name is wrong. MissingExtra: a package.
        TrainError: the attempts cannot feed the method, training broke, or the folder is in use.
        BudgetError: a limit was reached. StoreError: the disk did not take the weights.
    """
    asked = asked or Asked()
    with open_store(url) as store, Screen("verbal distill", quiet=quiet) as screen:
        recipe = training_recipe(options, store, method=method, seed=seed)
        out = asked.out or store.folder / "weights" / asked.name
        screen.stage("building the rows")
        plan = make_plan(
            store, recipe, runs, out,
            export=asked.export, own_app=bool(options["app"]), gpu_price=asked.gpu_price,
        )  # fmt: skip
        screen.stage("")
        tell_plan(screen, plan, out)
        held_out = _held_out(plan, asked) if asked.split or asked.gate else []
        if asked.dry_run:
            screen.print("nothing was trained (--dry-run)")
            return {**plan.plain(), "dry_run": True, "path": str(out)}
        require_packages(plan.recipe, out, plan.estimate)
        if asked.accelerate:
            load_function("trainers", "launch", "config_path")(asked.accelerate)
        training = begin(store, plan, asked.name, out, resume=asked.resume)
        return _Distillation(store, screen, plan, asked, out, training, held_out).go()


def _held_out(plan: Plan, asked: Asked) -> list[Task]:
    """The tasks it is scored on, none of which is learned from; what the gate needs is looked at too.

    Raises:
        DataError, ConfigError: there is none, they are sealed, or the gate lacks its guard.
    """
    from verbal.evaluate import spread
    from verbal.evidence import guard_tasks

    role = getattr(plan.method, "role", "solver")
    if asked.gate and role != "solver":
        what = f"{plan.recipe.trainer.name} trains a {role}, and the gate compares what answers tasks"
        raise ConfigError(what, where="--gate", todo="leave it out, and learn with the trained role: verbal learn")
    app = make_part("apps", plan.recipe.app.name, where="[app]", **plan.recipe.app.options)
    selects = getattr(plan.method, "selects", None)
    try:
        split = asked.split or "dev"
        tasks = pick_tasks(app.tasks(split), split, None)
        chosen = {t.id for t in selects(app.tasks("dev"), plan.recipe.seed)} if selects else set()
        refuse_sealed(tasks)
        if asked.gate:
            guard_tasks(app, plan.recipe.app, asked.guard)
    finally:
        asyncio.run(app.aclose())
    known = {*plan.tasks, *chosen}
    left = [t for t in tasks if t.id not in known]
    if not left:
        what = f"all {len(tasks)} tasks of split {split!r} are trained on or chose the weights: they would say nothing"
        raise DataError(what, where="--eval", todo="name another split, or '' for none")
    return spread(left, asked.limit or len(left))


@dataclass(slots=True)
class _Distillation:
    """One training from its first score to the gate."""

    store: Store
    screen: Screen
    plan: Plan
    asked: Asked
    out: Path
    training: Training
    held_out: list[Task]

    def go(self) -> dict[str, Any]:
        run, status = self.training.run, "failed"
        try:
            made = self._steps()
            status = "done"
            return made
        except (*STOPS, KeyboardInterrupt):
            status = "stopped"
            raise
        finally:
            # On a full disk the first error is the one to be told; the run is then taken for one that was killed.
            with contextlib.nullcontext() if status == "done" else contextlib.suppress(StoreError):
                self.store.finish_run(run, status)

    def _steps(self) -> dict[str, Any]:
        name, training = self.asked.name, self.training
        # Weights of another role than the solver are not scored by what they solve.
        role = str(getattr(self.plan.method, "role", "solver"))
        wanted = bool(self.asked.split) and role == "solver"
        before = self._scored(opened_as(self.plan.base), "before") if wanted else None
        if not training.trained:
            self._train()
        card = Path(self.store.checkpoint(name)["path"]) / "README.md"
        scores: dict[str, Any] = {}
        if before is not None:
            after = self._scored(resolve_checkpoint(self.store, name), "after")
            scores = self._compared(before, after)
            card = keep(self.store, name, {"scores": scores})
        self.screen.stage("")
        self.screen.print(f"registered: use it with --model checkpoint:{name}; its card: {card}")
        decision = self._gate() if self.asked.gate else None
        if role != "solver":
            self.screen.print(f"It is a {role}: --set model.roles.{role}=checkpoint:{name}")
        elif decision is None:
            self.screen.print(f"It serves nobody yet; the gate decides: {self._promote()}")
        papers = self.store.checkpoint(name)["info"]
        return {
            **self.plan.plain(), "name": name, "path": str(self.out), "card": str(card), "run": training.run,
            "resumed": training.resumed, "papers": papers, "scores": scores,
            "before": scores["before"]["mean"] if scores else None,
            "after": scores["after"]["mean"] if scores else None,
            "usage": self._usage(), "gate": decision,
        }  # fmt: skip

    def _promote(self) -> str:
        """The command that asks the gate about these weights, on the tasks that they were scored on."""
        app = without_passwords(self.plan.recipe.app.options)
        given = [f"--{k} {shlex.quote(str(app[k]))}" for k in ("db", "questions") if k in app]
        return " ".join([f"verbal promote --model checkpoint:{self.asked.name}", *given])

    def _train(self) -> None:
        """Trains, writes the papers, registers the weights and writes their card."""
        plan, training, limits = self.plan, self.training, self.plan.recipe.limits
        if training.resumed:
            at = f"after step {training.step[0]} of {training.step[1]}" if training.step[1] else "before its first step"
            self.screen.print(f"goes on with the training that stopped {at}")
        self.screen.stage("training")
        seconds = limits.max_minutes * 60 if limits.max_minutes is not None else None
        most = Limits(max_cost=limits.max_cost, max_seconds=seconds)
        ledger = Ledger(most, store=self.store, run=training.run, spent=self._spent(f"{training.run}:scores"))
        meter = Meter(ledger, plan.recipe.trainer.name, self.asked.gpu_price, self.screen.show, at=training.step[0])
        figures = self._finished_before()
        if figures is None:
            with meter:
                figures = self._weights(meter)
        load_function("trainers", "checkpoint", "register")(self.store, self.asked.name, self.out)
        more = {
            "recipe": plan.recipe.to_dict(), "about": _about(plan), "filtered": dict(plan.filtered),
            "estimate": dict(plan.estimate), "curve": thinned(figures.get("curve") or meter.curve),
            "training": training.run, "usage": self._usage(),
        }  # fmt: skip
        keep(self.store, self.asked.name, more)
        self.store.set_info(training.run, {"trained": True})

    def _spent(self, run: str) -> Usage:
        return sum(self.store.usage(run).values(), Usage())

    def _usage(self) -> dict[str, Any]:
        """What training used, by role; the attempts a method made itself stand in a store beside its weights."""
        from verbal.study import plain_usage, usage_of

        used = usage_of(self.store, [self.training.run])
        if (attempts := self.out / "rollouts.db").is_file():
            with Store(attempts) as made:
                used |= {f"{role} of rollouts": u for role, u in usage_of(made, [r["id"] for r in made.runs()]).items()}
        return plain_usage(used)

    def _weights(self, meter: Meter) -> dict[str, Any]:
        """Trains; gives the figures. What a library says of its own future is for us, not for who waits."""
        plan, quiet = self.plan, warnings.catch_warnings()
        try:
            with quiet:
                warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
                how: dict[str, Any] = {"seed": plan.recipe.seed, "resume": self.training.resumed}
                if config := self.asked.accelerate:
                    train, how["config"] = partial(load_function("trainers", "launch", "launch"), plan.method), config
                else:
                    train, how["recipe"] = plan.method.train, plan.recipe
                made: dict[str, Any] = train(plan.examples, plan.base, str(self.out), on_progress=meter.step, **how)
                return made
        except Exception as error:
            if not isinstance(error, VerbalError) and _about_the_disk(error):
                raise unwritten(error, self.out) from error
            raise

    def _finished_before(self) -> Mapping[str, Any] | None:
        """The papers of weights that an earlier process finished and had no time to register."""
        if not self.training.resumed or not (self.out / "verbal.json").is_file():
            return None
        papers: dict[str, Any] = load_function("trainers", "checkpoint", "read")(self.out)
        same = all(papers.get(k) == self.plan.papers[k] for k in ("rows_sha256", "method", "seed", "base"))
        return papers if same else None

    def _scored(self, model: str, when: str) -> tuple[float, ...]:
        """One greedy attempt a task, no memory: 1.0 for solved. What is in the store is not tried again."""
        from verbal.evaluate import evaluate_arm
        from verbal.run import Progress, open_ledger, open_workshop

        recipe = dataclasses.replace(
            self.plan.recipe,
            model=dataclasses.replace(self.plan.recipe.model, name=model),
            memory=dataclasses.replace(self.plan.recipe.memory, name=""),
        )
        self.screen.stage(f"scoring {when} training")
        run = f"{self.training.run}:scores"

        async def work() -> tuple[float, ...]:
            progress = Progress(total=len(self.held_out), changed=self.screen.show)
            ledger = open_ledger(recipe, self.store, run, [self.training.run])
            async with open_workshop(recipe, self.store, run=run, progress=progress, ledger=ledger) as shop:
                made = await evaluate_arm(
                    shop, self.held_out, run=run, arm=when, seeds=[0], rounds=1, progress=progress
                )
                return made.first[0]

        return asyncio.run(work())

    def _compared(self, before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
        from verbal.evaluate import difference, interval

        found: dict[str, Any] = {
            "split": self.asked.split, "app": self.plan.recipe.app.name, "tasks": len(before),
            "before": dataclasses.asdict(interval([before])), "after": dataclasses.asdict(interval([after])),
            "gain": dataclasses.asdict(difference([after], [before])),
        }  # fmt: skip
        gain = found["gain"]
        self.screen.stage("")
        self.screen.print(
            f"{self.asked.split}, {len(before)} tasks it did not train on: {percent(found['before']['mean'])} -> "
            f"{percent(found['after']['mean'])}, {points(gain['mean'])} points [{points(gain['low'])}, "
            f"{points(gain['high'])}] (one greedy attempt, no memory)"
        )
        return found

    def _gate(self) -> dict[str, Any]:
        """Asks the evidence gate about the checkpoint, and keeps what it says in papers and card."""
        from verbal.evidence import ask_gate, note_decision
        from verbal.run import Progress
        from verbal.study import Study
        from verbal.versions import active, make_policy

        name, recipe = f"checkpoint:{self.asked.name}", self.plan.recipe
        if (kept := self._decided()) is not None:
            self.screen.print(f"the gate decided in {kept['id']}: {kept['verdict']}, {kept['reason']}")
            return kept
        serving, incumbent = active(self.store), None
        if serving:
            memory = f"{serving[1].memory}@{serving[1].version}" if serving[1].memory else ""
        else:
            memory, table = self._memory_of_runs()
            recipe = dataclasses.replace(recipe, memory=table)
            incumbent = make_policy(self.store, recipe.model.name, memory)
        candidate = make_policy(self.store, name, memory, serving[1].prompts if serving else "")
        progress = Progress(changed=self.screen.show)
        study = Study(store=self.store, recipe=recipe, run="gate", progress=progress, stage=self.screen.stage)
        now = serving[1] if serving else incumbent
        self.screen.print(f"candidate: {candidate.words()}", f"incumbent: {now.words() if now else recipe.model.name}")
        decision = asyncio.run(
            ask_gate(
                study, self.screen, candidate, self.asked.split or "dev", self.asked.limit, self.asked.guard,
                self.asked.samples, Rule(), incumbent,
            )
        )  # fmt: skip
        note_decision(self.store, name, decision)
        return decision

    def _decided(self) -> dict[str, Any] | None:
        """What the gate has decided of these weights, when an earlier process of this training had asked it."""
        gates = self.store.checkpoint(self.asked.name)["info"].get("gates") or []
        found = self.store.proposal(gates[-1]["id"]) if self.training.trained and gates else None
        return found["decision"] if found and found["status"] != "declared" else None

    def _memory_of_runs(self) -> tuple[str, Any]:
        """The memory that the first of the runs learned into (or none), and how it is read."""
        from verbal.recipe import recipe_from_dict

        known = self.store.memories()
        for run in self.plan.papers["runs"]:
            found = self.store.run(run)
            name = ((found or {}).get("info", {}).get("memory") or {}).get("name", "")
            if found and name and known.get(name):
                return name, recipe_from_dict(found["recipe"]).memory
        return "", self.plan.recipe.memory


def _about(plan: Plan) -> dict[str, str]:
    """What the method's own words say of it: the first sentence, and its source."""
    kind = load_part("trainers", plan.recipe.trainer.name)
    parts = [" ".join(part.split()) for part in (inspect.getdoc(kind) or "").split("\n\n")]
    source = next((p.removeprefix("Source:").strip() for p in parts if p.startswith("Source:")), "")
    return {"method": parts[0] if parts else "", "source": source, "recipe": plan.recipe.about}


def _about_the_disk(error: BaseException) -> bool:
    """Whether a library failed because a file could not be written; torch and safetensors say so in words only."""
    words = ("No space left", "os error 28", "File too large", "os error 27", "Disk quota", "PytorchStreamWriter")
    return isinstance(error, OSError) or any(word in str(error) for word in words)
