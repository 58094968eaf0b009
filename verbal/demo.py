"""The whole story in one command: base, controls, memory, distilled weights, each with an interval.

Offline with the embedded model, or with any other (`--model`); what is distilled into is always the embedded model,
because it learns in seconds on a CPU. Training runs in a process of its own beside the evaluation.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.contracts import Memory
from verbal.curation import make_credit, open_memory
from verbal.curves import attempt_curves, learning_curves, lesson_counts, verdicts
from verbal.evaluate import ARMS, LABELS, Scores, arm_row, claim, difference, evaluate_arm, joined, spread
from verbal.evidence import adopted, decisions
from verbal.parts import load_function, make_part
from verbal.recipe import Recipe, load_recipe
from verbal.run import Progress, Workshop, learn, open_workshop
from verbal.screen import Screen, arms_table, gates_table, lessons_table, usage_table
from verbal.store import Store
from verbal.study import Study, plain_usage, usage_of
from verbal.training_process import Trainer
from verbal.two_by_two import square
from verbal.two_by_two_figure import figure
from verbal.types import Task
from verbal.versions import make_policy, propose

# Passes over the traces: enough to see the lessons in the weights, few enough to wait for.
FIT = {"epochs": 4, "batch": 8}


def run_demo(
    out: Path,
    *,
    model: str,
    seeds: int,
    tasks: int,
    max_cost: float | None,
    quiet: bool,
    rounds: int = 2,
    train: int | None = None,
) -> dict[str, Any]:
    """Runs the story in the folder `out`; writes `results.json`, `index.html` and `two_by_two.svg` there.

    Args:
        out: Folder of the store, weights and page; an earlier demo in it is replaced.
        model: Who solves, such as `embedded` or `openai/gpt-5-mini`.
        seeds: Repetitions of learning and of every arm.
        tasks: Dev tasks every arm is scored on.
        max_cost: US dollars in all; the call that could exceed it is not made.
        quiet: Print nothing.
        rounds: Attempts per dev task at most, the same in every arm.
        train: Train tasks to learn on; all if not given.
    """
    from verbal.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("demo.*"), *out.glob("results.json")):
        _remove(old)
    sets = [f"limits.max_cost={max_cost}"] if max_cost is not None else []
    # Two passes: a lesson is believed after some seven questions that it fits, and a term has about fourteen.
    recipe = load_recipe("reflect", ["loop.rounds=3", "loop.critique=false", "loop.batch=16", "loop.epochs=2", *sets])
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=model))
    with Store(out / "demo.db") as store, Screen("verbal demo", quiet=quiet) as screen:
        story = Story(recipe, store, screen, out, list(range(seeds)), tasks, rounds, train)
        results = asyncio.run(story.tell())
        (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
        (out / "two_by_two.svg").write_text(figure(results), encoding="utf-8")
        page = write_report(results, out / "index.html")
        screen.stage("")
        screen.print(arms_table(results))
        screen.print(gates_table(results["gates"]))
        screen.print(lessons_table(results["lessons"]))
        screen.print(usage_table(results["usage"]))
        screen.print(results["claim"])
        screen.print(f"The page with the plots: {page}; memory x weights: {out / 'two_by_two.svg'}")
    return results


_WINDOW = 32
"""First attempts that a point of the learning curve stands for."""


class Story:
    """The stages of the demo, in order, and what they found."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        screen: Screen,
        out: Path,
        seeds: Sequence[int],
        tasks: int,
        rounds: int,
        train: int | None,
    ) -> None:
        self.rounds, self.train = rounds, train
        self.recipe, self.store, self.screen, self.out, self.seeds, self.count = (
            recipe,
            store,
            screen,
            out,
            seeds,
            tasks,
        )
        self.scores: dict[str, Scores] = {}
        self.timing: list[dict[str, Any]] = []
        self.curve: list[dict[str, Any]] = []
        self.progress = Progress(changed=screen.show)

    async def tell(self) -> dict[str, Any]:
        """Runs every stage; gives the results in the form that `verbal.report` reads."""
        began = time.perf_counter()
        # Two, because torch trains on one thread and the evaluation leaves a core idle part of the time.
        trainers = [await Trainer.start(self.out, self.store.path, n) for n in range(min(2, len(self.seeds)))]
        try:
            async with self._workshop(self.recipe.model.name, self.seeds[0]) as shop:
                train = shop.app.tasks("train")
                train, dev = spread(train, self.train or len(train)), spread(shop.app.tasks("dev"), self.count)
                memories: dict[int, Memory] = {}
                for seed in self.seeds:
                    memories[seed] = await self._learn(shop, train, seed)
                    trainers[seed % len(trainers)].ask(f"learn-{seed}", self.recipe.model.name, seed, **FIT)
                for arm, hints in ARMS.items():
                    self.scores[arm] = await self._score(shop, dev, arm, hints, self.seeds, memories)
                fits = await self._distilled(trainers, shop, dev, memories)
                await self._decide(shop)
                results = self._results(shop, dev, memories, fits)
                for memory in memories.values():
                    memory.close()
        finally:
            for trainer in trainers:
                await trainer.aclose()
        results["timing"] = [*self.timing, {"stage": "everything", "seconds": time.perf_counter() - began}]
        return results

    def _workshop(self, model: str, seed: int, app: Any = None) -> Any:
        table = dataclasses.replace(self.recipe.memory, name="")
        recipe = dataclasses.replace(
            self.recipe, seed=seed, memory=table, model=dataclasses.replace(self.recipe.model, name=model)
        )
        return open_workshop(recipe, self.store, run="demo", progress=self.progress, app=app)

    async def _learn(self, shop: Workshop, train: Sequence[Task], seed: int) -> Memory:
        began = time.perf_counter()
        self.screen.stage(f"learning on {len(train)} train questions, seed {seed + 1} of {len(self.seeds)}")
        self.progress.update(total=len(train), done=0, solved=0)
        memory = open_memory(self.recipe, self.store, f"seed-{seed}", str(self.out / f"demo.memory-{seed}"))
        order = random.Random(seed).sample(list(train), len(train))
        taught = dataclasses.replace(
            shop,
            recipe=dataclasses.replace(self.recipe, seed=seed),
            memory=memory,
            curator=make_part("memory", self.recipe.memory.curator),
            credit=make_credit(self.recipe),
        )
        await learn(taught, order, run=f"learn-{seed}")
        if seed == self.seeds[0]:
            self.curve = self._learning_curve(f"learn-{seed}", order)
        self.timing.append({"stage": f"learning, seed {seed + 1}", "seconds": time.perf_counter() - began})
        return memory

    def _learning_curve(self, run: str, order: Sequence[Task]) -> list[dict[str, Any]]:
        verdict, points = self.recipe.critics.verdict, []
        arms = ["learn", *(f"learn@{epoch}" for epoch in range(2, self.recipe.loop.epochs + 1))]
        first = [f"{run}/{arm}/{task.id}/0.0" for arm in arms for task in order]
        known = self.store.feedback(first)
        for at in range(0, len(first), _WINDOW):
            part = first[at : at + _WINDOW]
            right = sum(any(f.critic == verdict and f.value == 1.0 for f in known[i]) for i in part)
            points.append({"tasks": at + len(part), "share": right / len(part)})
        return points

    async def _score(
        self,
        shop: Workshop,
        dev: Sequence[Task],
        arm: str,
        hints: str,
        seeds: Sequence[int],
        memories: Mapping[int, Memory],
    ) -> Scores:
        began = time.perf_counter()
        self.screen.stage(f"{arm}: {LABELS[arm][1]}")
        self.progress.update(total=len(dev) * len(seeds), done=0, solved=0)
        made = await evaluate_arm(
            shop,
            dev,
            run="demo",
            arm=arm,
            seeds=seeds,
            hints=hints,
            memories=memories,
            rounds=self.rounds,
            progress=self.progress,
        )
        self.timing.append({"stage": arm, "seconds": time.perf_counter() - began})
        return made

    async def _distilled(
        self, trainers: Sequence[Trainer], shop: Workshop, dev: Sequence[Task], memories: Mapping[int, Memory]
    ) -> list[dict[str, Any]]:
        fits = []
        parts: dict[str, list[Scores]] = {"distilled": [], "distilled+memory": []}
        for seed in self.seeds:
            self.screen.stage(f"distilling the traces into weights, seed {seed + 1} of {len(self.seeds)}")
            fit = await trainers[seed % len(trainers)].answer()
            fits.append(fit)
            self.timing.append({"stage": f"training, seed {seed + 1}", "seconds": fit.get("seconds", 0.0)})
            load_function("trainers", "checkpoint", "register")(self.store, f"demo-{seed}", fit["path"])
            async with self._workshop(f"embedded:{fit['path']}", seed, shop.app) as trained:
                for arm, hints in (("distilled", "none"), ("distilled+memory", "memory")):
                    parts[arm].append(await self._score(trained, dev, arm, hints, [seed], memories))
        for arm, scores in parts.items():
            self.scores[arm] = joined(arm, scores)
        return fits

    async def _decide(self, shop: Workshop) -> None:
        """Asks the gate: may the memory serve, and may the trained weights take the place of the model."""
        first, spent = self.seeds[0], ["demo", *(f"learn-{s}" for s in self.seeds)]
        recipe = dataclasses.replace(self.recipe, loop=dataclasses.replace(self.recipe.loop, rounds=1))
        study = Study(
            store=self.store, recipe=recipe, run="gate", progress=self.progress, app=shop.app, others=spent,
            stage=lambda name: self.screen.stage(f"the gate decides, {name}"),
        )  # fmt: skip
        guard = shop.app.guard() if hasattr(shop.app, "guard") else []
        aside = {t.id for t in guard}
        tasks = [t for t in shop.app.tasks("dev") if t.id not in aside]
        began = time.perf_counter()
        for model, memory in ((self.recipe.model.name, f"seed-{first}"), (f"checkpoint:demo-{first}", f"seed-{first}")):
            candidate = make_policy(self.store, model, memory)
            # One sample: the embedded model's first answer is greedy, so more of them would be the same.
            await propose(study, candidate, tasks, guard, seeds=1)
        self.timing.append({"stage": "the gate", "seconds": time.perf_counter() - began})

    def _results(
        self, shop: Workshop, dev: Sequence[Task], memories: Mapping[int, Memory], fits: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        within = {"base": self.scores["retry"].first, **{k: s.within for k, s in self.scores.items()}}
        gains = {
            "memory - retry-only": difference(within["memory"], within["retry"]),
            "memory - shuffled memory": difference(within["memory"], within["shuffled"]),
            "distilled - base": difference(self.scores["distilled"].first, within["base"]),
            "distilled (all attempts) - retry-only": difference(within["distilled"], within["retry"]),
        }
        words, holds = claim(gains["memory - retry-only"], len(self.seeds), len(dev))
        arms = [arm_row(name, values, self.scores.get(name)) for name, values in within.items()]
        return {
            "title": "An agent that learned a company's words",
            "subtitle": f"{len(dev)} questions it never trained on, {len(self.seeds)} seeds, at most "
            f"{self.rounds} attempts a question",
            "model": self.recipe.model.name,
            "run": "demo",
            "seeds": list(self.seeds),
            "claim": words,
            "claim_holds": holds,
            "arms": arms,
            "differences": [{"name": k, **dataclasses.asdict(v)} for k, v in gains.items()],
            "two_by_two": square(self.scores),
            "by_kind": self._by_kind(dev, within),
            "attempt_curves": attempt_curves(
                self.store, "demo", verdicts(self.store, "demo", self.recipe.critics.verdict)
            ),
            "learning_curves": learning_curves(self.store, [f"learn-{seed}" for seed in self.seeds]),
            "lesson_counts": lesson_counts(self.store, f"learn-{self.seeds[0]}"),
            "curve": self.curve,
            "lessons": self._lessons(memories[self.seeds[0]]),
            "examples": self._examples(dev),
            "usage": self._usage(),
            "gates": decisions(self.store),
            "versions": adopted(self.store),
            "fits": list(fits),
            "notes": [
                "Right or wrong is told by the gold result in every arm (sql_result, an oracle), so retry-only "
                "is as strong as equal attempts can make it. Gold of dev questions never reaches a prompt or a memory.",
                "On train questions a simulated user corrects wrong answers with the right query.",
            ],
            "command": " ".join(["verbal", *sys.argv[1:]]),
        }

    def _by_kind(self, dev: Sequence[Task], within: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
        kinds = {
            "questions with a business term": [i for i, t in enumerate(dev) if t.info.get("terms")],
            "plain questions": [i for i, t in enumerate(dev) if not t.info.get("terms")],
        }
        return [
            {
                "kind": kind,
                "tasks": len(at),
                "arms": {a: sum(v[i] for v in vs for i in at) / (len(vs) * len(at)) for a, vs in within.items()},
            }
            for kind, at in kinds.items()
            if at
        ]

    def _lessons(self, memory: Memory) -> list[dict[str, Any]]:
        shown: dict[str, int] = {}
        for attempt in self.store.attempts("demo", arm=f"memory:{self.seeds[0]}"):
            for i in {i for step in attempt.steps for i in step.shown}:
                shown[i] = shown.get(i, 0) + 1
        why = {op.reflection: op.reason for op in memory.history() if op.tag == "active"}
        return [
            {
                "id": r.id, "text": r.text, "question": r.when, "status": r.status, "shown": shown.get(r.id, 0),
                "evidence": why.get(r.id, "on trial: outcomes have not decided yet"),
            }
            for r in memory.preview().items.values()
            if r.status != "retired"
        ]  # fmt: skip

    def _examples(self, dev: Sequence[Task], count: int = 3) -> list[dict[str, Any]]:
        seed, found = self.seeds[0], []
        lessons = {r["id"]: r["text"] for r in self._memory_items(seed)}
        for task in dev:
            before = self.store.attempt(f"demo/retry:{seed}/{task.id}/0.0")
            after = self.store.attempt(f"demo/memory:{seed}/{task.id}/0.0")
            if before is None or after is None or not after.steps or not before.steps:
                continue
            right = {i: self._right(i) for i in (before.id, after.id)}
            if right[after.id] and not right[before.id]:
                found.append(
                    {
                        "question": task.info["question"],
                        "before": {"sql": before.answer, "ok": False, "result": before.steps[-1].observation},
                        "after": {"sql": after.answer, "ok": True, "result": after.steps[-1].observation},
                        "hints": [lessons.get(i, i) for i in after.steps[0].shown],
                    }
                )
        return found[:count]

    def _memory_items(self, seed: int) -> list[dict[str, Any]]:
        return [
            op.item.to_dict() | {"id": op.item.id or op.reflection}
            for _, op in self.store.ops(f"seed-{seed}")
            if op.item
        ]

    def _right(self, attempt: str) -> bool:
        verdict = self.recipe.critics.verdict
        return any(f.critic == verdict and f.value == 1.0 for f in self.store.feedback([attempt])[attempt])

    def _usage(self) -> dict[str, Any]:
        runs = ["demo", *(f"learn-{s}" for s in self.seeds), *(p["id"] for p in self.store.proposals())]
        return plain_usage(usage_of(self.store, runs))


def _remove(path: Path) -> None:
    if path.is_dir():
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink()
