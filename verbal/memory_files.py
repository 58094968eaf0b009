"""What `verbal memory audit`, `export` and `import` do: a memory looked over, written to files, read from files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, DataError, UnknownName
from verbal.memory_verbs import as_plain, known_memory, open_part, own_embedder, plain, read_state, retire
from verbal.parts import load_function
from verbal.prompt import load_prompt, prompt_names
from verbal.store import Store
from verbal.types import MemoryOp, Reflection
from verbal.verbs import open_store

GRAVE = ("secret", "injection", "sealed")
"""Kinds of findings with which no memory should serve: `verbal memory audit` fails while there are any."""
TRANSCRIPT = "transcript"
"""The format of conversations and trajectories, from which candidates are made."""


def audit_memory(
    path: str,
    name: str,
    *,
    fix: bool = False,
    yes: bool = False,
    days: float = 90.0,
    emails: bool = False,
    examples: int = 3,
    quiet: bool,
) -> dict[str, Any]:
    """What is wrong with a memory; with `fix` what would be retired, and with `yes` that is done.

    Raises:
        ConfigError: `yes` without `fix`. UnknownName: no such memory.
    """
    from verbal.screen import Screen

    if yes and not fix:
        raise ConfigError("--yes was given without --fix", todo="add --fix to retire what the audit is sure of")
    with open_store(path) as store, Screen("verbal memory audit", quiet=quiet) as screen:
        state = read_state(store, name)
        bounds = load_function("memory", "audit", "Bounds")(days=days, emails=emails)
        began = time.monotonic()
        findings = load_function("memory", "audit", "audit")(
            state.items.values(), audit_evidence(store, name, state), bounds
        )
        seconds = round(time.monotonic() - began, 2)
        fixes = _fixes(findings)
        version = retire(store, name, fixes) if fix and yes else state.version
        table = load_function("memory", "audit", "summary")(findings)
        alive = sum(item.status != "retired" for item in state.items.values())
        made: dict[str, Any] = {
            "memory": name, "version": version, "items": alive, "seconds": seconds, "kinds": table,
            "findings": as_plain(findings), "proposed": fixes if fix else {},
            "retired": sorted(fixes) if fix and yes else [],
        }  # fmt: skip
        left = [f for f in findings if f.kind in GRAVE and not (fix and yes and set(f.ids) <= set(fixes))]
        made["grave"] = len(left)
        screen.print(f"{name}: {alive:,} items, {len(findings):,} findings in {seconds} s")
        if findings:
            screen.print(_findings_table(table, findings, state.items, examples))
        if fix:
            _tell_fixes(screen, fixes, state.items, done=yes)
        return made


def audit_evidence(store: Store, name: str, state: Any) -> Any:
    """What the store knows besides the words (`Evidence` of the audit)."""
    items = [item for item in state.items.values() if item.status != "retired"]
    tasks = sorted({item.task for item in items if item.task})
    asked = {i: t.messages[-1].content for i, t in store.tasks(tasks).items() if t.messages} if tasks else {}
    return load_function("memory", "audit", "Evidence")(
        version=state.version,
        trials=state.trials,
        times=store.op_times(name),
        now=time.time(),
        attempt=lru_cache(maxsize=256)(store.attempt),
        questions=asked,
        sealed=frozenset(store.sealed(tasks)),
        prompts=[load_prompt(prompt).body for prompt in prompt_names()],
    )


def export_memory(
    path: str,
    name: str,
    out: Path,
    format_: str,
    *,
    everything: bool = False,
    only: Sequence[str] = (),
    description: str = "",
    force: bool = False,
    quiet: bool,
) -> dict[str, Any]:
    """Writes what a memory (NAME or NAME@VERSION) believes, or all of it, or some items, to a file or folder.

    Raises:
        UnknownName: no such memory, item or format. DataError: nothing to write, or a file is there already.
    """
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal memory export", quiet=quiet) as screen:
        state = read_state(store, name)
        for item_id in only:
            if item_id not in state.items:
                raise UnknownName.of(f"item of memory {name!r}", item_id, state.items, where=store.where)
        chosen = [
            item
            for item in state.items.values()
            if (item.id in only if only else everything or item.status == "active")
        ]
        if not chosen:
            todo = "give --all to write what is quarantined or retired too" if state.items else "let it learn first"
            raise DataError(f"memory {name!r} believes nothing", where=store.where, todo=todo)
        write = load_function("memory", "transfer", "write_memory")
        base = name if name in store.memories() else name.rpartition("@")[0]
        taken = write(chosen, out, _format(format_, out), name=base, description=description, force=force)
        screen.print(f"{len(taken.items):,} items of {name} in {out}")
        for left in taken.left:
            screen.print(f"left out {left.place}: {left.why}")
        return {"memory": name, "out": str(out), "items": len(taken.items), "left_out": as_plain(taken.left)}


def import_memory(
    path: str,
    name: str,
    source: Path,
    format_: str,
    *,
    trust: bool = False,
    again: bool = False,
    dry_run: bool = False,
    embedder: str = "",
    quiet: bool,
) -> dict[str, Any]:
    """Reads lessons into a memory, which is made if there is none: quarantined, unless a person answers for them.

    Raises:
        UnknownName: no such format. DataError: nothing can be read. StoreError: the memory has another embedder.
    """
    from verbal.screen import Screen

    taken = _read(source, format_)
    ops, left = load_function("memory", "transfer", "import_ops")(taken.items, source.name, trust=trust, again=again)
    with Store(path) as store, Screen("verbal memory import", quiet=quiet) as screen:
        there = name in store.memories()
        known = read_state(store, name).items if there else {}
        fresh, shut = _new(store, ops, known, again)
        made: dict[str, Any] = {
            "memory": name, "read": len(taken.items), "there_already": len(ops) - len(fresh) - len(shut),
            "left_out": as_plain([*taken.left, *left]) + shut, "dry_run": dry_run,
        }  # fmt: skip
        added, refused = [op.item for op in fresh], list[dict[str, str]]()
        # Whoever answers for words that wait in quarantine lets them out.
        waits = [op.reflection for op in ops if trust and op.reflection in known and op.item.status == "active"]
        waits = [i for i in waits if known[i].status == "quarantined"]
        believed = "trusted by a person"
        fresh += [MemoryOp(op="TAG", reflection=i, tag="active", reason=believed, author="user") for i in waits]
        if fresh and not dry_run:
            spec = embedder or (own_embedder(store, name) if there else "")
            memory = open_part(store, name, "exact", spec, quarantine=not trust)
            try:
                made["version"] = asyncio.run(memory.apply(fresh))
                held = memory.items()
            finally:
                memory.close()
            added = [held[op.reflection] for op in fresh if op.op == "ADD" and op.reflection in held]
            missing = [op.reflection for op in fresh if op.reflection not in held]
            refused = [{"place": i, "why": _refusal(store, name, i)} for i in missing]
        made |= {"added": len(added), "activated": waits, "items": [plain(item) for item in added if item is not None]}
        made["left_out"] += refused
        _tell_import(screen, made, trust)
        return made


def _new(
    store: Store, ops: Sequence[MemoryOp], known: Mapping[str, Reflection], again: bool
) -> tuple[list[MemoryOp], list[dict[str, str]]]:
    """The operations whose words are not there yet, and what is left out: of sealed tasks, or retired here before."""
    fresh, shut = list[MemoryOp](), list[dict[str, str]]()
    sealed = store.sealed(op.item.task for op in ops if op.item is not None and op.item.task)
    for op in ops:
        old = known.get(op.reflection)
        if op.item is not None and op.item.task in sealed:
            shut.append({"place": op.reflection, "why": f"its task {op.item.task!r} is of the sealed split"})
        elif old is None:
            fresh.append(op)
        elif old.status == "retired" and not again:
            shut.append({"place": op.reflection, "why": "was retired here (--again takes it in as a new item)"})
        elif old.status == "retired":
            # Ids are never used again, so the same words get the next one.
            ids = (f"{op.reflection}.{n}" for n in count(2))
            new = next(i for i in ids if i not in known or known[i].status != "retired")
            if new not in known and op.item is not None:
                fresh.append(op.replace(reflection=new, item=op.item.replace(id=new)))
    return fresh, shut


def _read(source: Path, format_: str) -> Any:
    """What a file or folder holds (`Taken`)."""
    known: Any = load_function("memory", "transfer", "FORMATS")
    if format_ and format_ not in (*known, TRANSCRIPT):
        raise UnknownName.of("format", format_, (*known, TRANSCRIPT))
    if format_ == TRANSCRIPT:
        return load_function("memory", "transcripts", "read_transcripts")(source)
    return load_function("memory", "transfer", "read_memory")(source, _format(format_, source))


def _format(format_: str, path: Path) -> str:
    if format_:
        return format_
    found: str = load_function("memory", "transfer", "format_of")(path)
    return found


def _refusal(store: Store, name: str, item_id: str) -> str:
    """Why the log did not take an item: the newest operation that names it says so."""
    known_memory(store, name)
    return next((op.reason for _, op in reversed(store.ops(name)) if op.reflection == item_id), "refused by the memory")


def _fixes(findings: Sequence[Any]) -> dict[str, str]:
    """Item -> why it would be retired, for the kinds that code may fix."""
    allowed: Any = load_function("memory", "audit", "FIXES")
    found: dict[str, str] = {}
    for finding in findings:
        for item_id in finding.retire if finding.kind in allowed else ():
            found.setdefault(item_id, f"audit: {finding.kind}: {finding.what}")
    return found


def _findings_table(
    table: Mapping[str, Mapping[str, Any]], findings: Sequence[Any], items: Mapping[str, Reflection], examples: int
) -> Any:
    """One row for each kind: how many items, what to do, and some of them in words, secrets masked."""
    from rich.table import Table

    from verbal.tables import literal

    masked = load_function("memory", "leaks", "masked")
    drawn = Table(title="Audit", title_justify="left")
    for column, style in (("kind", "bold"), ("items", ""), ("what to do", "dim"), ("for example", "")):
        drawn.add_column(column, style=style, overflow="fold", justify="right" if column == "items" else "left")
    for kind, row in table.items():
        own = [f for f in findings if f.kind == kind][:examples]
        words = [f"{', '.join(f.ids[:3])}: {f.what}: {masked(items[f.ids[0]].text)[:100]!r}" for f in own]
        drawn.add_row(kind, f"{row['items']:,}", literal(row["todo"], 200), literal("\n".join(words), 1200))
    return drawn


def _tell_fixes(screen: Any, fixes: Mapping[str, str], items: Mapping[str, Reflection], *, done: bool) -> None:
    masked = load_function("memory", "leaks", "masked")
    verb = "retired" if done else "would retire"
    for item_id, why in list(fixes.items())[:50]:
        screen.print(f"{verb} {item_id} ({why}): {masked(items[item_id].text)[:100]}")
    if (more := len(fixes) - 50) > 0:
        screen.print(f"and {more:,} more")
    if not fixes:
        screen.print("nothing is sure enough to be retired by code")
    elif not done:
        screen.print("nothing was changed: add --yes to do it")


def _tell_import(screen: Any, made: Mapping[str, Any], trust: bool) -> None:
    standing = "as they were" if trust else "in quarantine, until outcomes speak for them"
    verb = "would be added" if made["dry_run"] else "added"
    screen.print(f"{made['read']:,} lessons read, {made['added']:,} {verb} to {made['memory']} {standing}")
    if made["there_already"]:
        let = f", {len(made['activated']):,} of them leave quarantine" if made["activated"] else ""
        screen.print(f"{made['there_already']:,} are there already{let}")
    for left in made["left_out"][:20]:
        screen.print(f"left out {left['place']}: {left['why']}")
    if (more := len(made["left_out"]) - 20) > 0:
        screen.print(f"and {more:,} more were left out (--json lists them)")
