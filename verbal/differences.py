"""Where two runs part: the first step that differs, what their memories hold, what they scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verbal.replay import known_run, run_digest
from verbal.store import Store
from verbal.types import Attempt, Step

LONG = 160
"""Characters of a text that are shown, from a little before the first difference."""


def diff_runs(left: Store, run: str, right: Store, other: str) -> dict[str, Any]:
    """The differences of two runs, perhaps of two stores; rows of `what`, `left`, `right`.

    Raises:
        UnknownName: a store has no such run.
    """
    known = known_run(left, run), known_run(right, other)
    digests = run_digest(left, run), run_digest(right, other)
    rows = [*_recipes(known[0]["recipe"], known[1]["recipe"])]
    step = first_step(left, run, right, other)
    rows += [step] if step else []
    rows += _memories((left, known[0]["info"]), (right, known[1]["info"]))
    rows += _scores((left, run), (right, other), known)
    return {"left": run, "right": other, "equal": not rows, "digests": digests, "rows": rows}


def first_step(left: Store, run: str, right: Store, other: str) -> dict[str, str] | None:
    """The first step, in the order of the left run, in which an attempt differs from its twin; None when none does.

    Twins are attempts of the same arm, task, round and sample.
    """
    twins = {_place(a): a for a in right.attempts(other)}
    for attempt in left.attempts(run):
        twin = twins.pop(_place(attempt), None)
        what = "/".join(map(str, _place(attempt)))
        if twin is None:
            return {"what": f"attempt {what}", "left": "made", "right": "not made"}
        for at in range(max(len(attempt.steps), len(twin.steps))):
            a, b = (x.steps[at] if at < len(x.steps) else None for x in (attempt, twin))
            if (field := _field(a, b)) is not None:
                name, *texts = field
                cut = _cut(*texts)
                return {"what": f"attempt {what}, step {at}: {name}", "left": cut[0], "right": cut[1]}
        if (attempt.answer, attempt.stop, attempt.error) != (twin.answer, twin.stop, twin.error):
            cut = _cut(*(f"{a.stop}: {a.error or a.answer}" for a in (attempt, twin)))
            return {"what": f"attempt {what}: outcome", "left": cut[0], "right": cut[1]}
        said = [{f.critic: f.value for f in s.feedback([x.id])[x.id]} for s, x in ((left, attempt), (right, twin))]
        for critic in sorted({*said[0], *said[1]}):
            words = [str(values.get(critic, "not judged")) for values in said]
            if words[0] != words[1]:
                return {"what": f"attempt {what}: verdict of {critic}", "left": words[0], "right": words[1]}
    if twins:
        place = next(iter(twins))
        return {"what": f"attempt {'/'.join(map(str, place))}", "left": "not made", "right": "made"}
    return None


def diff_items(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[dict[str, str]]:
    """What one memory believes and the other does not, by id; reflections as `Memory.at` gives them."""
    rows = []
    for key in sorted({*left, *right}, key=lambda k: (len(k), k)):
        a, b = left.get(key), right.get(key)
        texts = [f"{x.text} ({x.status})" if x else "" for x in (a, b)]
        if texts[0] != texts[1]:
            cut = _cut(*texts)
            rows.append({"what": f"memory {key}", "left": cut[0], "right": cut[1]})
    return rows


def _place(attempt: Attempt) -> tuple[str, str, int, int]:
    # A proposal of a self-play is its own task, under an id that begins with its run.
    return attempt.arm, attempt.task.removeprefix(f"{attempt.run}/"), attempt.round, attempt.sample


def _field(a: Step | None, b: Step | None) -> tuple[str, str, str] | None:
    if a is None or b is None:
        return "step", a.text if a else "", b.text if b else ""
    prompts = ["\n".join(f"{m.role}: {m.content}" for m in s.prompt) for s in (a, b)]
    pairs = {
        "reflections shown": (" ".join(a.shown), " ".join(b.shown)),
        "prompt": (prompts[0], prompts[1]),
        "reply": (a.text, b.text),
        "observation": (a.observation or "", b.observation or ""),
    }
    return next(((k, x, y) for k, (x, y) in pairs.items() if x != y), None)


def _cut(a: str, b: str) -> tuple[str, str]:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 30) if max(len(a), len(b)) > LONG else 0
    head = "..." if start else ""
    return f"{head}{a[start : start + LONG]}", f"{head}{b[start : start + LONG]}"


def _recipes(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for key in sorted({*left, *right}):
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            rows += _recipes(a, b, f"{prefix}{key}.")
        elif a != b:
            rows.append({"what": f"recipe {prefix}{key}", "left": str(a), "right": str(b)})
    return rows


def _memories(left: tuple[Store, Mapping[str, Any]], right: tuple[Store, Mapping[str, Any]]) -> list[dict[str, str]]:
    from verbal.parts import load_function

    items = []
    for store, info in (left, right):
        memory = info.get("memory") or {}
        ops = store.ops(memory["name"]) if memory.get("name") else []
        upto = info.get("memory_to", len(ops))
        items.append(load_function("memory", "log", "replay")(op for v, op in ops if v <= upto))
    return diff_items(items[0], items[1])


def _scores(
    left: tuple[Store, str], right: tuple[Store, str], known: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    arms = [{a["name"]: a["mean"] for a in (k["info"].get("results") or {}).get("arms", ())} for k in known]
    if not any(arms):
        arms = [_solved(*left, known[0]), _solved(*right, known[1])]
    rows = []
    for name in dict.fromkeys([*arms[0], *arms[1]]):
        a, b = (f"{100 * x[name]:.1f} %" if name in x else "not scored" for x in arms)
        if a != b:
            rows.append({"what": f"score of {name}", "left": a, "right": b})
    return rows


def _solved(store: Store, run: str, known: Mapping[str, Any]) -> dict[str, float]:
    """Share of the groups of a learning run whose chosen attempt has verdict 1."""
    verdict = known["recipe"]["critics"]["verdict"]
    chosen = [g.chosen for g in store.groups(run) if g.chosen]
    feedback = store.feedback(chosen)
    right = [any(f.critic == verdict and f.value == 1.0 for f in feedback[i]) for i in chosen]
    return {"tasks solved": sum(right) / len(right)} if right else {}


__all__ = ["diff_items", "diff_runs", "first_step"]
