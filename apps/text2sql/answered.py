"""What was answered and what was said of it: kept in the store with its run, found again by a short id.

An answer's id is `3fa9c-1`: the session (its run is `ask-3fa9c`) and a number. What is kept is a plain dict (`record`);
attempts, feedback and lessons are where all of them are, and the record names them. A correction's id is that of its
answer and a number: `3fa9c-1.2`.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from typing import Any

from verbal.errors import UnknownName
from verbal.store import Store

from .._said import USER, counted, standing

Record = dict[str, Any]
"""An answer: id, question, asked, status, sql, attempt, task, db, memory, at, readings, corrections, counts (the VALUE
operations by which it counts now, as plain dicts)."""

PREFIX = "ask-"
"""How the runs of sessions are called."""


def run_of(answer: str) -> str:
    """The run that an answer or correction belongs to."""
    return PREFIX + answer.rpartition("-")[0]


def keep(store: Store, run: str, record: Record) -> None:
    """Adds an answer to its run."""
    _change(store, run, lambda answers: answers.append(record))


def add_correction(store: Store, answer: str, correction: Record) -> Record:
    """Adds what was said of an answer, under the next id; gives it with its id.

    Where its `ops` count an outcome, these are how the answer counts from now on.
    """
    made: Record = {}

    def add(answers: list[Record]) -> None:
        record = next(a for a in answers if a["id"] == answer)
        made.update(correction, id=f"{answer}.{len(record['corrections']) + 1}", answer=answer, at=time.time())
        record["corrections"].append(made)
        if any(op["op"] == "VALUE" for op in made["ops"]):
            record["counts"] = counted(made["ops"])

    _change(store, run_of(answer), add)
    return made


def mark_undone(store: Store, correction: str, counts: list[Record]) -> None:
    """Notes that a correction was taken back, and how its answer counts now."""

    def mark(answers: list[Record]) -> None:
        for record in answers:
            for made in record["corrections"]:
                if made["id"] == correction:
                    made["undone"], record["counts"] = time.time(), counts

    _change(store, run_of(correction.rpartition(".")[0]), mark)


def answer_of(store: Store, answer: str) -> Record:
    """The record of an answer, also by the id of one of its corrections.

    Raises:
        UnknownName: there is none; names the nearest.
    """
    wanted = answer.strip().partition(".")[0]
    run = store.run(run_of(wanted)) if "-" in wanted else None
    listed: list[Record] = list((run["info"].get("answers") if run else None) or ())
    found = next((a for a in listed if a["id"] == wanted), None)
    if found is None:
        known = [a["id"] for a in answers(store)]
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        latest = f"the latest: {', '.join(known[-3:])}" if known else "nothing was asked yet"
        raise UnknownName(
            f"unknown answer {answer!r}", where=store.where, todo=f"{hint}{latest}; see verbal sql history"
        )
    return found


def answers(store: Store, db: str = "") -> list[Record]:
    """Every answer, oldest first; of one database when it is named."""
    return [a for a in _all(store) if not db or a["db"] == db]


def latest_correction(store: Store, wanted: str = "", db: str = "") -> Record:
    """The correction to take back: of that id, the last of that answer, or the last of the database.

    Raises:
        UnknownName: there is none that is not taken back already.
    """
    pool = [answer_of(store, wanted)] if wanted else answers(store, db)
    made = [c for a in pool for c in a["corrections"] if "undone" not in c]
    if "." in wanted:
        made = [c for c in made if c["id"] == wanted.strip()]
    if not made:
        what = (
            f"nothing to take back for {wanted!r}"
            if wanted
            else "nothing to take back: all that was said of answers is taken back, if anything was"
        )
        raise UnknownName(what, where=store.where, todo="see what was said: verbal sql history")
    return max(made, key=lambda c: float(c["at"]))


def _all(store: Store) -> Iterator[Record]:
    for run in store.runs():
        if run["id"].startswith(PREFIX):
            yield from run["info"].get("answers") or ()


def _change(store: Store, run: str, change: Callable[[list[Record]], object]) -> None:
    """Reads, changes and writes the answers of a run as one."""
    with store.transaction():
        known = store.run(run)
        listed: list[Record] = list((known["info"] if known else {}).get("answers") or ())
        change(listed)
        store.set_info(run, {"answers": listed, "tasks": list(dict.fromkeys(a["task"] for a in listed if a["task"]))})


__all__ = [
    "PREFIX", "USER", "Record", "add_correction", "answer_of", "answers", "counted", "keep", "latest_correction",
    "mark_undone", "run_of", "standing",
]  # fmt: skip
