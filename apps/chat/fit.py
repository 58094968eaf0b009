"""Whether a lesson fits a message: the house's search finds what may, a test of its situation decides.

The test is lexical and cheap. A situation fits when more than half of its telling words occur in the message, by
themselves or by a word of the same meaning in `KIN`; a boundary that the message lies in shuts it out, as in a search.
"When you write to my boss" is about any mail, note or message to them, and `my boss` is not any boss: "a story about a
boss" does not fit. What is left to judge is judged by the model, which reads `when` and `not_for` beside each lesson
(prompts/chat/lessons.md).

Source: near-scope prompts as in RLVF / C3PO, arXiv 2402.10893, section 3; figures of this test: bench/chat_scope.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from verbal.parts import load_function
from verbal.types import Reflection, Status

from .changes import telling
from .understanding import situation

SHOWN = 12
"""Lessons of a person in one prompt at most."""
TOKENS = 800
"""Tokens of them at most."""
_FOUND, _TRIED = 50, 1000
_KIN = (
    "mail email", "boss manager supervisor", "customer client", "code function script program snippet",
    "colleague coworker", "child kid", "picture image photo", "summary summarise summarize recap", "film movie",
    "slide presentation deck", "translate translation", "chart plot graph diagram",
    "doc document documentation", "cv resume", "trip travel journey", "doctor physician", "teacher instructor",
    "friend buddy pal", "letter note", "tweet post", "sql query", "math maths equation",
    "team group", "job work", "car vehicle", "shop store",
)  # fmt: skip
KIN = {word: words.split()[0] for words in _KIN for word in words.split()}
"""Word -> the word that stands for those of its meaning, as `memory/words.py` folds them."""
_LETTERS = ("mail", "letter", "message", "memo", "card", "sms")
_WRITE = "write to"
_FRAME = frozenset(
    ("question", "request", "task", "topic", "case", "thing", "ask", "answer", "something", "anything", "somebody")
)
_MAKES = frozenset(
    ("write", "writing", "draft", "compose", "prepare", "create", "make", "give", "send", "reply", "respond")
)
_TO = re.compile(
    r"\b(?:writ(?:e|ing)|repl(?:y|ying)|respond(?:ing)?|answer(?:ing)?|get) (?:back )?to\b|"
    r"\b(?:send|tell|text|inform|e?mail|message) (?:my|our|the|him|her|them)\b",
    re.IGNORECASE,
)
_RECIPIENT = re.compile(
    r"\b(?:to|for) (?:(?:my|our|the|an?|his|her|your) )?(?:[^\W_]+['’]s )*([^\W_]+(?: [^\W_]+){0,2})", re.IGNORECASE
)
_ASKS = re.compile(r"\s*(?:how|what|which|who|whom|whose|why|when|where|is|are|was|were|do|does|did|has|have)\b", re.I)
_OWN = re.compile(r"\b(?:my|our|your) ([^\W_]+)", re.IGNORECASE)
_ANY = ("a", "an", "any", "every", "each", "some", "no", "being", "of", "about")
_FOLLOWS = re.compile(
    r"(?:and|but|now|ok(?:ay)?|again|also|instead|make|shorter|longer|more|less|try|redo|rewrite|change|the same|"
    r"another|once more|same)\b",
    re.IGNORECASE,
)
_POINTS = re.compile(r"\b(?:it|that|this|them|those)\b", re.IGNORECASE)
_SHORT, _SHORTER = 14, 6


class Fitting:
    """A memory as seen from one message: its search gives only what fits.

    Args:
        memory: The memory; it is only read.
        carried: Ids of lessons that fitted the turn which this message goes on with.
        newest: Whether the newest come first, which counts where two disagree; else the nearest.
        judged: Whether the model alone judges situations: everything fits that no boundary shuts out.
    """

    def __init__(
        self, memory: Any, carried: Collection[str] = (), *, newest: bool = False, judged: bool = False
    ) -> None:
        self.memory, self.name, self._carried = memory, memory.name, carried
        self._newest, self._judged = newest, judged

    async def search(
        self,
        query: str,
        k: int,
        *,
        exclude_tasks: Sequence[str] = (),
        status: Status = "active",
        task: str | None = None,
    ) -> list[Reflection]:
        """At most `k` lessons of a standing that fit, those with a situation first; as `Memory.search`."""
        found = await self.memory.search(
            expanded(query), max(k, _FOUND), exclude_tasks=exclude_tasks, status=status, task=task
        )
        # A search misses situations that a message is a case of in other words, and lessons that always hold: what a
        # person, or a team, taught is little enough to be tried one by one.
        others = [r for r in reversed(self.memory.items().values()) if r.status == status][:_TRIED]
        ranked = {r.id: r for r in (*found, *others)}
        fit = [r for r in ranked.values() if fits(r, query, carried=self._judged or r.id in self._carried)]
        first = [r for r in fit if r.when]
        if self._newest:
            first.sort(key=lambda r: -r.version)
        kept: list[Reflection] = load_function("memory", "retrieval", "together")(
            [*first, *(r for r in fit if not r.when)], k, TOKENS
        )
        return kept


def fits(item: Reflection, message: str, *, carried: bool = False) -> bool:
    """Whether a lesson applies to a message, by its words.

    Args:
        item: The lesson.
        message: What the person says.
        carried: Whether it fitted the turn that the message goes on with: then only its boundary is looked at.
    """
    informative = load_function("memory", "words", "informative")
    if load_function("memory", "retrieval", "out_of_bounds")(item, frozenset(informative(message))):
        return False
    if carried or not item.when:
        return True
    return any(_covers(part, message) for part in re.split(r"[;\n]|\bor\b", item.when) if part.strip())


def goes_on(message: str) -> bool:
    """Whether a message goes on with the turn before ("make it shorter"), so that what fitted there fits here."""
    words = len(message.split())
    if words > _SHORT or re.search(r" (?:to|for) ", situation(message)):
        return False
    return bool(_FOLLOWS.match(message.strip())) or (words <= _SHORTER and bool(_POINTS.search(message)))


def expanded(text: str) -> str:
    """A text with the words of the same meaning beside those that have some, for a search by words."""
    words = telling(text)
    more = [w for word in words for w in _MEANS.get(word, ()) if w != word]
    more += ["write", *(w for letter in sorted(_said(text) & {*_LETTERS}) for w in _MEANS.get(letter, [letter]))] * (
        _WRITE in _said(text)
    )
    return " ".join([text, *dict.fromkeys(w for w in more if w not in words)])


def _covers(when: str, message: str) -> bool:
    """Whether more than half of a situation's telling words occur in a message."""
    wanted, said = _meant(when), _said(message)
    if wanted & {_WRITE, *_LETTERS}:
        # To ask about letters is to write none, and one to somebody else is another one.
        meant, named = _recipients(when), _recipients(message)
        if _ASKS.match(message) or (meant and named and not meant & named):
            return False
    mine = {_kin(m.group(1)) for m in _OWN.finditer(when)}
    shared = {w for w in wanted & said if w not in mine or _owned(w, message)}
    return not wanted or 2 * len(shared) > len(wanted)


