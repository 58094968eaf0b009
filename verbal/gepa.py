"""GEPA over the prompts of an app: instructions that evolve by reflection, each candidate tried by our own loop.

The package `gepa` owns the search (Pareto fronts, minibatches, acceptance, merge), `candidate_prompts.py` is its world.
What critics said is the feedback, and the model of role `reflector` writes the next text. A text that copies a task, or
breaks the prompt's form, is no candidate. A killed run goes on where it was and pays for nothing twice. The result is a
folder of prompts for `verbal promote --prompts`: only the gate lets it serve.

Source: GEPA, arXiv 2507.19457, by its authors' package (0.1). Differs: one component is an instruction, not a whole
prompt; validation tasks are never those that are reflected on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import random
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from verbal.candidate_prompts import CandidatePrompts
from verbal.errors import STOPS, ConfigError, MissingExtra, StoreError
from verbal.gate import refuse_sealed
from verbal.instructions import data
from verbal.run import Workshop
from verbal.types import Task

_T = TypeVar("_T")

MAX_VALIDATION = 50
"""Validation tasks drawn where none are given: they are most of the cost."""
LIGHT, MEDIUM, HEAVY = 6, 12, 18
"""Candidates that a budget is made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimised:
    """What a search came to."""

    folder: str
    """Prompts to propose to the gate; empty when nothing was better than what was there."""
    texts: dict[str, str]
    """Role -> its best instruction."""
    score: float
    """Mean score of the best candidate on the validation tasks. Range: [0, 1]."""
    seed_score: float
    """That of the prompts as they were."""
    candidates: tuple[tuple[int | None, float], ...]
    """(index of the first parent, mean score) of each candidate that was kept; the first is what was there."""
    metric_calls: int
    """Tasks that were scored, as the search counts them; found ones included."""
    reflections: int
    """Texts that were asked for."""
    refused: int
    """Of these, texts that broke the form, copied a task or were not given."""
    unscored: int
    """Attempts that the verdict critic could not score; each counted 0."""

    def plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def auto_budget(components: int, validation: int, candidates: int = LIGHT) -> int:
    """Metric calls for a search for about so many candidates.

    V + 5n + 35N + (floor((N + 1) / 5) + 1, and 1 more below N = 5) * V with N = max(4p log2 n, 1.5n).
    Source: the presets of DSPy's GEPA (light 6, medium 12, heavy 18).

    >>> [auto_budget(1, 50, n) for n in (LIGHT, MEDIUM, HEAVY)]
    [580, 940, 1385]
    """
    trials = int(max(4 * components * math.log2(candidates), 1.5 * candidates))
    full = (trials + 1) // 5 + 1 + (trials < 5)
    return validation + 5 * candidates + 35 * trials + full * validation


async def optimise_prompts(
    workshop: Workshop,
    tasks: Sequence[Task],
    validation: Sequence[Task] | None = None,
    *,
    run: str,
    out: str | Path,
    components: Sequence[str] = ("solver",),
    budget: int | None = None,
    minibatch: int = 3,
    merge: bool = False,
) -> Optimised:
    """Searches for better instructions; the best ones are written to a folder that the gate can be asked about.

    Args:
        workshop: Open parts: critics, models, store, ledger; its recipe says what a first attempt is, its seed is the
            search's.
        tasks: What may be reflected on.
        validation: What candidates are scored on; a seeded half of `tasks`, at most MAX_VALIDATION, when not given.
        run: Id of the run; one that was interrupted goes on.
        out: Folder for the prompts; made only when something better was found.
        components: Roles whose instructions evolve, in turn.
        budget: Metric calls after which no iteration is begun (the last may go over it by a validation pass); that of
            `auto_budget` when not given.
        minibatch: Tasks that a text is reflected on and a child is tried on.
        merge: Whether candidates are also merged, component by component (5 times at most).

    Raises:
        MissingExtra: the package is not there. ConfigError: too few tasks, a sealed one, a role without a prompt, or a
            reflector that follows no free instructions. What stops a run (`errors.STOPS`): go on later.
    """
    train, held = _drawn(tasks, validation, workshop.recipe.seed)
    if (own := workshop.recipe.app.options.get("prompts")) and Path(own).resolve() == Path(out).resolve():
        raise ConfigError(f"{str(out)!r} holds the prompts it begins with", where="GEPA", todo="name another folder")
    calls = budget or auto_budget(len(components), len(held))
    options = {"reflection_minibatch_size": minibatch, "use_merge": merge, "max_metric_calls": calls}
    with tempfile.TemporaryDirectory(prefix="verbal-gepa-") as scratch:
        world = CandidatePrompts(workshop, run, Path(scratch), components, [*train, *held])
        bridge = _Bridge(asyncio.get_running_loop())
        search = _search(world, bridge, {"trainset": train, "valset": held, "seed": workshop.recipe.seed, **options})
        spec: dict[str, Any] = {
            "command": "gepa", "tasks": [t.id for t in tasks], "validation": [t.id for t in held], "budget": budget,
            "minibatch": minibatch, "merge": merge, "components": list(components),
        }  # fmt: skip
        _begin(workshop, run, spec, [*train, *held])
        workshop.progress.update(total=calls, done=0, solved=0)
        status, made = "failed", None
        try:
            found = await bridge.wait(asyncio.ensure_future(asyncio.to_thread(search)))
            made = _made(world, found, Path(out))
            status = "done"
        except (*STOPS, asyncio.CancelledError):
            status = "stopped"
            raise
        finally:
            # A store that fails here must not hide what failed before.
            with contextlib.suppress(StoreError) if made is None else contextlib.nullcontext():
                workshop.store.finish_run(run, status, {"results": made.plain()} if made else None)
    return made


