"""`verbal two-by-two`: scores the four cells and their controls, prints them, writes the figure and its numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError
from verbal.evaluate import ARMS, spread
from verbal.screen import Screen, arms_table, usage_table
from verbal.tables import estimate_words
from verbal.verbs import make_recipe, open_store, pick_tasks

if TYPE_CHECKING:
    from verbal.study import Study
    from verbal.versions import Policy


def run_two_by_two(
    options: dict[str, Any],
    url: str,
    *,
    models: Sequence[str],
    memories: Sequence[str],
    run: str = "two-by-two",
    split: str = "dev",
    limit: int | None = None,
    seeds: int = 3,
    rounds: int = 2,
    out: Path | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """The figure of memory off / on x base / distilled weights.

    Args:
        options: Recipe, app, overrides (`verbal.cli`); the model there is the base.
        url: The store.
        models: The distilled weights, as `--model` takes them: one, or one for each seed.
        memories: `NAME` or `NAME@VERSION`: one, or one for each seed.
        run: Name of the run; it goes on where it was.
        split: Held-out tasks: `dev`, or `train` for weights that did not see it.
        limit: Tasks at most, evenly spread over the split.
        seeds: Passes over the tasks; a claim needs three.
        rounds: Attempts of a task at most, the same in every arm; the cells are first attempts.
        out: The SVG file; beside the store when not given. The numbers go beside it, as JSON.
        dry_run: Check and estimate, call nothing.
        quiet: Print nothing.

    Raises:
        ConfigError: the sealed split, weights trained on these tasks, a wrong number of models or memories.
    """
    if split == "test":
        todo = "take dev tasks; `verbal eval --test` runs the test tasks, once for each adopted version"
        raise ConfigError("the split 'test' is sealed", where="--split", todo=todo)
    if not models or not memories:
        what = "no distilled weights were named" if not models else "no memory was named"
        raise ConfigError(what, where="two by two", todo="give --model checkpoint:NAME and --memory NAME")
    if out is not None and out.suffix != ".svg":
        raise ConfigError(f"{str(out)!r} is no name of an SVG file", where="--out", todo="give one that ends in .svg")
    from verbal.run import Progress
    from verbal.study import Study
    from verbal.versions import make_policy

    with open_store(url) as store, Screen("verbal two-by-two", quiet=quiet) as screen:
        recipe = make_recipe(options, store)
        base = make_policy(store, options["model"] or recipe.model.name)
        weights = [make_policy(store, model) for model in models]
        pinned = [make_policy(store, base.model, memory) for memory in memories]
        study = Study(store=store, recipe=recipe, run=run, progress=Progress(changed=screen.show), stage=screen.stage)
        made = asyncio.run(_go(study, screen, base, weights, pinned, split, limit, seeds, rounds, dry_run=dry_run))
        if not dry_run:
            made |= _write(made, out or store.folder / f"{run}.svg", screen)
        return made


async def _go(
    study: Study, screen: Screen, base: Policy, weights: Sequence[Policy], pinned: Sequence[Policy], split: str,
    limit: int | None, seeds: int, rounds: int, *, dry_run: bool,
) -> dict[str, Any]:  # fmt: skip
    """Estimates, scores, prints."""
    import dataclasses

    from verbal.estimate import check_budget, estimate
    from verbal.study import perform
    from verbal.two_by_two import TRAINED, plan
    from verbal.two_by_two_figure import effects_table, square_table
    from verbal.versions import refuse_known

    # What one task may take is told for the rounds that are asked for.
    counted = dataclasses.replace(study.recipe, loop=dataclasses.replace(study.recipe.loop, rounds=rounds))
    async with study.open({}, recipe=base.recipe(counted)) as shop:
        tasks = pick_tasks(shop.app.tasks(split), split, None)
        tasks = spread(tasks, limit or len(tasks))
        for policy in weights:
            refuse_known(study.store, policy, tasks)
        memories = [(p.memory, p.version) for p in pinned]
        spec = plan(tasks, base=base, weights=weights, memories=memories, seeds=seeds, rounds=rounds)
        expected = await estimate(shop, tasks, passes={"score": seeds * (len(ARMS) + len(TRAINED))})
        screen.print(f"{len(tasks)} {split} tasks, {seeds} seeds, 5 arms: {estimate_words(expected.plain())}")
        if buys := check_budget(shop, expected):
            screen.print(buys)
    if dry_run:
        screen.print("nothing was called")
        return {"tasks": len(tasks), "seeds": seeds, "estimate": expected.plain()}
    study.store.put_tasks(tasks)
    found = await perform(study, spec)
    screen.stage("")
    figure = found["two_by_two"]
    screen.print(square_table(figure), effects_table(figure), arms_table(found), usage_table(found["usage"]))
    screen.print(figure["words"], found.get("claim", ""), *found["notes"])
    return {**found, "estimate": expected.plain()}


def _write(found: dict[str, Any], out: Path, screen: Screen) -> dict[str, Any]:
    """Writes the figure and its numbers; gives where they are."""
    from verbal.two_by_two_figure import figure

    numbers = out.with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(figure(found), encoding="utf-8")
    numbers.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    screen.print(f"The figure: {out}; its numbers: {numbers}")
    return {"figure": str(out), "numbers": str(numbers)}


__all__: Sequence[str] = ("run_two_by_two",)
