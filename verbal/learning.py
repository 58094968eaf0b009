"""`verbal learn` and `verbal eval`: what they will cost, the runs of a study, and the four arms beside each other."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError
from verbal.recipe import Recipe
from verbal.screen import Screen, arms_table, usage_table
from verbal.store import Store
from verbal.tables import estimate_words
from verbal.types import Task
from verbal.verbs import make_recipe, open_store, pick_tasks

if TYPE_CHECKING:
    from verbal.run import Workshop
    from verbal.study import Study
    from verbal.versions import Policy


def run_learn(
    options: dict[str, Any],
    url: str,
    *,
    run: str,
    memory: str,
    split: str,
    limit: int | None,
    seeds: int,
    evaluate_on: str,
    resume: bool,
    dry_run: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Learns on a split, once for each seed, then scores the four arms on tasks nobody learned on.

    Args:
        options: Recipe, model, app, overrides (`verbal.cli`).
        url: The store.
        run: Name of the run; `NAME:1`, ... for more seeds, `NAME:eval` for the arms.
        memory: Name of the memory that the first seed learns into; `NAME:1`, ... for the others.
        split: Split to learn on.
        limit: Tasks at most.
        seeds: Repetitions; claims need three.
        evaluate_on: Split the arms are scored on; none when empty.
        resume: Go on with a run that is there.
        dry_run: Check and estimate, call nothing.
        quiet: Print nothing.
    """
    with Store(url) as store, Screen("verbal learn", quiet=quiet) as screen:
        recipe = make_recipe(options, store)
        if not dry_run and not resume and store.run(run) is not None:
            todo = "add --resume to go on with it, or choose another --run"
            raise ConfigError(f"the run {run!r} exists in this store", where=store.where, todo=todo)
        plan = _Plan(recipe, store, screen, run, memory, seeds)
        return asyncio.run(plan.go(split, limit, evaluate_on, dry_run=dry_run))


