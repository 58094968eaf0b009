"""The runs page: what learned and what was measured, live and afterwards; attempts, replay, differences.

Conversations are no runs here. What belongs to a sealed test is told without its gold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from verbal.differences import diff_runs
from verbal.errors import VerbalError
from verbal.evidence import decisions
from verbal.parts import load_function
from verbal.run_results import run_results
from verbal.store import Store
from verbal.types import Attempt, Feedback, Usage

from .events import streaming
from .faults import Fault, clean, missing, shown_model
from .people import Person
from .scopes import is_chat, may_read, may_see_run

if TYPE_CHECKING:
    from .site import Site

MOST_ATTEMPTS = 200
"""Attempts of a run that a page gets."""
_POLL = 1.0
_LONGEST_WATCH = 6 * 3600.0
_STILL_IN = 30.0
"""Seconds between two looks at whether who watches is still logged in."""
_REPLAYING = 300.0
_LONG = 20_000
_NO_GOLD = "of the sealed test: its gold is not shown"


def run_of(site: Site, person: Person, name: str) -> dict[str, Any]:
    """The run of that id.

    Raises:
        Fault: there is none that this person may see (404).
    """
    run = site.store.run(name)
    if run is None or is_chat(run) or not may_see_run(person, run):
        raise missing("run")
    return run


def summary(store: Store, run: Mapping[str, Any], known: dict[str, tuple[int, float | None]]) -> dict[str, Any]:
    """A run in a list; what a finished one came to is kept in `known`."""
    info, recipe = run["info"], run["recipe"]
    name = str(run["id"])
    if name in known and run["finished"]:
        done, cost = known[name]
    else:
        done = len(store.groups(name))
        cost = sum((u for u in store.usage(name).values()), Usage()).cost
        if run["finished"]:
            known[name] = done, cost
    seeds = len(info.get("seeds") or ()) or 1
    arms = 3 if info.get("command") == "eval" and info.get("memories") else 1
    return {
        "id": name, "recipe": recipe.get("name", ""), "command": info.get("command", "run"), "status": run["status"],
        "started": run["started"], "finished": run["finished"],
        "tasks": len(info.get("tasks") or ()) * (seeds * arms if info.get("command") == "eval" else 1),
        "done": done, "cost": cost, "model": shown_model((recipe.get("model") or {}).get("name", "")),
    }  # fmt: skip


async def list_runs(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/runs: the newest first."""

    def work() -> list[dict[str, Any]]:
        runs = [r for r in site.store.runs() if not is_chat(r) and may_see_run(person, r)]
        return [summary(site.store, r, site.finished) for r in reversed(runs[-500:])]

    return web.json_response(await asyncio.to_thread(work))