def _meant(when: str) -> set[str]:
    """The telling words of a situation, each by the one that stands for its meaning."""
    informative = load_function("memory", "words", "informative")
    words = {KIN.get(w, w) for w in informative(when) or telling(when)} - _FRAME
    if _TO.search(when) and not words & {*_LETTERS}:
        return words - _MAKES | {_WRITE}
    return words - _MAKES or words


def _recipients(text: str) -> set[str]:
    """Whom a text names as the ones that something is written to."""
    return {KIN.get(w, w) for m in _RECIPIENT.finditer(text) for w in telling(m.group(1))}


def _said(message: str) -> set[str]:
    """The same for a message: a letter of any kind is writing to somebody, and writing to somebody is any kind."""
    words = {KIN.get(w, w) for w in telling(message)}
    if words & {*_LETTERS}:
        return words | {_WRITE}
    return words | {_WRITE, *_LETTERS} if _TO.search(message) else words


def _owned(word: str, message: str) -> bool:
    """Whether a message names the very one that is meant (`my boss`, `the boss`), and not any of that name."""
    tokens = re.findall(r"[^\W_]+", message.casefold())
    places = [i for i, token in enumerate(tokens) if _kin(token) == word]
    return any(i == 0 or tokens[i - 1] not in _ANY for i in places)


def _kin(word: str) -> str:
    folded = telling(word)
    return KIN.get(folded[0], folded[0]) if folded else word.casefold()


_MEANS = {word: words.split() for words in _KIN for word in words.split()}

__all__ = ["KIN", "SHOWN", "TOKENS", "Fitting", "expanded", "fits", "goes_on"]
