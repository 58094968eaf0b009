"""The synthetic corpus: repeatable, never-failing, right by execution, and split by words."""

from __future__ import annotations

import re
from contextlib import closing
from random import Random

import pytest

from verbal.models.embedded.ast import Aggregate, Query, to_sql
from verbal.models.embedded.corpus.build import world
from verbal.models.embedded.corpus.corrupt import corrupted, without_term
from verbal.models.embedded.corpus.examples import ROLES, Bench, describe
from verbal.models.embedded.corpus.packs import IGNORED, Counts, packs
from verbal.models.embedded.corpus.phrases import templates
from verbal.models.embedded.corpus.questions import KINDS, hints, question
from verbal.models.embedded.corpus.terms import KINDS as TERM_KINDS
from verbal.models.embedded.corpus.terms import distractor, invent
from verbal.models.embedded.corpus.words import kept, lexicon, natural_columns, plural, sections
from verbal.models.embedded.corpus.world import identifier


def test_words_are_split_and_cover_several_hundred():
    train, test = lexicon(), lexicon(test=True)
    for name in ("entities", "attributes", "adjectives", "verbs"):
        assert not set(getattr(train, name)) & set(getattr(test, name))
        assert all(kept(word) for word in getattr(test, name))
    share = len(test.entities) / (len(train.entities) + len(test.entities))
    assert 0.08 < share < 0.22
    assert len(sections()["entities"]) > 400


