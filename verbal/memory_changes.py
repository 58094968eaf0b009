"""What a run changed in its memory: between its begin and its end, item by item, in words.

A learning run says at which version of the log its memory stood when it began and when it ended. Of a session (chat,
questions on a database) the versions are found by time, so what others wrote meanwhile is among the changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Reflection

KINDS = ("added", "reworded", "believed", "doubted", "retired")
"""What can become of an item, in the order in which it is told."""


def run_changes(store: Store, run: str) -> list[dict[str, Any]]:
    """The changes of the memories of a run: `memory`, `from`, `to`, `counts` by kind, and `items`.

    An item is `change`, `id`, `text`, `before` (its words, where they changed), `when`, `boundary`, `status`, `shown`,
    `helped`, `harmed`, `why`. An item that was added and retired within the run is told as retired.
    """
    known = store.run(run)
    if known is None:
        return []
    parts = [r for i in known["info"].get("parts", ()) if (r := store.run(i))]
    found = []
    for each in (known, *parts):
        for name, (begin, end) in _spans(store, each).items():
            if items := changes(store, name, begin, end):
                counts = {kind: sum(i["change"] == kind for i in items) for kind in KINDS}
                found.append({"memory": name, "from": begin, "to": end, "counts": counts, "items": items})
    return found


def changes(store: Store, memory: str, begin: int, end: int) -> list[dict[str, Any]]:
    """What became of the items of a memory between two versions of its log; see `run_changes`."""
    before, after, why = _states(store, memory, begin, end)
    found = []
    for key, item in after.items():
        old = before.get(key)
        change = _change(old, item)
        if change and not (old is None and item.status == "retired" and not item.text):
            counts = item.counters
            found.append(
                {"change": change, "id": key, "text": item.text, "when": item.when, "boundary": item.boundary,
                 "before": old.text if old is not None and old.text != item.text else "", "status": item.status,
                 "shown": counts.shown, "helped": counts.helped, "harmed": counts.harmed, "why": why.get(key, "")}
            )  # fmt: skip
    # What helped most stands first: a page that is cut must not lose it.
    return sorted(found, key=lambda i: (KINDS.index(i["change"]), i["harmed"] - i["helped"]))


def _change(old: Reflection | None, now: Reflection) -> str:
    if now.status == "retired":
        return "" if old is not None and old.status == "retired" else "retired"
    if old is None:
        return "added"
    if old.text != now.text or old.boundary != now.boundary:
        return "reworded"
    if old.status != now.status:
        return "believed" if now.status == "active" else "doubted"
    return ""


def _states(
    store: Store, memory: str, begin: int, end: int
) -> tuple[dict[str, Reflection], dict[str, Reflection], dict[str, str]]:
    """Items at both versions, and the reason that was given last for each item in between."""
    state, before, why = load_function("memory", "log", "LogState")(), dict[str, Reflection](), dict[str, str]()
    for version, op in store.ops(memory):
        if version > end:
            break
        made = state.apply(op)
        if version <= begin:
            before = dict(state.items) if version == begin else before
        elif made.op not in ("NOOP", "VALUE") and made.reason and (made.op != "TAG" or made.tag in _STANDINGS):
            why[made.reflection] = made.reason
    return before, dict(state.items), why


_STANDINGS = ("active", "quarantined")


def _spans(store: Store, run: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Memory -> the versions at which it stood when a run began and when it ended (now, while it runs)."""
    info, known = run["info"], store.memories()
    memory = info.get("memory") or {}
    if info.get("command") == "learn" and isinstance(memory, Mapping) and memory.get("name") in known:
        name = str(memory["name"])
        return {name: (int(memory.get("from", 0)), int(info.get("memory_to", known[name])))}
    spans = {}
    for name in dict.fromkeys(_named(info)):
        if name in known:
            times = store.op_times(name)
            begin = sum(at < run["started"] for at in times.values())
            spans[name] = (begin, sum(at <= (run["finished"] or float("inf")) for at in times.values()))
    return spans


def _named(info: Mapping[str, Any]) -> Sequence[str]:
    """Memories that a session reads and writes."""
    own = [str(a.get("memory") or "") for a in info.get("answers") or () if isinstance(a, Mapping)]
    for turn in info.get("turns") or ():
        if isinstance(turn, Mapping):
            own += [*(turn.get("offers") or ()), *(str(c.get("memory") or "") for c in turn.get("corrections") or ())]
    return [name for name in own if name]


__all__ = ["KINDS", "changes", "run_changes"]
