"""A tiny world for the loop: `zorp of number n` is 2 n, which no policy knows before it was told what zorp means."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from verbal.contracts import Observation, Reply
from verbal.parts import make_part
from verbal.recipe import parse_recipe
from verbal.run import Progress, Workshop
from verbal.store import Store
from verbal.types import Feedback, Message, StopReason, Task, Usage


class TinyEnvironment:
    def __init__(self, app):
        self.app = app

    async def start(self, task, *, hints=(), tried=()):
        self.app.seen.append(("environment", task))
        told = " ".join(h.text for h in hints)
        return [Message(role="user", content=f"solver\n{task.info['question']}\nTOLD {told}\nTRIED {list(tried)}")]

    async def step(self, reply):
        found = re.search(r"ANSWER: (-?\d+)", reply.text)
        if not found:
            return Observation(text="no answer", done=True, stop=StopReason.MALFORMED, info={"error": "no answer"})
        return observed(found[1])

    async def aclose(self):
        pass


def observed(answer):
    return Observation(text=f"you said {answer}", done=True, answer=answer, info={"rows": [[answer]], "row_count": 1})


class TinyApp:
    name = "tiny"

    def __init__(self, numbers=6):
        self.numbers = numbers
        self.seen = []
        """(who asked, the task as it was given) for each prompt that was made."""

    def tasks(self, split=None):
        return [self._task(f"t{i}", f"zorp of number {i}", str(2 * i), "train") for i in range(1, self.numbers + 1)]

    def _task(self, id, question, gold, split):
        messages = (Message(role="user", content=question),)
        return Task(id=id, kind="tiny", messages=messages, gold=gold, info={"question": question}, split=split)

    def task(self, question, *, id, db=None):
        return self._task(id, question, None, "train")

    def environment(self):
        return TinyEnvironment(self)

    async def execute(self, task, answer):
        return observed(answer)

    def messages(self, role, task, **fields):
        self.seen.append((role, task))
        return [Message(role="user", content=f"{role}\n{fields.get('correction', '')}\n{fields.get('answers', '')}")]

    def parse(self, role, text, *, n=0):
        if role == "judge":
            return tuple(float(x) for x in text.split()) if len(text.split()) == n else None
        if role == "proposer":
            found = re.search(r"QUESTION: (.*)\n```\n(.*)\n```", text)
            return SimpleNamespace(question=found[1], answer=found[2]) if found else None
        return text or None

    async def preflight(self, split=None):
        return 0

    async def aclose(self):
        pass


class TinyModel:
    """Doubles when it was told to; else guesses, rightly when the seed says so. Counts what it was asked."""

    name = "tiny/model"

    def __init__(self, lesson="zorp means double", guess=None, proposal="QUESTION: zorp of number 3\n```\n6\n```"):
        self.lesson, self.guess, self.proposal = lesson, guess, proposal
        self.asked: list[tuple[str, str]] = []

    async def generate(self, messages, n, sampling):
        text = messages[0].content
        role = text.split("\n")[0]
        self.asked.append((role, text))
        replies = [self._reply(role, text, sampling, i) for i in range(n)]
        return [Reply(text=r, usage=Usage(calls=1, prompt_tokens=7, completion_tokens=3)) for r in replies]

    def _reply(self, role, text, sampling, i):
        if role == "solver":
            number = int(re.search(r"number (-?\d+)", text)[1])
            if "double" in text:
                return f"ANSWER: {2 * number}"
            return self.guess(number, sampling, i) if self.guess else "ANSWER: -1"
        return {"reflector": self.lesson, "critic": "it is wrong", "judge": "0.9", "proposer": self.proposal}[role]

    def count(self, role):
        return sum(r == role for r, _ in self.asked)


class GoldCritic:
    name = "gold"
    oracle = True

    async def evaluate(self, task, group, context):
        return [
            Feedback(
                attempt=a.id,
                critic=self.name,
                value=None if task.gold is None else float(a.answer == task.gold),
                reason="no gold" if task.gold is None else "",
                source="gold",
                oracle=True,
                correction=task.gold or "",
            )
            for a in group
        ]


@pytest.fixture
def tiny(tmp_path):
    """Makes a workshop over the tiny world: `tiny(model, *recipe overrides)`; those of one `file` share a store."""
    stores = {}
    opened = []

    def make(model=None, *overrides, numbers=6, memory=True, file="v.db"):
        store = stores[file] = stores.get(file) or Store(tmp_path / file)
        model = model or TinyModel()
        text = '[critics]\nnames = ["gold"]\nverdict = "gold"\n[memory]\nname = "exact"\n[loop]\nbatch = 3\nrounds = 2'
        recipe = parse_recipe(text, overrides)
        kept = make_part("memory", "exact", store=store, name="m") if memory else None
        opened.append(kept)
        curator = make_part("memory", "curator") if memory else None
        app = TinyApp(numbers)
        return Workshop(recipe, store, app, lambda role: model, [GoldCritic()], kept, curator, Progress()), model

    yield make
    for memory in opened:
        if memory:
            memory.close()
    for store in stores.values():
        store.close()


@pytest.fixture
def tiny_model():
    return TinyModel
