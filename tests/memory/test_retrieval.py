"""Words, vectors, BM25, rank fusion, the relevance filter and the token cap."""

from __future__ import annotations

import doctest
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.demo import TERMS
from verbal.errors import ConfigError
from verbal.memory import words as words_module
from verbal.memory.bm25 import BM25
from verbal.memory.hashing import HashingEmbedder
from verbal.memory.retrieval import KeyWords, fuse, out_of_bounds, together, tokens
from verbal.memory.words import informative, split_term, words
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import Reflection


def test_the_examples_of_the_docs() -> None:
    assert doctest.testmod(words_module).failed == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("orders", "order"),
        ("Categories", "category"),
        ("addresses", "address"),
        ("status", "status"),
        ("analysis", "analysis"),
        ("STRASSE", "straße"),
        ("ﬁne", "fine"),
        ("e\u0301cole", "école"),
        ("user_name", "User Name"),
        ("boxes", "box"),
    ],
)
def test_words_fold(one: str, other: str) -> None:
    assert words(one) == words(other)


@given(text=st.text())
def test_words_are_total(text: str) -> None:
    assert all(words(text)) and set(informative(text)) <= set(words(text))
    split_term(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vip means tier = 3", ("vip", "tier = 3")),
        ('"Net revenue" is defined as price - refund.', ('Net revenue"', "price - refund.")),
        ("VIP stands for very important person", ("VIP", "very important person")),
        ("Use LIMIT 1. That means one row", None),
        ("means nothing", None),
        ("x means ", None),
    ],
)
def test_split_term(text: str, found: tuple[str, str] | None) -> None:
    assert split_term(text) == found


# vectors --------------------------------------------------------------------------------------------------------------


def test_near_texts_are_near() -> None:
    one, same, near, far = HashingEmbedder().embed(
        [
            "active customer means status A",
            "The active customers mean status A!",
            "customers who are active",
            "late order shipped after due date",
        ]
    )
    cosine = [math.fsum(a * b for a, b in zip(one, v, strict=True)) for v in (same, near, far)]
    assert cosine[0] > 0.9 > cosine[1] > 0.3 > cosine[2]


def test_vectors_are_the_same_in_another_process(root: Path) -> None:
    code = "from verbal.memory.hashing import HashingEmbedder as H; print(H(32).embed(['größe of the order', '']))"
    env = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(HashingEmbedder(32).embed(["größe of the order", ""]))


def test_a_dimension_must_make_sense() -> None:
    with pytest.raises(ConfigError):
        HashingEmbedder(1)


# BM25 -----------------------------------------------------------------------------------------------------------------


def slow_bm25(texts: dict[str, str], query: str, k1: float = 1.5, b: float = 0.75) -> dict[str, float]:
    """The formula, text by text."""
    docs = {i: informative(t) for i, t in texts.items()}
    mean = sum(map(len, docs.values())) / len(docs) if docs else 1
    found = {}
    for i, doc in docs.items():
        score = 0.0
        for word in set(informative(query)) & set(doc):
            n = sum(word in d for d in docs.values())
            f = Counter(doc)[word]
            idf = math.log(1 + (len(docs) - n + 0.5) / (n + 0.5))
            score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(doc) / mean))
        if score:
            found[i] = score
    return found


TEXTS = st.text(alphabet="abc ", max_size=12)


@given(
    puts=st.lists(st.tuples(st.sampled_from("xyz"), TEXTS), max_size=8),
    drops=st.sets(st.sampled_from("xyzw")),
    query=TEXTS,
)
def test_bm25_follows_the_formula_however_it_was_filled(
    puts: list[tuple[str, str]], drops: set[str], query: str
) -> None:
    bm25, texts = BM25(), {}
    for key, text in puts:
        bm25.put(key, text)
        texts[key] = text
    for key in drops:
        bm25.drop(key)
        texts.pop(key, None)
    assert len(bm25) == len(texts)
    assert bm25.scores(query) == pytest.approx(slow_bm25(texts, query))


LONG = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9).map(" ".join)


@given(
    texts=st.lists(LONG, min_size=1, max_size=40),
    gone=st.sets(st.integers(0, 39), max_size=30),
    query=LONG,
    hidden=st.sets(st.integers(0, 39), max_size=5),
    first=st.integers(1, 6),
)
def test_the_best_by_words_come_in_order_however_few_are_scored(
    texts: list[str], gone: set[int], query: str, hidden: set[int], first: int
) -> None:
    texts = [text.translate({ord(c): f"{c}{c}{c}" for c in "abcdefgh"}) for text in texts]  # "a" alone says nothing
    query = query.translate({ord(c): f"{c}{c}{c}" for c in "abcdefgh"})
    texts += ["aaa"] * 40  # a word in nearly all of them
    bm25 = BM25()
    for i, text in enumerate(texts):
        bm25.put(f"k{i:02}", text)
    for i in gone:
        bm25.drop(f"k{i:02}")
    left = {f"k{i:02}": text for i, text in enumerate(texts) if i not in gone}
    expected = slow_bm25(left, query)
    assert bm25.scores(query) == pytest.approx(expected)
    away = {f"k{i:02}" for i in hidden}
    order = sorted((i for i in expected if i not in away), key=lambda i: (-round(expected[i], 9), i))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verbal.memory.bm25._FIRST", first)
        assert list(bm25.ranked(query, away)) == order
        assert list(itertools.islice(bm25.ranked(query, away), first)) == order[:first]


