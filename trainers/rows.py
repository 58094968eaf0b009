"""Rows for training from what the store holds: attempts and the feedback on them, in TRL's conversational types.

A row's prompt is always the task's own (`Task.messages`), never the prompt an attempt saw: what was learned in words
(retrieved hints, earlier failures) helped to find the answer and must not be needed to repeat it. Reflections,
critiques and guides are never rows. What is left out is counted by reason. No torch here, and no file is written.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from verbal.contracts import Example
from verbal.errors import ConfigError, TrainError, UnknownName
from verbal.store import Store
from verbal.types import Attempt, Feedback, Step, StopReason, Task

__all__ = ["FORMATS", "Built", "Row", "Selection", "build", "preference", "sft"]

FORMATS = ("sft", "preference")
"""Formats that can be built, by TRL's names of the dataset types."""

_HINT = re.compile(r"<hint\b[^>]*>(.*?)</hint>", re.DOTALL)
_FENCE = re.compile(r"```[^\n]*\n.*?```", re.DOTALL)
_CITES = re.compile(r"\bhints?\b|\breflections?\b", re.IGNORECASE)
_BROKEN = (StopReason.ERROR, StopReason.BUDGET)


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

    def __post_init__(self) -> None:
        if self.corrections not in ("none", "user", "all"):
            raise UnknownName.of("kind of corrections", self.corrections, ("none", "user", "all"))
        if "test" in self.splits:
            raise TrainError("test tasks are sealed: nothing is learned from them", where="splits", todo="leave it out")
        if self.per_task is not None and self.per_task < 1:
            raise ConfigError(f"per_task is {self.per_task}", where="per_task", todo="give 1 or more, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Example):
    """One row and where it came from."""

    task: str
    origin: Literal["sampled", "refined", "correction", "group"]
    """`sampled`: a first attempt; `refined`: a retry; `correction`: what a user gave; `group`: a critic's pair."""
    critic: str
    value: float | None
    """The critic's value of the answer that is imitated."""
    oracle: bool
    """True when a gold answer decided that this row is right."""
    models: tuple[str, ...] = ()
    """Which models wrote the answer."""
    runs: tuple[str, ...] = ()
    """Runs of the attempts."""

    def record(self) -> dict[str, Any]:
        """The row as plain JSON types: TRL's columns first, then its provenance."""
        return {
            **self.columns,
            "task": self.task,
            "attempts": list(self.attempts),
            "origin": self.origin,
            "critic": self.critic,
            "value": self.value,
            "oracle": self.oracle,
            "models": list(self.models),
            "runs": list(self.runs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The rows, and what was left out and why."""

    format: str
    rows: tuple[Row, ...]
    attempts: int
    """Attempts looked at."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Reason -> attempts (or pairs) that gave no row of their own."""
    critic: str = ""


@dataclass(frozen=True, slots=True)
class _Scored:
    attempt: Attempt
    task: Task
    prompt: str
    """The row's prompt as JSON text (so that equal prompts are equal keys)."""
    completion: str
    value: float
    oracle: bool
    corrections: tuple[Feedback, ...]


def build(store: Store, format: str, selection: Selection) -> Built:
    """The rows of one of `FORMATS`.

    Raises:
        UnknownName: no such format. TrainError: the store cannot feed it, and why.
    """
    builders = {"sft": sft, "preference": preference}
    if format not in builders:
        raise UnknownName.of("format", format, FORMATS)
    return builders[format](store, selection)


def sft(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion`: the distinct right answers to each task, first tries, retries and corrections.

    Raises:
        TrainError: no attempt, critic or positive answer; it lists what was left out.
    """
    scored, filtered, critic = _scored(store, selection)
    found: dict[tuple[str, str, str], list[tuple[str, _Scored, float | None, bool]]] = defaultdict(list)
    for item in scored:
        if item.value >= selection.minimum:
            origin = "refined" if item.attempt.round or item.attempt.parent else "sampled"
            found[item.task.id, item.prompt, item.completion].append((origin, item, item.value, item.oracle))
        else:
            filtered[f"{critic} below {selection.minimum:g}"] += 1
        for note in item.corrections:
            text = _like(item.completion, note.correction)
            found[item.task.id, item.prompt, text].append(("correction", item, None, note.oracle))
    rows = []
    for (task, prompt, completion), sources in sorted(found.items(), key=lambda entry: entry[0]):
        rows.append(_row(task, _pair(prompt, completion=completion), sources, critic))
        filtered["same answer again"] += len(sources) - 1
    kept = list(_capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="sft", rows=tuple(kept), attempts=len(scored), filtered=_counts(filtered), critic=critic)
    return _refuse_empty(built, f"no attempt reached {selection.minimum:g} by the critic {critic!r}")


def preference(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `chosen` + `rejected`: for one prompt an answer that was right and one that was not.

    Pairs are a user's correction against what it corrects, a retry against the attempt it retried, a group's
    preferences, and any other right answer to a task against any wrong one, each pair of texts once.

    Raises:
        TrainError: no attempt or critic, or no task has both; it lists what was left out.
    """
    scored, filtered, critic = _scored(store, selection)
    by_id = {item.attempt.id: item for item in scored}
    by_task: dict[tuple[str, str], list[_Scored]] = defaultdict(list)
    for item in scored:
        by_task[item.task.id, item.prompt].append(item)
    found: dict[tuple[str, str, str, str], list[tuple[str, _Scored, float | None, bool]]] = defaultdict(list)
    for origin, better, worse in _pairs(store, selection, by_id, by_task):
        key = (better.task.id, better.prompt, better.completion, worse.completion)
        oracle = origin != "group" and (better.oracle or worse.oracle)
        found[key] += [(origin, better, better.value, oracle), (origin, worse, better.value, oracle)]
    for item in scored:
        for note in item.corrections:
            text = _like(item.completion, note.correction)
            if text != item.completion:
                key = (item.task.id, item.prompt, text, item.completion)
                found[key].append(("correction", item, None, note.oracle))
    rows = []
    for (task, prompt, chosen, rejected), sources in sorted(found.items(), key=lambda entry: entry[0]):
        rows.append(_row(task, _pair(prompt, chosen=chosen, rejected=rejected), sources, critic))
    kept = list(_capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    used = {i for row in rows for i in row.attempts}
    filtered["in no pair"] += sum(item.attempt.id not in used for item in scored)
    built = Built(
        format="preference", rows=tuple(kept), attempts=len(scored), filtered=_counts(filtered), critic=critic
    )
    return _refuse_empty(built, f"no task has both a right and a wrong answer by the critic {critic!r}")


# which attempts -----------------------------------------------------------------------------------------------------


def _scored(store: Store, selection: Selection) -> tuple[list[_Scored], Counter[str], str]:
    """The attempts that may be learned from, sorted by id, with their value; what was left out; the critic."""
    attempts = sorted(store.attempts(selection.run), key=lambda a: a.id)
    if not attempts:
        known = ", ".join(r["id"] for r in store.runs()) or "none"
        which = "the store holds no attempt" if selection.run is None else f"run {selection.run!r} holds no attempt"
        raise TrainError(which, where=str(store.path), todo=f"runs: {known}; collect attempts first (verbal learn)")
    feedback = store.feedback(a.id for a in attempts)
    critic = selection.critic or _verdict(store, {a.run for a in attempts}) or _only_critic(feedback)
    tasks = store.tasks()
    sealed = {_prompt(t) for t in tasks.values() if t.split == "test"}
    filtered: Counter[str] = Counter()
    kept: list[_Scored] = []
    for attempt in attempts:
        task = tasks.get(attempt.task)
        item = _judge(attempt, task, feedback[attempt.id], critic, selection, sealed)
        if isinstance(item, str):
            filtered[item] += 1
        else:
            kept.append(item)
    if not kept:
        raise TrainError(
            f"none of {len(attempts)} attempts can be learned from ({_listed(_counts(filtered))})",
            where=str(store.path),
            todo="look at the reasons; critics, arms and splits can be chosen",
        )
    return kept, filtered, critic


def _verdict(store: Store, runs: set[str]) -> str:
    """The critic that the recipes of these runs go by, when they agree on one."""
    recipes = [run["recipe"] for run in store.runs() if run["id"] in runs]
    named = {str((recipe.get("critics") or {}).get("verdict") or "") for recipe in recipes}
    return named.pop() if len(named) == 1 else ""


def _only_critic(feedback: Mapping[str, Sequence[Feedback]]) -> str:
    """The critic to go by when neither the caller nor the recipes name one."""
    notes = [f for several in feedback.values() for f in several if f.value is not None and f.scope == "attempt"]
    names = {f.critic for f in notes}
    if len(names) == 1:
        return names.pop()
    if not names:
        raise TrainError("no critic gave any attempt a value", todo="run a critic over the attempts first")
    known = ", ".join(sorted(names))
    raise TrainError(f"{len(names)} critics gave values and none was chosen", where="critic", todo=f"one of: {known}")


def _judge(
    attempt: Attempt,
    task: Task | None,
    feedback: Sequence[Feedback],
    critic: str,
    selection: Selection,
    sealed: set[str],
) -> _Scored | str:
    """The attempt with its value and its text, or the reason why it gives no row."""
    if selection.arms is not None and attempt.arm not in selection.arms:
        return f"arm {attempt.arm}"
    if task is None:
        return "task not in the store"
    if task.split not in selection.splits:
        return f"split {task.split}"
    prompt = _prompt(task)
    if prompt in sealed:
        return "same prompt as a test task"
    if not task.messages or _HINT.search(prompt):
        return "the task's own prompt is empty or holds a hint"
    if attempt.error is not None or attempt.stop in _BROKEN:
        return "the attempt broke"
    completion = _completion(attempt)
    if not completion:
        return "no answer, or none that stands without its hints"
    notes = [f for f in feedback if f.critic == critic and f.scope == "attempt" and f.value is not None]
    if not notes or (value := notes[0].value) is None:
        return f"{critic} gave no value"
    if notes[0].source != "user" and any(_rejects(f) for f in feedback):
        value = -math.inf
    wanted = {"none": (), "user": (False,), "all": (False, True)}[selection.corrections]
    said = tuple(f for f in feedback if f.correction.strip() and f.source == "user" and f.oracle in wanted)
    return _Scored(attempt, task, prompt, completion, value, notes[0].oracle, said)


def _rejects(note: Feedback) -> bool:
    """Whether a user was not satisfied, which outweighs any other critic."""
    return note.source == "user" and note.value is not None and note.value < note.high


# what they say ------------------------------------------------------------------------------------------------------


def _prompt(task: Task) -> str:
    return json.dumps([{"role": m.role, "content": m.content} for m in task.messages], ensure_ascii=False)


def _completion(attempt: Attempt) -> str:
    """The text of the last turn of the policy as solver; only its answer when the rest speaks of hints; "" if none."""
    turns = [s for s in attempt.steps if s.author == "policy" and s.role == "solver"]
    if not turns or not attempt.answer.strip():
        return ""
    text, hints = turns[-1].text.strip(), _hints(turns[-1])
    if not _CITES.search(text) and not any(h in text for h in hints | set(turns[-1].shown)):
        return text
    # In the code itself only a whole hint counts: `hint` may be a column, and an id such as r1 an alias.
    fences = [f for f in _FENCE.findall(text) if attempt.answer.strip() in f and not any(h in f for h in hints)]
    return fences[-1] if fences else ""


def _hints(step: Step) -> set[str]:
    """The texts of the hints the model was shown."""
    return {h.strip() for m in step.prompt for h in _HINT.findall(m.content)} - {""}


def _like(completion: str, correction: str) -> str:
    """A user's correction, in a code fence when the answer it corrects was in one."""
    fence = _FENCE.search(completion)
    if fence is None or "```" in correction:
        return correction.strip()
    return f"{fence.group(0).splitlines()[0]}\n{correction.strip()}\n```"


def _pairs(
    store: Store,
    selection: Selection,
    by_id: Mapping[str, _Scored],
    by_task: Mapping[tuple[str, str], Sequence[_Scored]],
) -> Iterator[tuple[str, _Scored, _Scored]]:
    """(origin, better, worse) with different texts."""
    for group in store.groups(selection.run):
        for better, worse in group.preferences:
            if better in by_id and worse in by_id and by_id[better].completion != by_id[worse].completion:
                yield "group", by_id[better], by_id[worse]
    for items in by_task.values():
        right = [i for i in items if i.value >= selection.minimum]
        texts = {i.completion for i in right}
        for good in right:
            for bad in items:
                if bad.value < selection.minimum and bad.completion not in texts:
                    yield "refined" if good.attempt.parent == bad.attempt.id else "sampled", good, bad


def _pair(prompt: str, **answers: str) -> dict[str, Any]:
    return {"prompt": json.loads(prompt)} | {k: [{"role": "assistant", "content": v}] for k, v in answers.items()}


def _row(
    task: str, columns: Mapping[str, Any], sources: Sequence[tuple[str, _Scored, float | None, bool]], critic: str
) -> Row:
    """One row from all that led to it; the strongest origin names it (a correction, then a retry)."""
    order = ("correction", "refined", "sampled", "group")
    origin = min((s[0] for s in sources), key=order.index)
    values = [s[2] for s in sources if s[2] is not None and s[0] == origin]
    return Row(
        columns=columns,
        attempts=tuple(sorted({s[1].attempt.id for s in sources})),
        task=task,
        origin=origin,  # type: ignore[arg-type]
        critic="user" if origin == "correction" else critic,
        value=max(values) if values else None,
        oracle=all(s[3] for s in sources),
        models=tuple(sorted({s[1].attempt.model for s in sources if s[1].attempt.model and s[0] != "correction"})),
        runs=tuple(sorted({s[1].attempt.run for s in sources})),
    )


def _capped(rows: Iterable[Row], per_task: int | None) -> Iterator[Row]:
    """At most `per_task` rows of a task: corrections first, then what most attempts agreed on, then by text."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    for several in by_task.values():
        ranked = sorted(several, key=lambda r: (r.origin != "correction", -len(r.attempts), str(r.columns)))
        yield from ranked[:per_task]


def _counts(filtered: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in sorted(filtered.items()) if n}


def _listed(filtered: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {n}" for reason, n in filtered.items()) or "nothing left out"


def _refuse_empty(built: Built, why: str) -> Built:
    if built.rows:
        return built
    raise TrainError(
        f"no {built.format} rows from {built.attempts} attempts: {why}",
        where=f"left out: {_listed(built.filtered)}",
        todo="collect more attempts (more samples or retries), or choose another critic or a lower minimum",
    )
