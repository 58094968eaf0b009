"""What tests need, ours and users': a scripted model, a tiny app, a critic of it, a temporary store and memory.

The tiny app asks for the secret code of a word. No model can know it; the code is learned from the correction of a
failed attempt, kept as a reflection and found again when another question asks for the same word. So a whole run of
the loop takes milliseconds, needs no key, and its learning can be checked: with a memory the codes of `train` are
known on `dev`, without one they are not. `tiny_reply` plays every role by rules. Nothing here calls anything outside.

    model = ScriptedModel(tiny_reply)
    async with temporary_memory(["the code of anchor is 117"]) as memory: ...

`ChaosModel` wraps any model and breaks it by a seed, as real ones break: 429, 500, 529, dropped connections, cut or
garbled replies, a model that never returns (`ALL` lists the kinds; `RAISED` are retried by `ModelCalls`, `DAMAGES` come
as replies). A part that is to be trusted is tried in it:

    >>> import asyncio
    >>> from verbal.contracts import Sampling
    >>> from verbal.models import ModelCalls, Retry
    >>> from verbal.testing import RAISED, ChaosModel, ScriptedModel
    >>> from verbal.types import Message
    >>> model = ChaosModel(ScriptedModel(["fine"]), rate=0.5, seed=1, kinds=RAISED, hang=0.01, retry_after=0.01)
    >>> async def ask(number):
    ...     calls = ModelCalls(model, retry=Retry(attempts=20, first=0.001))
    ...     (reply,) = await calls.generate([Message(role="user", content=f"question {number}")], 1, Sampling())
    ...     return reply.text
    >>> [asyncio.run(ask(number)) for number in range(3)]
    ['fine', 'fine', 'fine']
    >>> sum(model.injected.values()), model.tries  # the same on every machine and in every run
    (4, 7)
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from verbal.chaos import ALL, DAMAGES, RAISED, ChaosModel
from verbal.contracts import CriticContext, Memory, Observation, Reply
from verbal.errors import DataError
from verbal.models.scripted import ScriptedModel
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import Attempt, Feedback, MemoryOp, Message, Reflection, Split, StopReason, Task

WORDS = ("anchor", "basket", "candle", "dagger", "engine", "feather", "garden", "hammer")
"""Words whose codes the tiny app asks for, when none are given."""

_QUESTIONS: Mapping[Split, str] = {
    "train": "What is the code of {word}?",
    "dev": "Please tell the secret number that belongs to {word}.",
    "test": "Which number stands for {word}?",
}
_NUMBER = re.compile(r"-?\d+")
_LESSON = re.compile(r"the code of (\w+) is (-?\d+)")


class TinyApp:
    """Questions for the codes of words: the same words in every split, asked differently.

    Args:
        codes: Word -> code; made from `WORDS` when not given.
    """

    name = "tiny"

    def __init__(self, codes: Mapping[str, str] | None = None) -> None:
        self.codes = dict(codes) if codes is not None else {w: _code(w) for w in WORDS}
        self.opened = 0
        """Environments that were started and not yet closed (0 when nothing leaks)."""

    def tasks(self, split: str | None = None) -> list[Task]:
        """One task for each word and split."""
        return [
            self._task(f"{name}-{word}", text.format(word=word), code, name)
            for name, text in _QUESTIONS.items()
            if split in (None, name)
            for word, code in self.codes.items()
        ]

    def task(self, question: str, *, id: str, db: str | None = None) -> Task:
        """The task that a question makes, without gold."""
        return self._task(id, question, None, "train")

    def environment(self) -> TinyEnvironment:
        """A fresh environment, for one task."""
        return TinyEnvironment(self)

    async def execute(self, task: Task, answer: str) -> Observation:
        """Says whether the answer is a number (never whether it is right: that is the critic's)."""
        if _NUMBER.fullmatch(answer):
            return Observation(text=f"noted {answer}", done=True, answer=answer, info={"value": int(answer)})
        return Observation(
            text="no number", done=True, answer=answer, stop=StopReason.MALFORMED, info={"error": "no number"}
        )

    async def preflight(self, split: str | None = None) -> int:
        """The number of golds that work.

        Raises:
            DataError: a code is not a number.
        """
        for task in self.tasks(split):
            if not _NUMBER.fullmatch(task.gold or ""):
                raise DataError(f"the code {task.gold!r} is not a number", where=f"task {task.id}", todo="use digits")
        return len(self.tasks(split))

    def messages(self, role: str, task: Task | None, **fields: Any) -> list[Message]:
        """The prompt of a role: what it is, what is known, the question."""
        hints: Sequence[Reflection] = fields.get("hints", ())
        lines = [f"# Role: {role}", "## Hints", *[f'<hint id="{h.id}">{h.text}</hint>' for h in hints]]
        lines += ["## Tried", *[str(t) for t in fields.get("tried", ())]]
        if fields.get("correction"):
            lines += ["## Right", str(fields["correction"])]
        question = task.info["question"] if task else self._propose(int(fields.get("level", 1)))
        return [Message(role="user", content="\n".join([*lines, "## Question", str(question)]))]

    def parse(self, role: str, text: str, *, n: int = 0) -> Any:
        """What a reply says, or None when it cannot be read: a number (solver), words (reflector, critic)."""
        if role == "solver":
            found = _NUMBER.search(text)
            return found.group() if found else None
        if role == "judge":
            scores = re.findall(r"\d*\.\d+|[01]", text)
            return tuple(float(s) for s in scores) if len(scores) == n else None
        return text.strip() or None

    def prompt_hashes(self) -> dict[str, str]:
        """No templates, so no hashes."""
        return {}

    async def aclose(self) -> None:
        """Nothing to close."""

    def _task(self, id_: str, question: str, gold: str | None, split: Split) -> Task:
        message = Message(role="user", content=question)
        return Task(id=id_, kind="tiny", messages=(message,), gold=gold, info={"question": question}, split=split)

    def _propose(self, level: int) -> str:
        return f"level {level}: ask for a code"


class TinyEnvironment:
    """One question of the tiny app; the first reply ends it."""

    def __init__(self, app: TinyApp) -> None:
        self._app = app
        self._task: Task | None = None

    async def start(self, task: Task, *, hints: Sequence[Reflection] = (), tried: Sequence[str] = ()) -> list[Message]:
        """The question, with hints and earlier answers as delimited lines."""
        if self._task is not None:
            raise RuntimeError("an environment is used once")
        self._task = task
        self._app.opened += 1
        return self._app.messages("solver", task, hints=hints, tried=tried)

    async def step(self, reply: Reply) -> Observation:
        """What the answer in the reply does; a reply without a number is malformed, which is data."""
        if self._task is None:
            raise RuntimeError("start the environment first")
        return await self._app.execute(self._task, self._app.parse("solver", reply.text) or "")

    async def aclose(self) -> None:
        """Frees the environment; closing twice is harmless."""
        if self._task is not None:
            self._task = None
            self._app.opened -= 1


class TinyCritic:
    """1 for the right code, 0 for a wrong one, None without gold; its correction is the code."""

    name = "tiny"
    oracle: ClassVar[bool] = True

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        """One Feedback per attempt, in order."""
        return [self._one(task, attempt) for attempt in group]

    def _one(self, task: Task, attempt: Attempt) -> Feedback:
        if task.gold is None:
            return Feedback(attempt=attempt.id, critic=self.name, reason="the task has no gold", source="gold")
        right = attempt.answer == task.gold
        word = task.id.partition("-")[2]
        correction = "" if right else f"the code of {word} is {task.gold}"
        return Feedback(
            attempt=attempt.id,
            critic=self.name,
            value=float(right),
            text="right" if right else f"wrong: {attempt.answer or 'no answer'}",
            correction=correction,
            source="gold",
            oracle=True,
        )


def tiny_reply(messages: Sequence[Message], index: int, seed: int | None) -> str:
    """The reply of a model that knows nothing but what the prompt says; for `ScriptedModel(tiny_reply)`.

    The solver answers with the code of a hint about the word that is asked for, and guesses otherwise; the reflector
    repeats the correction as a lesson; the critic says which answer was wrong.
    """
    text = messages[-1].content
    role = re.search(r"# Role: (\w+)", text)
    head, _, question = text.partition("## Question\n")
    if role and role.group(1) == "reflector":
        lesson = _LESSON.search(head)
        return lesson.group() if lesson else "none"
    if role and role.group(1) == "critic":
        return "the code in the answer is wrong"
    known = dict(_LESSON.findall(head))
    for word in re.findall(r"\w+", question):
        if word in known:
            return f"The code is {known[word]}."
    return f"I guess {_guess(question, index, seed)}."


@contextmanager
def temporary_store() -> Iterator[Store]:
    """An empty store in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="verbal-") as folder, Store(Path(folder) / "verbal.db") as store:
        yield store


@asynccontextmanager
async def temporary_memory(
    lessons: Sequence[str] = (), *, part: str = "exact", store: Store | None = None, **options: Any
) -> AsyncIterator[Memory]:
    """A memory that is gone afterwards, with `lessons` in it (ids r1, r2, ...).

    Args:
        lessons: Texts of the reflections it starts with.
        part: Name of the memory part.
        store: Where its log is kept; a temporary store when not given.
        options: Passed to the part.
    """
    with tempfile.TemporaryDirectory(prefix="verbal-") as folder:
        own = Store(Path(folder) / "verbal.db") if store is None else None
        memory: Memory = make_part("memory", part, store=own or store, folder=str(Path(folder) / "index"), **options)
        try:
            items = [Reflection(id=f"r{i}", text=text) for i, text in enumerate(lessons, 1)]
            if items:
                await memory.apply([MemoryOp(op="ADD", item=item, author="test") for item in items])
            yield memory
        finally:
            memory.close()
            if own is not None:
                own.close()


def _code(word: str) -> str:
    return str(100 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest(), "big") % 900)


def _guess(question: str, index: int, seed: int | None) -> int:
    # Below 100, where no code lies: a guess is never right by luck.
    text = f"{question}/{index}/{seed}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=2).digest(), "big") % 100


__all__ = [
    "ALL", "DAMAGES", "RAISED", "WORDS", "ChaosModel", "ScriptedModel", "TinyApp", "TinyCritic", "TinyEnvironment",
    "temporary_memory", "temporary_store", "tiny_reply",
]  # fmt: skip
