"""ExpeL's curation: a list of rules that lessons vote on, as pure functions and as a curator over the memory.

Votes are applied in the order REMOVE, AGREE, EDIT, ADD; a rule is deleted when its count is 0 or less:

    ADD text      a new rule with count 2; nothing, when the text contains a rule
    AGREE n text  +1
    EDIT n text   the new text and +1; when the text contains a rule, that rule gets the +1 and nothing is edited
    REMOVE n text -1, and -3 when the list is full (`most` + 5 rules)

AGREE and REMOVE name a rule by a text that contains it. Source: ExpeL, arXiv 2308.10144, and its released code.
Differs: where a text contains several rules, the one with the given number is meant, else the longest (there the
first, so a short rule captures what is said of others); an ADD that repeats one of the same reply adds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from verbal.contracts import Model
from verbal.errors import ConfigError
from verbal.prompt import load_prompt
from verbal.types import MemoryOp, Reflection

from .asking import ask
from .curator import NoveltyCurator
from .relation import closest, source_of

START = 2
"""Count of a new rule; an item without a value counts as one."""
FULL = 5
"""So many rules above `most`, and REMOVE takes 3; no more are ever kept."""

_ORDER = ("REMOVE", "AGREE", "EDIT", "ADD")
_LINE = re.compile(r"^[^\w\n]*(REMOVE|AGREE|EDIT|ADD)[ \t]*(\d+)?[ \t]*:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_VOTE = re.compile(r"\b(?:REMOVE|AGREE|EDIT|ADD)\b")


class Vote(NamedTuple):
    """One operation on a list of rules."""

    op: str
    """REMOVE, AGREE, EDIT or ADD."""
    text: str
    number: int | None = None
    """Of the rule, from 1."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule and its count."""

    text: str
    count: float


def read_votes(text: str, most: int = 4) -> list[Vote]:
    """The first `most` votes of a reply; a line that does not end with a period was cut, and is left out.

    >>> read_votes("AGREE 1: Check units.")
    [Vote(op='AGREE', text='Check units.', number=1)]
    """
    read = [Vote(op, said, int(number) if number else None) for op, number, said in _LINE.findall(text)]
    return [v for v in read if v.text.endswith(".") and not _VOTE.search(v.text)][:most]


def _resolve(rules: Sequence[Rule], votes: Sequence[Vote]) -> list[tuple[str, int, str]]:
    """What votes mean for a list of rules: (op, index of the rule, text) in the order they apply; -1 for an ADD.

    Votes that mean nothing are left out.
    """
    found: list[tuple[str, int, str]] = []
    for op, text, number in votes:
        named = _named(rules, text, number)
        if op == "EDIT" and named is None and number is not None and 1 <= number <= len(rules):
            found.append(("EDIT", number - 1, text))
        elif op in ("AGREE", "EDIT", "REMOVE") and named is not None:
            found.append(("REMOVE" if op == "REMOVE" else "AGREE", named, rules[named].text))
        elif op == "ADD" and named is None and ("ADD", -1, text) not in found:
            found.append(("ADD", -1, text))
    return sorted(found, key=lambda change: _ORDER.index(change[0]))


def update_rules(rules: Sequence[Rule], votes: Sequence[Vote], *, full: bool = False) -> list[Rule]:
    """The rules after some votes, highest count first; `full` makes REMOVE take 3."""
    after = list(rules)
    for op, at, text in _resolve(rules, votes):
        if op == "ADD":
            after.append(Rule(text, START))
        else:
            after[at] = Rule(text if op == "EDIT" else after[at].text, after[at].count + _strength(op, full))
    return sorted((r for r in after if r.count > 0), key=lambda r: -r.count)


def _strength(op: str, full: bool) -> int:
    return {"REMOVE": -3 if full else -1, "ADD": START}.get(op, 1)


def _named(rules: Sequence[Rule], text: str, number: int | None) -> int | None:
    """Index of the rule that a text contains: the numbered one, else the longest; None when it contains none."""
    inside = [i for i, rule in enumerate(rules) if rule.text in text]
    if number is not None and number - 1 in inside:
        return number - 1
    return max(inside, key=lambda i: len(rules[i].text), default=None)


