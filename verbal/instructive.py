"""The most instructive attempts of a run, chosen by code: a failure, what was said of it, and what came of the lesson.

Three kinds, and a page is told which one it shows. `transferred`: the lesson was filed, and on a task that nobody
learned on the arm with the memory was right at its first attempt where the arm without one was not; that is evidence of
a kind. `retried`: the retry that read the lesson was right. `later`: an attempt on another task of the same run saw the
lesson and was right, which a task that is easy would have been anyway. The choice depends on what is in the store only:
kinds in that order, then lessons that helped more often, each lesson, failed task and right
attempt once, ties by id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from verbal.curves import verdicts
from verbal.parts import load_function
from verbal.store import Store
from verbal.types import Attempt, Reflection, Task

KINDS = {
    "transferred": "on a task nobody learned on, where the same model without memory was wrong",
    "retried": "the next attempt at the same task, which read the lesson",
    "later": "a later task of the same run, which was shown the lesson",
}
"""What the right attempt was -> in words."""
MOST_READ = 400
"""Right attempts that are looked at, at most, for the lessons they were shown."""

_WORD = re.compile(r"\w{4,}")


def instructive(store: Store, run: str, count: int = 3) -> list[dict[str, Any]]:
    """The attempts, most instructive first: `kind`, `about`, `question`, `before`, `said`, `lesson`, `after`.

    `before` and `after` are `attempt answer ok result` (and `question` where it is another one), `said` a list of
    `who text`, `lesson` is `id text status helped harmed`.

    Args:
        store: Where the run is.
        run: Its id; the runs that belong to it (`parts`) are read too.
        count: So many at most.
    """
    known = store.run(run)
    if known is None:
        return []
    parts = [known, *(r for i in known["info"].get("parts", ()) if (r := store.run(i)))]
    reader = _Reader(store, known)
    found: list[dict[str, Any]] = []
    seen = set[str]()
    for find in (reader.transferred, reader.retried, reader.later):
        for made in find(parts):
            if len(found) >= count:
                return found
            words = " ".join(made["lesson"]["text"].casefold().split())
            new = {f"words {words}", f"task {made.pop('task')}", made["after"]["attempt"]}
            if not new & seen:
                seen |= new
                found.append(made)
    return found


class _Reader:
    """What is read of a run while its most instructive attempts are looked for."""

    def __init__(self, store: Store, known: Mapping[str, Any]) -> None:
        self._store, self._verdict = store, (known["recipe"].get("critics") or {}).get("verdict", "")
        self._memories: dict[tuple[str, int | None], dict[str, Reflection]] = {}
        self._values = {known["id"]: verdicts(store, known["id"])}

    def transferred(self, runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Lessons that were shown to a right first attempt where the arm without memory failed."""
        found = []
        for run in runs:
            made, pinned = self._of(run["id"]), run["info"].get("memories") or {}
            for seed in sorted(made.get("memory", {})):
                pair, control = pinned.get(seed) or ["", None], made.get("retry", {}).get(seed, {})
                items = self._items(str(pair[0]), pair[1])
                right = [
                    t for t, v in sorted(made["memory"][seed].items())
                    if v[:1] == [1.0] and control.get(t, [None])[0] not in (1.0, None)
                ]  # fmt: skip
                for task in right[:MOST_READ]:
                    after = self._store.attempt(f"{run['id']}/memory:{seed}/{task}/0.0")
                    for item in self._shown(after, items):
                        found.append((*self._rank(item, after), item.id, task, seed, item, after))
        for *_, item, after in sorted(found, key=lambda f: f[:-2]):
            if (before := self._failed(item)) is not None and after is not None:
                yield self._told("transferred", before, item, after)

    def retried(self, runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Failures whose lesson the next attempt read, and was right."""
        for run in runs:
            known = self._lessons_by_attempt(run)
            for group in self._store.groups(run["id"]) if run["info"].get("command") == "learn" else ():
                if len(group.attempts) < 2 or not self._right(group.attempts[-1]):
                    continue
                before, after = (self._store.attempt(i) for i in group.attempts[-2:])
                if before is None or after is None or after.round == before.round or self._right(before.id):
                    continue
                item = known.get(before.id) or self._drawn(before)
                if item is not None:
                    yield self._told("retried", before, item, after)

    def later(self, runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Lessons of the run that a later attempt on another task was shown, and was right."""
        for run in runs:
            if run["info"].get("command") != "learn":
                continue
            items = {i.id: i for i in self._lessons_by_attempt(run).values()}
            right = [
                f"{run['id']}/{arm}/{task}/0.0"
                for arm, seeds in sorted(self._of(run["id"]).items())
                for task, values in sorted(seeds.get("", {}).items())
                if values[:1] == [1.0]
            ]
            for after in map(self._store.attempt, right[:MOST_READ] if items else ()):
                for item in self._shown(after, items):
                    before = self._failed(item)
                    if before is not None and after is not None and before.task != after.task:
                        yield self._told("later", before, item, after)

    def _of(self, run: str) -> Any:
        if run not in self._values:
            self._values[run] = verdicts(self._store, run)
        return self._values[run]

    def _right(self, attempt: str) -> bool:
        return any(f.critic == self._verdict and f.value == 1.0 for f in self._store.feedback([attempt])[attempt])

    def _items(self, memory: str, version: int | None) -> dict[str, Reflection]:
        """Items of a memory, as it was at a version."""
        if (memory, version) not in self._memories:
            ops = (op for v, op in self._store.ops(memory) if version is None or v <= version) if memory else ()
            self._memories[memory, version] = dict(load_function("memory", "log", "replay")(ops))
        return self._memories[memory, version]

    def _lessons_by_attempt(self, run: Mapping[str, Any]) -> dict[str, Reflection]:
        memory = (run["info"].get("memory") or {}) if run["info"].get("command") == "learn" else {}
        items = self._items(str(memory.get("name") or ""), run["info"].get("memory_to"))
        return {attempt: item for item in items.values() for attempt in item.attempts}

    def _shown(self, attempt: Attempt | None, items: Mapping[str, Reflection]) -> list[Reflection]:
        steps = attempt.steps[:1] if attempt is not None else ()
        return [items[i] for step in steps for i in step.shown if i in items]

    def _rank(self, item: Reflection, after: Attempt | None) -> tuple[int, bool, int, int]:
        """Sorts first what helped most often, what the reply names, what speaks of the question, what stood alone."""
        if after is None:
            return (0, True, 0, 0)
        asked = set(_WORD.findall(question_of(self._store.tasks([after.task]).get(after.task), after.task).casefold()))
        common = len(asked & set(_WORD.findall(item.text.casefold())))
        shown = len(after.steps[0].shown) if after.steps else 0
        return (item.counters.harmed - item.counters.helped, item.id not in after.cited, -common, shown)

    def _failed(self, item: Reflection) -> Attempt | None:
        """The failed attempt from which a lesson was drawn, the first of them."""
        for name in item.attempts:
            if (made := self._store.attempt(name)) is not None and not self._right(name):
                return made
        return None

    def _drawn(self, attempt: Attempt) -> Reflection | None:
        """The reflector's words about an attempt where the memory holds no lesson of it."""
        step = self._store.step(attempt.id, "reflect")
        text = step.text.strip() if step is not None else ""
        return Reflection(id="", text=text, status="quarantined") if text and text.lower() != "none" else None

    def _told(self, kind: str, before: Attempt, item: Reflection, after: Attempt) -> dict[str, Any]:
        tasks = self._store.tasks([before.task, after.task])
        said = [
            {"who": f.critic, "text": f.text or f.correction}
            for f in self._store.feedback([before.id])[before.id]
            if (f.text or f.correction) and f.value != 1.0
        ]
        question, other = (question_of(tasks.get(a.task), a.task) for a in (before, after))
        return {
            "kind": kind, "about": KINDS[kind], "task": before.task, "question": question, "said": said,
            "before": _side(before, right=False),
            "after": _side(after, right=True) | ({"question": other} if after.task != before.task else {}),
            "lesson": {
                "id": item.id, "text": item.text, "status": item.status if item.id else "",
                "helped": item.counters.helped, "harmed": item.counters.harmed,
            },
        }  # fmt: skip


def question_of(task: Task | None, name: str) -> str:
    """What a task asks, for people; its name where it is not known."""
    if task is None:
        return name
    asked = task.info.get("question")
    return asked if isinstance(asked, str) else task.messages[-1].content if task.messages else name


def _side(attempt: Attempt, *, right: bool) -> dict[str, Any]:
    seen = next((s.observation for s in reversed(attempt.steps) if s.observation), "")
    return {
        "attempt": attempt.id,
        "answer": attempt.answer or (attempt.steps[-1].text if attempt.steps else ""),
        "ok": right,
        "result": attempt.error or seen,
    }


__all__ = ["KINDS", "instructive", "question_of"]
