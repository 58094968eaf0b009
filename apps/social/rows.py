"""Training rows of conversations, one for each thing that was said, in TRL's conversational types.

`reward`: prompt + completion + reward, of the utterances of a run that the critic `utterances` could score: each
dimension scaled over all of them (`critics.utterances.merged`). `sft` and `kto`: of imagined conversations. A row's
prompt is the task's own, without hints, and what was said before; tasks of `dev` and `test` give no row.
`verbal distill --from-export FOLDER` reads what `write_rows` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from verbal.errors import DataError
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Task

from .conversation import Transcript

Row = dict[str, Any]
"""One row, with where it came from."""


def utterance_rows(store: Store, run: str, *, critic: str = "utterances") -> list[Row]:
    """Rows `prompt` + `completion` + `reward` (0 to 10) of the train conversations of a run.

    Raises:
        DataError: the run has no utterance with a reward in every dimension, or all of them have the same.
    """
    attempts = store.attempts(run)
    tasks, feedback = store.tasks(sorted({a.task for a in attempts})), store.feedback([a.id for a in attempts])
    rows: list[Row] = []
    parts: list[Mapping[str, float]] = []
    for attempt in attempts:
        task = tasks.get(attempt.task)
        if task is None or task.kind != "social" or task.split != "train":
            continue
        scored = {f.scope: f for f in feedback[attempt.id] if f.critic == critic and f.value is not None}
        turns = [(i, s) for i, s in enumerate(attempt.steps) if s.author == "policy" and s.text.strip()]
        said: list[tuple[str, str]] = []
        for at, step in turns:
            if (mark := scored.get(f"step:{at}")) is not None:
                papers = {"attempts": [attempt.id], "models": [attempt.model], "runs": [run], "critic": critic}
                rows.append(_row(task, said, step.text) | papers)
                parts.append(mark.parts)
            said += [("ME", step.text), ("THEM", step.observation or "")]
    if not rows:
        todo = f"put the critic {critic!r} into the recipe, and learn on split train"
        raise DataError("no utterance has a reward in every dimension", where=f"run {run}", todo=todo)
    try:
        rewards: list[float] = load_function("critics", "utterances", "merged")(parts)
    except ValueError as error:
        raise DataError(f"the rewards teach nothing: {error}", where=f"run {run}", todo="add conversations") from error
    return [row | {"reward": reward, "value": reward} for row, reward in zip(rows, rewards, strict=True)]


def talk_rows(task: Task, talk: Transcript, format: Literal["sft", "kto"], *, label: bool) -> list[Row]:
    """Rows of one whole conversation: `prompt` + `completion`, and with `kto` the `label` of how it ended."""
    rows, said = [], list[tuple[str, str]]()
    for who, text in talk.lines:
        if who == "ME":
            rows.append(_row(task, said, text) | ({"label": label} if format == "kto" else {}))
        said.append((who, text))
    return rows


def write_rows(folder: str | Path, rows: Sequence[Row]) -> Path:
    """Writes rows as `rows.jsonl` into a folder; gives the file."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    file = place / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def _row(task: Task, said: Sequence[tuple[str, str]], text: str) -> Row:
    roles = {"ME": "assistant", "THEM": "user"}
    before = [{"role": m.role, "content": m.content} for m in task.messages]
    before += [{"role": roles[who], "content": words} for who, words in said]
    answer = [{"role": "assistant", "content": text}]
    return {"prompt": before, "completion": answer, "task": task.id, "origin": "sampled", "oracle": False}


__all__ = ["Row", "talk_rows", "utterance_rows", "write_rows"]
