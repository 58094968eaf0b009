"""Self-play in context: one model proposes a question, solves it and judges it; no gold answer is used.

Multi-Agent Evolve (arXiv 2510.23595), its rewards without its gradients:
    R_P = (Q + (1 - S) + F) / 3  when Q >= 0.7,  (Q + F) / 3  below,  0 when no question could be read;
Q quality in the judge's eyes, S solve rate, F format.
Differs: S is the share of answers that give the same result as the proposer's own query (a verifier exists here, so
grades are not needed for it); a kept question has 0 < S < 1; duplicates of a run are refused; F counts the completion
only. Where a wrong and a right answer stand side by side the reflector draws a lesson from the pair.
"""

from __future__ import annotations

import itertools
import re
from typing import TypedDict

from langgraph.runtime import Runtime

from verbal.contracts import Observation, Reply, Sampling
from verbal.errors import STOPS, ModelError, TransientError
from verbal.loop.context import Context
from verbal.loop.nodes import make_attempt, say, unsealed
from verbal.types import Attempt, Feedback, Group, Message, Step, Task

QUALITY_FLOOR = 0.7
"""Least quality of a question that is kept (Multi-Agent Evolve, section 3)."""


class State(TypedDict, total=False):
    """Ids and numbers only."""

    task: str
    """Id of the proposal, `p0`, `p1`, ...; the seed of its level and words."""
    anchor: str
    """A task of the app that says which world to ask about."""
    attempts: list[str]
    format: float
    quality: float
    valid: bool
    kept: bool


async def propose(state: State, runtime: Runtime[Context]) -> State:
    """A question and its reference answer, kept as an attempt of the proposer."""
    context, key = runtime.context, _key(runtime.context, state)
    waited = context.asked.get(state["task"])
    try:
        made = await _proposal(context, state, key)
        said = _question(context, made)
    except BaseException as stop:
        if waited is not None and not waited.done():
            if isinstance(stop, TransientError):
                waited.set_result("")  # those after it go on; made later, it must not ask what they asked
            else:
                # Whether a later one is new cannot be told without this one, so it stops too, and both go on later.
                waited.set_exception(stop if isinstance(stop, Exception) else TransientError("another one stopped"))
                waited.exception()  # it is told here; that nobody may be waiting is no fault
        raise
    if waited is not None and not waited.done():
        waited.set_result(said)
    return {"format": format_score(made.steps[0].text), "attempts": [], "quality": 0.0, "valid": False, "kept": False}


async def _proposal(context: Context, state: State, key: str) -> Attempt:
    anchor, made = context.tasks[state["anchor"]], context.attempt(key)
    if made is None:
        level = 1 + context.draw(state["task"], "level") % 5
        table = context.recipe.model
        sampling = Sampling(
            temperature=table.temperature,
            max_tokens=table.max_tokens,
            seed=context.draw(context.place(key), "propose"),
            logprobs=table.logprobs,
        )
        messages = context.app.messages("proposer", unsealed(anchor), level=level)
        reply, failed = await _asked(context, messages, sampling)
        read = context.app.parse("proposer", reply.text)
        step = Step(
            author="guide", role="proposer", text=reply.text, prompt=tuple(messages), token_ids=reply.token_ids,
            logprobs=reply.logprobs,
        )  # fmt: skip
        made = Attempt(
            id=key,
            run=context.run,
            task=key,
            arm=f"{context.arm}:proposer",
            answer=read.answer if read else "",
            steps=(step,),
            model=context.roles("proposer").name,
            usage=reply.usage,
            seed=sampling.seed,
            error=None if read else failed or "no question could be read from the proposer's reply",
        )
        await context.put_attempt(made)
    return made


async def _asked(context: Context, messages: list[Message], sampling: Sampling) -> tuple[Reply, str]:
    """The proposer's reply; an empty one, and what was wrong, when the call is refused: that is data."""
    try:
        return (await context.roles("proposer").generate(messages, 1, sampling))[0], ""
    except STOPS:
        raise
    except ModelError as failure:
        return Reply(text=""), f"{type(failure).__name__}: {failure}"


async def validate(state: State, runtime: Runtime[Context]) -> State:
    """Whether the question can be used: readable, new in this run, its reference answer runs and gives something."""
    context, key = runtime.context, _key(runtime.context, state)
    made = context.attempt(key)
    assert made is not None
    read = context.app.parse("proposer", made.steps[0].text)
    if read is None:
        return {"valid": False}
    task = context.app.task(read.question, id=key, db=context.tasks[state["anchor"]].info.get("db"))
    reference = await context.app.execute(task, read.answer)
    if not _gives_something(reference) or not await _is_new(context, state["task"], _normal(read.question)):
        return {"valid": False}
    task = task.replace(info={**task.info, "reference": read.answer, "proposed_in": context.run})
    context.store.put_tasks([task])
    messages = context.app.messages("judge", task, answers=[read.answer])
    step = context.store.step(key, "quality") or await say(context, "judge", messages, key)
    scores = context.app.parse("judge", step.text, n=1) if step else None
    if step:
        context.store.put_step(key, "quality", step)
    quality = float(scores[0]) if scores else 0.0
    return {"quality": quality, "valid": quality >= QUALITY_FLOOR}


