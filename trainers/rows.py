"""Formats of training sets from what the store holds, in TRL's conversational types: by name, and the two basic ones.

A row's prompt is always the task's own, never the prompt an attempt saw (`attempts.py`). Reflections, critiques and
guides are never imitated here. What is left out is counted by reason. No torch here, and no file is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from verbal.errors import UnknownName
from verbal.store import Store

from . import critiques, outcomes, retrospect, scoped
from .attempts import Scored, Selection, attempts_of, counts, scored
from .examples import Built, Row, Source, capped, corrected, make_row, messages_of, refuse_empty, said
from .traces import Trace
from .utterances import utterances

__all__ = ["FORMATS", "Built", "Row", "Selection", "build", "preference", "sft"]

FORMATS = (
    "sft", "preference", "kto", "reward", "prompt", "spans", "privileged", "refine", "retrospective", "demonstrations",
    "scope", "utterances",
)  # fmt: skip
"""Formats that can be built, the first three by TRL's names of the dataset types or of their trainer."""

_PAIR = Trace(off_policy="a pair of answers")


def build(store: Store, format: str, selection: Selection) -> Built:
    """The rows of one of `FORMATS`.

    Raises:
        UnknownName: no such format. TrainError: the store cannot feed it, and why.
    """
    builders: dict[str, Callable[[Store, Selection], Built]] = {
        "sft": sft, "preference": preference, "kto": outcomes.kto, "reward": outcomes.reward,
        "prompt": outcomes.prompts, "spans": outcomes.spans, "privileged": critiques.privileged,
        "refine": critiques.refine, "retrospective": retrospect.retrospective,
        "demonstrations": retrospect.demonstrations, "scope": scoped.scope, "utterances": utterances,
    }  # fmt: skip
    if format not in builders:
        raise UnknownName.of("format", format, FORMATS)
    return builders[format](store, selection)


def sft(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion`: the distinct right answers to each task, first tries, retries and corrections.

    Raises:
        TrainError: no attempt, critic or positive answer; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection, talks=True)
    found: dict[tuple[str, str, str], list[Source]] = defaultdict(list)
    for item in items:
        if item.value >= selection.minimum:
            found[item.task.id, item.prompt, item.completion].append((item.origin, item, item.value, item.oracle))
        else:
            filtered[f"{critic} below {selection.minimum:g}"] += 1
        for note in item.corrections:
            text = corrected(item.completion, note.correction)
            found[item.task.id, item.prompt, text].append(("correction", item, None, note.oracle))
    rows = []
    for (_, prompt, completion), sources in sorted(found.items(), key=lambda entry: entry[0]):
        rows.append(make_row(sources[0][1].task, _pair(prompt, completion=completion), sources, critic))
        filtered["same answer again"] += len(sources) - 1
    kept = list(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="sft", rows=tuple(kept), attempts=attempts_of(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, f"no attempt reached {selection.minimum:g} by the critic {critic!r}")


def preference(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `chosen` + `rejected`: for one prompt an answer that was right and one that was not.

    Pairs are a user's correction against what it corrects, a retry against the attempt it retried, a group's
    preferences, and any other right answer to a task against any wrong one, each pair of texts once.

    Raises:
        TrainError: no attempt or critic, or no task has both; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection, talks=True)
    by_id: dict[str, list[Scored]] = defaultdict(list)
    by_task: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for item in items:
        by_id[item.attempt.id].append(item)
        by_task[item.task.id, item.prompt].append(item)
    found: dict[tuple[str, str, str, str], list[Source]] = defaultdict(list)
    for origin, better, worse in _pairs(store, selection, by_id, by_task):
        key = (better.task.id, better.prompt, better.completion, worse.completion)
        oracle = origin != "group" and (better.oracle or worse.oracle)
        found[key] += [(origin, better, better.value, oracle), (origin, worse, better.value, oracle)]
    for item in items:
        for note in item.corrections:
            text = corrected(item.completion, note.correction)
            if text != item.completion:
                key = (item.task.id, item.prompt, text, item.completion)
                found[key].append(("correction", item, None, note.oracle))
    rows = []
    for (_, prompt, chosen, rejected), sources in sorted(found.items(), key=lambda entry: entry[0]):
        rows.append(
            make_row(sources[0][1].task, _pair(prompt, chosen=chosen, rejected=rejected), sources, critic, _PAIR)
        )
    kept = list(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    used = {i for row in rows for i in row.attempts}
    filtered["in no pair"] += len({item.attempt.id for item in items} - used)
    built = Built(
        format="preference", rows=tuple(kept), attempts=attempts_of(items), filtered=counts(filtered), critic=critic
    )
    return refuse_empty(built, f"no task has both a right and a wrong answer by the critic {critic!r}")


def _pairs(
    store: Store,
    selection: Selection,
    by_id: Mapping[str, Sequence[Scored]],
    by_task: Mapping[tuple[str, str], Sequence[Scored]],
) -> Iterator[tuple[Literal["group", "refined", "sampled"], Scored, Scored]]:
    """(origin, better, worse) with different texts."""
    for group in store.groups(selection.run):
        for better, worse in group.preferences:
            pairs = ((b, w) for b in by_id.get(better, ()) for w in by_id.get(worse, ()) if b.prompt == w.prompt)
            for one, other in pairs:  # of two conversations: the turn where they part
                if one.completion != other.completion:
                    yield "group", one, other
    for items in by_task.values():
        right = [i for i in items if i.value >= selection.minimum]
        texts = {i.completion for i in right}
        for good in right:
            for bad in items:
                if bad.value < selection.minimum and bad.completion not in texts:
                    yield "refined" if good.attempt.parent == bad.attempt.id else "sampled", good, bad


def _pair(prompt: str, **answers: str) -> dict[str, Any]:
    return {"prompt": messages_of(prompt)} | {k: said(v) for k, v in answers.items()}
