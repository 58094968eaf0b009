"""What a method refuses before anything heavy is loaded: batches from which it could learn nothing.

Each function takes the rows a method was given and says what is wrong and what to do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from verbal.contracts import Example
from verbal.errors import TrainError

from .examples import Row

__all__ = ["require_columns", "require_groups", "require_labels", "require_on_policy", "require_rewards"]


def require_columns(rows: Sequence[Example], method: str, columns: Sequence[str]) -> None:
    """There are rows, and each has the columns a method reads.

    Raises:
        TrainError: no rows (no pairs, for a method of pairs), or a column is missing.
    """
    if not rows:
        what = "no pairs" if "chosen" in columns else "no rows"
        raise TrainError(
            f"{method} has {what} to train on", todo="collect attempts that succeed and attempts that fail"
        )
    for i, row in enumerate(rows):
        if missing := [c for c in columns if c not in row.columns]:
            raise TrainError(
                f"row {i} has the columns {sorted(row.columns)}; {method} needs {', '.join(missing)} as well",
                where=f"attempts {', '.join(row.attempts)}",
                todo="build the rows with this method's `examples`",
            )


def require_labels(rows: Sequence[Example], method: str, column: str = "label") -> None:
    """Both labels occur.

    Raises:
        TrainError: no rows, or all labels are equal.
    """
    require_columns(rows, method, ("prompt", "completion", column))
    found = Counter(bool(row.columns[column]) for row in rows)
    if len(found) < 2:
        which, other = ("right", "wrong") if found[True] else ("wrong", "right")
        raise TrainError(
            f"all {len(rows)} labels are {which}: {method} learns from the difference",
            where=column,
            todo=f"add {other} answers (more samples, another temperature, other tasks), or train with sft"
            if which == "right"
            else f"add {other} answers (easier tasks, retries, corrections)",
        )


def require_rewards(rows: Sequence[Example], method: str, column: str = "reward") -> None:
    """Some reward is known, and not all are equal.

    Raises:
        TrainError: no rows, no reward, or one value only.
    """
    require_columns(rows, method, ("prompt", column))
    known = [row.columns[column] for row in rows if row.columns[column] is not None]
    if not known:
        todo = "reflect with more rounds: a reward is known once a retry has been scored"
        raise TrainError(f"none of {len(rows)} rows has a {column}", where=method, todo=todo)
    if len(set(known)) == 1:
        raise TrainError(
            f"all {len(known)} rewards are {known[0]:g}: every advantage of {method} would be 0",
            where=column,
            todo="choose tasks that are solved sometimes, a graded critic, or start from demonstrations (sft)",
        )


def require_groups(rows: Sequence[Example], method: str, column: str = "reward") -> None:
    """Some prompt has two samples whose rewards differ.

    An answer that was given several times counts as so many samples.

    Raises:
        TrainError: no rows, one sample in every group, or equal rewards in every group.
    """
    require_columns(rows, method, ("prompt", column))
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.columns[column] is not None:
            plain = set(row.columns) == {"prompt", "completion", column}  # others name the attempts before and after
            groups[str(row.columns["prompt"])] += [row.columns[column]] * (max(1, len(row.attempts)) if plain else 1)
    if all(len(values) < 2 for values in groups.values()):
        raise TrainError(
            f"each of {len(groups)} prompts has one sample: {method} compares samples of one prompt",
            where=column,
            todo="sample several answers to a task (graph `group`, or more rounds and runs), or train with kto or sft",
        )
    if all(len(set(values)) < 2 for values in groups.values()):
        means = Counter(values[0] for values in groups.values())
        told = ", ".join(f"{n} groups all {value:g}" for value, n in sorted(means.items()))
        raise TrainError(
            f"rewards are equal within each of {len(groups)} groups: every advantage of {method} would be 0",
            where=told,
            todo="choose tasks that are solved sometimes, a higher temperature, a graded critic, or demonstrations",
        )


def require_on_policy(rows: Sequence[Example], method: str) -> None:
    """Every row was sampled from its own prompt with known log-probabilities.

    Raises:
        TrainError: some are off-policy, and why.
    """
    why = Counter(row.trace.off_policy if isinstance(row, Row) else "no trace" for row in rows)
    del why[""]
    if why:
        raise TrainError(
            f"{method} is on-policy, and {sum(why.values())} of {len(rows)} rows are not: "
            + "; ".join(f"{reason} ({n})" for reason, n in why.most_common()),
            where="off_policy",
            todo="record log-probabilities (--set model.logprobs=true) of attempts without hints, let the method "
            "sample for itself (format `prompt`), or use sft, kto or preference",
        )
