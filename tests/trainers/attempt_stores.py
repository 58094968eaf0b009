"""Stores with attempts as the loop keeps them, for tests of the rows that are made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from verbal.store import Store
from verbal.types import Attempt, Feedback, Message, Step, Task

GOLD = "SELECT COUNT(*) FROM sale WHERE status = 'K2'"


def make_task(
    id: str = "t1", *, gold: str | None = GOLD, asked: str = "", split: str = "train", **info: object
) -> Task:
    text = f"# Role: solver\n## Hints\nnone\n## Question\n{asked or f'How many {id}?'}\n## Answer\n"
    return Task(
        id=id, kind="text2sql", messages=(Message(role="user", content=text),), gold=gold, split=split, info=info
    )


def fenced(answer: str) -> str:
    return f"```sql\n{answer}\n```"


def make_attempt(task: Task, n: int, answer: str, *, hints: dict[str, str] | None = None, **fields: object) -> Attempt:
    """Try number `n` (its round) at a task; `hints`: id -> text that its prompt showed."""
    shown = hints or {}
    lines = "\n".join(f'<hint id="{i}">{text}</hint>' for i, text in shown.items()) or "none"
    seen = task.messages[0].content.replace("## Hints\nnone", f"## Hints\n{lines}")
    step = Step(author="policy", text=fenced(answer), prompt=(Message(role="user", content=seen),), shown=tuple(shown))
    parent = f"r/main/{task.id}/{n - 1}.0" if n else None
    given = {"id": f"r/main/{task.id}/{n}.0", "run": "r", "task": task.id, "answer": answer, "steps": (step,)}
    return Attempt(**given | {"round": n, "parent": parent, "model": "m/1"} | fields)


def judged(attempt: Attempt, value: float | None, critic: str = "sql_result", **fields: object) -> Feedback:
    return Feedback(**{"attempt": attempt.id, "critic": critic, "value": value, "oracle": True} | fields)


def filled(path: Path, tasks: Iterable[Task], pairs: Iterable[tuple[Attempt, float | None]]) -> Store:
    store = Store(path / "verbal.db")
    store.put_tasks(tasks)
    for attempt, value in pairs:
        assert store.put_attempt(attempt, [judged(attempt, value)])
    return store


def reflect(store: Store, attempt: Attempt, words: str, asked: str = "What went wrong?") -> None:
    """What the reflector said of an attempt, as the loop keeps it."""
    prompt = (Message(role="user", content=f"# Role: reflector\n{asked}\n## SQL\n{attempt.answer}\n"),)
    store.put_step(attempt.id, "reflect", Step(author="guide", role="reflector", text=words, prompt=prompt))


def trials(store_path: Path, returns: list[float], words: str = "HINT: look at column {i}") -> Store:
    """One task, tried once for each return, with a reflection after every try that the next one reads."""
    task = make_task()
    attempts = []
    for i, value in enumerate(returns):
        hints = {f"new:t1/{i - 1}.0": f"look at column {i - 1}"} if i else None
        attempts.append((make_attempt(task, i, f"SELECT {i}", hints=hints), value))
    store = filled(store_path, [task], attempts)
    for i, (attempt, _) in enumerate(attempts):
        reflect(store, attempt, words.format(i=i))
    return store
