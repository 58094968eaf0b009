"""Rows of utterances: each thing that the policy said in a conversation, in its place there, with one reward.

Source: the utterance rows of Sotopia-RL (arXiv 2508.03905): a critic gave each utterance a reward in several
dimensions (feedback of scope `step:i` with `parts`); each is scaled over the data set, and their mean x 10 is the
reward.
No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from verbal.errors import TrainError
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Feedback, Step

from .attempts import Admitted, Scored, Selection, admitted, counts
from .examples import Built, make_row, messages_of, refuse_empty, said
from .traces import step_trace, turns

__all__ = ["utterances"]

_CRITIC = "utterances"


def utterances(store: Store, selection: Selection) -> Built:
    """Rows `prompt` + `completion` + `reward` (0 to 10): the prompt is the task's own, then what was said so far.

    Raises:
        TrainError: no attempt, no utterance with a reward in every dimension, or all rewards are equal.
    """
    known, filtered = admitted(store, selection)
    critic = selection.critic or _CRITIC
    found: list[tuple[dict[str, Any], Scored]] = []
    parts: list[Mapping[str, float]] = []
    for item in known:
        scored = {f.scope: f for f in item.feedback if f.critic == critic and f.scope.startswith("step:")}
        for at, step, before in turns(item.attempt):
            mark = scored.get(f"step:{at}")
            if mark is None or mark.value is None:
                filtered[f"no reward of {critic}" if mark is None else f"{critic} could not score"] += 1
                continue
            columns = {"prompt": messages_of(item.prompt) + before, "completion": said(step.text)}
            found.append((columns, _scored(item, step, mark, columns["prompt"])))
            parts.append(mark.parts)
    rewards = _merged(store, parts) if parts else []
    rows = tuple(
        make_row(s.task, {**columns, "reward": reward}, [(s.origin, s, reward, s.oracle)], critic)
        for (columns, s), reward in zip(found, rewards, strict=True)
    )
    built = Built(format="utterances", rows=rows, attempts=len(known), filtered=counts(filtered), critic=critic)
    return refuse_empty(built, f"no utterance has a reward of the critic {critic!r} in every dimension")


def _merged(store: Store, parts: list[Mapping[str, float]]) -> list[float]:
    try:
        merged: list[float] = load_function("critics", "utterances", "merged")(parts)
    except ValueError as error:
        what = f"the rewards of {len(parts)} utterances teach nothing: {error}"
        todo = "collect more conversations, or give the critic the same dimensions in every run"
        raise TrainError(what, where=store.where, todo=todo) from error
    return merged


def _scored(item: Admitted, step: Step, mark: Feedback, prompt: list[dict[str, str]]) -> Scored:
    seen = [{"role": m.role, "content": m.content} for m in step.prompt]
    why = "" if seen == prompt else "it was sampled under another prompt (hints or earlier tries)"
    value = mark.value if mark.value is not None else mark.low
    return Scored(
        attempt=item.attempt, task=item.task, prompt=json.dumps(prompt), completion=step.text, value=value,
        low=mark.low, oracle=mark.oracle, corrections=(), trace=step_trace(step, why), feedback=item.feedback,
    )  # fmt: skip
