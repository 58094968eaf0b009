"""What the verbs of `verbal memory` do that read one memory, drop an item or make its index anew.

Reading needs no index and no embedder: a memory is a function of its log. Files in and out, and the audit, stand in
`memory_files.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from verbal.errors import ConfigError, DataError, StoreError, UnknownName
from verbal.parts import load_function, load_part
from verbal.store import Store
from verbal.types import MemoryOp, Reflection
from verbal.verbs import open_store

_WRITE_TRIES = 20
_WORDS = 3000  # of a text that are compared word by word


def list_memory(path: str, name: str, *, quiet: bool) -> Any:
    """Memories of a store, or the items of one that are not retired."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory", quiet=quiet) as screen:
        if not name:
            for memory, version in store.memories().items():
                screen.print(f"{memory}: version {version}")
            return store.memories()
        items = [item for item in read_state(store, name).items.values() if item.status != "retired"]
        for item in items:
            screen.print(f"{item.id}  {item.status}  {item.text}")
        return [plain(item) for item in items]


def search_memory(path: str, name: str, text: str, k: int, index: str, embedder: str = "", *, quiet: bool) -> Any:
    """What a memory would show for a question."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory search", quiet=quiet) as screen:
        memory = open_for(store, name, index, embedder)
        try:
            found = asyncio.run(memory.search(text, k))
        finally:
            memory.close()
        for item in found:
            screen.print(f"{item.id}  {item.text}")
        if not found:
            screen.print("nothing fits")
        return [plain(item) for item in found]


def memory_log(path: str, name: str, *, quiet: bool) -> Any:
    """Every operation on a memory, oldest first, with its time."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory history", quiet=quiet) as screen:
        known_memory(store, name)
        times = store.op_times(name)
        rows = [{"version": v, "at": _iso(times.get(v)), **_plain_op(op)} for v, op in store.ops(name)]
        for row in rows:
            screen.print(_op_line(row))
        return rows


