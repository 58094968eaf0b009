"""Packs: token sequences of fixed length in which many questions share the schema they are about.

A question sees its schema and itself, no other question; positions restart after the schema. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import SlotOrder, encode, encode_answer
from verbal.models.embedded.corpus.build import world
from verbal.models.embedded.corpus.examples import Bench
from verbal.models.embedded.corpus.words import lexicon
from verbal.models.embedded.vocabulary import INDEX

IGNORED = -100
"""Target of a token that is not to be predicted."""


@dataclass(slots=True)
class Pack:
    """One training sequence, all lists of equal length."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    """Number of the schema a token belongs to, from 1; 0 is padding."""
    segments: list[int] = field(default_factory=list)
    """Number of the question a token belongs to; 0 for the schema's own tokens."""
    targets: list[int] = field(default_factory=list)
    """The next token where it is part of an answer, else `IGNORED`."""

    def add(self, tokens: list[int], start: int, group: int, segment: int, answer: int) -> None:
        """Append tokens from position `start`; the last `answer` of them are to be predicted."""
        first = len(tokens) - answer
        self.ids += tokens
        self.positions += range(start, start + len(tokens))
        self.groups += [group] * len(tokens)
        self.segments += [segment] * len(tokens)
        self.targets += [tokens[at + 1] if first <= at + 1 < len(tokens) else IGNORED for at in range(len(tokens))]


@dataclass(slots=True)
class Counts:
    """What a stream made so far."""

    examples: int = 0
    unsupported: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def segments(
    rng: Random, counts: Counts, per_world: int = 10
) -> Iterator[tuple[tuple[int, ...], list[list[tuple[list[int], int]]]]]:
    """Endless databases, each as (schema tokens, question groups with answers' lengths)."""
    words = lexicon()
    while True:
        made = world(rng, words)
        bench = Bench(rng, made, words)
        order = SlotOrder(seed=None if rng.random() < 0.25 else rng.getrandbits(30))
        found: dict[tuple[int, ...], list[tuple[list[int], int]]] = {}
        for _ in range(per_world):
            example = bench.example()
            if example is None:
                continue
            try:
                prompt = encode(example.fields, slots=order, trees=example.trees)
                answer = encode_answer(prompt, example.answer, trees=example.trees)
            except Unsupported as error:
                counts.unsupported += 1
                reason = f"{example.kind}: {str(error)[:60]}"
                counts.reasons[reason] = counts.reasons.get(reason, 0) + 1
                continue
            counts.examples += 1
            ids = [INDEX[token] for token in (*prompt.tokens, *answer)]
            key = tuple(ids[: prompt.schema_tokens])
            found.setdefault(key, []).append((ids[prompt.schema_tokens :], len(answer)))
        bench.close()
        for key, group in found.items():
            yield key, [group]


def packs(seed: int, length: int = 512, counts: Counts | None = None) -> Iterator[Pack]:
    """Endless packs of at most `length` tokens; the same seed gives the same packs."""
    rng = Random(seed)
    counts = counts if counts is not None else Counts()
    pack = Pack()
    group = segment = 0
    for schema, groups in segments(rng, counts):
        for questions in groups:
            todo = list(questions)
            while todo:
                room = length - len(pack.ids) - len(schema)
                if len(todo[0][0]) + len(schema) > length:
                    todo.pop(0)
                    continue
                if len(todo[0][0]) > room:
                    yield pack
                    pack, group, segment = Pack(), 0, 0
                    room = length - len(schema)
                group += 1
                pack.add(list(schema), 0, group, 0, 0)
                while todo and len(todo[0][0]) <= room:
                    tokens, answer = todo.pop(0)
                    segment += 1
                    pack.add(tokens, len(schema), group, segment, answer)
                    room -= len(tokens)