# what is shown --------------------------------------------------------------------------------------------------------


def test_fusion_by_hand() -> None:
    assert fuse([["a", "b"], ["b", "c"]]) == ["b", "a", "c"]  # 1/62 + 1/61, 1/61, 1/62
    assert fuse([["b", "a"], ["a", "b"]]) == ["a", "b"], "ties go by id"
    assert fuse([[], []]) == []


GLOSSARY = [
    "active customer means status = 'A'",
    "new customer means joined >= date('now', '-30 days')",
    "loyal customer means orders >= 10",
    "late order means shipped > due",
    "net revenue means price * quantity - refund",
    "churn means status = 'C'",
    "handle means the column user_name",
]


def shown(query: str, texts: list[str] = GLOSSARY, **options: object) -> list[str]:
    keys = KeyWords(**options)  # type: ignore[arg-type]
    for i, text in enumerate(texts):
        keys.put(Reflection(id=str(i), text=text))
    found = keys.relevant(query, [str(i) for i in range(len(texts))])
    return [text.split(" means ")[0] for i, text in enumerate(texts) if str(i) in found]


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("How many active customers are there?", ["active customer"]),
        ("List all customers", []),
        ("How many orders did active clients place?", ["active customer"]),
        ("Which orders of loyal customers were late?", ["loyal customer", "late order"]),
        ("What is the total net revenue?", ["net revenue"]),
        ("Show the handle of each new customer", ["new customer", "handle"]),
        ("What is the churn by month?", ["churn"]),
        ("How many products are there?", []),
        ("", []),
        ("the of and", []),
    ],
)
def test_only_telling_words_call_an_item_up(query: str, terms: list[str]) -> None:
    assert shown(query) == terms


def test_the_filter_has_a_dial() -> None:
    assert shown("List all customers", min_coverage=0.0) == ["active customer", "new customer", "loyal customer"]
    assert shown("active clients", min_overlap=2) == []
    assert shown("list customers", GLOSSARY[:1]) == [], "also when the memory holds one item only"
    assert shown("late shipments", common=["late"]) == []


def test_a_lesson_that_defines_no_term_is_filed_under_title_when_and_text() -> None:
    keys = KeyWords()
    keys.put(
        Reflection(
            id="a",
            text="Join on the key",
            title="Duplicate rows",
            when="a sum over two tables that were joined on some key",
        )
    )
    assert [keys.relevant(q, ["a"]) for q in ("duplicate rows?", "the sum of it", "which key?", "any names?")] == [
        {"a"},
        {"a"},
        {"a"},
        set(),
    ]
    keys.drop("a")
    keys.drop("a")
    assert keys.relevant("duplicate rows", ["a"]) == set()


def test_a_situation_in_a_few_words_is_what_a_lesson_is_filed_under() -> None:
    keys = KeyWords()
    keys.put(Reflection(id="a", text="keep it short and leave out emojis", when="mails to my boss"))
    asked = ("write a mail to my boss", "a short note", "emojis in a list")
    assert [keys.relevant(q, ["a"]) for q in asked] == [{"a"}, set(), set()]
    keys.put(Reflection(id="a", text="keep it short and leave out emojis", when="mails to my boss", task="t1"))
    assert [keys.relevant(q, ["a"]) for q in asked] == [{"a"}, {"a"}, {"a"}], "a question it came from is an example"


def test_the_token_cap_passes_over_what_does_not_fit() -> None:
    items = [Reflection(id=i, text=i * n) for i, n in (("a", 40), ("b", 400), ("c", 40), ("d", 40))]
    assert [tokens(item) for item in items] == [13, 103, 13, 13]
    assert [r.id for r in together(items, 9, 30)] == ["a", "c"]
    assert [r.id for r in together(items, 2, None)] == ["a", "b"]
    assert together(items, 9, 0) == [] and together(items, 0, None) == []


def test_the_first_that_are_relevant_are_found_without_looking_at_all() -> None:
    keys = KeyWords()
    for i in range(100):
        keys.put(Reflection(id=f"r{i}", text=f"{'vip' if i % 3 == 0 else 'late'} order"))
    ranked = iter([f"r{i}" for i in range(100)])
    assert keys.first("vip", ranked, 4) == ["r0", "r3", "r6", "r9"]
    assert next(ranked) == "r10", "what comes after the last that was wanted is not looked at"
    everything = [f"r{i}" for i in range(100)]
    assert set(keys.first("vip", everything, 99)) == keys.relevant("vip", everything)
    assert keys.first("vip", everything, 0) == keys.first("", everything, 9) == keys.first("vip", ["x"], 9) == []


