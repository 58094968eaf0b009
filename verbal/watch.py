"""`verbal watch`: a run that another process makes, live in the terminal; it reads the store and writes nothing.

What is shown is a snapshot of the store: how far the run and its parts are, what is solved so far with its interval
(Wilson's, over tasks), what it cost by role, the newest lessons and failures. It ends when the run has ended.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from verbal.curves import verdict_critic
from verbal.instructive import question_of
from verbal.screen import Screen, usage_table
from verbal.store import Store
from verbal.tables import literal
from verbal.text import clock, percent, visible
from verbal.types import Reflection, Usage
from verbal.verbs import open_store

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 1.0
"""Seconds between two looks at the store, at least."""
NEWEST = 5
"""Lessons, and failures, that are shown."""
QUIET = 120.0
"""Seconds without a change after which it is said that nothing happens."""
_ENDED = ("done", "stopped", "failed", "incomplete")
_READ = 60
_ORDER = {"retry": 0, "shuffled": 1, "memory": 2, "distilled": 3, "distilled+memory": 4}


@dataclasses.dataclass(slots=True, kw_only=True)
class Phase:
    """A run, or one that belongs to it, and how far it is."""

    run: str
    command: str
    status: str
    done: int
    total: int
    """0 where it is not known."""
    solved: int
    arms: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Of a comparison: `arm done solved share` of each, in the order in which they began."""

    @property
    def share(self) -> tuple[float, float, float] | None:
        """Share solved of what is finished, with its interval."""
        return wilson(self.solved, self.done) if self.done else None


