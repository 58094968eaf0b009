"""Any run again, bit for bit, without a model: what it was made of, its digest, its replay, a file to hand on.

A replay works in an empty store of its own, with the tasks and the memory the run began with, and answers every call
from the recording (`verbal.cache`); no model is opened, so nothing leaves the machine. It is equal when attempts,
feedback, later steps, groups, memory operations and the numbers of the report hash to the same value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, DataError, UnknownName
from verbal.models._faults import redact
from verbal.recipe import Recipe, recipe_from_dict
from verbal.run import Progress
from verbal.store import Store
from verbal.study import Study, perform
from verbal.types import Attempt, Feedback, Group, MemoryOp, Step, Task

STEPS = ("critique", "reflect", "quality")
"""Keys of the steps that come after an attempt has ended."""
_NOT_COMPARED = ("usage", "cost", "estimate", "command")
"""Numbers of a report that tell who paid, and when: a replay pays nothing."""


def known_run(store: Store, run: str) -> dict[str, Any]:
    """The run of that id: recipe, info, status.

    Raises:
        UnknownName: none of that id.
    """
    found = store.run(run)
    if found is None:
        raise UnknownName.of("run", run, [r["id"] for r in store.runs()], where=store.where)
    return found


def sections(store: Store, run: str) -> dict[str, list[str]]:
    """What a run produced, as sorted lines of JSON by kind: equal runs give equal lines."""
    info = known_run(store, run)["info"]
    attempts = sorted(store.attempts(run), key=lambda a: a.id)
    ids = [a.id for a in attempts]
    feedback = store.feedback(ids)
    memory = info.get("memory") or {}
    ops = store.ops(memory["name"], after=memory["from"]) if memory.get("name") else []
    vectors = store.logged_vectors(memory["name"], after=memory["from"]) if ops else {}
    results = {k: v for k, v in (info.get("results") or {}).items() if k not in _NOT_COMPARED}
    return {
        # How long calls took is no result: without it a run that was killed equals one that was not.
        "attempts": [a.replace(usage=a.usage.replace(seconds=0.0)).to_json() for a in attempts],
        "feedback": [f.to_json() for i in ids for f in feedback[i]],
        "steps": [f"{i} {k} {s.to_json()}" for i in ids for k in STEPS if (s := store.step(i, k)) is not None],
        "groups": [g.to_json() for g in store.groups(run)],
        "memory": [_op_line(v, op, vectors.get(v)) for v, op in ops if v <= info.get("memory_to", v)],
        "results": [json.dumps({k: v}, sort_keys=True) for k, v in sorted(results.items())],
    }


def run_digest(store: Store, run: str) -> str:
    """A hash of everything a run produced: 16 hex digits."""
    return _digest(json.dumps(sections(store, run), sort_keys=True))


async def replay(source: Store, run: str, *, progress: Progress | None = None) -> dict[str, Any]:
    """Repeats a finished run from its recording; gives whether it is equal, by kind of record.

    Raises:
        UnknownName: no such run. DataError: it did not finish, or cannot be repeated on its own.
        ReplayMiss: it asks for a call that was never recorded; the first differing field is named.
    """
    known = known_run(source, run)
    if known["status"] != "done":
        todo = "finish it first: the same command with --resume"
        raise DataError(f"run {run!r} is {known['status']}, not done", where=source.where, todo=todo)
    spec, recipe = known["info"], _as_asked(recipe_from_dict(known["recipe"]), known["info"].get("critics") or {})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="verbal-replay-") as folder, Store(Path(folder) / "replay.db") as store:
        _begin(source, store, spec)
        await perform(
            Study(store=store, recipe=recipe, run=run, source=source, progress=progress or Progress()),
            {k: v for k, v in spec.items() if k not in ("results", "memory_to")},
        )
        ours, theirs = sections(store, run), sections(source, run)
        calls = sum(u.calls for u in store.usage(run).values())
        replies = len(store.used_replies(run))
    compared = {k: {"records": len(theirs[k]), "equal": ours[k] == theirs[k]} for k in theirs}
    return {
        "run": run, "equal": ours == theirs, "digest": _digest(json.dumps(ours, sort_keys=True)),
        "recorded_digest": _digest(json.dumps(theirs, sort_keys=True)), "sections": compared, "model_calls": calls,
        "replies": replies, "seconds": time.perf_counter() - began,
        "first_difference": next((_first(k, ours[k], theirs[k]) for k in theirs if ours[k] != theirs[k]), ""),
    }  # fmt: skip


def pack(source: Store, run: str, out: Path) -> dict[str, Any]:
    """Writes a run with its companions into one file that can be handed on, and a card beside it.

    What looks like a key is cut out of every text. Gives the card's facts.

    Raises:
        UnknownName: no such run. ConfigError: the file exists.
    """
    if out.exists():
        raise ConfigError(f"{str(out)!r} exists", where="--pack", todo="give a new file")
    planned = known_run(source, run)["info"].get("parts", [])
    parts = [run, *(p for p in planned if source.run(p) is not None)]
    clean = _Clean()
    with Store(out) as store:
        for part in parts:
            _copy(source, store, part, clean)
        digests = {part: run_digest(store, part) for part in parts}
    card: dict[str, Any] = {
        "run": run, "runs": digests, "recipe": known_run(source, run)["recipe"], "redacted": clean.cut,
        "models": {k: v for p in parts for k, v in (known_run(source, p)["info"].get("models") or {}).items()},
        "data": _data(known_run(source, run)["recipe"]["app"]),
    }  # fmt: skip
    card = _Clean().value(card)
    out.with_suffix(".md").write_text(_card(card, out), encoding="utf-8")
    return card


def _as_asked(recipe: Recipe, critics: Mapping[str, str]) -> Recipe:
    """The recipe with its critics as they were named to be found: `./mine.py:MyCritic` where a user's file has one."""
    names = tuple(critics.get(name, name) for name in recipe.critics.names)
    verdict = critics.get(recipe.critics.verdict, recipe.critics.verdict)
    return dataclasses.replace(recipe, critics=dataclasses.replace(recipe.critics, names=names, verdict=verdict))


