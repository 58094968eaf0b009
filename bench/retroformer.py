"""Retroformer's question: how many dev questions are solved within two attempts, by which words between them.

The actor is the shipped embedded model, greedy both times; a person corrects what failed. Beside each other: a retry
without words, one after the lesson of the untrained reflector, one after that of the trained. A lesson that shows the
right query is not tried. With a temperature reflectors are sampled, as they are in training, and the mean of several
samples is told.

    python bench/retroformer.py FOLDER [FOLDER ...]
    python bench/retroformer.py --temperature 1 --samples 4 FOLDER [FOLDER ...]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def within_two(
    reflectors: Sequence[str], split: str = "dev", temperature: float = 0.0, samples: int = 1
) -> dict[str, list[float]]:
    """Solved, 1 or 0, for each question: `first`, `retry_only` (greedy), `retry_sampled` (at 0.8), each reflector."""
    return asyncio.run(_within_two(reflectors, split, temperature, samples))


async def _within_two(
    reflectors: Sequence[str], split: str, temperature: float, samples: int
) -> dict[str, list[float]]:
    from verbal.loop.nodes import lessons_in, reflection_prompt
    from verbal.recipe import load_recipe
    from verbal.run import make_context, open_workshop
    from verbal.store import Store
    from verbal.trainers.words import shows

    recipe = load_recipe("retroformer", ['critics.names=["sql_result"]', "model.cache=off"])
    table = dataclasses.replace(recipe.model, roles={f"reflector {name}": name for name in reflectors})
    recipe = dataclasses.replace(recipe, model=table, critics=dataclasses.replace(recipe.critics, options={}))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        async with open_workshop(recipe, store, run="score") as shop:
            tasks = shop.app.tasks(split)
            store.put_tasks(tasks)
            store.start_run("score", recipe.to_dict(), {})
            context = make_context(shop, tasks, run="score", arm="score", seed=0)
            found: dict[str, list[float]] = {k: [] for k in ("first", "retry_only", "retry_sampled", *reflectors)}
            for task in tasks:
                first, value = await _tried(context, task, None, (), 0)
                found["first"].append(value)
                for name in found.keys() - {"first"}:
                    found[name].append(value)
                if value:
                    continue
                found["retry_only"][-1] = (await _tried(context, task, first, (), 1))[1]
                found["retry_sampled"][-1] = (await _tried(context, task, first, (), 2, 0.8))[1]
                prompt = await reflection_prompt(context, first, task.gold)
                for i, name in enumerate(reflectors):
                    asked = dataclasses.replace(context.sampling(task.id, "reflect"), temperature=temperature)
                    solved = 0.0
                    for j, reply in enumerate(
                        await context.roles(f"reflector {name}").generate(prompt, samples, asked)
                    ):
                        said = lessons_in(context, first, reply.text)
                        if not any(shows(r.text, [task.gold]) for r in said):
                            solved += (await _tried(context, task, first, said, 3 + i * samples + j))[1]
                    found[name][-1] = solved / samples
            return found


async def _tried(
    context: Any, task: Any, first: Any, said: Sequence[Any], place: int, temperature: float = 0.0
) -> tuple[Any, float]:
    """An attempt and its verdict, 1 or 0."""
    from verbal.loop.nodes import make_attempt

    sampling = dataclasses.replace(context.sampling(task.id, place, greedy=True), temperature=temperature)
    made = await make_attempt(
        context, task, round_=int(first is not None), hints=list(said), sampling=sampling, sample=place,
        earlier=[first] if first is not None else [],
    )  # fmt: skip
    await context.judge(task, [made])
    return made, float(context.score(made) == 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--samples", type=int, default=1)
    args = parser.parse_args()
    names = ["embedded", *(f"embedded:{folder}" for folder in args.folders)]
    for name, values in within_two(names, "dev", args.temperature, args.samples).items():
        print(f"{name:40} {100 * statistics.fmean(values):5.1f} %  {sum(values):g} of {len(values)}")


if __name__ == "__main__":
    main()