def test_plural_and_identifier_styles():
    assert [plural(word) for word in ("city", "box", "day", "bus stop", "person", "number of seats")] == [
        "cities", "boxes", "days", "bus stops", "people", "number of seats",
    ]  # fmt: skip
    styles = ("snake", "camel", "pascal", "title", "upper", "joined")
    assert [identifier("unit price", style) for style in styles] == [
        "unit_price", "unitPrice", "UnitPrice", "Unit_Price", "UNIT_PRICE", "unitprice",
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_database_and_question():
    def made(seed):
        rng = Random(seed)
        base = world(rng, lexicon())
        asked = question(rng, base, lexicon())
        return base.schema, base.rows, asked.text, asked.sql

    assert made(5) == made(5)
    assert made(5) != made(6)


def test_every_question_runs_on_two_fillings_and_every_kind_occurs():
    rng, words = Random(1), lexicon()
    seen = set()
    for _ in range(260):
        base = world(rng, words)
        with closing(base.connect()) as first, closing(base.connect(rng)) as second:
            for at in range(6):
                asked = question(rng, base, words, hinted=at >= 4)
                if asked is None:
                    continue
                seen.add(asked.kind)
                first.execute(asked.sql).fetchall()
                second.execute(asked.sql).fetchall()
                assert asked.text.strip() and "{" not in asked.text and "|" not in asked.text
                assert asked.sql == to_sql(asked.query, base.schema)
    assert seen == {make.__name__ for make, _, _ in KINDS}


def test_a_hinted_question_says_its_term_and_its_query_holds_the_meaning():
    rng, words = Random(2), lexicon()
    kinds = set()
    for _ in range(250):
        base = world(rng, words)
        asked = question(rng, base, words, hinted=True)
        if asked is None:
            continue
        for term in asked.terms:
            kinds.add(term.kind)
            assert term.phrase.lower() in asked.text.lower()
            assert term.hint in hints(rng, asked)
            piece = term.condition or term.amount or term.column
            assert piece is None or repr(piece) in repr(asked.query)
        for other in asked.distractors:
            assert other.phrase.lower() not in asked.text.lower()
    assert kinds == set(TERM_KINDS)


def test_distractors_at_times_share_a_word_with_the_term():
    rng, words = Random(3), lexicon()
    base = world(rng, words, 3)
    term = next(term for term in iter(lambda: invent(rng, base, words, "predicate"), 0) if term is not None)
    others = [other for _ in range(80) if (other := distractor(rng, base, words, [term])) is not None]
    shared = [other for other in others if set(other.phrase.split()) & set(term.phrase.split())]
    assert shared and len(shared) < len(others)


def test_corruptions_differ_and_can_be_said_in_sql():
    rng, words = Random(4), lexicon()
    made = 0
    for _ in range(200):
        base = world(rng, words)
        asked = question(rng, base, words)
        if asked is None:
            continue
        wrong = corrupted(rng, base, asked.query)
        if wrong is not None:
            made += 1
            assert wrong != asked.query
    assert made > 150


def test_a_query_without_its_term_lacks_the_condition():
    rng, words = Random(5), lexicon()
    tried = 0
    while tried < 40:
        base = world(rng, words)
        asked = question(rng, base, words, hinted=True)
        if asked is None or asked.terms[0].condition is None:
            continue
        wrong = without_term(rng, base, asked.query, asked.terms[0])
        if wrong is not None:
            tried += 1
            assert wrong != asked.query


@pytest.mark.parametrize("kind", ROLES)
def test_examples_of_every_role_hold_what_the_role_needs(kind):
    rng, words = Random(6), lexicon()
    made = []
    while len(made) < 25:
        bench = Bench(rng, world(rng, words), words)
        example = bench.example(kind)
        if example is not None:
            made.append(example)
            assert all(to_sql(tree, bench.world.schema) == sql for sql, tree in example.trees.items())
        bench.close()
    if kind == "criticise":
        assert {example.answer.verdict for example in made} == {"right", "wrong"}
        assert all(example.answer.clauses for example in made if example.answer.verdict == "wrong")
        assert all(re.match(r"\d+ rows?|error", example.fields.result) for example in made)
    if kind == "reflect":
        assert any(example.answer.hint for example in made) and any(not example.answer.hint for example in made)
        assert all(example.fields.sql != example.fields.right for example in made)
    if kind == "propose":
        assert {example.fields.level for example in made} <= {1, 2, 3, 4, 5}


def test_results_are_described_in_words():
    assert describe([(1, "a"), (2, None)]) == "2 rows, 2 columns, nulls"
    assert describe([]) == "0 rows"
    assert describe("no such column: x") == "error: no such column: x"


def test_packs_are_repeatable_and_supervise_answers_only():
    first, second = packs(3, 400), packs(3, 400)
    for _ in range(6):
        pack, again = next(first), next(second)
        assert pack.ids == again.ids and pack.targets == again.targets
        assert len(pack.ids) <= 400
        assert len({len(row) for row in (pack.ids, pack.positions, pack.groups, pack.segments, pack.targets)}) == 1
        for at, target in enumerate(pack.targets):
            if target != IGNORED:
                assert pack.segments[at] > 0 and pack.ids[at + 1] == target
                assert pack.segments[at + 1] == pack.segments[at]
    other = next(packs(4, 400))
    assert other.ids != next(packs(3, 400)).ids


def test_few_examples_are_outside_the_codec():
    counts = Counts()
    stream = packs(11, 512, counts)
    while counts.examples < 1500:
        next(stream)
    assert counts.unsupported < 0.03 * counts.examples, counts.reasons


def test_phrases_and_columns_are_well_formed():
    for key, sentences in templates().items():
        assert sentences, key
        for parts in sentences:
            text = "".join(option for part in parts for option in part)
            assert text.count("{") == text.count("}")
    columns = natural_columns()
    assert all(len(row) == 8 for row in columns["numbers"]) and all(len(row) == 5 for row in columns["dates"])


def test_a_database_holds_the_rows_it_says():
    base = world(Random(8), lexicon(), 3)
    with closing(base.connect()) as connection:
        for table in base.tables:
            sql = to_sql(Query((Aggregate("count"),), (table.name,)), base.schema)
            assert connection.execute(sql).fetchone()[0] == len(base.rows[table.name]) > 0
