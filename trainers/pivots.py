"""Looking back at an attempt and trying again from a turn of it: the reflection, the retry, and the rows of both.

Source: R3L (arXiv 2601.03715), its released code where paper and code differ.
Differs: what two rows share is found by comparing tokens, so that nothing else is masked; advice that gives the answer
away is not followed, and retries that speak of their advice are dropped; a model that follows no free instructions
reflects in the app's own role, and begins anew.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from verbal.errors import TrainError
from verbal.loop.branches import Branch, Place, diverged, unguided
from verbal.prompt import load_prompt
from verbal.types import Attempt, Feedback, Message, Reflection, Step, StopReason

from .words import answers_of, shows

if TYPE_CHECKING:
    from verbal.loop.context import Context

    from .rollouts import Made, Rollouts, Sampled
    from .weights import Tokens

__all__ = ["Explored", "Look", "better", "echoes", "explore", "read_look", "shared"]

_OUTCOMES = ("success", "success_but_inefficient", "failure")
_ECHO = re.compile(
    r"\b(hints?|advi[cs]es?|advised|guidance|suggest(?:ed|ions?)|reflections?"
    r"|(?:previous|earlier|last) (?:try|attempt))\b",
    re.IGNORECASE,
)
_LONG = 8
"""Words from which on advice that stands in a reply is repeated advice rather than the reply that it asked for."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look back came to."""

    outcome: Literal["success", "success_but_inefficient", "failure"]
    advice: str = ""
    pivot: int = 0
    """Turn from which it is tried again."""

    @property
    def perfect(self) -> bool:
        """Whether there is nothing to try again."""
        return self.outcome == "success"


@dataclass(slots=True)
class Explored:
    """The rows of one base attempt."""

    base: Sampled | None
    """None for an attempt without tokens."""
    retry: Sampled | None = None
    supervised: list[Sampled] = field(default_factory=list)


def read_look(text: str, turns: int) -> Look | None:
    """What a reflection on an attempt of so many turns says; None when it is not valid (R3L, section 3 of the record).

    >>> read_look('{"trajectory_summary": "s", "root_cause_analysis": "c", "trajectory_outcome": "success"}', 2).perfect
    True
    """
    try:
        record = json.loads(text[text.index("{") : text.rindex("}") + 1], strict=False)
    except ValueError:
        return None
    outcome = record.get("trajectory_outcome")
    if outcome not in _OUTCOMES or not all(_said(record.get(k)) for k in ("trajectory_summary", "root_cause_analysis")):
        return None
    if outcome == "success":
        return Look("success")
    advice, pivot = record.get("improvement_suggestion"), record.get("retry_from_step")
    if not _said(advice) or isinstance(pivot, bool) or not isinstance(pivot, int) or not 0 <= pivot < turns:
        return None
    return Look(outcome, advice.strip(), pivot)