class _Plan:
    """The runs of one `verbal learn`, in order."""

    def __init__(self, recipe: Recipe, store: Store, screen: Screen, run: str, memory: str, seeds: int) -> None:
        self.recipe, self.store, self.screen, self.run, self.memory = recipe, store, screen, run, memory
        self.seeds = list(range(seeds if recipe.memory.name else 1))
        self.runs = [run, *(f"{run}:{s}" for s in self.seeds[1:])]
        self.began = time.monotonic()

    async def go(self, split: str, limit: int | None, evaluate_on: str, *, dry_run: bool) -> dict[str, Any]:
        from verbal.curation import check_memory
        from verbal.estimate import check_budget, estimate

        check_memory(self.recipe)
        async with self._study(self.run, self.recipe).open({}) as shop:
            graph = self.recipe.loop.graph
            tasks = pick_tasks(shop.app.tasks(split), split, limit or _questions(self.recipe))
            if self.recipe.loop.learns == "prompts":
                return await self._evolve(shop, tasks, dry_run=dry_run)
            dev = shop.app.tasks(evaluate_on) if evaluate_on and self.recipe.memory.name else []
            dev = [] if graph == "self_play" else [t for t in dev if t.split != "test"]
            expected = await estimate(shop, tasks, passes={"learn": len(self.seeds)})
            if dev:
                expected = expected.plus(await estimate(shop, dev, passes={"score": 3 * len(self.seeds)}))
            self.screen.print(f"{len(tasks)} tasks, {len(self.seeds)} seeds: {estimate_words(expected.plain())}")
            if buys := check_budget(shop, expected):
                self.screen.print(buys)
            parts = self.recipe.resolve()
        if dry_run:
            return self._dry(parts, expected.plain(), len(tasks))
        self.store.put_tasks([*tasks, *dev])
        learned = [await self._learn(seed, tasks, expected.plain()) for seed in self.seeds]
        results = await self._score(dev) if dev else {}
        return self._tell(learned, results, expected.plain(), evaluate_on)

    async def _evolve(self, shop: Workshop, tasks: Sequence[Task], *, dry_run: bool) -> dict[str, Any]:
        """Prompts that evolve by reflection, in a folder that the gate can be asked about."""
        from verbal.estimate import check_budget, estimate
        from verbal.gepa import MAX_VALIDATION, auto_budget, optimise_prompts

        tries = auto_budget(1, min(MAX_VALIDATION, len(tasks) // 2))
        expected = await estimate(shop, tasks, passes={"score": -(-tries // len(tasks))})
        self.screen.print(f"{len(tasks)} tasks, about {tries} tries: {estimate_words(expected.plain())}")
        if buys := check_budget(shop, expected):
            self.screen.print(buys)
        if dry_run:
            return self._dry(self.recipe.resolve(), expected.plain(), len(tasks))
        self.store.put_tasks(tasks)
        self.screen.stage(f"evolving the solver's prompt on {len(tasks)} tasks")
        made = await optimise_prompts(
            shop, tasks, run=self.run, out=self.store.memory_folder.parent / f"{self.run}.prompts"
        )
        self.screen.stage("")
        self.screen.print(
            f"{len(made.candidates)} candidates, {made.metric_calls} tries, {made.reflections} texts asked for; "
            f"best {100 * made.score:.1f}, as it was {100 * made.seed_score:.1f} (validation tasks of split train)"
        )
        self.screen.print(
            f"ask the gate: verbal promote --prompts {made.folder}"
            if made.folder
            else "nothing was better; no folder made"
        )
        return {"run": self.run, **made.plain(), "estimate": expected.plain()}

    def _study(self, run: str, recipe: Recipe) -> Any:
        from verbal.run import Progress
        from verbal.study import Study

        everything = [*self.runs, f"{self.run}:eval"]
        return Study(
            store=self.store, recipe=recipe, run=run, progress=Progress(changed=self.screen.show),
            stage=self.screen.stage, others=[r for r in everything if r != run], began=self.began,
        )  # fmt: skip

    async def _learn(self, seed: int, tasks: Sequence[Task], expected: Mapping[str, Any]) -> dict[str, Any]:
        from verbal.study import perform

        recipe = dataclasses.replace(self.recipe, seed=self.recipe.seed + seed)
        # The order matters to what is learned, so each further seed has its own.
        order = random.Random(seed).sample(list(tasks), len(tasks)) if seed else list(tasks)
        name = self.memory if seed == 0 else f"{self.memory}:{seed}"
        spec: dict[str, Any] = {"command": "learn", "arm": "learn", "tasks": [t.id for t in order]}
        spec["memory"] = {"name": name if recipe.memory.name else ""}
        if seed == 0:
            spec["parts"] = [*self.runs[1:], f"{self.run}:eval"]
        self.screen.stage(f"learning on {len(order)} tasks, seed {seed + 1} of {len(self.seeds)}")
        return await perform(self._study(self.runs[seed], recipe), spec)

    async def _score(self, dev: Sequence[Task]) -> dict[str, Any]:
        from verbal.study import perform

        known = self.store.memories()
        names = {s: self.memory if s == 0 else f"{self.memory}:{s}" for s in self.seeds}
        spec = {
            "command": "eval", "tasks": [t.id for t in dev], "seeds": self.seeds,
            "memories": {s: [name, known.get(name, 0)] for s, name in names.items()},
        }  # fmt: skip
        return await perform(self._study(f"{self.run}:eval", self.recipe), spec)

    def _tell(
        self, learned: Sequence[dict[str, Any]], results: dict[str, Any], expected: dict[str, Any], evaluate_on: str
    ) -> dict[str, Any]:
        from verbal.study import plain_usage, usage_of

        first, total = learned[0], usage_of(self.store, [*self.runs, f"{self.run}:eval"])
        self.screen.stage("")
        self.screen.print(f"{first['solved']} of {first['tasks']} tasks solved; {len(first['lessons'])} lessons")
        for lesson in first["lessons"][:20]:
            trial = " (on trial)" if lesson["status"] == "quarantined" else ""
            self.screen.print(f"  {lesson['id']}: {lesson['text']}{trial}")
        for made in learned:
            for task in made["unfinished"]:
                self.screen.print(f"  not finished (the model could not be reached): {task}; --resume tries again")
        if first["lessons"] and all(x["status"] == "quarantined" for x in first["lessons"]):
            self.screen.print(
                "No lesson is believed yet: each needs some seven questions that it fits; half of them see it. "
                "Give more train questions, or pass over them again (--set loop.epochs=3)."
            )
        if results:
            self.screen.print(arms_table(results))
            self.screen.print(results["claim"])
        elif self.recipe.memory.name:
            why = f"no tasks of split {evaluate_on!r}" if evaluate_on else "--eval ''"
            self.screen.print(f"Nothing is claimed: {why}, so nothing was scored on tasks nobody learned on.")
        self.screen.print(usage_table(total))
        plain = plain_usage(total)
        lessons = [
            {"id": x["id"], "text": x["text"], "question": x["when"], "status": x["status"]} for x in first["lessons"]
        ]
        title = results.get("title") or f"{self.recipe.app.name}: learning on {first['tasks']} tasks"
        study = {**results, "title": title, "run": self.run, "model": self.recipe.model.name, "lessons": lessons}
        study |= {"usage": plain, "estimate": expected}
        self.store.set_info(self.run, {"study": study})
        seeds = [{k: m[k] for k in ("run", "solved", "tasks", "unfinished", "memory_version")} for m in learned]
        return {**first, **{k: v for k, v in study.items() if k not in first}, "usage": plain, "learned": seeds}

    def _dry(self, parts: Sequence[str], expected: dict[str, Any], tasks: int) -> dict[str, Any]:
        for line in [*parts, f"{tasks} tasks, at most {expected['calls_high']} model calls; nothing was called"]:
            self.screen.print(line)
        return {
            "parts": list(parts), "tasks": tasks, "calls_at_most": expected["calls_high"], "estimate": expected,
            "recipe": self.recipe.to_dict(),
        }  # fmt: skip


def run_eval(
    options: dict[str, Any],
    url: str,
    *,
    run: str,
    memory: str,
    split: str,
    limit: int | None,
    seeds: int,
    test: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Scores a memory beside its three controls; with `test` the adopted version on the sealed tasks, once.

    Raises:
        ConfigError: the sealed split without `test`, nothing adopted, or this version was tested already.
    """
    from verbal.run import Progress
    from verbal.study import Study
    from verbal.versions import active, make_policy

    if split == "test" and not test:
        todo = "give --test: it scores the adopted version, once"
        raise ConfigError("the split 'test' is sealed", where="--split", todo=todo)
    store = open_store(url) if test else Store(url)
    with store, Screen(f"verbal eval: {'test' if test else split}", quiet=quiet) as screen:
        recipe = make_recipe(options, store)
        serving, version = active(store) if test else None, 0
        if test and serving is None:
            raise ConfigError("nothing is adopted, so there is nothing to test", todo="verbal promote first")
        if serving is not None:
            recipe, policy = serving[1].recipe(recipe), serving[1]
            # Going back to a version is no new one: it is told by the first number its policy had.
            version = next(v["number"] for v in store.versions() if v["policy"] == serving[0]["policy"])
            run = f"test-{version}" if run == "eval" else run
        else:
            policy = make_policy(store, recipe.model.name, memory)

        study = Study(store=store, recipe=recipe, run=run, progress=Progress(changed=screen.show), stage=screen.stage)
        split = "test" if test else split
        return asyncio.run(_evaluate(study, screen, policy, version, split, limit, seeds))


async def _evaluate(
    study: Study, screen: Screen, policy: Policy, version: int, split: str, limit: int | None, seeds: int
) -> dict[str, Any]:
    """Scores a policy beside its controls; `version` is that of a sealed test, or 0."""
    from verbal.estimate import check_budget, estimate
    from verbal.study import perform

    async with study.open({}) as shop:
        tasks = pick_tasks(shop.app.tasks(split), split, limit)
        expected = await estimate(shop, tasks, passes={"score": seeds * (3 if policy.memory else 1)})
        screen.print(f"{len(tasks)} tasks, {seeds} seeds: {estimate_words(expected.plain())}")
        if buys := check_budget(shop, expected):
            screen.print(buys)
    study.store.put_tasks(tasks)
    spec: dict[str, Any] = {"command": "eval", "tasks": [t.id for t in tasks], "seeds": list(range(seeds))}
    spec["memories"] = {s: [policy.memory, policy.version] for s in range(seeds)} if policy.memory else {}
    if version:
        spec["sealed"] = _unseal(study.store, version, tasks, study.run)
    found = await perform(study, spec)
    if version:
        _reseal(study.store, version, spec["sealed"], found)
    screen.stage("")
    screen.print(arms_table(found))
    screen.print(found.get("claim", "No memory was given, so only the arms without one were scored."))
    return {**found, "estimate": expected.plain()}


def _unseal(store: Store, version: int, tasks: Sequence[Task], run: str) -> str:
    """Notes that a version uses these test tasks now; gives the digest of the set.

    Raises:
        ConfigError: it has used them before.
    """
    from verbal.versions import tasks_digest

    digest, ids = tasks_digest(tasks), [t.id for t in tasks]
    for use in store.sealed_uses():
        if use["version"] == version and set(ids) & set(use["ids"]):
            break
    else:
        if store.unseal(version, digest, run, {"tasks": len(tasks), "ids": ids, "status": "running"}):
            return digest
        use = next(u for u in store.sealed_uses() if (u["version"], u["digest"]) == (version, digest))
    if (use["run"], use["digest"], use["status"]) == (run, digest, "running"):
        return digest  # that run was interrupted, and goes on
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(use["at"]))
    seen = len(set(ids) & set(use["ids"]))
    raise ConfigError(
        f"version {version} was tested on {seen} of these {len(tasks)} sealed tasks already, on {when} UTC "
        f"in run {use['run']!r}",
        where=store.where,
        todo=f"read it with `verbal report {use['run']}`; a test set answers once for each adopted version",
    )


def _reseal(store: Store, version: int, digest: str, found: Mapping[str, Any]) -> None:
    arms = {a["name"]: a for a in found["arms"]}
    arm = arms.get("memory") or arms["base"]
    numbers = {k: arm[k] for k in ("mean", "low", "high", "tasks")}
    use = next(u for u in store.sealed_uses() if (u["version"], u["digest"]) == (version, digest))
    store.update_sealed(version, digest, {"ids": use["ids"], **numbers, "arm": arm["name"], "status": "done"})


def _questions(recipe: Recipe) -> int | None:
    return recipe.loop.questions if recipe.loop.graph == "self_play" else None


__all__ = ["run_eval", "run_learn"]
