"""Rows for the model that reflects (Retroformer), and demonstrations for questions that sampling cannot solve (ReLIFT).

Retroformer, arXiv 2308.02151: the reward of the reflection between two tries is what the second returned more than
the first, r = G_{i+1} - G_i. ReLIFT, arXiv 2506.07527: a question whose every sample failed gives reinforcement
nothing to go by and is imitated from a demonstration instead.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from statistics import fmean
from typing import Any

from verbal.store import Store

from .attempts import Admitted, Selection, admitted, counts, critic_of, has_cause, outcome, scored
from .examples import (
    Built,
    Row,
    Source,
    capped,
    corrected,
    licences_of,
    make_row,
    messages_of,
    refuse_empty,
    said,
)
from .traces import Trace, step_trace, text_of
from .words import answers_of, heard, model_of, reflection_of, shows

__all__ = ["as_kto", "as_preference", "demonstrations", "hard", "retrospective"]

_LEAST = 4  # tokens: a shorter gold answer (a number) stands in many prompts by chance


def retrospective(store: Store, selection: Selection) -> Built:
    """Rows `prompt` (reflection prompt x) + `completion` (reflection y) + `before`, `after`, `reward` = after - before.

    `after` is the mean return of the retries that read y; a reflection that no retry read (the last one) has `after`
    and `reward` None. Rows are about failed attempts; `selection.successes` adds a few about right ones. A reflection
    that holds a right answer is no row, nor is a prompt that shows the gold one, unless a simulated person gave it and
    `selection.corrections` is `all`.

    Raises:
        TrainError: no attempt, critic or reflection; it lists what was left out.
    """
    items, filtered = admitted(store, selection)
    critic = critic_of(store, selection)
    retries: dict[str, list[Admitted]] = defaultdict(list)
    for item in items:
        retries[item.attempt.parent or ""].append(item)
    found: dict[tuple[str, str, str], Row] = {}
    right: set[tuple[str, str, str]] = set()
    for item in items:
        row = _reflected(store, item, retries[item.attempt.id], critic, selection.corrections == "all")
        if isinstance(row, str):
            filtered[row] += 1
            continue
        key = (item.task.id, str(row.columns["prompt"]), str(row.columns["completion"]))
        if key in found:
            filtered["same reflection again"] += 1
            row = _merged(found[key], row)
        found[key] = row
        if row.columns["before"] >= selection.minimum:
            right.add(key)
    failures = [found[key] for key in sorted(found.keys() - right)]
    allowed = math.floor(selection.successes * len(failures) + 1e-9)
    successes = sorted((found[key] for key in right), key=lambda row: _lot(*row.attempts))
    filtered["about a right attempt"] += len(successes) - len(successes[:allowed])
    rows = [*failures, *successes[:allowed]]
    kept = tuple(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="retrospective", rows=kept, attempts=len(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "nobody reflected on a failed attempt")


def as_kto(rows: Sequence[Row], threshold: float = 0.25) -> list[Row]:
    """Retrospective rows as `prompt` + `completion` + `label`: reward above the threshold; those without are left out.

    Source: Retroformer's released labels (strictly above 0.25).
    """
    return [
        _with(row, {"prompt": c["prompt"], "completion": c["completion"], "label": c["reward"] > threshold})
        for row in rows
        if (c := row.columns)["reward"] is not None
    ]


def as_preference(rows: Sequence[Row], margin: float = 0.0) -> list[Row]:
    """Pairs `prompt` + `chosen` + `rejected` of reflections on one prompt: rewards differ by more than the margin."""
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.columns["reward"] is not None:
            by_prompt[str(row.columns["prompt"])].append(row)
    pairs = []
    for several in by_prompt.values():
        for better, worse in permutations(several, 2):
            good, bad = better.columns, worse.columns
            if good["reward"] - bad["reward"] > margin and good["completion"] != bad["completion"]:
                columns = {"prompt": good["prompt"], "chosen": good["completion"], "rejected": bad["completion"]}
                pairs.append(
                    _with(_merged(better, worse), columns, Trace(off_policy="a pair of answers"), value=better.value)
                )
    return pairs


def demonstrations(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `failed`: questions whose group failed as a whole, each with right answers.

    A group is the first tries at a task in one run and arm (`failed`: how many there were). The demonstration is a
    right attempt that came after words (a retry, or one that was shown reflections), the words stripped, or a user's
    correction. One row per question unless `per_task` says otherwise.

    Raises:
        TrainError: no attempt or critic, no hard question, or none with a demonstration; it lists what was left out.
    """
    known, _ = admitted(store, selection)
    items, filtered, critic = scored(store, selection)
    groups: dict[tuple[str, str, str], list[float | None]] = defaultdict(list)
    for one in known:
        if not one.attempt.round and not one.attempt.parent and not has_cause(one):
            groups[one.task.id, one.attempt.run, one.attempt.arm].append(outcome(one, critic))
    failed: Counter[str] = Counter()
    for (task, _, _), returns in groups.items():
        if hard(values := [v for v in returns if v is not None], selection.minimum):
            failed[task] += len(values)
    found: dict[tuple[str, str, str], list[Source]] = defaultdict(list)
    for item in items:
        if not failed[item.task.id]:
            filtered["not a hard question"] += 1
            continue
        for note in item.corrections:
            text = corrected(item.completion, note.correction)
            found[item.task.id, item.prompt, text].append(("correction", item, None, note.oracle))
        if item.value < selection.minimum:
            filtered[f"{critic} below {selection.minimum:g}"] += 1
        elif not has_cause(item):
            filtered["right without any words"] += 1
        else:
            found[item.task.id, item.prompt, item.completion].append(("refined", item, item.value, item.oracle))
    rows = []
    for (task, prompt, completion), sources in sorted(found.items(), key=lambda entry: entry[0]):
        columns = {"prompt": messages_of(prompt), "completion": said(completion), "failed": failed[task]}
        rows.append(make_row(sources[0][1].task, columns, sources, critic))
        filtered["same answer again"] += len(sources) - 1
    kept = tuple(capped(rows, selection.per_task or 1))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="demonstrations", rows=kept, attempts=len(items), filtered=counts(filtered), critic=critic)
    hopeless = sum(n > 0 for n in failed.values())
    return refuse_empty(built, f"of {hopeless} questions that a whole group failed none has a right answer after words")