class ExpelCurator:
    """Lets each lesson vote on the rules; counts are kept as the items' values, and a rule at 0 is retired.

    A lesson whose status is `retired` (somebody asked to forget) retires its item at once. Of `most` + 5 rules the
    lowest, oldest ones are retired. Where items are credited by outcome too, the value would be both: name no credit.

    Args:
        model: Who votes; None compares words: a lesson that says the same agrees, one that says more edits, one that
            contradicts takes a vote from a rule of 3 and replaces a lower one.
        most: Rules wanted.
        chunk: Lessons put to the model in one call.
        votes: Read from one reply at most.
        prompt: Name of the prompt (variables rules, lessons, votes, advice).
        prompts: A folder of the user's that overrides prompts of the package.
        tries: Replies asked for at most, the first included; then nothing changes.
        max_tokens: Of one reply.
    """

    author = "expel"

    def __init__(
        self,
        model: Model | None = None,
        *,
        most: int = 20,
        chunk: int = 1,
        votes: int = 4,
        prompt: str = "memory/expel_votes",
        prompts: str | None = None,
        tries: int = 3,
        max_tokens: int = 512,
    ) -> None:
        if low := {k: v for k, v in {"most": most, "chunk": chunk, "votes": votes, "tries": tries}.items() if v < 1}:
            raise ConfigError(f"{low} below 1", where="expel", todo="give 1 or more")
        self._model, self._most, self._chunk, self._votes = model, most, chunk, votes
        self._prompt, self._tries, self._max_tokens = load_prompt(prompt, prompts), tries, max_tokens

    async def propose(self, lessons: Sequence[Reflection], existing: Sequence[Reflection]) -> list[MemoryOp]:
        """VALUE, UPDATE, RETIRE of rules and ADD of new ones, as the lessons vote.

        Raises:
            ModelError: a call failed (nothing is proposed then).
        """
        known = [r for r in existing if r.status != "retired"]
        forget = [r for r in lessons if r.status == "retired"]
        ops = await NoveltyCurator(author=self.author).propose(forget, known) if forget else []
        gone = {op.reflection for op in ops if op.op == "RETIRE"}
        board = _Board([r for r in known if r.id not in gone], self.author, self._most)
        taught = [r for r in lessons if r.status != "retired" and r.text.strip()]
        step = self._chunk if self._model else 1
        for at in range(0, len(taught), step):
            chunk = taught[at : at + step]
            if self._model is None:
                board.apply([await self._compared(chunk[0], board)], chunk)
                continue
            votes = await self._asked(self._model, chunk, board)
            if isinstance(votes, str):
                ops += [MemoryOp(op="NOOP", reason=votes, author=self.author)]
            else:
                board.apply(votes, chunk)
        return [*ops, *board.operations()]

    async def _asked(self, model: Model, lessons: Sequence[Reflection], board: _Board) -> list[Vote] | str:
        rules = board.rules()
        crowded = len(rules) >= self._most
        text = self._prompt.fill(
            rules="\n".join(f"{i}. {' '.join(r.text.split())}" for i, r in enumerate(rules, 1)) or "none",
            lessons="\n".join(f"- {' '.join(r.text.split())}" for r in lessons),
            votes=str(self._votes),
            advice="The list is full: take votes from rules that are weak or say the same." if crowded else "",
        )

        def read(reply: str) -> list[Vote]:
            votes = read_votes(reply, self._votes)
            if not votes and reply.strip(" .`*\n").upper() != "NONE":
                raise ValueError("it holds no line such as `ADD: one sentence that ends with a period.`")
            return votes

        return await ask(
            model, text, read, tries=self._tries, max_tokens=self._max_tokens, form="such lines, or with NONE"
        )

    async def _compared(self, lesson: Reflection, board: _Board) -> Vote:
        text = _sentence(lesson.text)
        kind, item = await closest(lesson, board.items)
        if item is None:
            return Vote("ADD", text)
        at = board.items.index(item)
        own = board.rules()[at]
        if kind == "same" or text == own.text:
            return Vote("AGREE", own.text, at + 1)
        if kind == "against" and own.count > START:
            return Vote("REMOVE", own.text, at + 1)
        return Vote("EDIT", text, at + 1)


class _Board:
    """The rules while one batch of lessons votes on them, highest count first; those of the batch have no id yet."""

    def __init__(self, items: Sequence[Reflection], author: str, most: int) -> None:
        self.items = sorted(items, key=lambda r: -_count(r))
        self._ages = {r.id: i for i, r in enumerate(items)}
        self._author, self._most = author, most
        self._ops: list[MemoryOp] = []

    def rules(self) -> list[Rule]:
        return [Rule(r.text, _count(r)) for r in self.items]

    def apply(self, votes: Sequence[Vote], lessons: Sequence[Reflection]) -> None:
        full = len(self.items) >= self._most + FULL
        for op, at, text in _resolve(self.rules(), votes):
            if op == "ADD":
                source = source_of(text, lessons)
                new = source.replace(id="", text=text, kind="rule", value=float(START), status="active")
                self.items.append(new)
            else:
                self._change(op, at, text, full, lessons)
        for item in [r for r in self.items if _count(r) <= 0]:
            self._delete(item, "its count is 0")
        while len(self.items) > self._most + FULL:
            oldest = {id(r): self._ages.get(r.id, len(self._ages) + i) for i, r in enumerate(self.items)}
            self._delete(min(self.items, key=lambda r: (_count(r), oldest[id(r)])), "over budget")
        self.items.sort(key=lambda r: -_count(r))

    def _change(self, op: str, at: int, text: str, full: bool, lessons: Sequence[Reflection]) -> None:
        old = self.items[at]
        count, source = _count(old) + _strength(op, full), source_of(text, lessons)
        new = old.replace(value=float(count))
        if op == "EDIT":
            attempts = tuple(dict.fromkeys((*old.attempts, *source.attempts)))
            new = new.replace(text=text, task=source.task or old.task, attempts=attempts)
            self._log(MemoryOp(op="UPDATE", reflection=old.id, item=new, reason="edited", author=self._author))
        delta = count - (old.value or 0.0)
        self._log(MemoryOp(op="VALUE", reflection=old.id, delta=delta, reason=op.lower(), author=self._author))
        self.items[at] = new

    def _delete(self, item: Reflection, reason: str) -> None:
        self.items = [r for r in self.items if r is not item]
        self._log(MemoryOp(op="RETIRE", reflection=item.id, reason=reason, author=self._author))

    def _log(self, op: MemoryOp) -> None:
        if op.reflection:  # what has no id yet is written once, as it is in the end
            self._ops.append(op)

    def operations(self) -> list[MemoryOp]:
        """What to write: changes of rules that were there, then the new ones that are left."""
        new = [r for r in self.items if not r.id]
        return [*self._ops, *(MemoryOp(op="ADD", item=r, reason="voted in", author=self._author) for r in new)]


def _count(item: Reflection) -> float:
    return START if item.value is None else item.value


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


__all__ = ["ExpelCurator", "FULL", "START", "Rule", "Vote", "read_votes", "update_rules"]  # noqa: RUF022  (the part comes first)
