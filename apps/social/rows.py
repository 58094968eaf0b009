"""Training rows of imagined conversations and of refined turns, in TRL's conversational types.

One row for each thing that was said. A row's prompt is the task's own and what was said before. `verbal distill
--from-export FOLDER` reads what `write_rows` writes; rows of conversations that were held come from `verbal export
--format utterances`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from verbal.parts import load_function
from verbal.types import Task

from .conversation import Transcript

Row = dict[str, Any]
"""One row, with where it came from."""


def talk_rows(task: Task, talk: Transcript, format: Literal["sft", "kto"], *, label: bool) -> list[Row]:
    """Rows of one whole conversation: `prompt` + `completion`, and with `kto` the `label` of how it ended."""
    rows, said = [], list[tuple[str, str]]()
    for who, text in talk.lines:
        if who == "ME":
            rows.append(_row(task, said, text) | ({"label": label} if format == "kto" else {}))
        said.append((who, text))
    return rows


def refined_rows(
    task: Task, said: Sequence[tuple[str, str]], candidates: Sequence[str], *, human: str = ""
) -> list[Row]:
    """Rows `prompt` + `chosen` + `rejected` of one turn: the best candidate, or a human's words, over each worse.

    Source: the imitation step of Refine and Imitate (arXiv 2012.15375): the human's turn is the best candidate.

    Args:
        task: What the conversation is about.
        said: (`ME` or `THEM`, what was said) before the turn.
        candidates: What might be said there.
        human: What a human said there; empty where nobody knows.
    """
    known = [*candidates, *([human] if human and human not in candidates else [])]
    mine, heard = [words for who, words in said if who == "ME"], [words for who, words in said if who == "THEM"]
    refine = load_function("critics", "persuasion", "refine")
    best, rewards = refine(known, mine, heard[-1] if heard else str(task.info.get("opening", "")), human=human)
    row = _row(task, said, known[best])
    chosen = row.pop("completion")
    return [
        row | {"chosen": chosen, "rejected": [{"role": "assistant", "content": other}], "value": rewards[best]}
        for other, value in zip(known, rewards, strict=True)
        if value < rewards[best]
    ]


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


__all__ = ["Row", "refined_rows", "talk_rows", "write_rows"]
