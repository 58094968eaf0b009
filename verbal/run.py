"""Many tasks at once: batches that see one version of the memory, lessons curated between them, resumed after a kill.

Everything is checked before the first model call (recipe, tasks, database, gold, model). A finished episode is a group
in the store; a resumed run makes only what is missing there, so nothing is lost, doubled or paid twice, and the same
seed gives the same attempts in whatever order the calls return.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Critic, Curator, Memory
from verbal.errors import BudgetError, ConfigError, TransientError
from verbal.loop.context import Context, Prompted, Roles
from verbal.parts import load_part, make_part
from verbal.recipe import Recipe
from verbal.store import Store
from verbal.types import Attempt, Group, MemoryOp, Task, Usage

MAX_UNREACHABLE = 5
"""Episodes in a row that may fail for want of the model before the run stops (it can be resumed)."""


@dataclass(slots=True)
class Progress:
    """How far a run is. `changed` is called after every change, and must be quick."""

    total: int = 0
    done: int = 0
    solved: int = 0
    kept: int = 0
    """Episodes found finished in the store when the run was resumed."""
    usage: Usage = field(default_factory=Usage)
    note: str = ""
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
        critics = [
            make_part("critics", name, where="[critics]", **recipe.critics.options.get(name, {}))
            for name in recipe.critics.names
        ]
        recipe = _named(recipe, critics)
        roles, callers = _open_models(recipe, store, run, progress, model)
        for caller in callers:
            stack.push_async_callback(caller.aclose)
            await caller.check()
        memory = curator = None
        if recipe.memory.name:
            folder = store.path.parent / f"{store.path.stem}.memory"
            options = {"name": memory_name or run, "folder": str(folder), **recipe.memory.options}
            memory = make_part("memory", recipe.memory.name, where="[memory]", store=store, **options)
            stack.callback(memory.close)
            maker = load_part("memory", recipe.memory.curator)
            wants_model = "model" in inspect.signature(maker).parameters
            curator = maker(model=roles("curator")) if wants_model else maker()
        yield Workshop(recipe, store, app, roles, critics, memory, curator, progress)


def _named(recipe: Recipe, critics: Sequence[Critic]) -> Recipe:
    """The recipe with each critic under its own name: feedback carries that, also of a user's `./mine.py:MyCritic`."""
    names = {spec: critic.name for spec, critic in zip(recipe.critics.names, critics, strict=True)}
    table = dataclasses.replace(recipe.critics, names=tuple(names.values()), verdict=names[recipe.critics.verdict])
    return dataclasses.replace(recipe, critics=table)


def _open_models(recipe: Recipe, store: Store, run: str, progress: Progress, given: Any) -> tuple[Roles, list[Any]]:
    from verbal.models import Budget, CallRecord, Limits, ModelCalls, open_model

    table, limits = recipe.model, recipe.limits

    def on_call(record: CallRecord) -> None:
        store.put_call(record.id, run, record.role, record.model, record.usage, record.error)
        progress.update(usage=progress.usage + record.usage)

    budget = Budget(
        Limits(
            max_cost=limits.max_cost,
            max_tokens=limits.max_tokens,
            max_calls=limits.max_calls,
            max_seconds=limits.max_minutes * 60 if limits.max_minutes is not None else None,
        ),
        spent=sum(store.usage(run).values(), Usage()),
    )
    callers: dict[str, Any] = {}
    for spec in dict.fromkeys([table.name, *table.roles.values()]):
        own = spec == table.name
        model = given if given is not None and own else open_model(spec, **(table.options if own else {}))
        callers[spec] = ModelCalls(
            model,
            budget=budget,
            on_call=on_call,
            timeout=table.timeout,
            concurrency=table.concurrency,
            price_in=table.price_in if own else None,
            price_out=table.price_out if own else None,
        )

    def roles(role: str) -> Any:
        return callers[table.roles.get(role, table.name)].for_role(role)

    return roles, list(callers.values())