def test_what_contradicts_or_repeats_is_passed_over() -> None:
    def kept(*pairs: tuple[str, str], k: int = 9) -> list[str]:
        return [r.id for r in together([Reflection(id=i, text=f"{i} x", rival=rival) for i, rival in pairs], k, None)]

    assert kept(("a", ""), ("b", "a"), ("c", "")) == ["a", "c"], "a rival behind"
    assert kept(("b", "a"), ("a", ""), ("c", "")) == ["b", "c"], "a rival in front"
    assert kept(("b", "a"), ("c", "a")) == ["b"], "two rivals of one item"
    assert kept(("a", ""), ("b", "a"), ("c", "b")) == ["a", "c"], "the rival of one that is not shown"
    assert kept(("b", "a"), ("a", ""), ("c", ""), k=2) == ["b", "c"], "what is passed over takes no place"
    same = [Reflection(id=i, text="x", polarity=p) for i, p in (("a", "do"), ("b", "do"), ("c", "avoid"))]  # type: ignore[arg-type]
    assert [r.id for r in together(same, 9, None)] == ["a", "c"]
    rivals = [Reflection(id="a", text="x" * 400), Reflection(id="b", text="x", rival="a"), Reflection(id="c", text="y")]
    assert [r.id for r in together(rivals, 9, 30)] == ["b", "c"], "one too large to be shown contradicts nothing"


GREETING = {"text": "greet with the first name", "boundary": "mails to my boss"}
TERM = {"text": "active customer means status = 'A'", "boundary": "do not apply to inactive customers; drafts, refunds"}


@pytest.mark.parametrize(
    ("fields", "query", "out"),
    [
        (GREETING, "write a mail to my boss", True),
        (GREETING, "Mails for the BOSS, please", True),
        (GREETING, "write to my friend", False),
        (GREETING, "write a mail to my friend", False),
        (GREETING, "what is my boss called", False),
        (GREETING, "", False),
        ({**GREETING, "when": "mails"}, "write a mail to my boss", True),
        ({**GREETING, "when": "mails"}, "write a mail", False),
        ({**GREETING, "when": "mails to the boss of another department"}, "mail the boss of another department", False),
        ({**GREETING, "when": "mails to the boss of another department"}, "mail my boss", True),
        ({**GREETING, "when": "mails to the boss", "boundary": "mails"}, "mail my boss", False),
        ({**GREETING, "when": "mails to the boss", "boundary": "mails"}, "mail my friend", True),
        (TERM, "How many active customers?", False),
        (TERM, "How many inactive customers?", True),
        (TERM, "drafts of active customers", True),
        (TERM, "customers with refunds", True),
        ({**TERM, "boundary": "do not apply"}, "apply it", False),
        ({**TERM, "boundary": "never; not when"}, "never when", False),
        ({**TERM, "boundary": "a year before 2,000"}, "customers before 2,000", True),
        ({**TERM, "boundary": ""}, "inactive drafts", False),
    ],
)
def test_bounds(fields: dict[str, str], query: str, out: bool) -> None:
    assert out_of_bounds(Reflection(id="a", **fields), informative(query)) is out  # type: ignore[arg-type]


@given(text=st.text(), when=st.text(), query=st.text(), boundary=st.text())
def test_bounds_are_total_and_an_item_without_any_is_in_them(text: str, when: str, query: str, boundary: str) -> None:
    item = Reflection(id="a", text=text, when=when)
    assert not out_of_bounds(item, informative(query))
    if out_of_bounds(item.replace(boundary=boundary), informative(query)):
        assert set(informative(boundary)) & set(informative(query))


async def test_questions_of_the_demo_call_up_their_term_and_nothing_else(root: Path, tmp_path: Path) -> None:
    """Lessons of every train question, curated; measured on the dev and test questions."""
    rows = [json.loads(line) for line in (root / "apps/text2sql/demo_questions.jsonl").read_text().splitlines()]
    lessons = [
        Reflection(id="new", text=TERMS[t].hint, when=row["question"], task=row["id"], attempts=(row["id"],))
        for row in rows
        if row["split"] == "train"
        for t in row["terms"]
    ]
    with Store(tmp_path / "v.db") as store:
        memory = make_part("memory", "exact", store=store)
        await memory.apply(await make_part("memory", "curator").propose(lessons, []))
        assert len(memory.items()) == len({t for row in rows for t in row["terms"]})
        wanted = found = extra = 0
        asked = [row for row in rows if row["split"] != "train"]
        for row in asked:
            hints = {TERMS[t].hint for t in row["terms"]}
            shown_texts = {r.text for r in await memory.search(row["question"], 3)}
            wanted += len(hints)
            found += len(hints & shown_texts)
            extra += len(shown_texts - hints)
        # 132 of 132 and 0 when written; with any shared word as the rule 1.6 of 3 hints shown were irrelevant.
        assert found >= 0.97 * wanted and extra <= 0.05 * len(asked), (found, wanted, extra)
