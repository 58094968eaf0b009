"""Training rows of imagined conversations, one for each thing that was said, in TRL's conversational types.

A row's prompt is the task's own and what was said before. `verbal distill --from-export FOLDER` reads what `write_rows`
writes; rows of conversations that were held come from `verbal export --format utterances`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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


__all__ = ["Row", "talk_rows", "write_rows"]
