"""The tree over many lessons: groups of ceil(sqrt(n)), counted calls, and no call that sees all of them."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError, RefusedError
from verbal.memory.tree import TreeCurator, group_size
from verbal.models.scripted import ScriptedModel
from verbal.types import Reflection

SUBJECTS = ["anchor", "basket", "candle", "dagger", "engine", "feather", "garden", "hammer", "island", "jacket"]


def lessons(n: int) -> list[Reflection]:
    texts = [f"{SUBJECTS[i % 10]} {SUBJECTS[i // 10 % 10]} means code = {i}" for i in range(n)]
    return [Reflection(id=f"new:{i}", text=t, task=f"t{i}", attempts=(f"a{i}",)) for i, t in enumerate(texts)]


class Condenser:
    """Answers with the first `keep` lessons of what it is asked; notes how many there were."""

    def __init__(self, keep: int = 1) -> None:
        self.sizes: list[int] = []
        self.keep = keep
        self.model = ScriptedModel(self.answer)

    def answer(self, messages: Any, index: int, seed: int | None) -> str:
        given = re.findall(r"^- (.*)$", messages[0].content.partition("## Lessons")[2], re.MULTILINE)
        self.sizes.append(len(given))
        return "\n".join(f"HINT: {text}" for text in given[: self.keep])


@pytest.mark.parametrize(("n", "size"), [(0, 0), (1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4), (100, 10)])
def test_a_group_holds_the_root(n: int, size: int) -> None:
    assert group_size(n) == size == math.ceil(math.sqrt(n))


@pytest.mark.parametrize(
    ("n", "keep", "calls"), [(9, 1, 4), (10, 1, 4), (16, 1, 5), (100, 1, 11), (16, 2, 6), (100, 2, 12)]
)
async def test_calls_and_the_largest_group_are_those_of_the_tree(n: int, keep: int, calls: int) -> None:
    condenser = Condenser(keep)
    ops = await TreeCurator(condenser.model, keep=keep).propose(lessons(n), [])
    assert len(condenser.sizes) == condenser.model.calls == calls
    assert max(condenser.sizes) == group_size(n)
    assert sum(condenser.sizes[: math.ceil(n / group_size(n))]) == n  # every lesson was in one group of the first level
    assert {op.op for op in ops} == {"ADD"} and len(ops) <= keep * math.ceil(
        keep * math.ceil(n / group_size(n)) / group_size(n)
    )


async def test_few_lessons_go_to_the_curator_as_they_are() -> None:
    condenser = Condenser()
    ops = await TreeCurator(condenser.model).propose(lessons(8), [])
    assert condenser.sizes == [] and [op.op for op in ops] == ["ADD"] * 8


async def test_a_condensed_lesson_keeps_where_it_came_from() -> None:
    ops = await TreeCurator(Condenser().model, least=2).propose(lessons(4), [])
    item = ops[0].item
    assert item is not None and item.task == "t0" and item.attempts == ("a0", "a1", "a2", "a3")


async def test_a_group_that_cannot_be_condensed_stays_as_it_is() -> None:
    model = ScriptedModel(["I would rather not."])
    given_lessons = lessons(9)
    ops = await TreeCurator(model, tries=2).propose(given_lessons, [])
    assert [op.item.text for op in ops if op.item] == [r.text for r in given_lessons]
    assert model.calls == 2 * (3 + 3)  # both levels, two tries for each of three groups


async def test_without_a_model_words_condense_and_requests_to_forget_pass() -> None:
    twice = [
        r.replace(text=t) for r in lessons(5) for t in (r.text, r.text.upper().replace("MEANS CODE", "means code"))
    ]
    known = [Reflection(id="r1", text="vip means tier = 3")]
    forget = Reflection(id="r1", text="", status="retired")
    ops = await TreeCurator().propose([*twice, forget], known)
    assert [op.op for op in ops] == ["ADD"] * 5 + ["RETIRE"]


async def test_any_curator_stands_inside_and_gets_the_model_if_it_takes_one() -> None:
    ops = await TreeCurator(curator="append", options={"most": 1}).propose(lessons(2), [])
    assert [op.author for op in ops] == ["append"] * 2
    reply = ["HINT: x means y = 1", "ADD: Quote names."]
    model = ScriptedModel([{"reply": reply[0], "match": "Write them again"}, {"reply": reply[1], "match": "Vote on"}])
    ops = await TreeCurator(model, curator="expel", least=2).propose(lessons(4), [])
    assert [(op.op, op.author) for op in ops] == [("ADD", "expel")]


async def test_failures_and_bad_options_are_told() -> None:
    with pytest.raises(RefusedError):
        await TreeCurator(ScriptedModel([{"error": "refused"}])).propose(lessons(9), [])
    for options in ({"curator": "tree"}, {"least": 1}, {"keep": 0}, {"curator": "no_such"}):
        with pytest.raises(ConfigError):
            TreeCurator(**options)  # type: ignore[arg-type]


@given(st.integers(2, 120), st.integers(1, 4))
def test_no_call_ever_sees_more_than_the_root(n: int, keep: int) -> None:
    import asyncio

    condenser = Condenser(keep)
    asyncio.run(TreeCurator(condenser.model, least=2, keep=keep).propose(lessons(n), []))
    assert max(condenser.sizes) <= group_size(n)
