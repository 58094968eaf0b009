"""Which attempts may be learned from, and what they are worth.

A row's prompt is the task's own (`Task.messages`), never the prompt an attempt saw: what was learned in words
(retrieved hints, earlier failures) helped to find the answer and must not be needed to repeat it. What was taken out
is told by the row's `mask`, and a row whose words were not sampled from its own prompt says so in `off_policy`.
Attempts at test tasks are sealed, and so is any task that asks what a test task asks. No torch here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from verbal.errors import ConfigError, TrainError, UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Step, StopReason, Task

from .traces import HINT, Trace, hints_in, spread, step_trace, text_of, trace_of, turn, turns

__all__ = [
    "Admitted", "Origin", "Scored", "Selection", "admitted", "attempts_of", "completion_of", "counts", "critic_of",
    "fit_tasks", "has_cause", "listed", "outcome", "prompt_of", "scored", "sealed_prompts",
]  # fmt: skip

Origin = Literal["sampled", "refined", "correction", "group", "reflection", "scope", "task"]
"""Where a row's words came from: see `Row.origin`."""

_FENCE = re.compile(r"```[^\n]*\n.*?```", re.DOTALL)
_CITES = re.compile(r"\bhints?\b|\breflections?\b", re.IGNORECASE)
_NAMES = re.compile(r"\n[\s*_`>-]*USED[\s*_`]*:[^\n]*\s*\Z", re.IGNORECASE)
"""A last line by which a reply names the lessons that it followed: nobody asks for it where none is shown."""
_BROKEN = (StopReason.ERROR, StopReason.BUDGET)
_UNKNOWN = (*_BROKEN, StopReason.TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which attempts become rows."""

    run: str | None = None
    """None: all runs of the store."""
    arms: tuple[str, ...] | None = None
    """Arms of a comparison to learn from; None: all."""
    critic: str | None = None
    """The critic whose value decides. None: the verdict critic of the runs' recipes, or the only critic with values."""
    minimum: float = 1.0
    """An attempt is positive when the critic's value reaches this."""
    splits: tuple[str, ...] = ("train",)
    """Splits that may be learned from; `test` is refused."""
    per_task: int | None = None
    """At most so many rows of one task (the answers that most attempts gave first); None: no limit."""
    corrections: Literal["none", "user", "all"] = "user"
    """Right answers that a person gave: `user` leaves out a simulated person who read the gold, `all` does not."""
    successes: float = 0.0
    """`retrospective`: rows about right attempts for each one about a failed attempt (0.1: one to ten)."""

    def __post_init__(self) -> None:
        if self.corrections not in ("none", "user", "all"):
            raise UnknownName.of("kind of corrections", self.corrections, ("none", "user", "all"))
        if "test" in self.splits:
            raise TrainError("test tasks are sealed: nothing is learned from them", where="splits", todo="leave it out")
        if self.per_task is not None and self.per_task < 1:
            raise ConfigError(f"per_task is {self.per_task}", where="per_task", todo="give 1 or more, or leave it out")
        if not 0 <= self.successes < math.inf:
            raise ConfigError(f"successes is {self.successes}", where="successes", todo="give 0 or more")


@dataclass(frozen=True, slots=True)
class Admitted:
    """An attempt at a task that may be learned from."""

    attempt: Attempt
    task: Task
    prompt: str
    """The row's prompt as JSON text (so that equal prompts are equal keys)."""
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """An attempt that has a value, and a text that stands without its hints."""

    attempt: Attempt
    task: Task
    prompt: str
    completion: str
    value: float
    """Minus infinity where a user was not satisfied."""
    low: float
    """Least value the critic declares."""
    oracle: bool
    corrections: tuple[Feedback, ...]
    trace: Trace
    feedback: tuple[Feedback, ...]

    @property
    def reward(self) -> float:
        """The value as a finite number."""
        return max(self.value, self.low)

    @property
    def origin(self) -> Origin:
        """Whether it is a first try or a retry."""
        return "refined" if self.attempt.round or self.attempt.parent else "sampled"


# which attempts -----------------------------------------------------------------------------------------------------


def admitted(store: Store, selection: Selection) -> tuple[list[Admitted], Counter[str]]:
    """The attempts that may be learned from, sorted by id, and what was left out.

    Raises:
        TrainError: the store, or the run, holds no attempt.
    """
    attempts = sorted(store.attempts(selection.run), key=lambda a: a.id)
    if not attempts:
        known = ", ".join(r["id"] for r in store.runs()) or "none"
        which = "the store holds no attempt" if selection.run is None else f"run {selection.run!r} holds no attempt"
        raise TrainError(which, where=store.where, todo=f"runs: {known}; collect attempts first (verbal learn)")
    feedback = store.feedback(a.id for a in attempts)
    tasks = store.tasks()
    sealed = sealed_prompts(tasks)
    filtered: Counter[str] = Counter()
    kept: list[Admitted] = []
    for attempt in attempts:
        task = tasks.get(attempt.task)
        if selection.arms is not None and attempt.arm not in selection.arms:
            filtered[f"arm {attempt.arm}"] += 1
        elif task is None:
            filtered["task not in the store"] += 1
        elif why := _unfit(task, selection, sealed):
            filtered[why] += 1
        else:
            kept.append(Admitted(attempt, task, prompt_of(task), tuple(feedback[attempt.id])))
    return kept, filtered


def scored(store: Store, selection: Selection, *, talks: bool = False) -> tuple[list[Scored], Counter[str], str]:
    """The admitted attempts with their value and text, sorted by id; what was left out; the critic.

    An answer that several turns came to (a conversation) has no text of its own. With `talks` each turn is one item:
    its prompt goes on with what was said before, and its value is that of the whole; without, it is left out.

    Raises:
        TrainError: no attempt, no critic to go by, or none that can be learned from, and why.
    """
    known, filtered = admitted(store, selection)
    critic = critic_of(store, selection)
    kept: list[Scored] = []
    for item in known:
        found = _score(item, critic, selection, talks)
        if isinstance(found, str):
            filtered[found] += 1
        else:
            kept += found
    if not kept:
        raise TrainError(
            f"none of {sum(filtered.values())} attempts can be learned from ({listed(counts(filtered))})",
            where=store.where,
            todo="look at the reasons; critics, arms and splits can be chosen",
        )
    return kept, filtered, critic


def fit_tasks(store: Store, selection: Selection) -> list[tuple[Task, str]]:
    """The tasks that may be learned from, by id, each with its prompt as JSON text."""
    tasks = store.tasks()
    sealed = sealed_prompts(tasks)
    return [(task, prompt_of(task)) for task in tasks.values() if not _unfit(task, selection, sealed)]


def attempts_of(items: Iterable[Scored]) -> int:
    """How many attempts items come from."""
    return len({item.attempt.id for item in items})


def has_cause(item: Admitted | Scored) -> bool:
    """Whether an attempt came after words: a retry, or one that was shown reflections."""
    return bool(item.attempt.round or item.attempt.parent or any(s.shown or hints_in(s) for s in item.attempt.steps))


def sealed_prompts(tasks: Mapping[str, Task]) -> set[str]:
    """The prompts of test tasks, whatever else asks them."""
    return {prompt_of(t) for t in tasks.values() if t.split == "test"}


def outcome(item: Admitted, critic: str) -> float | None:
    """What an attempt returned: the critic's value, its least one without an answer or a satisfied user, or None."""
    notes = [f for f in item.feedback if f.critic == critic and f.scope == "attempt" and f.value is not None]
    if (not notes or notes[0].source != "user") and any(_rejects(f) for f in item.feedback):
        return notes[0].low if notes else 0.0
    if notes:
        return notes[0].value
    return 0.0 if not item.attempt.answer.strip() and item.attempt.stop not in _UNKNOWN else None


def critic_of(store: Store, selection: Selection) -> str:
    """The critic to go by: the one chosen, the one the recipes go by, or the only one there is.

    Raises:
        TrainError: there is none, or there are several.
    """
    attempts = store.attempts(selection.run)
    if critic := selection.critic or _verdict(store, {a.run for a in attempts}):
        return critic
    feedback = store.feedback(a.id for a in attempts)
    notes = [f for several in feedback.values() for f in several if f.value is not None and f.scope == "attempt"]
    names = {f.critic for f in notes}
    if len(names) == 1:
        return names.pop()
    if not names:
        raise TrainError("no critic gave any attempt a value", todo="run a critic over the attempts first")
    known = ", ".join(sorted(names))
    raise TrainError(f"{len(names)} critics gave values and none was chosen", where="critic", todo=f"one of: {known}")


def _verdict(store: Store, runs: set[str]) -> str:
    """The critic that the recipes of these runs go by, when they agree on one."""
    recipes = [run["recipe"] for run in store.runs() if run["id"] in runs]
    named = {str((recipe.get("critics") or {}).get("verdict") or "") for recipe in recipes}
    return named.pop() if len(named) == 1 else ""


def _unfit(task: Task, selection: Selection, sealed: set[str]) -> str:
    """Why nothing may be learned from a task, or ""."""
    if task.split not in selection.splits:
        return f"split {task.split}"
    prompt = prompt_of(task)
    if prompt in sealed:
        return "same prompt as a test task"
    return "the task's own prompt is empty or holds a hint" if not task.messages or HINT.search(prompt) else ""


def _score(item: Admitted, critic: str, selection: Selection, talks: bool) -> list[Scored] | str:
    """The attempt, or each of its turns, with its value and its text; or the reason why it gives no row."""
    attempt, feedback = item.attempt, item.feedback
    if attempt.error is not None or attempt.stop in _BROKEN:
        return "the attempt broke"
    if (talk := spread(attempt)) and not talks:
        return "its answer is what several turns came to"
    completion = "" if talk else completion_of(attempt)
    if not completion and not (talk and attempt.answer.strip()):
        return "no answer, or none that stands without its hints"
    notes = [f for f in feedback if f.critic == critic and f.scope == "attempt" and f.value is not None]
    if not notes or (value := notes[0].value) is None:
        return f"{critic} gave no value"
    if notes[0].source != "user" and any(_rejects(f) for f in feedback):
        value = -math.inf
    wanted = {"none": (), "user": (False,), "all": (False, True)}[selection.corrections]
    given = tuple(f for f in feedback if f.correction.strip() and f.source == "user" and f.oracle in wanted)
    shared = (value, notes[0].low, notes[0].oracle)
    if not talk:
        trace = trace_of(attempt, item.task, completion)
        return [Scored(attempt, item.task, item.prompt, completion, *shared, given, trace, feedback)]
    rows = list(_turns(item, shared, feedback))
    return rows or "no turn stands without its hints"


def _turns(item: Admitted, shared: tuple[float, float, bool], feedback: tuple[Feedback, ...]) -> Iterator[Scored]:
    """Each turn of a conversation under its own prompt, up to one that speaks of hints: later ones would hold it.

    A person's correction is of the whole, and no turn's.
    """
    for _, step, before in turns(item.attempt):
        text = step.text.strip()
        if _speaks_of_hints(step, text):
            return
        prompt = json.dumps(json.loads(item.prompt) + before, ensure_ascii=False)
        same = text_of(step.prompt) == prompt
        why = "" if same else "it was sampled under another prompt (hints or earlier tries)"
        trace = step_trace(step, why)
        yield Scored(item.attempt, item.task, prompt, text, *shared, (), trace, feedback)


def _rejects(note: Feedback) -> bool:
    """Whether a user was not satisfied, which outweighs any other critic."""
    return note.source == "user" and note.value is not None and note.value < note.high


# what they say ------------------------------------------------------------------------------------------------------


def prompt_of(task: Task) -> str:
    """The task's own prompt as JSON text."""
    return text_of(task.messages)


def completion_of(attempt: Attempt) -> str:
    """The text of the last turn of the policy as solver; only its answer when the rest speaks of hints; "" if none, or
    if its answer is what several turns came to.
    """
    step = turn(attempt)
    if step is None or not attempt.answer.strip() or spread(attempt):
        return ""
    text, hints = _NAMES.sub("", step.text).strip(), hints_in(step)
    if not _speaks_of_hints(step, text):
        return text
    # In the code itself only a whole hint counts: `hint` may be a column, and an id such as r1 an alias.
    fences = [f for f in _FENCE.findall(text) if attempt.answer.strip() in f and not any(h in f for h in hints)]
    return fences[-1] if fences else ""


def _speaks_of_hints(step: Step, text: str) -> bool:
    return bool(_CITES.search(text)) or any(h in text for h in hints_in(step) | set(step.shown))


def counts(filtered: Counter[str]) -> dict[str, int]:
    """What was left out, sorted, without zeros."""
    return {reason: n for reason, n in sorted(filtered.items()) if n}


def listed(filtered: Mapping[str, int]) -> str:
    """The same in words."""
    return ", ".join(f"{reason}: {n}" for reason, n in filtered.items()) or "nothing left out"
