"""Scope triples of C3PO: a pair where a lesson applies, and the model's own answers where it must change nothing.

Source: Stephan et al. 2024, RLVF / C3PO, arXiv 2402.10893, sections 3 and 4. The requests and answers are those of
`verbal memory scope --answers`, whose run says which task lies inside, near and outside the lesson's scope. Differs:
the better answer is the one given with the lesson in context, not a revision.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from verbal.errors import TrainError
from verbal.store import Store

from .attempts import Admitted, Selection, admitted, completion_of, counts
from .examples import Built, Row, licences_of, messages_of, refuse_empty, said
from .traces import Trace, turn

__all__ = ["held_out", "scope", "zipped"]


class _Said(NamedTuple):
    item: Admitted
    text: str


def scope(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `chosen` + `rejected` (inside) + `near_prompt`, `near_completion`, `outside_prompt`, ....

    Chosen was answered with the lesson, rejected and the other two without it, all by the same model; where the answer
    is the same, where a critic's values contradict the pair, or where it is empty, there is no row. One row each of the
    three kinds, cut to the shortest. `held_out` marks the tenth of the requests that is for evaluation: no prompt is on
    both sides.

    Raises:
        TrainError: no attempt, no run of `verbal memory scope`, or no triple; it lists what was left out.
    """
    items, filtered = admitted(store, selection)
    by_run: dict[str, list[Admitted]] = defaultdict(list)
    for item in items:
        by_run[item.attempt.run].append(item)
    rows: dict[str, Row] = {}
    tried = 0
    for run in sorted(by_run):
        info = (store.run(run) or {}).get("info") or {}
        if not (kinds := info.get("requests")):
            filtered["not of a scope test"] += len(by_run[run])
            continue
        tried += 1
        about = info.get("scope", {})
        lessons = {str(about[key]) for key in ("item", "narrowed") if about.get(key)}
        for row in _triples(lessons, kinds, by_run[run], filtered):
            rows.setdefault(str(row.columns), row)
    if not tried:
        raise TrainError(
            "no run tried a lesson's scope, so which requests are inside, near and outside is not known",
            where=store.where,
            todo="run `verbal memory scope MEMORY ITEM --answers` first",
        )
    built = Built(format="scope", rows=tuple(rows.values()), attempts=len(items), filtered=counts(filtered))
    return refuse_empty(built, "no lesson has a changed answer inside and answers near and outside its scope")


def zipped(
    inside: Sequence[_Said], near: Sequence[_Said], outside: Sequence[_Said]
) -> list[tuple[_Said, _Said, _Said]]:
    """Triples row by row; rows with an empty text are dropped before, and the longer sets are cut to the shortest."""
    a, b, c = ([s for s in side if s.text.strip()] for side in (inside, near, outside))
    return list(zip(a, b, c, strict=False))


def held_out(prompt: str, share: float = 0.1) -> bool:
    """Whether a prompt is kept for evaluation: decided by its text alone, so it is the same in every export."""
    place = int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
    return place < share * 2**32


def _triples(
    lessons: set[str], kinds: Mapping[str, Sequence[str]], items: Sequence[Admitted], filtered: Counter[str]
) -> list[Row]:
    """The triples of one run, whose lesson goes by these ids (its own, and that of the narrowed one)."""
    without: dict[str, _Said] = {}
    with_: dict[str, _Said] = {}
    for item in items:
        answer = _Said(item, completion_of(item.attempt) if item.attempt.error is None else "")
        if not answer.text:
            filtered["no answer, or none that stands without its hints"] += 1
        (with_ if _shown(item) & lessons else without)[item.task.id] = answer
    pairs: dict[str, tuple[_Said, _Said]] = {}
    for task in kinds.get("inside", ()):
        if task in with_ and task in without:
            good, bad = with_[task], without[task]
            if good.text and bad.text and good.text != bad.text and not _contradicted(good.item, bad.item):
                pairs[task] = (good, bad)
            else:
                filtered["the lesson made no better answer inside"] += 1
    for kind in ("near", "outside"):
        filtered[f"{kind} requests without an answer (not found there: try with --answers)"] += len(
            [task for task in kinds.get(kind, ()) if task not in without]
        )
    rows = []
    for side in (False, True):
        sets = [
            [without[t] for t in kinds.get(kind, ()) if t in without and held_out(without[t].item.prompt) == side]
            for kind in ("near", "outside")
        ]
        inside = [good for good, _ in pairs.values() if held_out(good.item.prompt) == side]
        for good, near, outside in zipped(inside, *sets):
            rows.append(_row(good, pairs[good.item.task.id][1], near, outside, side))
    return rows


def _row(good: _Said, bad: _Said, near: _Said, outside: _Said, side: bool) -> Row:
    attempts = [s.item.attempt for s in (good, bad, near, outside)]
    return Row(
        columns={
            "prompt": messages_of(good.item.prompt),
            "chosen": said(good.text),
            "rejected": said(bad.text),
            "near_prompt": messages_of(near.item.prompt),
            "near_completion": said(near.text),
            "outside_prompt": messages_of(outside.item.prompt),
            "outside_completion": said(outside.text),
            "held_out": side,
        },
        attempts=tuple(sorted({a.id for a in attempts})),
        task=good.item.task.id,
        origin="scope",
        critic="",
        value=None,
        oracle=False,
        models=tuple(sorted({a.model for a in attempts if a.model})),
        runs=(good.item.attempt.run,),
        licences=licences_of(good.item.task),
        trace=Trace(off_policy="a pair of answers"),
    )


def _shown(item: Admitted) -> set[str]:
    step = turn(item.attempt)
    return set(step.shown) if step else set()


def _contradicted(good: Admitted, bad: Admitted) -> bool:
    """Whether a critic that valued both does not find the better one better."""
    values = [
        {f.critic: f.value for f in i.feedback if f.scope == "attempt" and f.value is not None} for i in (good, bad)
    ]
    return any(values[0][c] <= values[1][c] for c in values[0].keys() & values[1].keys())
