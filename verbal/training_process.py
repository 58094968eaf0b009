"""The training process of the demo: weights are trained out of process while the agent still learns in words.

One line of JSON in, one line of JSON out, jobs in order. The hub imports no room: the method is a part of `trainers`,
found by name.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from verbal.errors import TrainError
from verbal.parts import make_part
from verbal.store import Store

__all__ = ["Trainer", "serve_jobs"]


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
                sys.executable, "-m", "verbal.training_process", str(store),
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


if __name__ == "__main__":
    serve_jobs(sys.argv[1])
