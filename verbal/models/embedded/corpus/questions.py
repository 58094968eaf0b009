"""One question about one database, of any kind: `question(rng, world, words)`. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from verbal.models.embedded.ast import Query, Unsupported, join_tree, subqueries, to_sql, used_tables
from verbal.models.embedded.corpus.asker import Asker
from verbal.models.embedded.corpus.groups import GROUPS
from verbal.models.embedded.corpus.joined import JOINED
from verbal.models.embedded.corpus.more import MORE
from verbal.models.embedded.corpus.nested import NESTED
from verbal.models.embedded.corpus.phrases import noisy
from verbal.models.embedded.corpus.single import SINGLE
from verbal.models.embedded.corpus.terms import Term, distractor, invent
from verbal.models.embedded.corpus.words import Lexicon
from verbal.models.embedded.corpus.world import World
from verbal.models.embedded.fields import Value

KINDS = (*SINGLE, *GROUPS, *JOINED, *NESTED, *MORE)
"""All kinds of questions with level and weight."""
LEVELS = (1, 2, 3, 4, 5)
"""Levels of difficulty."""
WEIGHTS = (24, 18, 18, 26, 14)
"""How often each level is asked, in percent."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the query that answers it, and what is needed to understand it."""

    text: str
    query: Query
    sql: str
    level: int
    kind: str
    values: tuple[Value, ...]
    terms: tuple[Term, ...]
    """Private terms it uses; empty for a plain question."""
    distractors: tuple[Term, ...] = ()


def question(
    rng: Random,
    world: World,
    words: Lexicon,
    *,
    level: int = 0,
    hinted: bool = False,
    noise: bool = True,
    tries: int = 40,
) -> Question | None:
    """A question about the database, or None where `tries` attempts found none.

    Args:
        rng: source of all choices.
        world: the database.
        words: words for private terms.
        level: 1 to 5; 0 for any.
        hinted: whether it must use a private term.
        noise: whether questions may hold words that do not matter, call a table by some other word, or use a word of
            the schema as a private term; on in training, off in tests.
        tries: attempts before giving up.
    """
    wanted = level or rng.choices(LEVELS, WEIGHTS)[0]
    for tried in range(tries):
        if tried >= tries // 2 and not level:
            wanted = rng.choices(LEVELS, WEIGHTS)[0]
        terms = _terms(rng, world, words) if hinted else ()
        if hinted and (not terms or (not noise and any(_in_schema(world, term) for term in terms))):
            continue
        kinds = [(make, weight) for make, at, weight in KINDS if at == wanted]
        make = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        ask = Asker(rng, world, terms, words.attributes + words.adjectives if noise else ())
        asked = make(ask)
        if asked is None or (hinted and not _uses_all(asked[1], ask, world)):
            continue
        text, query = asked
        try:
            sql = to_sql(query, world.schema)
            if not all(_plain_path(world, part) for part in _parts(query)):
                continue
        except Unsupported:
            continue
        made = Question(
            noisy(rng, text, stray=noise), query, sql, wanted, make.__name__, _values(rng, ask, world), tuple(ask.used)
        )
        return made if not hinted else _with_distractors(rng, world, words, made)
    return None


def _in_schema(world: World, term: Term) -> bool:
    """Whether a word of the term is also a word of the schema, so that it is no private term at all."""
    names = [table.noun for table in world.tables] + [info.phrase for table in world.tables for info in table.columns]
    return bool(set(term.phrase.lower().split()) & set(" ".join(names).lower().split()))


def _plain_path(world: World, query: Query) -> bool:
    """Whether the tables are joined as anybody would: by the shortest path between those that the question names."""
    tables = used_tables(query)
    named = used_tables(replace(query, tables=(*query.tables[:1], *query.tables[-1:])))
    shortest = {table for table, _ in join_tree(world.schema, named, query.via)}
    return len(join_tree(world.schema, tables, query.via)) == len(tables) and shortest == set(tables)


def _parts(query: Query) -> tuple[Query, ...]:
    return (query, *(inner for inner in subqueries(query) if inner is not None))


def _terms(rng: Random, world: World, words: Lexicon) -> tuple[Term, ...]:
    first = invent(rng, world, words)
    if first is None:
        return ()
    if rng.random() < 0.82:
        return (first,)
    same = world.table(first.table) if rng.random() < 0.6 else None
    second = invent(rng, world, words, table=same)
    if second is None or set(second.phrase.split()) & set(first.phrase.split()):
        return (first,)
    return (first, second)


def _uses_all(query: Query, ask: Asker, world: World) -> bool:
    """Whether the query holds what each used term stands for, and at least one term was used."""
    text = repr(query)
    for term in ask.used:
        piece = term.condition or term.amount or term.column
        if piece is not None and repr(piece) not in text:
            return False
    return bool(ask.used)


def _with_distractors(rng: Random, world: World, words: Lexicon, made: Question) -> Question | None:
    lowered = made.text.lower()
    if any(term.phrase.lower() not in lowered for term in made.terms):
        return None
    extra = []
    for _ in range(rng.choices((0, 1, 2, 3, 4), (45, 22, 16, 10, 7))[0]):
        other = distractor(rng, world, words, made.terms)
        if other is not None and other.phrase.lower() not in lowered:
            extra.append(other)
    return Question(made.text, made.query, made.sql, made.level, made.kind, made.values, made.terms, tuple(extra))


def _values(rng: Random, ask: Asker, world: World) -> tuple[Value, ...]:
    """Where the cells that the question mentions occur, as a look-up in the data would find them."""
    found: list[Value] = []
    for text, column in dict.fromkeys(ask.mentioned):
        places = [Value(text, column.table, column.name)]
        for table in world.tables:
            for at, other in enumerate(table.columns):
                if other.type != "text" or other.col == column or (other.kind != "category" and rng.random() < 0.5):
                    continue
                if any(row[at] == text for row in world.rows[table.name]):
                    places.append(Value(text, table.name, other.name))
        rng.shuffle(places)
        found.extend(places[:4])
    return tuple(found)


def hints(rng: Random, made: Question, extra: Sequence[Term] = ()) -> tuple[str, ...]:
    """The hints for a question: its own and the distractors, in random order."""
    lines = [term.hint for term in (*made.terms, *made.distractors, *extra)]
    rng.shuffle(lines)
    return tuple(lines)