def show_item(path: str, name: str, item_id: str, *, quiet: bool) -> dict[str, Any]:
    """All that is known of one item: words, standing, source, evidence, and the operations that made it."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory show", quiet=quiet) as screen:
        state = read_state(store, name)
        item = _named_item(store, name, state, item_id)
        times = store.op_times(name)
        rows = [
            {"version": v, "at": _iso(times.get(v)), **_plain_op(op)}
            for v, op in store.ops(name)
            if item_id == op.reflection or item_id in op.others
        ]
        shown = {
            **plain(item),
            "since": _iso(times.get(state.since.get(item_id, 0))),
            "rivals": [r.id for r in state.items.values() if r.rival == item_id and r.status != "retired"],
            "source": _source(store, item),
            "evidence": evidence_of(state, item_id),
            "operations": rows,
        }
        for line in _about(item, shown):
            screen.print(line)
        return shown


def diff_memory(path: str, name: str, left: str, right: str, *, quiet: bool) -> dict[str, Any]:
    """What changed between two versions: of one memory (NAME V1 V2), or of two (NAME@V1 NAME@V2)."""
    from verbal.screen import Screen

    if "@" in name and right:
        raise ConfigError(f"three versions were given: {name}, {left}, {right}", todo="NAME V1 V2, or NAME@V1 NAME@V2")
    with open_store(path) as store, Screen("verbal memory diff", quiet=quiet) as screen:
        base, other = (name, left) if "@" in name else (f"{name}@{left}", f"{name}@{right}" if right else name)
        states = [read_state(store, each) for each in (base, other or base.partition("@")[0])]
        found: dict[str, Any] = {
            "left": f"{base.partition('@')[0]}@{states[0].version}",
            "right": f"{(other or base).partition('@')[0]}@{states[1].version}",
            **diff_states(states[0].items, states[1].items),
        }
        screen.print(f"{found['left']} -> {found['right']}")
        for kind, sign in (("added", "+"), ("changed", "~"), ("status", "!"), ("gone", "-")):
            for row in found[kind]:
                screen.print(f"{sign} {row['id']}  {row['told']}")
        if not any(found[kind] for kind in ("added", "changed", "status", "gone")):
            screen.print("nothing differs")
        return found


def diff_states(left: Mapping[str, Reflection], right: Mapping[str, Reflection]) -> dict[str, list[dict[str, Any]]]:
    """Items that were added, whose words changed, whose standing changed (retired ones too), and that are gone."""
    found: dict[str, list[dict[str, Any]]] = {"added": [], "changed": [], "status": [], "gone": []}
    for item_id, new in right.items():
        if (old := left.get(item_id)) is None:
            told = f"({new.status}) {new.text}"
            found["added"].append({"id": item_id, "status": new.status, "text": new.text, "told": told})
            continue
        fields: dict[str, dict[str, str]] = {}
        for name in ("title", "text", "when", "boundary", "kind", "scope", "polarity", "rival"):
            if (was := str(getattr(old, name))) != (now := str(getattr(new, name))):
                fields[name] = {"left": was, "right": now, "words": word_diff(was, now)}
        if fields:
            told = "; ".join(f"{k}: {v['words']}" if k != "text" else v["words"] for k, v in fields.items())
            found["changed"].append({"id": item_id, "fields": fields, "told": told})
        if old.status != new.status:
            row = {"id": item_id, "left": old.status, "right": new.status, "told": f"{old.status} -> {new.status}"}
            found["status"].append(row)
    found["gone"] = [{"id": i, "text": item.text, "told": item.text} for i, item in left.items() if i not in right]
    return found


def word_diff(left: str, right: str) -> str:
    """Two texts in one, word by word, in the signs of wdiff.

    >>> word_diff("paid means status = 'P'", "paid means state = 'P'")
    "paid means [-status-] {+state+} = 'P'"
    """
    a, b = left.split(), right.split()
    if max(len(a), len(b)) > _WORDS:
        return f"[-{len(a):,} words-] {{+{len(b):,} words+}}"
    pieces = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(" ".join(a[i:j]))
        pieces += [f"[-{' '.join(a[i:j])}-]"] if kind in ("delete", "replace") else []
        pieces += [f"{{+{' '.join(b[k:m])}+}}"] if kind in ("insert", "replace") else []
    return " ".join(pieces)


def forget_item(path: str, name: str, item_id: str, reason: str, *, quiet: bool) -> dict[str, Any]:
    """Retires an item: it is never found again. Its words stay in the log, and its id is never given to another."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory forget", quiet=quiet) as screen:
        item = _named_item(store, name, read_state(store, name), item_id)
        if item.status == "retired":
            raise ConfigError(f"{item_id!r} is retired already", where=f"memory {name!r}", todo="nothing is left to do")
        version = retire(store, name, {item_id: reason or "forgotten by the user"})
        screen.print(f"forgot {item_id}: {item.text}")
        screen.print(
            "It is not found any more; its words stay in the log. To have it back, as a new item in quarantine: "
            f"verbal memory export {name} FILE.jsonl --only {item_id}, then "
            f"verbal memory import {name} FILE.jsonl --again"
        )
        return {"memory": name, "forgot": item_id, "text": item.text, "version": version}


def retire(store: Store, name: str, reasons: Mapping[str, str]) -> int:
    """Retires items in the name of the user; gives the version. Those that somebody retired meanwhile stay so."""
    for tried in range(_WRITE_TRIES):
        state = read_state(store, name)
        ops = [
            MemoryOp(op="RETIRE", reflection=i, reason=why, author="user")
            for i, why in reasons.items()
            if i in state.items and state.items[i].status != "retired"
        ]
        if not ops:
            return int(state.version)
        try:
            return store.log_ops(name, ops, expect=state.version)
        except StoreError:
            # Another writer was faster; anything else is an error at once.
            if tried + 1 == _WRITE_TRIES or not store.ops(name, after=state.version):
                raise
    raise DataError(f"memory {name!r} changes too fast", todo="try again")


