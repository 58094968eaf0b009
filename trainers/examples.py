"""The row of a training set: TRL's columns, and where they came from. How many attempts become one row."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verbal.contracts import Example
from verbal.errors import TrainError
from verbal.types import Task

from .attempts import Origin, Scored, listed
from .traces import Trace

__all__ = [
    "Built",
    "Row",
    "Rows",
    "Source",
    "capped",
    "corrected",
    "licences_of",
    "make_row",
    "messages_of",
    "refuse_empty",
    "said",
]

_FENCE = re.compile(r"```[^\n]*\n.*?```", re.DOTALL)
_ORDER: tuple[Origin, ...] = ("correction", "refined", "sampled", "group", "reflection", "scope", "task")
"""Strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Example):
    """One row and where it came from."""

    task: str
    origin: Origin
    """`sampled`: a first attempt; `refined`: a retry; `correction`: what a user gave; `group`: a critic's pair;
    `reflection`: words about an attempt; `scope`: answers with and without a lesson; `task`: only a prompt."""
    critic: str
    value: float | None
    """The critic's value of the answer that is imitated."""
    oracle: bool
    """True when a gold answer decided that this row is right."""
    models: tuple[str, ...] = ()
    """Which models wrote the answer."""
    runs: tuple[str, ...] = ()
    """Runs of the attempts."""
    licences: tuple[str, ...] = ()
    """What the tasks say of their licence (`Task.info`: licence or license)."""
    trace: Trace = field(default_factory=Trace)
    """Tokens and log-probabilities as recorded, or why the row is off-policy; what its prompt left out."""

    def record(self) -> dict[str, Any]:
        """The row as plain JSON types: TRL's columns first, then its provenance."""
        return {
            **self.columns,
            "task": self.task,
            "attempts": list(self.attempts),
            "origin": self.origin,
            "critic": self.critic,
            "value": self.value,
            "oracle": self.oracle,
            "models": list(self.models),
            "runs": list(self.runs),
            "licences": list(self.licences),
            **self.trace.record(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The rows, and what was left out and why."""

    format: str
    rows: tuple[Row, ...]
    attempts: int
    """Attempts looked at."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Reason -> attempts (or pairs) that gave no row of their own."""
    critic: str = ""


class Rows(list[Example]):
    """The rows of a set as a method gives them, which also tells what was left out."""

    def __init__(self, built: Built) -> None:
        super().__init__(built.rows)
        self.filtered: dict[str, int] = dict(built.filtered)
        """Reason -> attempts (or pairs) that gave no row of their own."""


Source = tuple[Origin, Scored, float | None, bool]
"""(origin, attempt, the critic's value of what is imitated, whether a gold answer decided)."""


def said(text: str) -> list[dict[str, str]]:
    """What the assistant says, as messages."""
    return [{"role": "assistant", "content": text}]


def messages_of(prompt: str) -> list[dict[str, str]]:
    """The messages of a prompt that was kept as JSON text."""
    return [{"role": m["role"], "content": m["content"]} for m in json.loads(prompt)]


def corrected(completion: str, correction: str) -> str:
    """A user's correction, in a code fence when the answer it corrects was in one."""
    fence = _FENCE.search(completion)
    if fence is None or "```" in correction:
        return correction.strip()
    return f"{fence.group(0).splitlines()[0]}\n{correction.strip()}\n```"


def make_row(
    task: Task, columns: Mapping[str, Any], sources: Sequence[Source], critic: str, trace: Trace | None = None
) -> Row:
    """One row from all that led to it; the strongest origin names it (a correction, then a retry).

    Args:
        task: Whose prompt it has.
        columns: TRL's columns.
        sources: At least one.
        critic: Who judged.
        trace: What was recorded of its words; that of the first source that is on-policy, or of the first, if None.
    """
    origin = min((s[0] for s in sources), key=_ORDER.index)
    values = [s[2] for s in sources if s[2] is not None and s[0] == origin]
    traces = [Trace(off_policy="a person's words") if s[0] == "correction" else s[1].trace for s in sources]
    return Row(
        columns=columns,
        attempts=tuple(sorted({s[1].attempt.id for s in sources})),
        task=task.id,
        origin=origin,
        critic="user" if origin == "correction" else critic,
        value=max(values) if values else None,
        oracle=all(s[3] for s in sources),
        models=tuple(sorted({s[1].attempt.model for s in sources if s[1].attempt.model and s[0] != "correction"})),
        runs=tuple(sorted({s[1].attempt.run for s in sources})),
        licences=licences_of(task),
        trace=trace or next((t for t in traces if not t.off_policy), traces[0]),
    )


def licences_of(task: Task) -> tuple[str, ...]:
    """What a task says of its licence."""
    licence = task.info.get("licence", task.info.get("license"))
    return (licence,) if isinstance(licence, str) and licence else ()


def capped(
    rows: Iterable[Row], per_task: int | None, key: Callable[[Row], object] = lambda row: row.task
) -> Iterator[Row]:
    """At most `per_task` rows of a task (of a key): corrections first, then what most attempts gave, then by text."""
    by_task: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[key(row)].append(row)
    for several in by_task.values():
        ranked = sorted(several, key=lambda r: (r.origin != "correction", -len(r.attempts), str(r.columns)))
        yield from ranked[:per_task]


def refuse_empty(built: Built, why: str) -> Built:
    """The rows, if there is one.

    Raises:
        TrainError: there is none; it lists what was left out.
    """
    if built.rows:
        return built
    raise TrainError(
        f"no {built.format} rows from {built.attempts} attempts: {why}",
        where=f"left out: {listed(built.filtered)}",
        todo="collect more attempts (more samples or retries), or choose another critic or a lower minimum",
    )