def hard(rewards: Sequence[float], minimum: float = 1.0, fail: float = 0.0) -> bool:
    """Whether a group failed as a whole: no reward reaches the minimum, and none is a format penalty below `fail`.

    >>> hard([0] * 8), hard([0] * 7 + [1]), hard([1] * 8), hard([-1] * 8), hard([])
    (True, False, False, False, False)
    """
    return bool(rewards) and all(fail <= r < minimum for r in rewards)


def _reflected(store: Store, item: Admitted, retries: Sequence[Admitted], critic: str, told: bool) -> Row | str:
    """The row of what was said about an attempt, or why there is none."""
    step, before = reflection_of(store, item.attempt), outcome(item, critic)
    if step is None or not step.text.strip():
        return "nobody reflected on it"
    if before is None:
        return f"{critic} gave no value"
    if not step.prompt:
        return "the reflector's prompt was not recorded"
    if shows(step.text, answers_of(item.task, item.feedback)):
        return "the reflection holds a right answer"
    if _gives_away(step.prompt, item) and not (told and any(f.source == "user" for f in item.feedback)):
        return "the reflector's prompt shows the gold answer"
    heeded = [r for r in retries if heard(r.attempt, item.attempt, step.text)]
    returns = [g for r in heeded if (g := outcome(r, critic)) is not None]
    after = fmean(returns) if returns else None
    model = model_of(store, item.attempt.run, "reflector")
    return Row(
        columns={
            "prompt": messages_of(text_of(step.prompt)),
            "completion": said(step.text.strip()),
            "before": before,
            "after": after,
            "reward": None if after is None else after - before,
        },
        attempts=(item.attempt.id, *sorted(r.attempt.id for r in heeded)),
        task=item.task.id,
        origin="reflection",
        critic=critic,
        value=after,
        oracle=any(f.oracle for f in item.feedback if f.critic == critic),
        models=(model,) if model else (),
        runs=(item.attempt.run,),
        licences=licences_of(item.task),
        trace=step_trace(step),
    )


def _gives_away(prompt: Sequence[Any], item: Admitted) -> bool:
    """Whether the reflector saw a gold answer that the attempt did not give itself."""
    given = [f.correction for f in item.feedback if f.oracle and f.correction.strip()]
    gold = item.task.gold or ""
    known = [*given, *([gold] if len(gold.split()) >= _LEAST else [])]
    text = "\n".join(m.content for m in prompt)
    return shows(text.replace(item.attempt.answer, " ") if item.attempt.answer.strip() else text, known)


def _merged(one: Row, two: Row) -> Row:
    """Two rows of one reflection; the mean of what their retries returned."""
    after = [c["after"] for c in (one.columns, two.columns) if c["after"] is not None]
    mean = fmean(after) if after else None
    before = fmean([one.columns["before"], two.columns["before"]])
    columns = {**one.columns, "before": before, "after": mean, "reward": None if mean is None else mean - before}
    merged = {
        name: tuple(sorted({*getattr(one, name), *getattr(two, name)})) for name in ("attempts", "models", "runs")
    }
    return _with(one, columns, one.trace, **merged, value=mean)


def _with(row: Row, columns: Mapping[str, Any], trace: Trace | None = None, **changed: Any) -> Row:
    kept = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return Row(**kept | {"columns": columns, "trace": trace or row.trace} | changed)


def _lot(*names: str) -> str:
    """A place in an order that depends on nothing else."""
    return hashlib.blake2b("/".join(names).encode(), digest_size=8).hexdigest()