async def learn(workshop: Workshop, tasks: Sequence[Task], *, run: str, arm: str = "learn") -> Summary:
    """Works through tasks in batches and stores what was learned; a run that was interrupted goes on.

    Raises:
        ConfigError: a task of the sealed split `test` is among the tasks, or the run has another recipe.
        BudgetError, TransientError: a limit was reached or the model is gone; resume later.
    """
    if sealed := [t.id for t in tasks if t.split == "test"]:
        raise ConfigError(f"task {sealed[0]!r} is of the sealed split 'test'", todo="learn on train or dev tasks")
    store, recipe = workshop.store, workshop.recipe
    store.start_run(run, recipe.to_dict())
    store.put_tasks(tasks)
    context = make_context(workshop, tasks, run=run, arm=arm, seed=recipe.seed)
    unfinished: list[str] = []
    status = "failed"
    try:
        for at in range(0, len(tasks), recipe.loop.batch):
            batch = list(tasks[at : at + recipe.loop.batch])
            unfinished += await run_batch(context, batch, workshop.progress)
            await curate(workshop, context, batch, f"{run}/{arm}/{at}")
        status = "incomplete" if unfinished else "done"
    except (BudgetError, TransientError, asyncio.CancelledError):
        status = "stopped"
        raise
    finally:
        store.finish_run(run, status)
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
        BudgetError: a limit was reached. TransientError: the model cannot be reached any more.
    """
    from verbal.loop.graphs import open_graph

    path = str(context.store.path.with_suffix(".checkpoints"))
    unfinished: list[str] = []
    async with open_graph(context.recipe.loop.graph, path) as graph:

        async def episode(task: Task) -> None:
            key = _group_key(context, task)
            done = context.store.group(context.run, key, context.arm)
            if done is None:
                config = {"configurable": {"thread_id": f"{context.run}/{context.arm}/{task.id}"}}
                start = {"task": task.id} if context.recipe.loop.graph != "self_play" else _proposal(task)
                try:
                    await graph.ainvoke(start, config, context=context, durability="exit")
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
            progress.update(done=progress.done + 1, solved=progress.solved + solved)

        await _side_by_side([episode(t) for t in tasks])
    return unfinished


async def curate(workshop: Workshop, context: Context, tasks: Sequence[Task], key: str) -> None:
    """Turns the lessons of a batch into memory operations, once: a closing NOOP in the log marks the batch done."""
    from verbal.loop.nodes import lesson

    if workshop.memory is None or workshop.curator is None:
        return
    mark = MemoryOp(op="NOOP", reason=f"batch {key} curated", author="run")
    if any(op.op == "NOOP" and op.reason == mark.reason for op in workshop.memory.history()):
        return
    lessons, verify = [], context.recipe.loop.verify
    for task in tasks:
        group = context.store.group(context.run, _group_key(context, task), context.arm)
        for attempt in [a for i in (group.attempts if group else ()) if (a := context.store.attempt(i))]:
            if (drawn := lesson(context, attempt)) and (not verify or _helped(context, attempt, group)):
                lessons.append(drawn.replace(when=str(context.tasks[task.id].info.get("question", ""))))
    known = [r for r in workshop.memory.at(len(workshop.memory.history())).values() if r.status != "retired"]
    ops = await workshop.curator.propose(lessons, known) if lessons else []
    await workshop.memory.apply([*ops, mark])
    context.shown.clear()
    workshop.progress.update(note=f"{sum(o.op == 'ADD' for o in ops)} lessons added")


def _helped(context: Context, attempt: Attempt, group: Group | None) -> bool:
    """Whether the attempt that came next, and saw the lesson drawn from this one, was solved."""
    tried = [a for i in (group.attempts if group else ()) if (a := context.store.attempt(i)) and a.parent == attempt.id]
    return any(context.verdict(context.store.feedback([a.id])[a.id]) == 1.0 for a in tried)


def is_solved(context: Context, group: Group | None) -> bool:
    """Whether the chosen attempt of a group has verdict 1."""
    if group is None or group.chosen is None:
        return False
    return context.verdict(context.store.feedback([group.chosen])[group.chosen]) == 1.0


def summarise(context: Context, tasks: Sequence[Task], unfinished: Sequence[str], memory: Memory | None) -> Summary:
    """What an arm came to, read from the store."""
    groups = [context.store.group(context.run, _group_key(context, t), context.arm) for t in tasks]
    return Summary(
        run=context.run,
        arm=context.arm,
        tasks=len(tasks),
        solved=sum(is_solved(context, g) for g in groups),
        unfinished=tuple(unfinished),
        usage=context.store.usage(context.run),
        memory_version=len(memory.history()) if memory else 0,
    )


def _group_key(context: Context, task: Task) -> str:
    own = context.recipe.loop.graph == "self_play"
    return f"{context.run}/{context.arm}/{task.id}" if own else task.id


def _proposal(task: Task) -> dict[str, str]:
    return {"task": task.id, "anchor": task.id}


async def _side_by_side(episodes: Sequence[Any]) -> None:
    """Awaits all; the first failure cancels the rest, which leave no half-kept attempt behind."""
    running = [asyncio.ensure_future(e) for e in episodes]
    try:
        await asyncio.gather(*running)
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise


__all__ = ["Progress", "Summary", "Workshop", "curate", "learn", "make_context", "open_workshop", "run_batch"]
