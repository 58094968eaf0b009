"""Many tasks at once: batches that see one version of the memory, lessons curated between them, resumed after a kill.

Everything is checked before the first model call (recipe, tasks, database, gold, model). A finished episode is a group
in the store; a resumed run makes only what is missing there, so nothing is lost, doubled or paid twice, and the same
seed gives the same attempts in whatever order the calls return.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from verbal.cache import Cache
from verbal.contracts import Credit, Critic, Curator, Memory
from verbal.curation import curate, make_credit, make_curator, open_memory
from verbal.errors import STOPS, ConfigError, StoreError, TransientError
from verbal.ledger import Ledger, Limits, unknown_price
from verbal.loop.context import Context, Prompted, Roles
from verbal.parts import make_part
from verbal.recipe import Recipe
from verbal.store import Store
from verbal.types import Group, Task, Usage

MAX_UNREACHABLE = 5
"""Episodes in a row that may fail for want of the model before the run stops (it can be resumed)."""

_EPOCH = 1_000_003
"""Between the seeds of two passes over the same tasks."""


@dataclass(slots=True)
class Progress:
    """How far a run is. `changed` is called after every change, and must be quick."""

    total: int = 0
    done: int = 0
    solved: int | None = 0
    """None where nobody counts."""
    kept: int = 0
    """Episodes found finished in the store when the run was resumed."""
    usage: Usage = field(default_factory=Usage)
    note: str = ""
    unit: str = "tasks"
    """What is counted."""
    changed: Callable[[Progress], None] = lambda _: None

    def update(self, **changes: Any) -> None:
        """Sets some fields and tells the listener."""
        for key, value in changes.items():
            setattr(self, key, value)
        self.changed(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one arm of a run came to."""

    run: str
    arm: str
    tasks: int
    solved: int
    unfinished: tuple[str, ...]
    """Tasks whose episode could not be finished (the model could not be reached): resume to try them again."""
    usage: dict[str, Usage]
    memory_version: int = 0


@dataclass(slots=True)
class Workshop:
    """The parts of a recipe, made and open."""

    recipe: Recipe
    store: Store
    app: Prompted
    roles: Roles
    critics: list[Critic]
    memory: Memory | None
    curator: Curator | None
    progress: Progress
    ledger: Ledger = field(default_factory=Ledger)
    cache: Cache = field(default_factory=Cache)
    credit: Credit | None = None
    info: dict[str, Any] = field(default_factory=dict)
    """What a replay needs besides the recipe: names and fingerprints of the models."""


