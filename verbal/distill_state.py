"""A training in the store: begun once, gone on with on request, never twice at a time or into weights that are there.

It is a run `distill-NAME` (its recipe, its rows by digest, its folder, its process, how far it is), so that what was
killed is known, and what it cost counts against the same limits when it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verbal.distill_plan import Plan
from verbal.errors import ConfigError, TrainError
from verbal.ledger import lives, owner
from verbal.parts import load_function
from verbal.store import Store
from verbal.tables import moment
from verbal.text import visible

__all__ = ["Training", "begin"]

_KEPT = {"base": "the model", "seed": "the seed", "out": "the folder", "rows_sha256": "the rows"}


@dataclass(frozen=True, slots=True)
class Training:
    """A training under way."""

    run: str
    """Id of its run in the store."""
    resumed: bool
    trained: bool
    """The weights were finished and registered already; scoring or the gate is left."""
    step: tuple[int, int]
    """Steps done and in all when it stopped."""


def begin(store: Store, plan: Plan, name: str, out: Path, *, resume: bool) -> Training:
    """Registers a training, or goes on with the one of that name.

    Args:
        store: Where it is kept.
        plan: What is trained, and on what.
        name: Of the checkpoint.
        out: Folder of the weights.
        resume: Go on with one that did not finish; with none there, it starts.

    Raises:
        ConfigError: one is there and `resume` was not given; it was begun with another recipe, model, seed, folder or
            other rows; the name cannot be one, or is that of a checkpoint.
        TrainError: another process trains it, or the folder is in use.
    """
    load_function("trainers", "checkpoint", "check_name")(name)
    facts = {
        "command": "distill", "checkpoint": name, "out": str(out.resolve()), "base": plan.base,
        "seed": plan.recipe.seed, "runs": list(plan.runs), "rows": len(plan.examples),
        "rows_sha256": plan.papers["rows_sha256"], "process": owner(),
    }  # fmt: skip
    past = [r for r in store.runs() if r["info"].get("command") == "distill" and r["info"].get("checkpoint") == name]
    last = past[-1] if past else None
    if last is None or (last["status"] == "failed" and not resume):
        _refuse_taken(store, name, out, last)
        run = f"distill-{name}" + (f".{len(past) + 1}" if past else "")
        store.start_run(run, plan.recipe.to_dict(), facts)
        return Training(run, False, False, (0, 0))
    info = last["info"]
    if last["status"] == "running" and info.get("process") and lives(str(info["process"])):
        what = f"the training {name!r} goes on in another process ({info.get('process')})"
        raise TrainError(what, where=store.where, todo="wait for it, or choose another --name")
    step = (int((info.get("step") or [0])[0]), int((info.get("step") or [0, 0])[1]))
    if not resume:
        raise _there(last, name, step, store.where)
    _refuse_other(last, plan, facts)
    store.start_run(last["id"], plan.recipe.to_dict())
    store.set_info(last["id"], {"process": owner()})
    return Training(last["id"], True, bool(info.get("trained")), step)


def _there(last: Mapping[str, Any], name: str, step: tuple[int, int], where: str) -> ConfigError:
    """The error for a training of that name that is there already."""
    if last["status"] == "done":
        return ConfigError(f"the checkpoint {name!r} exists", where=where, todo="choose another --name")
    left = "its weights are finished, scoring or the gate is left" if last["info"].get("trained") else (
        f"step {step[0]} of {step[1]}" if step[1] else "before its first step"
    )  # fmt: skip
    return ConfigError(
        f"the training {name!r} did not finish ({left}; begun {moment(datetime.fromtimestamp(last['started'], UTC))})",
        where=where,
        todo="add --resume to go on with it, or choose another --name",
    )


def _refuse_taken(store: Store, name: str, out: Path, last: Mapping[str, Any] | None) -> None:
    """Refuses a name or a folder that holds something else."""
    if name in {c["name"] for c in store.checkpoints()}:
        todo = "choose another --name" + (", or add --resume for what is left to do" if last else "")
        raise ConfigError(f"the checkpoint {name!r} exists", where=store.where, todo=todo)
    if out.exists() and not out.is_dir():
        raise TrainError(f"{str(out)!r} is a file", where="--out", todo="give a folder")
    found = {p.name for p in out.iterdir()} if out.exists() else set()
    if not found:
        return
    ours = last is not None and last["info"].get("out") == str(out.resolve())
    if ours and "verbal.json" not in found:
        return
    what = "finished weights" if "verbal.json" in found else "an unfinished training" if "resume" in found else "files"
    raise TrainError(
        f"{str(out)!r} is in use: it holds {what} of something else",
        where="--out",
        todo="give a new folder for the weights (--out), or another --name",
    )


def _refuse_other(last: Mapping[str, Any], plan: Plan, facts: Mapping[str, Any]) -> None:
    """Refuses to go on with a training that was begun for something else."""
    info, told = last["info"], []
    if info.get("rows_sha256") != facts["rows_sha256"]:
        told.append(f"the rows: {info.get('rows')} then, {facts['rows']} now, of other content")
    told += [
        f"{words}: {visible(info.get(key), 80)} then, {visible(facts[key], 80)} now"
        for key, words in _KEPT.items()
        if key != "rows_sha256" and info.get(key) != facts[key]
    ]
    old, new = dict(_flat(last["recipe"])), dict(_flat(plan.recipe.to_dict()))
    told += [
        f"{key}: {visible(old.get(key), 80)} then, {visible(new.get(key), 80)} now"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not key.startswith("limits.") and key not in ("seed", "model.name")
    ]
    if told:
        raise ConfigError(
            f"the training {info['checkpoint']!r} was begun with another recipe or other rows ({'; '.join(told)})",
            where=f"run {last['id']}",
            todo="repeat the options it began with (and name its runs with --from), or choose another --name",
        )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
