"""From words to weights: traces of a run become a checkpoint, scored before and after, registered in the store.

Training runs out of process where something else goes on meanwhile (`Trainer`). The hub imports no room: the method is
a part of `trainers`, found by name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verbal.errors import TrainError
from verbal.ledger import Ledger, Limits
from verbal.parts import load_function, make_part
from verbal.store import Store
from verbal.types import Usage
from verbal.verbs import make_recipe, open_store, pick_tasks, resolve_checkpoint


def run_distill(
    url: str,
    out: Path | None,
    *,
    method: str,
    model: str,
    run: str,
    name: str,
    seed: int,
    overrides: list[str],
    split: str,
    app: dict[str, str],
    quiet: bool,
    gpu_price: float = 0.0,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Trains on what a run collected, scores before and after, registers the checkpoint.

    Args:
        url: The store.
        out: Folder of the weights; beside the store when not given.
        method: A part of `trainers`.
        model: `embedded`, `embedded:FOLDER`, `checkpoint:NAME` or a Hugging Face model folder.
        run: Whose attempts are distilled.
        name: Name of the checkpoint.
        seed: Of training.
        overrides: Options of the method, `lr=1e-4`.
        split: Split to score on; empty for none.
        app: Options of the app whose tasks are scored; the demo's when empty.
        quiet: Print nothing.
        gpu_price: US dollars for an hour of the machine that trains.
        limits: What training may cost; the step that could exceed it is not begun.

    Raises:
        TrainError: the traces cannot feed the method, or training failed. BudgetError: a limit was reached.
    """
    from verbal.screen import Screen

    with open_store(url) as store, Screen(f"verbal distill: {method}", quiet=quiet) as screen:
        if model.startswith("checkpoint:"):
            model = resolve_checkpoint(store, model)
        trainer = make_part("trainers", method, where="--method", **_options(overrides))
        examples = trainer.examples(store, run=run)
        screen.print(f"{len(examples)} rows from run {run!r}; hints are not in the prompts")
        score = _Score(store, run, split, app, screen)
        figures: dict[str, Any] = {"method": method, "base": model, "rows": len(examples), "run": run, "name": name}
        if split:
            figures["before"] = score.of(model if model.startswith(("embedded", "hf:")) else f"hf:{model}", "before")
        screen.stage("training")
        out = out or store.folder / "weights" / name
        with _Meter(Ledger(limits, store=store, run=f"distill-{name}"), method, gpu_price, screen) as meter:
            figures |= trainer.train(examples, model, str(out), seed=seed, on_progress=meter.step)
        load_function("trainers", "checkpoint", "register")(store, name, out)
        if split:
            figures["after"] = score.of(resolve_checkpoint(store, name), f"after {name}")
            screen.print(f"{split}: {figures['before']} -> {figures['after']} (one greedy attempt, no memory)")
            screen.print(f"It serves nobody yet; the gate decides: verbal promote --model checkpoint:{name}")
        screen.print(f"registered: use it with --model checkpoint:{name}")
    return {**figures, "path": str(out)}


class _Meter:
    """The ledger of a training: seconds of its machine, looked at after every step."""

    def __init__(self, ledger: Ledger, method: str, price: float, screen: Any) -> None:
        from verbal.run import Progress

        self.ledger, self.method, self.price, self.progress = ledger, method, price, Progress(changed=screen.show)
        self.began = time.monotonic()

    def step(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Notes a step.

        Raises:
            BudgetError: one more step of this length could exceed a limit.
        """
        used = self.used()
        self.progress.update(
            done=done, total=total, note=", ".join(f"{name} {value:.3g}" for name, value in figures.items()), usage=used
        )
        if done < total:
            self.ledger.require(self.used(1 + 1 / max(1, done)), where=f"training, step {done} of {total}")

    def used(self, times: float = 1.0) -> Usage:
        """What was used so far, or `times` that."""
        seconds = (time.monotonic() - self.began) * times
        return Usage(seconds=seconds, cost=seconds / 3600 * self.price)

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.charge("trainer", self.method, self.used())


@dataclasses.dataclass(frozen=True, slots=True)
class _Score:
    """Scores a model on a split: one greedy attempt a task, no memory."""

    store: Store
    run: str
    split: str
    app: dict[str, str]
    screen: Any

    def of(self, model: str, arm: str) -> float:
        from verbal.evaluate import evaluate_arm, interval
        from verbal.run import Progress, open_workshop

        options = {"recipe": "reflect", "model": model, "app": self.app, "overrides": ["memory.name="]}
        recipe = make_recipe(options)
        run = f"distill-{self.run}-{time.time_ns()}"

        async def work() -> float:
            progress = Progress(changed=self.screen.show)
            async with open_workshop(recipe, self.store, run=run, progress=progress) as shop:
                tasks = pick_tasks(shop.app.tasks(self.split), self.split, None)
                progress.update(total=len(tasks))
                made = await evaluate_arm(shop, tasks, run=run, arm=arm, seeds=[0], rounds=1, progress=progress)
                return interval(made.first).mean

        self.screen.stage(f"scoring {arm}")
        return asyncio.run(work())


class Trainer:
    """The training process: one line of JSON in, one line of JSON out, jobs in order."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path, log: Path) -> None:
        self._process, self._out, self._log = process, out, log

    @classmethod
    async def start(cls, out: Path, store: Path, number: int = 0) -> Trainer:
        """Starts the process, which loads torch while the agent still learns in words."""
        log = out / f"demo.train-{number}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "verbal.distill", str(store),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        return cls(process, out, log)

    def ask(self, run: str, model: str, seed: int, **options: Any) -> None:
        """Queues the distillation of one run; `options` are the method's."""
        job = {
            "run": run,
            "model": model if model.startswith("embedded") else "embedded",
            "options": options,
            "seed": seed,
            "out": str(self._out / f"demo.weights-{seed}"),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        """The figures of the next finished job.

        Raises:
            TrainError: the job failed.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        figures: dict[str, Any] = json.loads(line) if line else {"error": "the training process died"}
        if "error" in figures:
            raise TrainError(figures["error"], where=str(self._log), todo="read that file's end")
        return figures

    async def aclose(self) -> None:
        """Ends the process."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def serve_jobs(store_path: str) -> None:
    """The training process: reads jobs from standard input until it ends."""
    make_part("trainers", "sft").warm()
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        try:
            method = make_part("trainers", "sft", **job["options"])
            with Store(store_path) as store:
                examples = method.examples(store, run=job["run"])
            figures = method.train(examples, job["model"], job["out"], seed=job["seed"])
            figures |= {
                "path": job["out"],
                "seed": job["seed"],
                "run": job["run"],
                "seconds": time.perf_counter() - began,
            }
        except Exception as error:  # the parent must hear of any failure, whatever it is
            figures = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(figures, default=str), flush=True)


def _options(overrides: list[str]) -> dict[str, Any]:
    import tomllib

    options: dict[str, Any] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        try:
            options[key.strip()] = tomllib.loads(f"x = {value.strip()}")["x"]
        except tomllib.TOMLDecodeError:
            options[key.strip()] = value.strip()
    return options


if __name__ == "__main__":
    serve_jobs(sys.argv[1])
