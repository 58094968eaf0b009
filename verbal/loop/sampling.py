"""Nodes of the graph `group`: attempts side by side until enough of them run, then compared, then one is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.runtime import Runtime

from verbal.contracts import Reply, Sampling
from verbal.errors import STOPS, ModelError
from verbal.loop.context import Context
from verbal.loop.nodes import State, make_attempt, unsealed
from verbal.types import Attempt, Group, Message, Reflection, Task


async def sample(state: State, runtime: Runtime[Context]) -> State:
    """K attempts side by side; those the store has already are not drawn again.

    They are drawn in one call, or in waves of `loop.wave`. With `loop.most` more waves follow, each of as many
    attempts as are missing, until K of them run (see `executable`), `loop.most` are drawn, or a wave's call fails: the
    same prompt would fail again. Where waves begin depends only on what became of the attempts before, so a resumed
    run asks for the same ones.

    Source: PaVeRL-SQL, arXiv 2509.07159, sample until K are executable.
    Differs: what is missing is drawn in one call; an empty result counts as executable unless `loop.empty` is off.
    """
    context, loop = runtime.context, runtime.context.recipe.loop
    task = context.tasks[state["task"]]
    hints = await context.hints(task)
    messages: list[Message] = []
    drawn: list[Attempt] = []
    running, size = 0, min(loop.wave or loop.samples, loop.samples)
    while size > 0:
        places = range(len(drawn), len(drawn) + size)
        sampling = context.solving(task.id, "group", *([places.start] if places.start else []))
        kept = [context.attempt(context.attempt_id(task.id, i)) for i in places]
        replies: list[Reply | ModelError] | list[None] = [None] * size
        if not all(kept):
            messages = messages or await _opening(context, task, hints)
            replies = await _draw(context, messages, size, sampling)
        wave = [
            attempt
            or await make_attempt(context, task, round_=0, hints=hints, sampling=sampling, sample=i, reply=reply)
            for i, attempt, reply in zip(places, kept, replies, strict=True)
        ]
        drawn += wave
        if loop.most:
            running += sum([await executable(context, a) for a in wave])
        if not any(a.steps for a in wave) or await _settled(context, drawn):
            break
        wanted = loop.samples - (running if loop.most else len(drawn))
        size = min(wanted, loop.wave or wanted, max(loop.most, loop.samples) - len(drawn))
    return {"attempts": [a.id for a in drawn]}


async def _opening(context: Context, task: Task, hints: list[Reflection]) -> list[Message]:
    environment = context.app.environment()
    try:
        return await environment.start(unsealed(task), hints=hints)
    finally:
        await environment.aclose()


async def _draw(context: Context, messages: list[Message], size: int, sampling: Sampling) -> list[Reply | ModelError]:
    try:
        return [*await context.roles("solver").generate(messages, size, sampling)]
    except STOPS:
        raise
    except ModelError as failure:  # of all of them together: each is an attempt that failed
        return [failure] * size


async def executable(context: Context, attempt: Attempt) -> bool:
    """Whether an attempt has an answer that ran; with `loop.empty` off also whether it gave a row."""
    if attempt.error or not attempt.answer.strip():
        return False
    seen = (await context.observation(attempt)).info
    return not seen.get("error") and (context.recipe.loop.empty or bool(seen.get("row_count", 1)))


async def _settled(context: Context, drawn: Sequence[Attempt]) -> bool:
    """Whether the critic that decides says that attempts still to come cannot change its choice."""
    loop = context.recipe.loop
    critic = next((c for c in context.critics if c.name == context.recipe.critics.verdict), None)
    rule, left = getattr(critic, "settled", None), loop.samples - len(drawn)
    if not loop.wave or loop.most or rule is None or left <= 0:
        return False
    return bool(rule([await context.observation(a) for a in drawn if a.answer.strip()], left))


async def compare(state: State, runtime: Runtime[Context]) -> State:
    """Feedback of every critic on the whole group."""
    context = runtime.context
    group = [a for i in state["attempts"] if (a := context.attempt(i))]
    known = context.store.feedback(state["attempts"])
    wanted = {c.name for c in context.critics}
    if not all(wanted <= {f.critic for f in known[a.id]} for a in group):
        await context.judge(context.tasks[state["task"]], group)
    return {}


async def choose(state: State, runtime: Runtime[Context]) -> State:
    """Closes the group: the attempt of highest verdict is chosen, and all pairs by verdict kept.

    Among the highest the one that the critic itself marked (`parts["chosen"]`: it draws its own ties, and knows a
    single answer that runs without comparing it), else one by a seeded draw. Without any verdict the draw is among
    the attempts that have an answer.
    """
    context, ids = runtime.context, state["attempts"]
    known = context.store.feedback(ids)
    values = {i: v for i in ids if (v := context.verdict(known[i])) is not None}
    verdict = context.recipe.critics.verdict
    marked = [i for i in ids if any(f.critic == verdict and f.parts.get("chosen") == 1.0 for f in known[i])]
    answered = [i for i in ids if (a := context.attempt(i)) and a.answer.strip() and not a.error] or ids
    best = marked or [i for i in ids if values.get(i) == max(values.values(), default=-1.0)] or answered
    chosen = best[context.draw(state["task"], "choose") % len(best)]
    pairs = tuple((a, b) for a in values for b in values if values[a] > values[b])
    group = Group(task=state["task"], attempts=tuple(ids), preferences=pairs, chosen=chosen)
    await context.put_group(group)
    return {"solved": values.get(chosen) == 1.0}