async def show_run(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/runs/{id}."""

    def work() -> dict[str, Any]:
        run = run_of(site, person, request.match_info["id"])
        return details(site.store, person, run, site.finished)

    return web.json_response(await asyncio.to_thread(work), dumps=_plain)


def _plain(value: Any) -> str:
    """JSON that every browser reads: what is no finite number is null."""
    return json.dumps(_finite(value), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def details(
    store: Store, person: Person, run: Mapping[str, Any], known: dict[str, tuple[int, float | None]]
) -> dict[str, Any]:
    """All that the page of a run shows to a person."""
    results = run_results(store, dict(run))
    parts = [r for i in run["info"].get("parts", ()) if (r := store.run(i)) is not None]
    cost = [
        {"role": role, "calls": u["calls"], "tokens": u["prompt_tokens"] + u["completion_tokens"], "cost": u["cost"],
         "seconds": u["seconds"]}
        for role, u in (results.get("usage") or {}).items()
    ]  # fmt: skip
    return {
        **summary(store, run, known), "title": results.get("title"), "claim": results.get("claim"),
        "claim_holds": results.get("claim_holds"), "arms": results.get("arms") or [],
        "differences": results.get("differences") or [],
        "curves": results.get("attempt_curves") or results.get("learning_curves") or [],
        "learning": results.get("learning_curves") or [],
        "lesson_counts": results.get("lesson_counts") or [], "cost": cost,
        "gates": _cleaned(_seen(store, person, decisions(store))[-20:]),
        "changes": results.get("changes") or {}, "instructive": results.get("instructive") or [],
        "versions": _cleaned(_seen(store, person, results.get("versions") or [])), "lessons": _lessons(store, run),
        "memory": _memory_of(run).get("name"),
        "parts": [p["id"] for p in parts], "attempts": _attempts(store, [run, *parts]),
    }  # fmt: skip


def _seen(store: Store, person: Person, records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Decisions and adopted versions, without those on a memory that the person does not see."""
    hidden = [] if person.admin else [json.dumps(n)[1:-1] for n in store.memories() if not may_read(person, n)]
    told = [(r, json.dumps(r, default=str)) for r in records]
    return [r for r, text in told if not any(name in text for name in hidden)]


def _cleaned(value: Any) -> Any:
    """Records that name models and folders of prompts, without where these are."""
    if isinstance(value, str):
        return shown_model(value)
    if isinstance(value, Mapping):
        return {k: _cleaned(v) for k, v in value.items()}
    return [_cleaned(v) for v in value] if isinstance(value, list | tuple) else value


def _lessons(store: Store, run: Mapping[str, Any]) -> dict[str, int]:
    """How many lessons a run added, and how many of these stand."""
    memory = _memory_of(run)
    if not memory.get("name"):
        return {"added": 0, "active": 0, "retired": 0}
    state, began = load_function("memory", "log", "LogState")(), set[str]()
    last = run["info"].get("memory_to")
    for version, op in store.ops(str(memory["name"])):
        if last is not None and version > last:
            break
        state.apply(op)
        if version == memory.get("from"):
            began = set(state.items)
    new = [item for name, item in state.items.items() if name not in began]
    return {
        "added": len(new), "active": sum(i.status == "active" for i in new),
        "retired": sum(i.status == "retired" for i in new),
    }  # fmt: skip


def _memory_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
    found = run["info"].get("memory")
    return found if isinstance(found, Mapping) else {}


def verdict_of(said: Sequence[Feedback], critic: str) -> float | None:
    """The value of the verdict critic; one that was named by its file goes by a name of its own in what it said."""
    values = {f.critic: f.value for f in said if f.scope == "attempt"}
    if critic in values or ":" not in critic:
        return values.get(critic)
    scored = [v for f in said if (v := f.value) is not None and f.source != "user"]
    return scored[0] if len(scored) == 1 else None


def _attempts(store: Store, runs: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for run in runs:
        made = store.attempts(run["id"])[: MOST_ATTEMPTS - len(rows)]
        critic = (run["recipe"].get("critics") or {}).get("verdict", "")
        feedback = store.feedback([a.id for a in made])
        for a in made:
            score = verdict_of(feedback[a.id], critic)
            rows.append(
                {"id": a.id, "task": a.task, "arm": a.arm, "round": a.round, "answer": a.answer[:300], "score": score,
                 "stop": str(a.stop)}
            )  # fmt: skip
        if len(rows) >= MOST_ATTEMPTS:
            break
    return rows


async def show_attempt(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/attempts/{id}: what was tried, what was said of it, and what came of that."""

    def work() -> dict[str, Any]:
        attempt = site.store.attempt(request.match_info["id"])
        run = site.store.run(attempt.run) if attempt is not None else None
        if attempt is None or run is None or not may_see_run(person, run):
            raise missing("attempt")
        return _attempt(site.store, attempt)

    return web.json_response(await asyncio.to_thread(work), dumps=_plain)


def _attempt(store: Store, attempt: Attempt) -> dict[str, Any]:
    task = store.tasks([attempt.task]).get(attempt.task)
    sealed = task is not None and task.split == "test"
    said = task.messages[-1].content if task and task.messages else ""
    rows = []
    for f in store.feedback([attempt.id])[attempt.id]:
        row = {k: getattr(f, k) for k in ("critic", "value", "low", "high", "scope", "source", "oracle", "reason")}
        words = {"text": _NO_GOLD, "correction": ""} if sealed else {"text": f.text, "correction": f.correction}
        rows.append({**row, **words})
    steps = [
        {"author": s.author, "role": s.role, "text": s.text[:_LONG], "observation": (s.observation or "")[:_LONG],
         "shown": list(s.shown), "cited": list(s.cited),
         "prompt": [{"role": m.role, "content": m.content[:_LONG]} for m in s.prompt]}
        for s in attempt.steps
    ]  # fmt: skip
    later = {k: store.step(attempt.id, v) for k, v in (("critique", "critique"), ("reflection", "reflect"))}
    usage = attempt.usage
    return {
        "attempt": {
            "id": attempt.id, "run": attempt.run, "task": attempt.task, "arm": attempt.arm, "round": attempt.round,
            "sample": attempt.sample, "answer": attempt.answer[:_LONG], "stop": str(attempt.stop),
            "error": clean(attempt.error) if attempt.error else None, "model": shown_model(attempt.model),
            "parent": attempt.parent,
            "question": (task.info.get("question") if task else None) or said[:_LONG], "steps": steps,
            "usage": {"calls": usage.calls, "tokens": usage.tokens, "cost": usage.cost, "seconds": usage.seconds},
        },
        "feedback": rows,
        **{k: None if s is None else _NO_GOLD if sealed else s.text[:_LONG] for k, s in later.items()},
    }  # fmt: skip


class Progress:
    """How far a run is, read from the store: groups that were seen are not read again, and all who watch share it.

    Args:
        store: Where it is.
        run: Its id.
    """

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._solved: dict[tuple[str, str], bool] = {}
        self._lock, self._at, self._told = threading.Lock(), -1e9, dict[str, Any]()

    def now(self) -> dict[str, Any]:
        """done, total, solved, cost and status; read once for all who ask at about the same time."""
        with self._lock:
            if time.monotonic() - self._at >= _POLL * 0.9:
                self._told, self._at = self._read(), time.monotonic()
            return self._told

    def _read(self) -> dict[str, Any]:
        run = self._store.run(self._run)
        if run is None:
            raise missing("run")
        verdict = (run["recipe"].get("critics") or {}).get("verdict", "")
        for group in self._store.groups(self._run):
            key = (group.task, group.attempts[0] if group.attempts else "")
            if key not in self._solved:
                said = self._store.feedback([group.chosen])[group.chosen] if group.chosen else []
                self._solved[key] = verdict_of(said, verdict) == 1.0
        row = summary(self._store, run, {})
        return {
            "type": "progress", "done": len(self._solved), "total": row["tasks"], "solved": sum(self._solved.values()),
            "cost": row["cost"], "status": run["status"],
        }  # fmt: skip


async def watch_run(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/runs/{id}/events: how far it is, until it has ended."""
    run = await asyncio.to_thread(run_of, site, person, request.match_info["id"])
    name, before = str(run["id"]), None
    progress = site.watched.setdefault(name, Progress(site.store, name))
    looked = time.monotonic()
    async with streaming(request) as events:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WATCH):
                while True:
                    now = await asyncio.to_thread(progress.now)
                    if now != before:
                        await events.send(now)
                        before = now
                    if now["status"] != "running":
                        site.watched.pop(name, None)
                        break
                    await asyncio.sleep(_POLL)
                    if time.monotonic() - looked >= _STILL_IN:
                        await site.people.person(request)
                        looked = time.monotonic()
        await events.send({"type": "done", **{k: v for k, v in (before or {}).items() if k != "type"}})
    return events.response


async def replay_run(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/runs/{id}/replay: the run once more from its recording, in a process of its own, without a model."""
    run = await asyncio.to_thread(run_of, site, person, request.match_info["id"])
    if not person.admin and ".py:" in json.dumps(run["recipe"]):
        raise Fault(403, "rights", "this run has parts from a file of somebody's, which only admins may run")
    if site.replaying.locked():
        raise Fault(409, "busy", "another replay is under way", "try again when it has ended")
    async with site.replaying:
        found = await _replayed(site.url, str(run["id"]))
    if "error" in found:
        raise Fault(409, "replay", clean(found["error"]), clean(found.get("todo", "")))
    calls = sum(r["model_calls"] for r in found["runs"])
    first = next((r["first_difference"] for r in found["runs"] if r["first_difference"]), "")
    records = sum(s["records"] for r in found["runs"] for s in r["sections"].values())
    replies = sum(r["replies"] for r in found["runs"])
    told = f"equal: {records:,} records, {replies:,} replies from the recording, {calls} model calls"
    says = told if found["equal"] else f"different: {first[:500]}"
    return web.json_response({"equal": found["equal"], "calls": calls, "says": says, "runs": found["runs"]})


async def _replayed(url: str, run: str) -> dict[str, Any]:
    """What the process says; it ends with whoever waits for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"{__package__}.replaying", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_REPLAYING):
            out, _ = await process.communicate(json.dumps({"store": url, "run": run}).encode())
    except TimeoutError:
        return {"error": f"it was not done within {_REPLAYING:g} s", "todo": f"verbal replay {run}"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    with contextlib.suppress(ValueError):
        made: dict[str, Any] = json.loads(out)
        return made
    return {"error": "the replay broke", "todo": f"verbal replay {run}"}


async def compare_runs(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/diff?a=&b=: where two runs part."""

    def work() -> dict[str, Any]:
        a, b = (str(run_of(site, person, request.query.get(k, ""))["id"]) for k in ("a", "b"))
        try:
            return diff_runs(site.store, a, site.store, b)
        except VerbalError as error:
            raise Fault(409, "diff", clean(error.what), clean(error.todo)) from error

    return web.json_response(await asyncio.to_thread(work), dumps=_plain)


__all__ = [
    "MOST_ATTEMPTS", "Progress", "compare_runs", "details", "list_runs", "replay_run", "run_of", "show_attempt",
    "show_run", "summary", "verdict_of", "watch_run",
]  # fmt: skip
