"""Writes rows to a folder that `datasets.load_dataset(folder)` opens: JSONL or Parquet, with a card."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from verbal.errors import ConfigError, StoreError
from verbal.store import Store

from .columns import COLUMNS, as_parquet, records_of
from .rows import Built, Selection, build

__all__ = ["export"]

_MARK = "<!-- written by verbal export -->"


def export(
    store: Store,
    out: str | Path,
    *,
    format: str,
    run: str | None = None,
    parquet: bool = False,
    critic: str | None = None,
    arms: Sequence[str] | None = None,
    minimum: float = 1.0,
    per_task: int | None = None,
    corrections: Literal["none", "user", "all"] = "user",
    successes: float = 0.0,
) -> dict[str, Any]:
    """Writes the rows of a format (`sft`, `preference`) with a card into the folder `out`; gives the figures.

    Args:
        store: Where the attempts are.
        out: Folder; made if it is not there. An earlier export in it is replaced.
        format: One of `verbal.trainers.rows.FORMATS`.
        run: Only attempts of this run.
        parquet: Parquet instead of JSONL.
        critic: Whose value decides; None: the verdict critic of the runs' recipes, or the only one there is.
        arms: Only these arms of a comparison.
        minimum: Value from which an answer counts as right.
        per_task: At most so many rows of one task.
        corrections: Answers that a person gave: none, those of real users, or also of simulated ones.
        successes: `retrospective`: rows about right attempts for each one about a failed attempt.

    Raises:
        TrainError: the store cannot feed the format (nothing is written). UnknownName: no such format.
        ConfigError: `out` is a file or holds somebody else's README.md. StoreError: it cannot be written.
    """
    chosen = tuple(arms) if arms is not None else None
    selection = Selection(
        run=run,
        arms=chosen,
        critic=critic,
        minimum=minimum,
        per_task=per_task,
        corrections=corrections,
        successes=successes,
    )
    built = build(store, format, selection)
    folder, name = Path(out), "train.parquet" if parquet else "train.jsonl"
    figures = _figures(built, selection)
    _write(folder, name, built, figures)
    return {**figures, "folder": str(folder), "file": str(folder / name)}


def _write(folder: Path, name: str, built: Built, figures: Mapping[str, Any]) -> None:
    """Writes rows and card, if the folder is new or holds an earlier export."""
    card = folder / "README.md"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is a file", where="out", todo="give a folder")
    try:
        if card.exists() and _MARK not in card.read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"{card} was not written by verbal", where="out", todo="give an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        records = records_of([row.record() for row in built.rows])
        _replace(folder / name, as_parquet(records) if name.endswith(".parquet") else _jsonl(records))
        _replace(card, _card(built, figures, name, records[0]).encode())
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        what = f"the export failed: {error.strerror or error}"
        raise StoreError(what, where=str(folder), todo="free some space or give another folder") from error


def _figures(built: Built, selection: Selection) -> dict[str, Any]:
    return {
        "format": built.format,
        "rows": len(built.rows),
        "tasks": len({row.task for row in built.rows}),
        "attempts": built.attempts,
        "run": selection.run,
        "arms": list(selection.arms) if selection.arms is not None else None,
        "critic": built.critic,
        "minimum": selection.minimum,
        "per_task": selection.per_task,
        "corrections": selection.corrections,
        "successes": selection.successes,
        "oracle_rows": sum(row.oracle for row in built.rows),
        "origins": dict(sorted(Counter(row.origin for row in built.rows).items())),
        "off_policy": dict(sorted(Counter(row.trace.off_policy for row in built.rows if row.trace.off_policy).items())),
        "licences": sorted({licence for row in built.rows for licence in row.licences}),
        "models": sorted({model for row in built.rows for model in row.models}),
        "filtered": built.filtered,
    }


def _jsonl(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def _replace(path: Path, content: bytes) -> None:
    """Writes a whole file or nothing."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _card(built: Built, figures: Mapping[str, Any], name: str, record: Mapping[str, Any]) -> str:
    models = ", ".join(figures["models"]) or "unknown"
    off = "; ".join(f"{reason}: {n}" for reason, n in figures["off_policy"].items())
    why = f" ({off})" if off else ""
    right = f"`{figures['critic']}` >= {figures['minimum']:g}" if figures["critic"] else "no critic was asked"
    header = [
        "---",
        "license: other",
        "license_name: depends-on-the-models-and-data-of-origin",
        "tags: [verbal, trl]",
        "configs:",
        "- config_name: default",
        f"  data_files: [{{split: train, path: {name}}}]",
        "---",
    ]
    columns = [f"| `{c}` | {COLUMNS[c][1]} |" for c in record]
    left_out = [f"| {reason} | {n} |" for reason, n in figures["filtered"].items()] or ["| nothing | 0 |"]
    origins = ", ".join(f"{n} {origin}" for origin, n in figures["origins"].items())
    body = [
        _MARK,
        f"# {figures['rows']} rows for `{built.format}` training",
        "",
        "Conversational rows in TRL's types, made from the attempts of an agent. Open with "
        "`datasets.load_dataset(FOLDER)`. Tasks of the test split are never in it.",
        "",
        "| what | |",
        "| --- | --- |",
        f"| rows | {figures['rows']} ({origins}) |",
        f"| tasks | {figures['tasks']} |",
        f"| attempts looked at | {figures['attempts']} |",
        f"| run | {figures['run'] or 'all'} |",
        f"| arms | {', '.join(figures['arms']) if figures['arms'] is not None else 'all'} |",
        f"| right means | {right} |",
        f"| rows that a gold answer decided (`oracle`) | {figures['oracle_rows']} |",
        f"| rows of one task at most | {figures['per_task'] or 'no limit'} |",
        f"| models of origin | {models} |",
        f"| off-policy rows | {sum(figures['off_policy'].values())}{why} |",
        f"| licences of the tasks | {', '.join(figures['licences']) or 'not told'} |",
        "",
        "## Columns",
        "",
        "| column | meaning |",
        "| --- | --- |",
        *columns,
        "",
        "## Left out",
        "",
        "| reason | attempts |",
        "| --- | --- |",
        *left_out,
        "",
        "## Licence",
        "",
        f"The answers were written by: {models}. The terms of those models' providers, and of the database and the "
        "questions, decide what may be done with these rows (some providers forbid training other models on their "
        "output).",
    ]
    return "\n".join([*header, *body]) + "\n"
