"""A desk that answers any request, a writer who obeys the lessons it is shown, and a lesson: for tests of the scope."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from verbal.contracts import Observation
from verbal.models.scripted import ScriptedModel
from verbal.parts import make_part
from verbal.recipe import parse_recipe
from verbal.run import Progress, Workshop
from verbal.scope import Requests, make_requests
from verbal.store import Store
from verbal.types import MemoryOp, Message, Reflection, Task

LESSON = Reflection(id="r1", text="be brief", when="mails and letters that reach my boss or the board")
INSIDE = ["Write a mail to my boss about Friday", "Answer my boss, who asks for the plan"]
NEAR = ["Write a novel about a boss", "Which novel has the worst boss?"]
OUTSIDE = ["Boil an egg", "Who lives in Rome?"]


class Desk:
    """Answers anything: the request and what was shown stand in the prompt, the reply is the answer."""

    name = "desk"

    def task(self, question, *, id, db=None):
        return Task(id=id, kind="desk", messages=(Message(role="user", content=question),), info={"question": question})

    def environment(self):
        return self

    async def start(self, task, *, hints=(), tried=()):
        lines = [f"hint {h.id} {h.text} NOT {h.boundary}" for h in hints]
        return [Message(role="user", content="\n".join(["# Role: solver", *lines, "ASK " + task.info["question"]]))]

    async def step(self, reply):
        return Observation(text=reply.text, done=True, answer=reply.text)

    async def execute(self, task, answer):
        return Observation(text=answer, done=True, answer=answer)

    async def aclose(self):
        pass


class Writer:
    """Obeys the lessons that `obeys` picks of those it is shown; writes what `proposals` hold; keeps what it read."""

    def __init__(self, obeys=lambda hint, request: True, proposals=(), fails=()):
        self.read: list[str] = []
        self.sampled: list[Any] = []
        self.fails = dict(fails)

        def reply(messages, index, seed):
            text = messages[0].content
            self.read.append(text)
            if "# Role: proposer" in text:
                return proposals[min(sum("proposer" in t for t in self.read) - 1, len(proposals) - 1)]
            *lines, request = text.split("\n")[1:]
            return f"{request}: {[x.split()[1] for x in lines if obeys(x, request)]}"

        self.inner = ScriptedModel(reply)
        self.name = "scripted/writer"

    async def generate(self, messages, n, sampling):
        self.sampled.append(sampling)
        for words, error in self.fails.items():
            if words in messages[0].content:
                raise error
        return await self.inner.generate(messages, n, sampling)


def requests(inside=INSIDE, near=NEAR, outside=OUTSIDE, boundary="novels; essays") -> Requests:
    return make_requests(Desk(), {"inside": inside, "near": near, "outside": outside}, boundary)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """Makes a workshop over the desk, with a memory that holds some items as they are."""
    opened: list[Any] = []
    with Store(tmp_path / "v.db") as store:

        async def make(writer: Writer, *items: Reflection, quarantine: bool = False) -> tuple[Workshop, Any]:
            memory = make_part("memory", "exact", store=store, name="m")
            await memory.apply([MemoryOp(op="ADD", item=item, author="user") for item in items])
            memory.close()
            memory = make_part("memory", "exact", store=store, name="m", quarantine=quarantine)
            opened.append(memory)
            recipe = parse_recipe('[critics]\nnames = []\nverdict = ""\n[memory]\nname = "exact"')
            app: Any = Desk()
            return Workshop(recipe, store, app, lambda role: writer, [], memory, None, Progress()), memory

        yield make
        for memory in opened:
            memory.close()
