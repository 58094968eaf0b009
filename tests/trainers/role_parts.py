"""Parts that recipes of tests name by this file: an actor that heeds `say N`, its critics, and an app that is asked."""

import dataclasses
import re
from types import SimpleNamespace

from verbal.models.scripted import ScriptedModel
from verbal.testing import TinyApp
from verbal.types import Feedback


class Actor(ScriptedModel):
    """Answers with the number of the last hint; without one 30, or when sampled a number by the seed."""

    def __init__(self):
        super().__init__(_heeds)

    async def generate(self, messages, n, sampling):
        replies = await super().generate(messages, n, sampling)
        luck = str((sampling.seed or 0) % 100) if sampling.temperature else "30"
        return [dataclasses.replace(r, text=r.text or luck) for r in replies]


def _heeds(messages, index, seed):
    told = re.findall(r'<hint id="[^"]*">[^<]*?(\d+)', messages[-1].content)
    return told[-1] if told else ""


class Percent:
    """The answer in percent; 1 from 100 on."""

    name = "percent"
    oracle = False

    async def evaluate(self, task, group, context):
        values = [min(1.0, int(a.answer or 0) / 100) for a in group]
        return [Feedback(attempt=a.id, critic=self.name, value=v) for a, v in zip(group, values, strict=True)]


class High:
    """1 for an answer that begins with 5 or more, else 0: the actor's own 30 is wrong."""

    name = "high"
    oracle = False

    async def evaluate(self, task, group, context):
        return [Feedback(attempt=a.id, critic=self.name, value=float(a.answer[:1] >= "5")) for a in group]


class Odd:
    """Right on every other task."""

    name = "odd"
    oracle = False

    async def evaluate(self, task, group, context):
        right = task.id.endswith(("basket", "dagger"))
        return [Feedback(attempt=a.id, critic=self.name, value=float(right)) for a in group]


class Never:
    """0 whatever was answered."""

    name = "never"
    oracle = False

    async def evaluate(self, task, group, context):
        return [Feedback(attempt=a.id, critic=self.name, value=0.0) for a in group]


class AskingApp(TinyApp):
    """The tiny app with proposals: `QUESTION: ...` and a fenced number."""

    def parse(self, role, text, *, n=0):
        if role != "proposer":
            return super().parse(role, text, n=n)
        found = re.search(r"QUESTION: (.*)\n```\n(\d+)\n```", text)
        return SimpleNamespace(question=found[1], answer=found[2]) if found else None

    def messages(self, role, task, **fields):
        (message,) = super().messages(role, task, **fields)
        more = "".join(f"\n## Answer\n{a}" for a in fields.get("answers", ()))
        return [message.replace(content=message.content + more)]