async def answer(state: State, runtime: Runtime[Context]) -> State:
    """The solver's answers side by side, with the feedback of every critic."""
    context, key = runtime.context, _key(runtime.context, state)
    task = _proposed(context, key)
    ids, hints = [], await context.hints(task)
    for i in range(context.recipe.loop.samples):
        sampling = context.sampling(key, i, greedy=i == 0)
        made = await make_attempt(context, task, round_=0, hints=hints, sampling=sampling, sample=i)
        ids.append(made.id)
    await context.judge(task, [a for i in ids if (a := context.attempt(i))])
    return {"attempts": ids}


async def reward(state: State, runtime: Runtime[Context]) -> State:
    """The proposer's reward; a question that is neither trivial nor hopeless is kept, and a lesson drawn from it."""
    context, key = runtime.context, _key(runtime.context, state)
    right: list[str] = []
    wrong: list[str] = []
    if state["attempts"]:
        task = _proposed(context, key)
        reference = await context.app.execute(task, _reference(task))
        for i in state["attempts"]:
            made = context.attempt(i)
            assert made is not None
            same = same_result(await context.observation(made), reference)
            (right if same else wrong).append(i)
    rate = len(right) / len(state["attempts"]) if state["attempts"] else 0.0
    value = proposer_reward(state["quality"], rate, state["format"])
    parts = {"quality": state["quality"], "solve_rate": rate, "format": state["format"]}
    context.store.put_feedback([Feedback(attempt=key, critic="proposer", value=value, parts=parts, source="self")])
    kept = state["valid"] and bool(right) and bool(wrong)
    if kept:
        await _reflect(context, _proposed(context, key), wrong[0])
    pairs = tuple((a, b) for a in right for b in wrong)
    chosen = right[0] if kept else None
    group = Group(task=key, attempts=tuple(state["attempts"]), preferences=pairs, chosen=chosen)
    await context.put_group(group)
    return {"kept": kept}


def proposer_reward(quality: float, solve_rate: float, format_: float) -> float:
    """R_P of Multi-Agent Evolve, section 3, all in [0, 1].

    >>> round(proposer_reward(0.8, 0.4, 1.0), 4), round(proposer_reward(0.6, 0.1, 1.0), 4), proposer_reward(0, 0, 0)
    (0.8, 0.5333, 0.0)
    """
    if format_ == 0.0:
        return 0.0
    difficulty = 1.0 - solve_rate if quality >= QUALITY_FLOOR else 0.0
    return (quality + difficulty + format_) / 3


def format_score(text: str) -> float:
    """1 for exactly one question and one fenced answer in a completion, 0.5 for more of either, 0 for none."""
    questions = len(re.findall(r"^\s*QUESTION:", text, re.MULTILINE))
    answers = len(re.findall(r"```\w*\n.*?```", text, re.DOTALL))
    if not questions or not answers:
        return 0.0
    return 1.0 if questions == answers == 1 else 0.5


async def _reflect(context: Context, task: Task, attempt_id: str) -> None:
    made = context.attempt(attempt_id)
    if made is None or not context.recipe.loop.reflect or context.store.step(attempt_id, "reflect"):
        return
    messages = context.app.messages(
        "reflector",
        task,
        attempt=made,
        observation=await context.observation(made),
        correction=_reference(task),
    )
    if (step := await say(context, "reflector", messages, attempt_id)) is not None:
        context.store.put_step(attempt_id, "reflect", step)


async def _is_new(context: Context, task: str, question: str) -> bool:
    """Whether no proposal before this one asks the same: before in the run's order, so that no race decides."""
    for other in itertools.takewhile(lambda t: t != task, context.tasks):
        made = context.attempt(_key(context, {"task": other}))
        waited = context.asked.get(other)
        said = _question(context, made) if made else await waited if waited else ""
        if said == question:
            return False
    own = _key(context, {"task": task})
    others = [t for t in context.store.tasks().values() if t.info.get("proposed_in") == context.run and t.id != own]
    return question not in {_normal(str(t.info.get("question", ""))) for t in others}


def _question(context: Context, made: Attempt) -> str:
    read = context.app.parse("proposer", made.steps[0].text)
    return _normal(read.question) if read else ""


def _key(context: Context, state: State) -> str:
    return f"{context.run}/{context.arm}/{state['task']}"


def _proposed(context: Context, key: str) -> Task:
    return context.store.tasks([key])[key]


def _reference(task: Task) -> str:
    return str(task.info["reference"])


def asked_words(question: str) -> list[str]:
    """The words of a question in lower case, in order; equal ones ask the same."""
    return re.findall(r"\w+", question.lower())


def _normal(question: str) -> str:
    return " ".join(asked_words(question))


def _gives_something(seen: Observation) -> bool:
    return not seen.info.get("error") and bool(seen.info.get("rows", seen.text))


def same_result(a: Observation, b: Observation) -> bool:
    """Whether two answers gave the same: the same rows in any order, else the same text; never where one failed."""
    if a.info.get("error") or b.info.get("error"):
        return False
    if "rows" in a.info and "rows" in b.info:
        return sorted(map(repr, a.info["rows"])) == sorted(map(repr, b.info["rows"]))
    return a.text == b.text
