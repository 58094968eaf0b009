"""Rows with an outcome: thumbs (KTO), scalar rewards, labelled spans; and the bare prompts of online methods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from verbal.errors import TrainError
from verbal.store import Store

from .attempts import Scored, Selection, admitted, attempts_of, counts, critic_of, fit_tasks, outcome, scored
from .examples import Built, Row, Source, capped, corrected, licences_of, make_row, messages_of, refuse_empty, said
from .traces import turn

__all__ = ["kto", "prompts", "reward", "spans"]


def kto(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `label`: every distinct answer, right (true) or wrong; a correction is right.

    An answer that was judged both ways gives no row. Source: KTO, arXiv 2402.01306 (unpaired preferences).

    Raises:
        TrainError: no attempt or critic; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection, talks=True)
    found = _by_answer(items)
    rows = []
    for (_, prompt, completion), sources in sorted(found.items(), key=lambda entry: entry[0]):
        labels = {s[2] is None or s[2] >= selection.minimum for s in sources}
        if len(labels) > 1 and not any(s[0] == "correction" for s in sources):
            filtered["judged both right and wrong"] += len(sources)
            continue
        columns = {"prompt": messages_of(prompt), "completion": said(completion), "label": True in labels}
        rows.append(make_row(sources[0][1].task, columns, sources, critic))
        filtered["same answer again"] += len(sources) - 1
    kept = tuple(capped(rows, selection.per_task, key=lambda row: (row.task, row.columns["label"])))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="kto", rows=kept, attempts=attempts_of(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "every answer was judged both right and wrong")


def reward(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `reward`: every distinct answer with the mean of the critic's values.

    An answer a user was not satisfied with has the critic's least value. The number of `attempts` tells how often an
    answer was given.

    Raises:
        TrainError: no attempt or critic; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection, talks=True)
    found: dict[tuple[str, str, str], list[Scored]] = defaultdict(list)
    for item in items:
        found[item.task.id, item.prompt, item.completion].append(item)
    rows = []
    for (_, prompt, completion), several in sorted(found.items(), key=lambda entry: entry[0]):
        value = fmean(item.reward for item in several)
        columns = {"prompt": messages_of(prompt), "completion": said(completion), "reward": value}
        sources: list[Source] = [(item.origin, item, item.reward, item.oracle) for item in several]
        rows.append(make_row(several[0].task, columns, sources, critic))
        filtered["same answer again"] += len(several) - 1
    kept = tuple(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="reward", rows=kept, attempts=attempts_of(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "none has a value")


def prompts(store: Store, selection: Selection) -> Built:
    """Rows `prompt`, one for each distinct task that may be learned from: for methods that sample for themselves.

    `value` is the mean return of the attempts there were (None without any), so that tasks that are always or never
    solved can be told. With a run (or arms) only its tasks.

    Raises:
        TrainError: there is no such task; it lists what was left out.
    """
    filtered: Counter[str] = Counter()
    returns: dict[str, list[tuple[str, float | None, str]]] = defaultdict(list)
    critic, attempts = "", 0
    if store.attempts(selection.run) or selection.run is not None:
        items, filtered = admitted(store, selection)
        attempts = len(items)
        try:
            critic = critic_of(store, selection)
        except TrainError:  # no critic, or several: the prompts are the same
            critic = ""
        for item in items:
            returns[item.task.id].append((item.attempt.id, outcome(item, critic) if critic else None, item.attempt.run))
    narrowed = selection.run is not None or selection.arms is not None
    rows: dict[str, Row] = {}
    for task, prompt in fit_tasks(store, selection):
        if narrowed and task.id not in returns:
            continue
        if prompt in rows:
            filtered["same prompt again"] += 1
            continue
        values = [v for _, v, _ in returns[task.id] if v is not None]
        rows[prompt] = Row(
            columns={"prompt": messages_of(prompt)},
            attempts=tuple(sorted(i for i, _, _ in returns[task.id])),
            task=task.id,
            origin="task",
            critic=critic,
            value=fmean(values) if values else None,
            oracle=False,
            runs=tuple(sorted({run for _, _, run in returns[task.id]})),
            licences=licences_of(task),
        )
    built = Built(
        format="prompt", rows=tuple(rows.values()), attempts=attempts, filtered=counts(filtered), critic=critic
    )
    return refuse_empty(built, "no task of these splits may be learned from")


def spans(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `spans` (start, end, value, critic): labels of pieces of the completion.

    `start` and `end` are characters of the completion's text (end excluded), from feedback of scope `span:10:24`
    (characters of the answer, found in the completion) or `step:3` (the whole completion when it is that step).

    Raises:
        TrainError: no attempt or critic, or no label; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection)
    labelled: dict[tuple[str, str, str], tuple[list[Source], dict[str, dict[str, Any]]]] = {}
    for item in items:
        labels = [_label(item, f.scope) | {"value": f.value, "critic": f.critic}
                  for f in item.feedback if f.scope != "attempt" and f.value is not None]  # fmt: skip
        good = [label for label in labels if "start" in label]
        filtered["a label outside the completion"] += len(labels) - len(good)
        if not labels:
            filtered["no label of a span or step"] += 1
        if good:
            key = (item.task.id, item.prompt, item.completion)
            sources, known = labelled.setdefault(key, ([], {}))
            sources.append((item.origin, item, item.value if item.value > -1e300 else item.low, item.oracle))
            known.update({str(label): label for label in good})
    rows = []
    for (_, prompt, completion), (sources, known) in sorted(labelled.items(), key=lambda entry: entry[0]):
        marks = sorted(known.values(), key=lambda m: (m["start"], m["end"], m["critic"], m["value"]))
        columns = {"prompt": messages_of(prompt), "completion": said(completion), "spans": marks}
        rows.append(make_row(sources[0][1].task, columns, sources, critic))
    kept = tuple(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="spans", rows=kept, attempts=len(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "no feedback has the scope of a span or a step of its answer")


def _by_answer(items: Sequence[Scored]) -> dict[tuple[str, str, str], list[Source]]:
    found: dict[tuple[str, str, str], list[Source]] = defaultdict(list)
    for item in items:
        found[item.task.id, item.prompt, item.completion].append((item.origin, item, item.reward, item.oracle))
        for note in item.corrections:
            text = corrected(item.completion, note.correction)
            found[item.task.id, item.prompt, text].append(("correction", item, None, note.oracle))
    return found


def _label(item: Scored, scope: str) -> dict[str, Any]:
    """Where in the completion the scope lies; empty where it is not in it."""
    kind, *numbers = scope.split(":")
    if not all(n.isdecimal() for n in numbers):
        return {}
    where = [int(n) for n in numbers]
    if kind == "step" and len(where) == 1 and where[0] < len(item.attempt.steps):
        whole = item.attempt.steps[where[0]] is turn(item.attempt)
        return {"start": 0, "end": len(item.completion)} if whole else {}
    at = item.completion.find(item.attempt.answer)
    if kind == "span" and len(where) == 2 and at >= 0 and where[0] < where[1] <= len(item.attempt.answer):
        return {"start": at + where[0], "end": at + where[1]}
    return {}
