"""What the page of a run shows, read from the store: of any kind of run, also of one under way; and `verbal report`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.curves import run_curves
from verbal.errors import DataError, UnknownName
from verbal.evidence import adopted, decisions, sealed
from verbal.instructive import instructive, question_of
from verbal.memory_changes import run_changes
from verbal.screen import Screen
from verbal.store import Store
from verbal.types import Attempt, Feedback
from verbal.verbs import open_store

SESSIONS = ("ask", "chat", "serve")
"""Commands whose runs are conversations: nobody knows the right answer, so their turns are shown in place of scores."""
TURNS = 200
"""Turns of a session that are read, the latest."""


def run_report(url: str, run: str, out: Path | None, figures: Path | None = None, *, quiet: bool) -> dict[str, Any]:
    """Writes the page of a run; with a folder for figures each plot as SVG, PNG and Vega-Lite too.

    Args:
        url: The store.
        run: Its id.
        out: The page; beside the store when not given.
        figures: Folder of the figures; none are written when not given.
        quiet: Print nothing.
    """
    from verbal.replay import known_run
    from verbal.report import write_report

    with open_store(url) as store, Screen("verbal report", quiet=quiet) as screen:
        results = run_results(store, known_run(store, run))
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in run)
        files: list[str] = []
        if figures is not None:
            from verbal.figure_files import write_figures

            files = [str(f) for f in write_figures(results, figures)]
        page = write_report(results, out or store.folder / f"{name}.html")
        screen.print(f"the page: {page}")
        if figures is not None:
            screen.print(f"{len(files)} files of figures in {figures}" if files else "this run has no figures yet")
        return {"page": str(page), **({"figures": files} if figures is not None else {}), **results}


def run_report_file(source: Path, out: Path | None, figures: Path | None = None, *, quiet: bool) -> dict[str, Any]:
    """Writes the page of a results file, as `verbal demo` keeps one; see `run_report`.

    Raises:
        DataError: the file is not there or does not hold results.
    """
    from verbal.report import write_report

    try:
        results = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"no results can be read: {error}", where=str(source), todo="give a results.json") from error
    if not isinstance(results, dict):
        raise DataError("not the results of a run", where=str(source), todo="give a results.json")
    made: dict[str, Any] = {}
    if figures is not None:
        from verbal.figure_files import write_figures

        made["figures"] = [str(f) for f in write_figures(results, figures)]
    with Screen("verbal report", quiet=quiet) as screen:
        page = write_report(results, out or source.with_suffix(".html"))
        screen.print(f"the page: {page}")
    return {"page": str(page), **made}


def run_results(store: Store, run: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of a run shows (`verbal.report.page`); `run` is what `Store.run` gives."""
    from verbal.study import plain_usage, usage_of

    info, name = run["info"], str(run["id"])
    usage = usage_of(store, [name, *info.get("parts", [])])
    study = info.get("study") or info.get("results") or {}
    study = study if "arms" in study or "lessons" in study else {}
    curves, changes = run_curves(store, name), run_changes(store, name)
    found = {
        "title": f"{run['recipe'].get('name', 'run')}: {name}", "run": name,
        "model": (run["recipe"].get("model") or {}).get("name", ""),
        "subtitle": f"{info.get('command', 'run')}, {run['status']}",
        **study, "usage": plain_usage(usage),
        "attempt_curves": curves.get("attempts"), "learning_curves": curves.get("learning"),
        "lesson_counts": curves.get("lessons"), "changes": changes, "instructive": instructive(store, name),
        "turns": _turns(store, run), **_trained(store, run),
        "gates": decisions(store), "versions": adopted(store), "sealed": sealed(store),
    }  # fmt: skip
    if changes:
        found.pop("lessons", None)  # they are among the changes, with what became of them
    return {k: v for k, v in found.items() if v not in (None, [], {}, "")}


def _turns(store: Store, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns of a session, oldest first."""
    if run["info"].get("command") not in SESSIONS:
        return []
    if answers := run["info"].get("answers"):
        return [
            {"question": a.get("question"), "status": a.get("status"), "sql": True, "answer": a.get("sql"),
             "result": a.get("says") or a.get("reason"), "said": _corrections(a.get("corrections") or ())}
            for a in answers[-TURNS:]
        ]  # fmt: skip
    attempts = store.latest_attempts(str(run["id"]), TURNS)[::-1]
    tasks, feedback = store.tasks([a.task for a in attempts]), store.feedback([a.id for a in attempts])
    kept = {t.get("attempt"): t for t in run["info"].get("turns") or () if isinstance(t, Mapping)}
    found = []
    for attempt in attempts:
        turn = kept.get(attempt.id) or {}
        told = _corrections(turn.get("corrections") or ()) or said(feedback[attempt.id])
        question = question_of(tasks.get(attempt.task), attempt.task)
        status = turn.get("status") or (attempt.error and "failed")
        found.append({"question": question, "answer": attempt_text(attempt), "said": told, "status": status})
    return found


def attempt_text(attempt: Attempt) -> str:
    """What an attempt answered, in its words where it has no answer."""
    own = [s.text for s in attempt.steps if s.author == "policy"]
    return attempt.answer or (own[-1] if own else attempt.error or "")


def said(feedback: Sequence[Feedback]) -> list[dict[str, str]]:
    """What critics and people said of an attempt, in words."""
    return [
        {"who": f.critic, "text": f.text or f.correction or ("right" if f.value else "wrong")}
        for f in feedback
        if f.text or f.correction or (f.source == "user" and f.value is not None)
    ]


def _corrections(made: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {"who": f"{c.get('kind')}{', taken back' if 'undone' in c else ''}",
         "text": str(c.get("words") or c.get("sql") or {1.0: "right", 0.0: "wrong"}.get(c.get("outcome", -1), ""))}
        for c in made
    ]  # fmt: skip


def _trained(store: Store, run: Mapping[str, Any]) -> dict[str, Any]:
    """Of a training: its facts and curves, and what the weights scored before and after."""
    info = run["info"]
    if info.get("command") != "distill":
        return {}
    step = info.get("step") or ["", ""]
    facts = {k: info.get(k) for k in ("checkpoint", "base", "rows")}
    facts |= {"method": (run["recipe"].get("trainer") or {}).get("name", ""), "step": step[0], "steps": step[1]}
    try:
        papers = store.checkpoint(str(info.get("checkpoint")))["info"]
    except UnknownName:
        papers = {}  # it is under way
    facts |= {"curve": papers.get("curve") or [], "method": papers.get("method") or facts["method"]}
    scores, arms = papers.get("scores") or {}, []
    for name, label in (("before", "before training"), ("after", "after training")):
        if scores.get(name):
            arms.append({"name": "base" if name == "before" else "distilled", "label": label, **scores[name],
                         "about": "one greedy attempt a task, no memory", "tasks": scores.get("tasks")})  # fmt: skip
    gain = [{"name": "after - before", **scores["gain"]}] if scores.get("gain") else []
    return {"training": facts, "arms": arms, "differences": gain}


__all__ = ["SESSIONS", "TURNS", "attempt_text", "run_report", "run_report_file", "run_results", "said"]