class _Clean:
    """Cuts what looks like a secret out of records, and counts the texts it was found in."""

    def __init__(self) -> None:
        self.cut = 0

    def value(self, value: Any) -> Any:
        """The value with every text in it cleaned."""
        if isinstance(value, str):
            clean = redact(value)
            self.cut += clean != value
            return clean
        if isinstance(value, Mapping):
            return {self.value(k): self.value(v) for k, v in value.items()}
        return [self.value(v) for v in value] if isinstance(value, list) else value

    def text(self, text: str) -> str:
        """A text of JSON with every text in it cleaned; as text it could lose the quote that ends one."""
        return json.dumps(self.value(json.loads(text)))


def _begin(source: Store, store: Store, spec: Mapping[str, Any]) -> None:
    """Gives a fresh store what a run began with: its tasks, and its memories as they were."""
    ids = [*spec.get("tasks", ()), *spec.get("guard", ())]
    store.put_tasks(source.tasks(ids).values())
    for name, version in _memories(spec):
        ops = [op for v, op in source.ops(name) if v <= version]
        if ops and name not in store.memories():
            store.log_ops(name, ops, vectors=source.vectors(name, upto=version))
            # Policies read what a trial's attempt was about.
            for made in dict.fromkeys(op.attempt for op in ops if op.attempt):
                if (kept := source.attempt(made)) is not None:
                    store.put_attempt(kept)


