"""Rows with words: an answer with the words behind it that a student will not see, and critique-refine triples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from verbal.store import Store

from .attempts import Scored, Selection, counts, has_cause, scored
from .examples import Built, Source, capped, make_row, messages_of, refuse_empty, said
from .traces import HINT, turn
from .words import answers_of, contains, critique_of, heard, reflection_of, shows

__all__ = ["pick", "privileged", "refine"]

_VERDICT = re.compile(r"^\s*VERDICT:\s*(right|wrong)\b", re.IGNORECASE | re.MULTILINE)
_MENTIONS = re.compile(r"\bcriti(?:que|c|cism)s?\b|\bfeedback\b", re.IGNORECASE)


class _Triple(NamedTuple):
    prompt: str
    first: str
    critique: str
    refined: str


def privileged(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `privileged_context`: right answers and the words their authors had read.

    The student sees the task's own prompt; a teacher sees the context as well (reflections, critiques, as text).
    Columns as TRL's SDFT and SDPO trainers take them. Words that hold a right answer are no context.

    Raises:
        TrainError: no attempt, critic or row; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection)
    by_id = {item.attempt.id: item for item in items}
    found: dict[tuple[str, str, str, str], list[Source]] = defaultdict(list)
    for item in items:
        context = "\n".join(_read(store, item, by_id.get(item.attempt.parent or "")))
        if item.value < selection.minimum:
            filtered[f"{critic} below {selection.minimum:g}"] += 1
        elif not context:
            filtered["no words were read"] += 1
        elif shows(context, answers_of(item.task, item.feedback)):
            filtered["the words hold a right answer"] += 1
        else:
            key = (item.task.id, item.prompt, item.completion, context)
            found[key].append((item.origin, item, item.value, item.oracle))
    rows = []
    for (_, prompt, completion, context), sources in sorted(found.items(), key=lambda entry: entry[0]):
        columns = {"prompt": messages_of(prompt), "completion": said(completion), "privileged_context": context}
        rows.append(make_row(sources[0][1].task, columns, sources, critic))
        filtered["same answer again"] += len(sources) - 1
    kept = tuple(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="privileged", rows=kept, attempts=len(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "no right answer came after words that can be told")


def refine(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` (refined) + `first`, `critique`, `reward`, `first_reward`: critique-refine triples.

    The refined answer stands under the task's own prompt; the critique is in neither. Left out: a critique that holds a
    right answer or contradicts the verdict, one the retry did not read, a refined answer that speaks of it. Both good
    and bad refinements are rows. Source: Critique-GRPO, arXiv 2506.03106, section 3 and appendix G.

    Raises:
        TrainError: no attempt, critic or triple; it lists what was left out.
    """
    items, filtered, critic = scored(store, selection)
    by_id = {item.attempt.id: item for item in items}
    found: dict[_Triple, list[tuple[Scored, Scored]]] = defaultdict(list)
    for first, refined, critique in _pairs(store, items, by_id, filtered):
        if why := _unusable(first, refined, critique, selection.minimum):
            filtered[why] += 1
        else:
            found[_Triple(first.prompt, first.completion, critique, refined.completion)].append((first, refined))
    rows = []
    for triple, pairs in sorted(found.items()):
        first, refined = pairs[0]
        columns = {
            "prompt": messages_of(triple.prompt),
            "completion": said(triple.refined),
            "first": said(triple.first),
            "critique": triple.critique,
            "reward": refined.reward,
            "first_reward": first.reward,
        }
        sources: list[Source] = [
            ("refined", item, refined.reward, first.oracle or refined.oracle) for pair in pairs for item in pair
        ]
        rows.append(make_row(refined.task, columns, sources, critic, refined.trace))
        filtered["same triple again"] += len(pairs) - 1
    kept = tuple(capped(rows, selection.per_task))
    filtered["over the limit per task"] += len(rows) - len(kept)
    built = Built(format="refine", rows=kept, attempts=len(items), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, "no retry followed a critique of the attempt before it")


def pick(scores: Sequence[float], perfect: float = 1.0) -> int:
    """Which of several refinements joins the group: the first perfect one, else the best, the first of equals.

    Source: Critique-GRPO, section 4.5 of the specification (the released code's rule).

    >>> pick([0, 1, 0, 1]), pick([0.2, 0.7, 0])
    (1, 1)
    """
    return next((i for i, s in enumerate(scores) if s == perfect), max(range(len(scores)), key=lambda i: scores[i]))


def _pairs(
    store: Store, items: Sequence[Scored], by_id: dict[str, Scored], filtered: Counter[str]
) -> Iterator[tuple[Scored, Scored, str]]:
    """(first, refined, critique) of every retry that read what was said of the attempt before it."""
    for refined in items:
        first = by_id.get(refined.attempt.parent or "")
        if first is None:
            filtered["no retry of an attempt that can be learned from"] += 1
            continue
        texts = _said_of(store, first)
        critique = next((t for t in texts if heard(refined.attempt, first.attempt, t)), "")
        if critique:
            yield first, refined, critique
        else:
            filtered["the retry did not read the words" if texts else "nobody said anything of the first answer"] += 1


def _said_of(store: Store, item: Scored) -> list[str]:
    """What critic and reflector said of an attempt, the words its retry can have read."""
    steps = (critique_of(store, item.attempt, item.feedback), reflection_of(store, item.attempt))
    return [step.text.strip() for step in steps if step is not None and step.text.strip()]


def _unusable(first: Scored, refined: Scored, critique: str, minimum: float) -> str:
    """Why a triple is no row, or ""."""
    if shows(critique, answers_of(first.task, [*first.feedback, *refined.feedback])):
        return "the critique holds a right answer"
    verdict = _VERDICT.search(critique)
    if verdict and (verdict[1].lower() == "right") != (first.value >= minimum):
        return "the critique contradicts the verdict"
    if contains(refined.completion, critique) or _MENTIONS.search(refined.completion):
        return "the refined answer speaks of the critique"
    return ""


def _read(store: Store, item: Scored, parent: Scored | None) -> list[str]:
    """The words an attempt had read, in order, each once."""
    step = turn(item.attempt)
    hints = [h.strip() for m in (step.prompt if step else ()) for h in HINT.findall(m.content)]
    if not any(hints) and parent is not None and has_cause(item):
        hints = [t for t in _said_of(store, parent) if heard(item.attempt, parent.attempt, t)]
    return [h for h in dict.fromkeys(hints) if h]
