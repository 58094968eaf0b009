"""Curation without a model."""

from __future__ import annotations

from typing import Any

import pytest

from verbal.memory.curator import NoveltyCurator
from verbal.memory.log import replay
from verbal.types import Counters, MemoryOp, Reflection


def known(text: str, id: str = "r1", **fields: Any) -> Reflection:
    return Reflection(id=id, text=text, **{"attempts": ("a0",), **fields})


def lesson(text: str, **fields: Any) -> Reflection:
    return Reflection(id="new:1", text=text, **{"attempts": ("a1",), "task": "t1", **fields})


async def one(new: Reflection, *items: Reflection, **options: Any) -> MemoryOp:
    (op,) = await NoveltyCurator(**options).propose([new], items)
    return op


async def test_what_is_new_is_added_under_an_id_of_the_memorys_choosing() -> None:
    op = await one(lesson("vip means tier = 3"), known("late order means shipped > due"))
    assert (op.op, op.reason, op.author) == ("ADD", "new", "curator")
    assert op.item == lesson("vip means tier = 3").replace(id="")


@pytest.mark.parametrize(
    "text", ["vip means tier = 3", "VIP  means tier=3", "VIP means TIER = 3.", "vips means tier = 3"]
)
async def test_the_same_again_counts_as_evidence_once(text: str) -> None:
    op = await one(lesson(text), known("vip means tier = 3"))
    assert (op.op, op.reflection, op.reason) == ("UPDATE", "r1", "seen again")
    assert op.item == known("vip means tier = 3", attempts=("a0", "a1"))
    op = await one(lesson(text), known("vip means tier = 3", attempts=("a1",)))
    assert (op.op, op.reason) == ("NOOP", "the same as r1")


async def test_a_contradiction_takes_the_newer_and_says_why() -> None:
    op = await one(lesson("active customers means status = 'B'"), known("active customer means status = 'A'"))
    assert (op.op, op.reflection) == ("UPDATE", "r1")
    assert op.item is not None and op.item.text == "active customers means status = 'B'"
    assert op.item.attempts == ("a1",), "the attempts that said the old do not speak for the new"
    assert op.reason == "'active customers' was \"status = 'A'\", is now \"status = 'B'\""


async def test_letters_count_inside_quotes() -> None:
    assert (await one(lesson("vip means tier = 'a'"), known("vip means tier = 'A'"))).op == "UPDATE"
    assert (await one(lesson("vip means tier = 'a b'"), known("vip means tier = 'ab'"))).op == "UPDATE"


async def test_one_voice_does_not_overrule_many() -> None:
    supported = known("vip means tier = 3", attempts=("a", "b"))
    op = await one(lesson("vip means tier = 4"), supported)
    assert (op.op, op.reason) == ("NOOP", "2 attempts say 'vip means tier = 3', this one 'vip means tier = 4'")
    assert (await one(lesson("vip means tier = 4"), supported, keep=0)).op == "UPDATE"
    assert (await one(lesson("vip means tier = 4"), supported, keep=3)).op == "UPDATE"
    harmful = supported.replace(counters=Counters(shown=3, helped=1, harmed=2))
    assert (await one(lesson("vip means tier = 4"), harmful)).op == "UPDATE"


async def test_near_duplicates() -> None:
    old = known("Always join order lines before counting products per order")
    assert (await one(lesson("Always join the order lines before counting products for each order"), old)).op == "NOOP"
    more = lesson("Always join order lines before counting products per order, and count distinct")
    op = await one(more, old)
    assert (op.op, op.reflection) == ("UPDATE", "r1") and op.item is not None and op.item.text == more.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Use the last 30 days of orders for recent sales", "Use the last 90 days of orders for recent sales"),
        ("Include refunds in the monthly sales figures", "Do not include refunds in the monthly sales figures"),
        (
            "Filter the orders by status 'A' before joining lines",
            "Filter the orders by status 'B' before joining lines",
        ),
        ("Keep rows with price > 0 in the sales sums", "Keep rows with price < 0 in the sales sums"),
    ],
)
async def test_near_words_with_another_meaning_are_no_duplicates(old: str, new: str) -> None:
    assert (await one(lesson(new), known(old))).op == "ADD"


async def test_do_and_avoid_are_no_duplicates() -> None:
    assert (
        await one(lesson("select star from orders", polarity="avoid"), known("select star from orders"))
    ).op == "ADD"


async def test_lessons_of_one_batch_meet_each_other() -> None:
    lessons = [lesson(t, attempts=(a,)) for t, a in [("vip means tier = 3", "a"), ("vip means tier = 3", "b"),
                                                     ("vip means tier = 4", "c"), ("churn means gone", "d"),
                                                     ("churn means status = 'C'", "e")]]  # fmt: skip
    ops = await NoveltyCurator().propose(lessons, [])
    assert [op.op for op in ops] == ["ADD", "NOOP", "NOOP", "ADD", "NOOP"]
    items = replay(ops)
    assert {i: (r.text, r.attempts) for i, r in items.items()} == {
        "r1": ("vip means tier = 3", ("a", "b")),
        "r2": ("churn means status = 'C'", ("e",)),
    }


async def test_forgetting_by_id_words_or_term() -> None:
    items = [known("vip means tier = 3"), known("late order means due", "r2"), known("a free rule", "r3")]
    curator = NoveltyCurator()
    for new, found in [
        (Reflection(id="r2", text="", status="retired"), ["r2"]),
        (Reflection(id="", text="VIP means tier = 3", status="retired"), ["r1"]),
        (Reflection(id="", text="late orders", status="retired"), ["r2"]),
        (Reflection(id="", text="A free rule", status="retired", when="the user asked"), ["r3"]),
    ]:
        ops = await curator.propose([new], items)
        assert [(op.op, op.reflection) for op in ops] == [("RETIRE", i) for i in found]
        assert ops[0].reason == (new.when or "asked to forget")
    (op,) = await curator.propose([Reflection(id="", text="something else", status="retired")], items)
    assert (op.op, op.reason) == ("NOOP", "nothing to forget like 'something else'")


async def test_what_is_retired_is_no_obstacle() -> None:
    assert (await one(lesson("vip means tier = 3"), known("vip means tier = 3", status="retired"))).op == "ADD"
    ops = await NoveltyCurator().propose(
        [known("x", "r1", status="retired"), lesson("vip means tier = 4")], [known("vip means tier = 3")]
    )
    assert [op.op for op in ops] == ["RETIRE", "ADD"]


async def test_a_lesson_without_words_changes_nothing() -> None:
    for text in ("", " ", "...", "🦜"):
        assert (await one(lesson(text))).op == "NOOP"
