"""Sentences from phrases.txt: `say(rng, key, slots)` picks one and fills it. No torch, no numpy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from random import Random

from verbal.models.embedded.vocabulary import KNOWN

_OPTIONS = re.compile(r"\[([^\]]*)\]")


@lru_cache(maxsize=1)
def templates() -> dict[str, tuple[tuple[tuple[str, ...], ...], ...]]:
    """Each key's sentences; a sentence is a row of parts, a part its alternatives."""
    found: dict[str, list[tuple[tuple[str, ...], ...]]] = {}
    here: list[tuple[tuple[str, ...], ...]] = []
    text = resources.files(__package__).joinpath("phrases.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("<"):
            here = found.setdefault(line.strip("<>"), [])
        elif line and not line.startswith("#"):
            pieces = _OPTIONS.split(line)
            parts = ((piece,) if at % 2 == 0 else tuple(piece.split("|")) for at, piece in enumerate(pieces))
            here.append(tuple(part for part in parts if part != ("",)))
    return {key: tuple(sentences) for key, sentences in found.items()}


def say(rng: Random, key: str, slots: Mapping[str, str]) -> str:
    """One sentence of `key`, filled; only sentences whose slots are all given are considered first come.

    Raises:
        KeyError: when the chosen sentence names a slot that is not given.
    """
    parts = rng.choice(templates()[key])
    text = "".join(part[0] if len(part) == 1 else rng.choice(part) for part in parts).format_map(slots)
    return " ".join(text.split()).replace(" ,", ",").replace(" ?", "?").replace(" .", ".")


_CASUAL = (
    ("What is the ", "whats the "), ("What are the ", "what're the "), ("How many ", "number of "),
    ("Show ", "can you show "), ("List ", "could you list "), ("Find ", "I would like to find "),
    ("Show ", "please show "), ("Give me ", "I need "), ("Find ", "please find "), ("What is ", "Tell me "),
)  # fmt: skip
_KNOWN = sorted(KNOWN)
_TAILS = (" in our records", " in the database", " in total", " we have", " please", " overall", " in the data")


def noisy(rng: Random, question: str, stray: bool = True) -> str:
    """The question with the small liberties people take: case, end mark, a polite word, at times a `stray` one."""
    roll = rng.random()
    if roll < 0.06:
        old, new = rng.choice(_CASUAL)
        question = question.replace(old, new, 1) if question.startswith(old) else question
    elif roll < 0.10 and question.endswith(("?", ".")) and ". " not in question and "? " not in question:
        question = question[:-1] + rng.choice(_TAILS) + question[-1]
    if stray and rng.random() < 0.06:
        question = _stray(rng, question)
    if rng.random() < 0.12:
        question = (
            question.lower() if not any(mark in question for mark in "'\"") and not _names(question) else question
        )
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    elif rng.random() < 0.05:
        question = question.replace("?", " ?")
    return question


def _stray(rng: Random, question: str) -> str:
    """The question with one word in it that does not matter."""
    words = question.split(" ")
    if len(words) < 4 or any(mark in question for mark in "'\""):
        return question
    words.insert(rng.randint(1, len(words) - 1), rng.choice(_KNOWN))
    return " ".join(words)


def _names(question: str) -> bool:
    return any(word[:1].isupper() for word in question.split()[1:])
