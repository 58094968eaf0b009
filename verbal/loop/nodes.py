"""Nodes of the graphs: async functions `state -> patch`. Each is idempotent by the ids of what it makes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TypedDict

from langgraph.runtime import Runtime

from verbal.citations import cited
from verbal.contracts import Environment, Observation, Reply, Sampling
from verbal.errors import STOPS, EnvironmentFault, ModelError, VerbalError
from verbal.lessons import read_lessons, tag_ops
from verbal.loop.branches import Branch
from verbal.loop.context import Context
from verbal.types import Attempt, Feedback, Group, MemoryOp, Message, Reflection, Step, StopReason, Task


class State(TypedDict, total=False):
    """Ids and counters only: LangGraph writes the whole state at every checkpoint."""

    task: str
    round: int
    attempts: list[str]
    solved: bool


async def retrieve(state: State, runtime: Runtime[Context]) -> State:
    """Finds the reflections to show; they stay the same for every attempt on the task."""
    context = runtime.context
    await context.hints(context.tasks[state["task"]])
    return {"round": 0, "attempts": [], "solved": False}


async def attempt(state: State, runtime: Runtime[Context]) -> State:
    """One attempt in a fresh environment: greedy the first time, then sampled, with what was tried and learned."""
    context, round_ = runtime.context, state["round"]
    task = context.tasks[state["task"]]
    earlier = [a for i in state["attempts"] if (a := context.attempt(i))]
    own = _own_words(context, earlier)
    made = await make_attempt(
        context,
        task,
        round_=round_,
        hints=[*await context.hints(task), *own],
        earlier=earlier,
        # A first attempt is greedy, and so is one that has a new lesson to go by.
        sampling=context.solving(
            task.id, round_, greedy=round_ == 0 or (own != [] and own[-1].attempts[-1] == earlier[-1].id)
        ),
    )
    return {"attempts": [*state["attempts"], made.id], "round": round_ + 1}


async def judge(state: State, runtime: Runtime[Context]) -> State:
    """Feedback of every critic on the newest attempt."""
    context = runtime.context
    task, newest = context.tasks[state["task"]], context.attempt(state["attempts"][-1])
    assert newest is not None
    known = context.store.feedback([newest.id])[newest.id]
    if {f.critic for f in known} < {c.name for c in context.critics}:
        known = (await context.judge(task, [newest]))[newest.id]
    return {"solved": context.verdict(known) == 1.0}


async def critique(state: State, runtime: Runtime[Context]) -> State:
    """Words of the critic role about the failed attempt, kept as feedback of the critic `critique`."""
    newest = runtime.context.attempt(state["attempts"][-1])
    assert newest is not None
    await criticise(runtime.context, newest)
    return {}


async def criticise(context: Context, newest: Attempt) -> None:
    """Asks the critic role about an attempt, once; its reply is kept as the attempt's step and feedback `critique`."""
    task = context.tasks[newest.task]
    if not context.recipe.loop.critique or context.store.step(newest.id, "critique"):
        return
    messages = context.app.messages(
        "critic",
        unsealed(task),
        attempt=newest,
        observation=await context.observation(newest),
        hints=await context.hints(task),
    )
    step = await say(context, "critic", messages, newest.id)
    if step is None:
        return
    read = context.app.parse("critic", step.text)
    words = Feedback(
        attempt=newest.id,
        critic="critique",
        text=step.text if read is not None else "",
        source="self",
        reason="words only" if read is not None else f"the critic's reply cannot be read: {step.text[:80]!r}",
    )

    def keep() -> None:
        context.store.put_step(newest.id, "critique", step)
        context.store.put_feedback([words])

    await context.store.together(keep)


async def reflect(state: State, runtime: Runtime[Context]) -> State:
    """A lesson of the reflector role from the newest attempt; curated into the memory after the batch."""
    newest = runtime.context.attempt(state["attempts"][-1])
    assert newest is not None
    await reflect_on(runtime.context, newest)
    return {}


async def contrast(state: State, runtime: Runtime[Context]) -> State:
    """A lesson from a wrong and a right attempt of one group; none where all are right or all are wrong.

    Source: Training-Free GRPO, arXiv 2510.08191: only groups with 0 < mean < 1 say what made the difference.
    """
    context, ids = runtime.context, state["attempts"]
    if context.recipe.loop.lessons != "contrast":
        return {}
    known = context.store.feedback(ids)
    values = {i: v for i in ids if (v := context.verdict(known[i])) is not None}
    right = [i for i in ids if values.get(i) == 1.0]
    wrong = [i for i in ids if values.get(i, 1.0) < 1.0]
    if right and wrong:
        better, worse = context.attempt(right[0]), context.attempt(wrong[0])
        assert better is not None and worse is not None
        await reflect_on(context, worse, better.answer)
    return {}