def rebuild_memory(path: str, name: str, embedder: str, index: str, *, quiet: bool) -> dict[str, Any]:
    """Makes the index of a memory anew from the store, with another embedder if one is named, and tries every item."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory rebuild", quiet=quiet) as screen:
        began = time.monotonic()
        memory = open_for(store, name, index, embedder, reembed=bool(embedder))
        try:
            before = memory.embedder
            memory.rebuild()
            lost = memory.verify()
            active = sum(item.status == "active" for item in memory.items().values())
            found = {
                "memory": name,
                "index": index,
                "embedder": before,
                "active": active,
                "lost": lost,
                "version": memory.version,
                "seconds": round(time.monotonic() - began, 2),
            }
        finally:
            memory.close()
        screen.print(f"{active:,} active items under {before} in {found['seconds']} s, index {index}")
        screen.print(f"NOT FOUND by their own vector: {', '.join(lost[:20])}" if lost else "every one is found")
        return found


# what the verbs share ----------------------------------------------------------------------------------------------


def known_memory(store: Store, name: str) -> None:
    """Checks that there is a memory of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in store.memories():
        raise UnknownName.of("memory", name, store.memories(), where=store.where)


def read_state(store: Store, memory: str) -> Any:
    """The state of a memory (`LogState`), NAME or NAME@VERSION, from its log alone.

    Raises:
        UnknownName: no such memory. ConfigError: it has no such version.
    """
    name, at, version = memory.rpartition("@") if memory not in store.memories() else (memory, "", "")
    name = name or memory
    known_memory(store, name)
    ops = store.ops(name)
    if at and not (version.isdecimal() and int(version) <= len(ops)):
        todo = f"give 0 to {len(ops)}"
        raise ConfigError(f"memory {name!r} has no version {version!r}", where=store.where, todo=todo)
    state = load_function("memory", "log", "LogState")()
    for number, op in ops:
        if at and number > int(version):
            break
        state.apply(op)
    return state


def open_for(store: Store, name: str, index: str, embedder: str = "", **options: Any) -> Any:
    """A memory of the store, opened with the embedder it was made with, or with the one that is named.

    Raises:
        UnknownName: no such memory, index or embedder. StoreError: it was made with another embedder, see its advice.
    """
    known_memory(store, name)
    return open_part(store, name, index, embedder or own_embedder(store, name), **options)


def open_part(store: Store, name: str, index: str, embedder: str, **options: Any) -> Any:
    """A memory part over the store, whether it holds something already or not."""
    folder = str(store.memory_folder)
    return load_part("memory", index)(store=store, name=name, folder=folder, embedder=embedder or "hashing", **options)


def own_embedder(store: Store, name: str) -> str:
    """How the embedder of a memory is asked for, if its name says that; else an empty text."""
    made = str(read_state(store, name).embedder)
    if made.startswith("endpoint/"):  # the log keeps no address, and words go to no server that nobody named
        what = f"memory {name!r} was made with {made!r}; at which address, its log does not say"
        raise ConfigError(what, where=store.where, todo="add --embedder endpoint/MODEL@URL")
    head, dash, dimension = made.partition("-")
    return f"{head}/{dimension}" if head == "hashing" and dash and dimension.isdecimal() else made


def plain(item: Reflection) -> dict[str, Any]:
    """An item as JSON types, without its vector."""
    return {k: v for k, v in item.to_dict().items() if k != "embedding"}


def _named_item(store: Store, name: str, state: Any, item_id: str) -> Reflection:
    if item_id not in state.items:
        raise UnknownName.of(f"item of memory {name!r}", item_id, state.items, where=store.where)
    found: Reflection = state.items[item_id]
    return found