def _search(world: CandidatePrompts, bridge: _Bridge, options: Mapping[str, Any]) -> Callable[[], Any]:
    """The package's search over a world, ready to be called in a thread."""
    try:
        from gepa.api import optimize
    except ModuleNotFoundError as error:
        raise MissingExtra.of("gepa", "gepa") from error
    adapter: Any = _Adapter(world, bridge)
    silence: Any = _Silence()
    return lambda: optimize(
        world.texts(),
        adapter=adapter,
        stop_callbacks=lambda _: bridge.stopped is not None,
        logger=silence,
        track_best_outputs=False,
        **options,
    )


def _drawn(tasks: Sequence[Task], validation: Sequence[Task] | None, seed: int) -> tuple[list[Task], list[Task]]:
    refuse_sealed([*tasks, *(validation or ())])
    if validation is None:
        order = random.Random(seed).sample(list(tasks), len(tasks))
        cut = min(MAX_VALIDATION, len(order) // 2)
        train, held = order[cut:], order[:cut]
    else:
        own = {t.id for t in validation}
        train, held = [t for t in tasks if t.id not in own], list(validation)
    if not train or not held:
        what = f"{len(train)} tasks to reflect on and {len(held)} to validate on"
        raise ConfigError(what, where="GEPA", todo="give two tasks or more, and not the same for both")
    return train, held


def _begin(workshop: Workshop, run: str, spec: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Notes what the run is for; refuses to go on with one that was begun for something else."""
    known = workshop.store.run(run)
    if known is not None and any(known["info"].get(k) != v for k, v in spec.items()):
        todo = "choose another --run, or give the options it began with"
        raise ConfigError(f"the run {run!r} was begun for something else", where=workshop.store.where, todo=todo)
    workshop.store.start_run(run, workshop.recipe.to_dict(), {**spec, **workshop.info})
    workshop.store.put_tasks(tasks)


def _made(world: CandidatePrompts, found: Any, out: Path) -> Optimised:
    best, scores = found.best_idx, list(found.val_aggregate_scores)
    texts = dict(found.candidates[best])
    better = best != 0
    if better:
        world.write(texts, out)
    return Optimised(
        folder=str(out) if better else "",
        texts=texts,
        score=scores[best],
        seed_score=scores[0],
        candidates=tuple((parents[0], score) for parents, score in zip(found.parents, scores, strict=True)),
        metric_calls=found.total_metric_calls or 0,
        reflections=world.reflections,
        refused=world.refused,
        unscored=world.unscored,
    )


class _Adapter:
    """What the search calls, in its own thread."""

    def __init__(self, world: CandidatePrompts, bridge: _Bridge) -> None:
        self._world, self._bridge = world, bridge

    def evaluate(self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Scores of a candidate on tasks."""
        from gepa.core.adapter import EvaluationBatch

        rows = self._bridge(self._world.tried(candidate, batch))
        scores = [r.score for r in rows]
        return EvaluationBatch(
            outputs=[r.answer for r in rows], scores=scores, trajectories=rows if capture_traces else None
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, str]]]:
        """What each component is told: questions, answers, and what critics said."""
        rows = [
            {"Question": data(r.question), "Answer": data(r.answer), "Feedback": data(r.feedback)}
            for r in eval_batch.trajectories
        ]
        return {name: rows for name in components_to_update}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """New instructions; none for a component whose reflection gave nothing usable."""
        made: dict[str, str] = {}
        for role in components_to_update:
            if text := self._bridge(self._world.reflect(role, candidate[role], reflective_dataset[role])):
                made[role] = text
        return made


class _Bridge:
    """Lets the search's thread wait for coroutines of the event loop, and remembers what stopped it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: Any = None
        self.stopped: BaseException | None = None

    def __call__(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self.stopped is not None:
            work.close()
            raise RuntimeError("the search is over")
        self._under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return cast(_T, self._under_way.result())
        except BaseException as error:
            self.stopped = self.stopped or error
            raise

    async def wait(self, search: asyncio.Future[_T]) -> _T:
        """The search's result, or what stopped it: the search itself swallows some errors and goes on."""
        try:
            await asyncio.wait([search])
        except asyncio.CancelledError as stop:
            self.stopped = stop
            if self._under_way is not None:
                self._under_way.cancel()
            await asyncio.wait([search])
            search.exception()
            raise
        if self.stopped is not None:
            search.exception()
            raise self.stopped
        return search.result()


class _Silence:
    """A logger that keeps still: what counts is in the store."""

    def log(self, message: str) -> None:
        """Nothing."""


__all__ = ["HEAVY", "LIGHT", "MEDIUM", "Optimised", "auto_budget", "optimise_prompts"]