async def reflect_on(context: Context, newest: Attempt, correction: str = "") -> None:
    """Asks the reflector about an attempt, once; its reply is kept as the attempt's step `reflect`.

    Args:
        context: The arm.
        newest: The attempt.
        correction: A better answer; what a critic gave as one when not given.
    """
    if not (context.learning and context.recipe.loop.reflect) or context.store.step(newest.id, "reflect"):
        return
    messages = await reflection_prompt(context, newest, correction)
    step = await say(context, "reflector", messages, newest.id, greedy=newest.round == 0)
    if step is not None:
        await context.store.together(partial(context.store.put_step, newest.id, "reflect", step))


async def reflection_prompt(context: Context, newest: Attempt, correction: str = "") -> list[Message]:
    """What the reflector reads of an attempt; see `reflect_on`."""
    task = context.tasks[newest.task]
    feedback = context.store.feedback([newest.id])[newest.id]
    correction = correction or next((f.correction for f in feedback if f.correction), "")
    seen = await context.observation(newest)
    words = [f"hint {r.id} was used: {r.text}" for r in await context.hints(task) if r.id in newest.cited]
    if context.verdict(feedback) == 1.0:
        words = ["judged right", *words]
    elif not correction:  # then the critics' words are all there is to learn from
        words += [f"{f.critic} says: {f.text}" for f in feedback if f.text and f.value != 1.0]
    seen = dataclasses.replace(seen, text=". ".join([seen.text, *words]))
    return context.app.messages(
        "reflector",
        unsealed(task),
        attempt=newest,
        observation=seen,
        correction=correction,
        **({"guidance": told} if (told := context.guidance()) else {}),
    )


async def finish(state: State, runtime: Runtime[Context]) -> State:
    """Closes the episode: the group of its attempts, the solved (else the last) one chosen, pairs best over worse."""
    context = runtime.context
    ids = state["attempts"]
    chosen = ids[-1]
    preferences = tuple((chosen, i) for i in ids[:-1]) if state["solved"] else ()
    group = Group(task=state["task"], attempts=tuple(ids), preferences=preferences, chosen=chosen)
    await context.put_group(group)
    return {}


def lessons(context: Context, newest: Attempt) -> list[Reflection]:
    """The lessons that were drawn from an attempt: none when nobody reflected, or the reply could not be read."""
    step = context.store.step(newest.id, "reflect")
    return [] if step is None else lessons_in(context, newest, step.text)


def lessons_in(context: Context, newest: Attempt, said: str) -> list[Reflection]:
    """The lessons in a reply of the reflector about an attempt, as a retry reads them."""
    # Prompts show the id, so it is the same whatever the run is called: an equal prompt finds its recorded reply.
    first = Reflection(id=f"new:{context.place(newest.id)}", text="", task=newest.task, attempts=(newest.id,))
    if context.recipe.loop.guidance:
        return [
            first.replace(
                id=f"{first.id}.{i}" if i else first.id, text=lesson.text, title=lesson.title, when=lesson.when,
                boundary=lesson.boundary,
            )
            for i, lesson in enumerate(read_lessons(said))
            if lesson.text
        ]  # fmt: skip
    text = context.app.parse("reflector", said)
    if not isinstance(text, str) or text.strip().lower() in ("", "none"):
        return []
    return [first.replace(text=text.strip())]


def tags(context: Context, newest: Attempt) -> list[MemoryOp]:
    """What the reflector said of the reflections that an attempt cited, as TAG operations."""
    step = context.store.step(newest.id, "reflect") if context.recipe.loop.guidance else None
    return tag_ops(read_lessons(step.text), newest.cited) if step else []


def _own_words(context: Context, earlier: Sequence[Attempt]) -> list[Reflection]:
    """What a retry reads of the attempts before it, oldest first: lessons, or the critic's words."""
    if context.recipe.loop.words == "critiques":
        known = context.store.feedback([a.id for a in earlier])
        return [
            Reflection(id=f"critique:{context.place(a.id)}", text=f.text, task=a.task, attempts=(a.id,))
            for a in earlier
            for f in known[a.id]
            if f.critic == "critique" and f.text
        ]
    # Where lessons are verified, those before the newest were tried and did not help.
    drawn = [own for a in earlier if (own := lessons(context, a))]
    return [r for own in drawn[-1 if context.recipe.loop.verify else -3 :] for r in own]


async def make_attempt(
    context: Context,
    task: Task,
    *,
    round_: int,
    hints: list[Reflection],
    sampling: Sampling,
    earlier: list[Attempt] | None = None,
    sample: int = 0,
    reply: Reply | ModelError | None = None,
    branch: Branch | None = None,
) -> Attempt:
    """Runs one attempt and keeps it; the kept one when the store has it already. What fails inside it is recorded.

    Args:
        context: The arm it belongs to.
        task: What is attempted.
        round_: 0 for a first attempt.
        hints: Reflections to show.
        sampling: How the policy samples.
        earlier: Failed attempts on the same task, oldest first.
        sample: Index among attempts side by side.
        reply: The policy's first reply when it was drawn together with its siblings, or how that failed.
        branch: The attempt that it leaves at a turn, whose first turns are its own.

    Raises:
        BudgetError, TransientError, ReplayMiss, StoreError: what stops a run (`verbal.errors.STOPS`); nothing is kept,
            so that a resumed run makes this attempt.
    """
    attempt_id = context.attempt_id(task.id, sample, round_)
    if (kept := context.attempt(attempt_id)) is not None:
        return kept
    made = Attempt(
        id=attempt_id,
        run=context.run,
        task=task.id,
        sample=sample,
        round=round_,
        arm=context.arm,
        parent=branch.parent.id if branch else earlier[-1].id if earlier else None,
        branch_step=branch.at if branch else None,
        steps=branch.steps if branch else (),
        model=context.roles("solver").name,
        stop=StopReason.STEP_LIMIT,
        seed=sampling.seed,
    )
    tried = [a.answer for a in earlier or [] if a.answer]
    environment = context.app.environment()
    if hasattr(environment, "user"):
        environment.user = context.roles("user")
    environment = branch.environment(environment) if branch else environment
    made = await _play(context, task, made, hints, tried, sampling, reply, environment)
    await context.put_attempt(made)
    return made