@asynccontextmanager
async def open_workshop(
    recipe: Recipe,
    store: Store,
    *,
    run: str,
    progress: Progress | None = None,
    model: Any = None,
    memory_name: str | None = None,
    app: Prompted | None = None,
    cache: Cache | None = None,
    recorded: Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[Workshop]:
    """The parts of a recipe, each opened and checked before any paid call, and closed at the end.

    Args:
        recipe: Names of the parts.
        store: Where everything is kept.
        run: Id under which calls are counted.
        progress: Told of every call.
        model: A Model to use in place of the recipe's (tests, notebooks).
        memory_name: Name of the memory in the store; the run's own when not given.
        app: An open app to use in place of the recipe's (it stays open).
        cache: Recorded replies; the store's own, in the recipe's mode, when not given.
        recorded: `info` of the recording, for a replay: its models are named there and none is opened.
        ledger: The ledger of the run, when another workshop of it is open.

    Raises:
        ConfigError, DataError, ModelError: something cannot be used; says what, where and what to do.
    """
    recipe.resolve()
    progress = progress or Progress()
    async with AsyncExitStack() as stack:
        if app is None:
            app = make_part("apps", recipe.app.name, where="[app]", **recipe.app.options)
            stack.push_async_callback(app.aclose)
            await app.preflight()
        recipe = _named(recipe, critics := _make_critics(recipe))
        cache = cache or Cache(store, run, mode=cast(Any, recipe.model.cache))
        ledger = ledger or open_ledger(recipe, store, run)
        stack.callback(ledger.flush)
        callers = _open_models(recipe, ledger, cache, progress, model, (recorded or {}).get("models"))
        for caller in callers.values():
            stack.push_async_callback(caller.aclose)
            if cache.mode != "replay":  # which asks nobody and pays nothing
                await _check(caller)

        def roles(role: str) -> Any:
            return callers[recipe.model.roles.get(role, recipe.model.name)].for_role(role)

        memory = curator = credit = None
        if recipe.memory.name:
            memory = open_memory(recipe, store, memory_name or run, str(store.memory_folder))
            stack.callback(memory.close)
            meter_embedder(memory, ledger)
            curator, credit = make_curator(recipe, roles), make_credit(recipe)
        info = {"models": {spec: [c.name, c.fingerprint] for spec, c in callers.items()}}
        yield Workshop(recipe, store, app, roles, critics, memory, curator, progress, ledger, cache, credit, info)


async def _check(caller: Any) -> None:
    await caller.check()
    if caller.price is None:
        raise unknown_price(f"model {caller.name}")


def meter_embedder(memory: Memory, ledger: Ledger) -> None:
    """Lets a ledger count, and refuse, what a memory embeds."""
    if hasattr(memory, "spend"):
        listener: Any = memory
        listener.spend = ledger.meter("embedder", str(getattr(memory, "embedder", "")))


def _make_critics(recipe: Recipe) -> list[Critic]:
    options = recipe.critics.options
    return [make_part("critics", n, where="[critics]", **options.get(n, {})) for n in recipe.critics.names]


def _named(recipe: Recipe, critics: Sequence[Critic]) -> Recipe:
    """The recipe with each critic under its own name: feedback carries that, also of a user's `./mine.py:MyCritic`."""
    names = {spec: critic.name for spec, critic in zip(recipe.critics.names, critics, strict=True)}
    table = dataclasses.replace(recipe.critics, names=tuple(names.values()), verdict=names[recipe.critics.verdict])
    return dataclasses.replace(recipe, critics=table)


def open_ledger(
    recipe: Recipe, store: Store, run: str, others: Sequence[str] = (), began: float | None = None
) -> Ledger:
    """The ledger of a run under the recipe's limits; what `others` spent counts against the same limits."""
    table = recipe.limits
    limits = Limits(
        max_cost=table.max_cost,
        max_tokens=table.max_tokens,
        max_calls=table.max_calls,
        max_seconds=table.max_minutes * 60 if table.max_minutes is not None else None,
    )
    spent = sum((u for other in others for u in store.usage(other).values()), Usage())
    return Ledger(limits, store=store, run=run, spent=spent, began=began)


def _open_models(
    recipe: Recipe, ledger: Ledger, cache: Cache, progress: Progress, given: Any, recorded: Mapping[str, Any] | None
) -> dict[str, Any]:
    from verbal.cache import RecordedModel, fingerprint_of
    from verbal.models import ModelCalls, Retry, open_model
    from verbal.models._prices import read_prices

    table, prices = recipe.model, read_prices(recipe.limits.prices) if recipe.limits.prices else {}
    callers: dict[str, Any] = {}
    for spec in dict.fromkeys([table.name, *table.roles.values()]):
        own = spec == table.name
        options = table.options if own else {}
        if recorded is not None:
            model: Any = RecordedModel(*recorded[spec])
        else:
            model = given if given is not None and own else open_model(spec, **options)
        price = prices.get(model.name.removeprefix("litellm/"))
        callers[spec] = ModelCalls(
            model,
            ledger=ledger,
            cache=cache,
            fingerprint=model.fingerprint if recorded is not None else fingerprint_of(model, options),
            on_call=lambda record: progress.update(usage=progress.usage + record.usage),
            retry=Retry(attempts=table.retries, first=table.retry_first),
            timeout=table.timeout,
            concurrency=table.concurrency,
            price_in=table.price_in if own and table.price_in is not None else price.prompt if price else None,
            price_out=table.price_out if own and table.price_out is not None else price.completion if price else None,
        )
    return callers


async def learn(
    workshop: Workshop, tasks: Sequence[Task], *, run: str, arm: str = "learn", info: Mapping[str, Any] | None = None
) -> Summary:
    """Works through tasks in batches and stores what was learned; a run that was interrupted goes on.

    Args:
        workshop: Open parts.
        tasks: What to learn on, in order.
        run: Id of the run.
        arm: Name of its arm.
        info: Kept with the run, beside what a replay needs.

    Raises:
        ConfigError: a task of the sealed split `test` is among the tasks, or the run has another recipe.
        BudgetError, TransientError, ReplayMiss, StoreError: a limit was reached, the model is gone, a replay has no
            such call, the disk is full; resume later.
    """
    if sealed := [t.id for t in tasks if t.split == "test"]:
        raise ConfigError(f"task {sealed[0]!r} is of the sealed split 'test'", todo="learn on train or dev tasks")
    store, recipe = workshop.store, workshop.recipe
    memory = workshop.memory
    begins = {"name": getattr(memory, "name", ""), "from": len(memory.history())} if memory else None
    spec = {"command": "learn", "arm": arm, "tasks": [t.id for t in tasks], "memory": begins, **workshop.info}
    finished = (store.run(run) or {}).get("status") == "done"
    store.start_run(run, recipe.to_dict(), {**spec, **(info or {})})
    store.put_tasks(tasks)
    context = make_context(workshop, tasks, run=run, arm=arm, seed=recipe.seed)
    unfinished: list[str] = []
    status = "failed"
    try:
        for epoch in range(recipe.loop.epochs):
            if epoch:
                again = recipe.seed + _EPOCH * epoch
                context = make_context(workshop, tasks, run=run, arm=f"{arm}@{epoch + 1}", seed=again)
            for at in range(0, len(tasks), recipe.loop.batch):
                batch = list(tasks[at : at + recipe.loop.batch])
                if left := await run_batch(context, batch, workshop.progress):
                    unfinished += left
                    break  # lessons of a batch are curated once, when all of it is there
                await curate(workshop, context, batch, f"{run}/{context.arm}/{at}")
            if unfinished:
                break
        status = "incomplete" if unfinished else "done"
    except (*STOPS, asyncio.CancelledError):
        status = "stopped"
        raise
    finally:
        # A store that fails here (a full disk) must not hide what failed before.
        with contextlib.suppress(StoreError) if status != "done" else contextlib.nullcontext():
            ends = {"memory_to": len(memory.history())} if memory and not finished else None
            store.finish_run(run, status, ends)
    return summarise(context, tasks, unfinished, workshop.memory)


def make_context(
    workshop: Workshop, tasks: Sequence[Task], *, run: str, arm: str, seed: int, **options: Any
) -> Context:
    """The context of one arm over the parts of a workshop; `options` replace its fields."""
    fields: dict[str, Any] = {"memory": workshop.memory, **options}
    return Context(
        run=run,
        arm=arm,
        recipe=fields.pop("recipe", workshop.recipe),
        app=workshop.app,
        roles=workshop.roles,
        critics=fields.pop("critics", workshop.critics),
        store=workshop.store,
        tasks={t.id: t for t in tasks},
        seed=seed,
        **fields,
    )


async def run_batch(context: Context, tasks: Sequence[Task], progress: Progress) -> list[str]:
    """Runs the graph on tasks side by side, those finished earlier left out; gives the ids that stay unfinished.

    Raises:
        BudgetError, TransientError, ReplayMiss, StoreError: what stops a run (`verbal.errors.STOPS`).
    """
    from verbal.loop.episodes import side_by_side
    from verbal.loop.graphs import build

    unfinished: list[str] = []
    graph, self_play = build(context.recipe.loop.graph), context.recipe.loop.graph == "self_play"
    if self_play:
        context.asked |= {t.id: asyncio.get_running_loop().create_future() for t in tasks}

    async def episode(task: Task) -> None:
        key = context.group_key(task)
        done = context.store.group(context.run, key, context.arm)
        if done is None:
            try:
                # What it comes to is read from the store, so nothing has to be streamed.
                start = {"task": task.id, **({"anchor": task.id} if self_play else {})}
                await graph.ainvoke(start, context=context, stream_mode=[])
            except TransientError as error:
                unfinished.append(task.id)
                if len(unfinished) >= MAX_UNREACHABLE:
                    raise
                progress.update(note=error.what)
                return
            done = context.store.group(context.run, key, context.arm)
        else:
            progress.update(kept=progress.kept + 1)
        solved = is_solved(context, done)
        progress.update(done=progress.done + 1, solved=(progress.solved or 0) + solved)

    await side_by_side([episode(t) for t in tasks])
    return unfinished


def is_solved(context: Context, group: Group | None) -> bool:
    """Whether the chosen attempt of a group has verdict 1."""
    if group is None or group.chosen is None:
        return False
    return context.verdict(context.store.feedback([group.chosen])[group.chosen]) == 1.0


def summarise(context: Context, tasks: Sequence[Task], unfinished: Sequence[str], memory: Memory | None) -> Summary:
    """What an arm came to, read from the store."""
    groups = [context.store.group(context.run, context.group_key(t), context.arm) for t in tasks]
    return Summary(
        run=context.run,
        arm=context.arm,
        tasks=len(tasks),
        solved=sum(is_solved(context, g) for g in groups),
        unfinished=tuple(unfinished),
        usage=context.store.usage(context.run),
        memory_version=len(memory.history()) if memory else 0,
    )


__all__ = [
    "Progress",
    "Summary",
    "Workshop",
    "learn",
    "make_context",
    "open_ledger",
    "open_workshop",
    "run_batch",
]
