"""Words the corpus is made of, split into those trained on and those kept for tests. No numpy, no torch here."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any

HELD_OUT = 7
"""One word in this many (by hash) is kept for tests; see `kept`."""


@lru_cache(maxsize=1)
def sections() -> dict[str, tuple[str, ...]]:
    """Word lists by section of words.txt, each word once and in file order."""
    found: dict[str, list[str]] = {}
    here: list[str] = []
    text = resources.files(__package__).joinpath("words.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            here = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            here.extend(line.split())
    return {name: tuple(dict.fromkeys(words)) for name, words in found.items()}


@lru_cache(maxsize=1)
def natural_columns() -> dict[str, list[Any]]:
    """Columns with their own vocabulary, by kind (`numbers`, `dates`, `categories`, `texts`); see columns.json."""
    text = resources.files(__package__).joinpath("columns.json").read_text(encoding="utf-8")
    loaded: dict[str, list[Any]] = json.loads(text)
    return loaded


def kept(word: str) -> bool:
    """Whether a word is held out for tests: the same answer on every machine and in every run."""
    return zlib.crc32(word.encode()) % HELD_OUT == 0


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words one corpus may use: held-out words if `test`, the others if not."""

    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    adjectives: tuple[str, ...]
    verbs: tuple[str, ...]

    def noun(self, rng: Random) -> str:
        """One noun: mostly a thing, sometimes an attribute, sometimes two words."""
        word = rng.choice(self.entities if rng.random() < 0.9 else self.attributes)
        roll = rng.random()
        if roll < 0.10:
            return f"{rng.choice(self.entities)} {word}"
        if roll < 0.15:
            return f"{rng.choice(self.adjectives)} {word}"
        return word

    def attribute(self, rng: Random) -> str:
        """One name for a column: one word or two."""
        word = rng.choice(self.attributes if rng.random() < 0.7 else self.entities)
        roll = rng.random()
        if roll < 0.2:
            return f"{rng.choice(self.adjectives)} {word}"
        if roll < 0.4:
            return f"{rng.choice(self.entities)} {word}"
        return word


@lru_cache(maxsize=2)
def lexicon(test: bool = False) -> Lexicon:
    """Words for training, or (`test`) the held-out ones that training never sees."""
    lists = sections()

    def part(name: str) -> tuple[str, ...]:
        return tuple(word for word in lists[name] if kept(word) is test)

    return Lexicon(part("entities"), part("attributes"), part("adjectives"), part("verbs"))


_IRREGULAR = {"person": "people", "child": "children", "datum": "data", "shelf": "shelves", "series": "series"}


def plural(phrase: str) -> str:
    """The phrase with its last word in the plural, by the usual rules of spelling."""
    head, _, word = phrase.rpartition(" ")
    lead = f"{head} " if head else ""
    if phrase.startswith(("number of ", "date of ")):
        return phrase
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "as", "os")):
        return phrase
    if word in _IRREGULAR:
        return lead + _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return lead + word + "es"
    if word.endswith("y") and len(word) > 1 and word[-2] not in "aeiou":
        return lead + word[:-1] + "ies"
    return lead + word + "s"


def third_person(verb: str) -> str:
    """`own` -> `owns`, `teach` -> `teaches`."""
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def past(verb: str) -> str:
    """A regular past form; irregular verbs come out regular, which is noise the model should not mind."""
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"