async def _play(
    context: Context,
    task: Task,
    made: Attempt,
    hints: list[Reflection],
    tried: list[str],
    sampling: Sampling,
    reply: Reply | ModelError | None,
    environment: Environment,
) -> Attempt:
    """The attempt with its turns, until the environment is done; a failure is written on it, and what came before."""
    limit, begun = asyncio.timeout(context.recipe.loop.timeout), made.branch_step or 0
    try:
        async with limit:
            messages = await environment.start(unsealed(task), hints=hints, tried=tried)
            for _ in range(begun, context.recipe.loop.turns):
                if isinstance(reply, ModelError):
                    raise reply
                if reply is None:
                    if made.sample and made.steps:  # siblings that began alike must not go on alike
                        sampling = dataclasses.replace(sampling, seed=context.draw(sampling.seed, made.sample))
                    reply = (await context.roles("solver").generate(messages, 1, sampling))[0]
                seen = await environment.step(reply)
                context.observations[made.id] = seen
                step = _policy_step(reply, seen, messages, tuple(h.id for h in hints), len(made.steps))
                if context.offers.get(task.id) and not made.steps:
                    step = step.replace(offered=context.offers[task.id].chances)
                steps = (*made.steps, step, *seen.steps)
                made = made.replace(steps=steps, answer=seen.answer, usage=made.usage + reply.usage)
                if seen.done:
                    return _ended(made, StopReason.LENGTH if reply.finish == "length" else seen.stop, seen.text)
                messages = [*messages, _said(reply), Message(role="user", content=seen.text)]
                reply = None
    except STOPS:
        raise
    except (VerbalError, OSError) as failure:
        if isinstance(failure, TimeoutError) and limit.expired():
            why = f"the attempt took longer than {context.recipe.loop.timeout:g} s"
            failure = EnvironmentFault(why, where=f"task {task.id}", todo="raise loop.timeout, or shorten replies")
            return made.replace(error=f"{type(failure).__name__}: {failure}", stop=StopReason.TIMEOUT)
        return made.replace(error=f"{type(failure).__name__}: {failure}", stop=StopReason.ERROR)
    finally:
        await environment.aclose()
    said = sum(s.author == "policy" for s in made.steps)
    return _ended(made, StopReason.STEP_LIMIT, f"no answer after {said} replies")


def _ended(made: Attempt, stop: StopReason, why: str) -> Attempt:
    """The attempt with its stop reason; one that gave no answer says why."""
    if made.answer or stop == StopReason.ANSWERED:
        return made.replace(stop=stop)
    where, todo = f"reply {len(made.steps)} of {made.model}", "a failed attempt is data; see its steps: verbal traces"
    return made.replace(stop=stop, error=f"no answer ({stop}): {why}\n  where: {where}\n  to do: {todo}")


def unsealed(task: Task) -> Task:
    """The task as a policy and its prompts may know it: without gold, whatever its split."""
    return task.replace(gold=None)


async def say(context: Context, role: str, messages: list[Message], key: str, *, greedy: bool = True) -> Step | None:
    """One reply of a role as a Step, or None when the call failed (the failure is in the call log)."""
    sampling = context.solving(context.place(key), role, greedy=greedy)
    try:
        reply = (await context.roles(role).generate(messages, 1, sampling))[0]
    except STOPS:
        raise
    except ModelError:
        return None
    return Step(
        author="guide",
        role=role,
        text=reply.text,
        prompt=tuple(messages),
        token_ids=reply.token_ids,
        logprobs=reply.logprobs,
    )


def _policy_step(reply: Reply, seen: Observation, messages: list[Message], shown: tuple[str, ...], at: int) -> Step:
    return Step(
        author="policy",
        text=reply.text,
        tool_calls=reply.tool_calls,
        observation=seen.text,
        prompt=tuple(messages),
        token_ids=reply.token_ids,
        logprobs=reply.logprobs,
        shown=shown,
        cited=cited(reply.text, shown),
        parent=at - 1 if at else None,
    )


def _said(reply: Reply) -> Message:
    return Message(role="assistant", content=reply.text, tool_calls=reply.tool_calls)