class Watched:
    """A run that is looked at again and again: verdicts that were read are kept.

    Args:
        store: Where the run is.
        run: Its id.

    Raises:
        UnknownName: no such run.
    """

    def __init__(self, store: Store, run: str) -> None:
        from verbal.replay import known_run

        self._store, self._run = store, run
        self._right: dict[str, bool] = {}
        known_run(store, run)

    def snapshot(self) -> dict[str, Any]:
        """What is known now, in plain JSON types."""
        from verbal.study import plain_usage, usage_of

        known = self._store.run(self._run)
        assert known is not None
        runs = [known, *(r for i in known["info"].get("parts", ()) if (r := self._store.run(i)))]
        phases = [self._phase(run) for run in runs]
        ended = [r["finished"] for r in runs if r["finished"]]
        over = _is_over(known, runs)
        return {
            "run": self._run, "status": known["status"] if over else "running", "ended": over,
            "command": str(known["info"].get("command", "run")), "recipe": str(known["recipe"].get("name", "")),
            "model": str((known["recipe"].get("model") or {}).get("name", "")),
            "seconds": round((max(ended) if over and ended else time.time()) - known["started"], 1),
            "phases": [{**dataclasses.asdict(p), "share": p.share} for p in phases],
            "usage": plain_usage(usage_of(self._store, [r["id"] for r in runs])),
            "lessons": self._lessons(runs), "failures": self._failures(runs),
        }  # fmt: skip

    def _phase(self, run: Mapping[str, Any]) -> Phase:
        info, loop = run["info"], run["recipe"].get("loop") or {}
        chosen = [g.chosen for g in self._store.groups(run["id"]) if g.chosen]
        feedback = self._store.feedback([i for i in chosen if i not in self._right])
        verdict = verdict_critic(run, feedback)
        for name, said in feedback.items():
            self._right[name] = any(f.critic == verdict and f.value == 1.0 for f in said)
        done, tasks, command = len(chosen), len(info.get("tasks") or ()), str(info.get("command", "run"))
        passes = {"learn": int(loop.get("epochs") or 1), "eval": (3 if info.get("memories") else 1), "two_by_two": 5}
        seeds = info.get("seeds") or [0]
        total = tasks * passes.get(command, 0) * (1 if command == "learn" else len(seeds))
        if command == "distill":
            done, total = (int(n) for n in (info.get("step") or [0, 0]))
        if command == "gate":
            total = 2 * (tasks + len(info.get("guard") or ())) * len(seeds)
        arms: dict[str, list[bool]] = {}
        for name in chosen:
            arm = name.removeprefix(f"{run['id']}/").partition("/")[0].partition(":")[0]
            arms.setdefault(arm, []).append(self._right[name])
        told = [
            {"arm": arm, "done": len(right), "solved": sum(right), "share": wilson(sum(right), len(right))}
            for arm, right in sorted(arms.items(), key=lambda a: _ORDER.get(a[0], 9))
        ]
        return Phase(
            run=run["id"], command=command, status=run["status"], done=done, total=total,
            solved=sum(self._right[i] for i in chosen), arms=told if command != "learn" and len(told) > 1 else [],
        )  # fmt: skip

    def _lessons(self, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The lessons that came last, the newest first."""
        found: list[tuple[float, dict[str, Any]]] = []
        for run in runs:
            memory = run["info"].get("memory") or {}
            if run["info"].get("command") != "learn" or not memory.get("name"):
                continue
            times = self._store.op_times(memory["name"], int(memory.get("from") or 0))
            latest: dict[str, tuple[float, Reflection]] = {}
            for version, op in self._store.ops(memory["name"], int(memory.get("from") or 0)):
                if op.op == "ADD" and op.item is not None:
                    latest[op.reflection or op.item.id] = (times.get(version, 0.0), op.item)
            for key, (at, item) in list(latest.items())[-NEWEST:]:
                found.append((at, {"id": key, "text": item.text, "when": item.when, "memory": memory["name"]}))
        return [told for _, told in sorted(found, key=lambda f: -f[0])[:NEWEST]]

    def _failures(self, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """The attempts that failed last, the newest first, with what critics said."""
        for run in reversed(runs):
            attempts = self._store.latest_attempts(run["id"], _READ)
            feedback = self._store.feedback([a.id for a in attempts])
            verdict = verdict_critic(run, feedback)
            wrong = [
                a for a in attempts
                if a.error or any(f.critic == verdict and f.value is not None and f.value < 1.0 for f in feedback[a.id])
            ][:NEWEST]  # fmt: skip
            if wrong:
                tasks = self._store.tasks([a.task for a in wrong])
                return [
                    {"attempt": a.id, "question": question_of(tasks.get(a.task), a.task), "answer": a.answer,
                     "why": a.error or next((f.text for f in feedback[a.id] if f.critic == verdict and f.text), "")}
                    for a in wrong
                ]  # fmt: skip
        return []


def _is_over(known: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing more will come of a run. Between two parts of it none is under way."""
    if any(r["status"] in ("stopped", "failed", "incomplete") for r in runs):
        return not any(r["status"] == "running" for r in runs)
    if any(r["status"] not in _ENDED for r in runs):
        return False
    # A run with parts says `study` when all of them are told.
    return not known["info"].get("parts") or "study" in known["info"]


def wilson(right: int, count: int) -> tuple[float, float, float]:
    """Share, low and high end of the 95 % score interval of so many right ones.

    Source: Wilson 1927, the score interval.

    >>> [round(v, 3) for v in wilson(8, 10)]
    [0.8, 0.49, 0.943]
    """
    z = 1.959964
    share, weight = right / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def run_watch(
    path: str, run: str, *, once: bool = False, quiet: bool, sleep: Callable[[float], object] = time.sleep
) -> dict[str, Any]:
    """Shows a run until it has ended; gives the last snapshot.

    Args:
        path: The store.
        run: Its id.
        once: Look once, also when it goes on.
        quiet: Look once and print nothing.
        sleep: Waits so many seconds.

    Raises:
        UnknownName: no such run. DataError: no such store.
    """
    with open_store(path) as store, Screen(f"verbal watch {run}", quiet=True):
        watched = Watched(store, run)
        if quiet:
            return watched.snapshot()
        return _live(watched, once=once, sleep=sleep)


def _live(watched: Watched, *, once: bool, sleep: Callable[[float], object]) -> dict[str, Any]:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    seen, changed = watched.snapshot(), time.monotonic()
    if once or not console.is_terminal:
        return _plain(watched, seen, console, once=once, sleep=sleep)
    with Live(view(seen), console=console, auto_refresh=False, screen=False) as live:
        while not seen["ended"]:
            began = time.monotonic()
            sleep(EVERY)
            now = watched.snapshot()
            changed = time.monotonic() if _moves(now) != _moves(seen) else changed
            seen = now
            live.update(view(seen, idle=time.monotonic() - changed), refresh=True)
            # A large store takes its time to read: it must not be read all the time.
            sleep(max(0.0, 4 * (time.monotonic() - began - EVERY)))
    return seen


def _plain(
    watched: Watched, seen: dict[str, Any], console: Any, *, once: bool, sleep: Callable[[float], object]
) -> dict[str, Any]:
    """Where there is no terminal: a line whenever something moved, and the whole at the end."""
    while not seen["ended"] and not once:
        console.print(literal(line(seen)))
        before = _moves(seen)
        while not seen["ended"] and _moves(seen) == before:
            sleep(EVERY)
            seen = watched.snapshot()
    console.print(view(seen))
    return seen


def _moves(seen: Mapping[str, Any]) -> Any:
    return seen["phases"], seen["usage"], seen["lessons"]


def line(seen: Mapping[str, Any]) -> str:
    """A snapshot in one line."""
    told = [f"{p['run']} {p['done']:,}/{p['total']:,}" if p["total"] else p["run"] for p in seen["phases"][-1:]]
    share = seen["phases"][-1]["share"]
    told += [f"{percent(share[0], 0)} solved [{percent(share[1], 0)}, {percent(share[2], 0)}]"] if share else []
    used = sum((Usage(**u) for u in seen["usage"].values()), Usage())
    return ", ".join([*told, f"{used.calls:,} calls", f"{len(seen['lessons'])} newest lessons", clock(seen["seconds"])])


def view(seen: Mapping[str, Any], idle: float = 0.0) -> RenderableType:
    """A snapshot as a person sees it; `idle` is how long nothing has changed."""
    from rich.console import Group
    from rich.text import Text

    color = {"done": "green", "running": "cyan"}.get(seen["status"], "yellow")
    head = Text.assemble((visible(seen["run"], 80, line=True), "bold"), "  ", (seen["status"], color))
    about = " · ".join(x for x in (seen["command"], seen["recipe"], seen["model"], clock(seen["seconds"])) if x)
    head.append(f"  {visible(about, 160, line=True)}", "dim")
    parts: list[RenderableType] = [head]
    if idle >= QUIET and not seen["ended"]:
        parts.append(Text(f"nothing has changed for {clock(idle)}: is its process still there?", style="yellow"))
    parts += [Text(""), _phases(seen["phases"])]
    if seen["usage"]:
        parts.append(usage_table(seen["usage"]))
    for title, items, keys in (
        ("Newest lessons", seen["lessons"], ("text", "when")),
        ("Newest failures", seen["failures"], ("question", "why")),
    ):
        if items:
            parts += [Text(title, style="bold"), _listed(items, keys), Text("")]
    return Group(*parts)


def _phases(phases: Sequence[Mapping[str, Any]]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for phase in phases:
        share = phase["share"]
        solved = f"{percent(share[0], 0)} solved  [{percent(share[1], 0)}, {percent(share[2], 0)}]" if share else ""
        if phase["command"] in ("distill", "ask", "chat", "serve") or phase["arms"]:
            solved = ""
        count = f"{phase['done']:,}/{phase['total']:,}" if phase["total"] else f"{phase['done']:,}"
        bar = ProgressBar(total=phase["total"] or 1, completed=min(phase["done"], phase["total"]), width=24)
        sign = {"done": ("✓", "green"), "running": ("…", "cyan")}.get(phase["status"], ("■", "yellow"))
        table.add_row(
            literal(sign[0], style=sign[1]), literal(phase["run"], 40), bar if phase["total"] else "",
            literal(count), literal(solved, style="bold"),
        )  # fmt: skip
        for arm in phase["arms"]:
            told = (
                f"{percent(arm['share'][0], 0)} solved  [{percent(arm['share'][1], 0)}, {percent(arm['share'][2], 0)}]"
            )
            table.add_row(
                "", literal(f"  {arm['arm']}", 40, style="dim"), "", literal(f"{arm['done']:,}"), literal(told)
            )
    return table


def _listed(items: Sequence[Mapping[str, Any]], keys: tuple[str, str]) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=2, style="dim")
    for item in items:
        table.add_row(*(literal(visible(item.get(key) or "", 300, line=True)) for key in keys))
    return table


__all__ = ["EVERY", "NEWEST", "QUIET", "Phase", "Watched", "line", "run_watch", "view", "wilson"]