def _memories(spec: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(name, version) of each memory a run read, the newest version of a name first."""
    found: dict[str, int] = {}
    memory = spec.get("memory") or {}
    pinned = [(memory["name"], memory["from"])] if memory.get("name") else []
    pinned += [(m[0], int(m[1])) for m in (spec.get("memories") or {}).values()]
    pinned += [(spec[s]["memory"], spec[s]["version"]) for s in ("incumbent", "candidate") if s in spec]
    for name, version in pinned:
        if name:
            found[name] = max(version, found.get(name, 0))
    yield from found.items()


def _copy(source: Store, store: Store, run: str, clean: _Clean) -> None:
    known = known_run(source, run)
    info = known["info"]
    ids = [*info.get("tasks", ()), *info.get("guard", ())]
    with store.transaction():
        store.start_run(run, clean.value(known["recipe"]), clean.value(info))
        # Proposals of a self-play are tasks too, under their attempt's id.
        own = [a.task for a in source.attempts(run)]
        tasks = source.tasks(list(dict.fromkeys([*ids, *own]))).values()
        store.put_tasks(Task.from_dict(clean.value(t.to_dict())) for t in tasks)
        memories = dict(_memories(info))
        if (memory := info.get("memory")) and "memory_to" in info:
            memories[memory["name"]] = max(info["memory_to"], memories.get(memory["name"], 0))
        for name, version in memories.items():
            there = store.memories().get(name, 0)
            ops = [op for v, op in source.ops(name, after=there) if v <= version]
            cleaned = [MemoryOp.from_dict(clean.value(op.to_dict())) for op in ops]
            store.log_ops(name, cleaned, vectors=source.vectors(name, after=there, upto=version))
        for attempt in source.attempts(run):
            feedback = source.feedback([attempt.id])[attempt.id]
            kept = Attempt.from_dict(clean.value(attempt.to_dict()))
            store.put_attempt(
                kept,
                [Feedback.from_dict(clean.value(f.to_dict())) for f in feedback],
            )
            for key in STEPS:
                if (step := source.step(attempt.id, key)) is not None:
                    store.put_step(kept.id, key, Step.from_dict(clean.value(step.to_dict())))
        for group in source.groups(run):
            store.put_group(run, Group.from_dict(clean.value(group.to_dict())), key=_group_key(source, run, group))
        for row in source.replies(run):
            store.put_replies([{**row, "request": clean.text(row["request"]), "reply": clean.text(row["reply"])}])
        for key, role in source.used_replies(run):
            store.use_reply(run, key, role)
        for role, used in source.usage(run).items():
            store.put_call(f"{run}/{role}", run, role, "packed", used)
        store.finish_run(run, known["status"])


def _op_line(version: int, op: MemoryOp, vector: bytes | None) -> str:
    """An operation with the digest of its vector, wherever the vector is kept."""
    if op.item is not None and op.item.embedding:
        op = op.replace(item=op.item.replace(embedding=()))
    return f"{version} {op.to_json()} {hashlib.sha256(vector).hexdigest()[:16] if vector else '-'}"


def _group_key(source: Store, run: str, group: Group) -> str:
    """The key under which a group is kept: the arm of its attempts."""
    first = source.attempt(group.attempts[0]) if group.attempts else None
    return first.arm if first else "learn"


def _data(app: Mapping[str, Any]) -> dict[str, str]:
    """The files an app reads, with their digests: whoever replays needs the same."""
    paths = {k: Path(v) for k, v in app.get("options", {}).items() if isinstance(v, str) and Path(v).is_file()}
    return {k: f"{p.name} sha256 {hashlib.sha256(p.read_bytes()).hexdigest()}" for k, p in paths.items()}


def _card(card: Mapping[str, Any], out: Path) -> str:
    runs = "\n".join(f"| {run} | {digest} |" for run, digest in card["runs"].items())
    data = "\n".join(f"* {k}: {v}" for k, v in card["data"].items()) or "* none besides what the app ships"
    models = "\n".join(f"* {k}: {v[0]} {v[1]}" for k, v in card["models"].items()) or "* none"
    return (
        f"# Recorded run {card['run']}\n\nMade by verbal. Repeat it without any model:\n\n"
        f"    verbal replay {card['run']} --store {out.name}\n\n| run | digest |\n| --- | --- |\n{runs}\n\n"
        f"Models (name, fingerprint), none of which a replay calls:\n\n{models}\n\nData it needs:\n\n{data}\n\n"
        f"Texts from which something that looked like a key was cut: {card['redacted']}.\n\n"
        f"Recipe:\n\n```json\n{json.dumps(card['recipe'], indent=1)}\n```\n"
    )


def _first(kind: str, ours: list[str], theirs: list[str]) -> str:
    for a, b in zip(ours, theirs, strict=False):
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            start = max(0, at - 40)
            return f"{kind}: replayed ...{a[start : at + 60]}..., recorded ...{b[start : at + 60]}..."
    return f"{kind}: {len(ours)} replayed, {len(theirs)} recorded"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


__all__ = ["STEPS", "known_run", "pack", "replay", "run_digest", "sections"]