def _said(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def echoes(attempt: Attempt, advice: str) -> bool:
    """Whether a retry speaks of its advice: a word for it that its own prompt lacks, or long advice repeated whole."""
    own = unguided(attempt)
    turns = _turns(own)[attempt.branch_step or 0 :]
    known = {w.lower() for s in turns[:1] for m in s.prompt for w in _ECHO.findall(m.content)}
    texts = [s.text for s in turns]
    if any(w.lower() not in known for text in texts for w in _ECHO.findall(text)):
        return True
    return len(advice.split()) >= _LONG and any(shows(text, [advice]) for text in texts)


def shared(a: Tokens, b: Tokens, turn: int) -> int:
    """How many tokens two completions have in common before a turn; 0 where their prompts differ."""
    if a.prompt != b.prompt or turn >= min(len(a.turns), len(b.turns)):
        return 0
    most = min(a.turns[turn], b.turns[turn])
    return next((i for i in range(most) if a.completion[i] != b.completion[i]), most)


async def explore(
    rollouts: Rollouts, context: Context, made: Made, *, verdict: bool, tokens: int, place: Place
) -> Explored:
    """The row of a base attempt, that of its retry where there is one, and what is to be imitated.

    Args:
        rollouts: Makes the attempts.
        context: Of this step.
        made: The base attempt.
        verdict: Whether the model's own verdict decides on a retry (as published); its score otherwise.
        tokens: Of a reflection.
        place: Where the advice stands in the prompt.

    Raises:
        TrainError: the chat template allows no advice there.
    """
    found, counts = Explored(rollouts.row(made)), rollouts.counts
    if found.base is None or made.value is None or (not verdict and made.value >= 1):
        return found
    look, step = await _look(rollouts, context, made.attempt, tokens)
    counts["reflections"] += step is not None
    if look is None:
        counts["reflections without a readable verdict"] += 1
        return found
    own = [row] if step and (row := _reflection(rollouts, context, step)) else []
    if look.perfect:
        counts["judged perfect"] += 1
        found.supervised += own if made.value >= 1 else []
        return found
    notes = context.store.feedback([made.attempt.id])[made.attempt.id]
    if shows(look.advice, answers_of(rollouts.tasks[made.attempt.task], notes)):
        counts["advice that gives the answer away"] += 1
        return found
    again = await _retry(rollouts, context, made.attempt, look, place)
    counts["retries"] += 1
    row = _distilled(rollouts, made, again, look)
    if row is None:
        return found
    cut = shared(found.base.tokens, row.tokens, look.pivot)
    found.retry, found.base = dataclasses.replace(row, pivot=cut), dataclasses.replace(found.base, pivot=cut)
    if better(made, again):
        counts["retries that were better"] += 1
        found.supervised += own + _guided(rollouts, again, look.pivot)
    return found


async def _look(rollouts: Rollouts, context: Context, attempt: Attempt, tokens: int) -> tuple[Look | None, Step | None]:
    """What the model says of its own attempt, and the step in which it does."""
    from verbal.loop.nodes import say

    if not getattr(context.roles("reflector"), "chats", True):
        words = await rollouts.words(context, attempt)
        step = context.store.step(attempt.id, "reflect")
        advice = "\n".join(w.text for w in words)
        # "none" is what it says of an answer that needs no lesson; what cannot be read is no verdict.
        none = step is not None and step.text.strip().lower().removeprefix("hint:").strip() in ("", "none")
        return (Look("failure", advice) if advice else Look("success") if none else None), step
    turns = _turns(attempt)
    step = context.store.step(attempt.id, "reflect")
    if step is None:
        notes = context.store.feedback([attempt.id])[attempt.id]
        wide = dataclasses.replace(context.recipe.model, max_tokens=tokens)
        wider = dataclasses.replace(context, recipe=dataclasses.replace(context.recipe, model=wide))
        step = await say(wider, "reflector", [_question(turns, notes)], attempt.id, greedy=False)
        if step is None:
            return None, None
        said = step
        await context.store.together(lambda: context.store.put_step(attempt.id, "reflect", said))
    return read_look(step.text, len(turns)), step


def _question(turns: Sequence[Step], notes: Sequence[Feedback]) -> Message:
    """The prompt of a reflection."""
    told = [
        f'<turn number="{i}">\n{_data(turn.text)}\n<answer>\n{_data(turn.observation or "")}\n</answer>\n</turn>'
        for i, turn in enumerate(turns)
    ]
    said = "; ".join(f"{f.critic}: {_data(f.text)}" for f in notes if f.text) or "nothing"
    task = "\n\n".join(_data(m.content) for m in turns[0].prompt)
    filled = load_prompt("training/r3l").fill(task=task, turns="\n".join(told), last=str(len(turns) - 1), outcome=said)
    return Message(role="user", content=filled)


def _data(text: str) -> str:
    """Text that closes no mark around it."""
    return text.replace("</", "< /")


async def _retry(rollouts: Rollouts, context: Context, attempt: Attempt, look: Look, place: Place) -> Made:
    task, hints = attempt.task, list(await context.hints(context.tasks[attempt.task]))
    if not getattr(context.roles("solver"), "chats", True):
        words = Reflection(id=f"new:{context.place(attempt.id)}", text=look.advice, task=task, attempts=(attempt.id,))
        branch, hints = Branch(attempt), [*hints, words]
    else:
        advice = load_prompt("training/r3l_guided").fill(guidance=_data(look.advice)).strip()
        branch = Branch(attempt, look.pivot, advice, place)
        _allowed(rollouts, branch, attempt)
    return await rollouts.attempt(context, task, sample=attempt.sample, round_=1, hints=hints, branch=branch)


def _allowed(rollouts: Rollouts, branch: Branch, attempt: Attempt) -> None:
    """Whether the chat template takes the advice where it stands."""
    from .weights import turns_of

    prompt = _turns(attempt)[branch.at].prompt
    try:
        rollouts.weights.prompt_ids(turns_of(branch.advised(prompt)))
    except TrainError:
        raise
    except Exception as error:  # templates are text that raises what it wants
        what = f"the chat template allows no {branch.place} message with advice: {error}"
        raise TrainError(what, where=f"place {branch.place}", todo='set the option place = "user"') from error


def _distilled(rollouts: Rollouts, base: Made, again: Made, look: Look) -> Sampled | None:
    """The retry as if it had been found without advice; None when it cannot be used, which is counted."""
    from .rollouts import Sampled as Row
    from .weights import turns_of

    counts, attempt, prompt = rollouts.counts, again.attempt, _turns(base.attempt)[0].prompt
    if diverged(attempt):
        counts["replays that diverged"] += 1
    elif attempt.stop in (StopReason.ERROR, StopReason.TIMEOUT) or again.value is None:
        counts["retries that broke or have no score"] += 1
    elif echoes(attempt, look.advice):
        counts["retries that speak of their advice"] += 1
    else:
        own = unguided(attempt)
        if _turns(own)[0].prompt == prompt:
            tokens = rollouts.weights.tokens(own)
            return Row(tokens, again.value, "retry") if tokens is not None else None
        if len(_turns(own)) == 1:  # advised by hints of the app's own prompt, so it has to be told anew
            return rollouts.moved(rollouts.weights.prompt_ids(turns_of(prompt)), prompt, again, "retry")
    return None


def _turns(attempt: Attempt) -> list[Step]:
    return [s for s in attempt.steps if s.author == "policy"]


def better(base: Made, again: Made) -> bool:
    """Whether a retry solved what its base did not, or in fewer turns (R3L, rule 7 of its algorithm)."""
    before, after = base.value or 0.0, again.value or 0.0
    return after >= 1 and (after > before or len(_turns(again.attempt)) < len(_turns(base.attempt)))


def _guided(rollouts: Rollouts, again: Made, pivot: int) -> list[Sampled]:
    """The retry with its advice in sight, to be imitated from the pivot on."""
    row = rollouts.row(again, "supervised")
    return [dataclasses.replace(row, reward=None, pivot=row.tokens.turns[pivot])] if row else []


def _reflection(rollouts: Rollouts, context: Context, step: Step) -> Sampled | None:
    """The reflection as what is to be imitated; None where another model wrote it, or these weights cannot say it."""
    from .rollouts import Sampled as Row
    from .weights import Tokens, turns_of

    table = context.recipe.model
    if table.roles.get("reflector", table.name) != table.name:
        return None
    try:
        prompt = rollouts.weights.prompt_ids(turns_of(step.prompt))
        ids = list(step.token_ids or rollouts.weights.answer_ids(turns_of(step.prompt), step.text))
    except TrainError:
        return None
    return Row(Tokens(prompt, ids, [1] * len(ids), None), None, "supervised") if ids else None