def _source(store: Store, item: Reflection) -> dict[str, Any]:
    """The task and the attempts an item comes from, as far as the store holds them."""
    task = store.tasks([item.task]).get(item.task) if item.task else None
    attempts = []
    for attempt_id in item.attempts:
        if (attempt := store.attempt(attempt_id)) is None:
            attempts.append({"id": attempt_id, "known": False})
            continue
        values = {f.critic: f.value for f in store.feedback([attempt_id])[attempt_id]}
        row = {"id": attempt_id, "run": attempt.run, "round": attempt.round, "stop": str(attempt.stop)}
        attempts.append({**row, "answer": attempt.answer, "values": values})
    said = task.messages[-1].content if task and task.messages else None
    question = task.info.get("question", said) if task else None
    return {"task": item.task, "split": task.split if task else None, "question": question, "attempts": attempts}


def evidence_of(state: Any, item_id: str) -> dict[str, Any]:
    """What happened when an item was offered: means by shown and withheld, and the effect where lots were drawn."""
    trials = state.trials.get(item_id, ())
    found: dict[str, Any] = {}
    for name, side in (("shown", True), ("withheld", False)):
        outcomes = [t.outcome for t in trials if t.shown == side]
        found[name] = {"trials": len(outcomes), "mean": sum(outcomes) / len(outcomes) if outcomes else None}
    drawn = [t for t in trials if t.chance < 1]
    if drawn:
        effect = load_function("memory", "effects", "effect")(drawn)
        found["effect"] = {"trials": len(drawn), **{k: getattr(effect, k) for k in ("mean", "low", "high")}}
        found["told"] = str(effect)
    return found


def _about(item: Reflection, shown: Mapping[str, Any]) -> list[str]:
    """An item for people, line by line."""
    since = f" since {shown['since']}" if shown["since"] else ""
    lines = [
        f"{item.id}  {item.kind}, {item.status}{since}, {item.polarity}, for {item.scope} (version {item.version})"
    ]
    lines += [f"title: {item.title}"] if item.title else []
    lines += [item.text]
    lines += [f"when: {item.when}"] if item.when else []
    lines += [f"not for: {item.boundary}"] if item.boundary else []
    lines += [f"against: {item.rival}"] if item.rival else []
    lines += [f"rivals on trial: {', '.join(shown['rivals'])}"] if shown["rivals"] else []
    source, evidence = shown["source"], shown["evidence"]
    if source["task"]:
        lines.append(f"task: {source['task']}" + (f" ({source['question'][:300]})" if source["question"] else ""))
    for attempt in source["attempts"]:
        values = ", ".join(f"{k} {v}" for k, v in attempt.get("values", {}).items())
        lines.append(f"attempt: {attempt['id']}  {values or 'not in this store'}")
    counts = item.counters
    value = "none" if item.value is None else f"{item.value:.3f}"
    lines.append(f"shown {counts.shown}, helped {counts.helped}, harmed {counts.harmed}, value {value}")
    for side in ("shown", "withheld"):
        if evidence[side]["trials"]:
            lines.append(f"{side} in {evidence[side]['trials']} trials: mean outcome {evidence[side]['mean']:.3f}")
    lines += [evidence["told"]] if "told" in evidence else []
    # A hundred outcomes say less than the three operations that changed the words.
    telling = [row for row in shown["operations"] if row["op"] != "VALUE"]
    lines += [_op_line(row) for row in telling]
    outcomes = len(shown["operations"]) - len(telling)
    return [*lines, *([f"and {outcomes} VALUE operations (--json lists them)"] if outcomes else [])]


def _plain_op(op: MemoryOp) -> dict[str, Any]:
    data = op.to_dict()
    if data["item"] is not None:
        data["item"].pop("embedding", None)
    return data


def _op_line(row: Mapping[str, Any]) -> str:
    text = row["item"]["text"] if row["item"] else ""
    told = " ".join(filter(None, (row["op"], row["tag"], row["reflection"], text)))
    return f"{row['version']}  {told}  ({row['author']}: {row['reason']})"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def as_plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses or named tuples as JSON types."""
    return [
        dataclasses.asdict(r) if dataclasses.is_dataclass(r) and not isinstance(r, type) else r._asdict() for r in rows
    ]
