"""Requests that test a lesson's scope: what a proposer writes, how its reply is read, and those of the bench."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scope_desk import INSIDE, LESSON, NEAR, OUTSIDE, Writer, requests, world

from verbal.errors import DataError
from verbal.scope import KINDS, read_requests, write_requests
from verbal.store import Store
from verbal.types import Task

__all__ = ["world"]

GOOD = json.dumps({"boundary": " novels;\n essays ", "inside": INSIDE, "near": NEAR, "outside": OUTSIDE})


async def test_the_proposer_is_asked_again_after_a_reply_that_cannot_be_used(world):
    writer = Writer(proposals=["no", '{"inside": []}', f"```json\n{GOOD}\n```"])
    shop, memory = await world(writer, LESSON)
    made = await write_requests(shop, memory.items()["r1"], requests().inside, 2)
    assert [t.info["question"] for t in made.near] == NEAR and made.boundary == "novels; essays"
    assert [(s.temperature, s.seed) for s in writer.sampled] == [(0.0, 0), (0.7, 1), (0.7, 2)]
    assert all(json.dumps(INSIDE[0]) in text for text in writer.read)


async def test_three_useless_replies_are_an_error_that_says_what_to_do(world):
    writer = Writer(proposals=["sorry"])
    shop, memory = await world(writer, LESSON)
    with pytest.raises(DataError, match="3 tries: not JSON") as told:
        await write_requests(shop, memory.items()["r1"], [])
    assert "model.roles.proposer" in str(told.value) and len(writer.read) == 3


async def test_the_proposer_sees_no_sealed_example_and_writes_no_more_than_it_was_asked_for(world):
    writer = Writer(proposals=[GOOD])
    shop, memory = await world(writer, LESSON)
    sealed = Task(id="t1", kind="desk", messages=(), split="test", info={"question": "secret"})
    made = await write_requests(shop, memory.items()["r1"], [sealed], 1)
    assert "secret" not in writer.read[0] and [len(made.of(k)) for k in KINDS] == [1, 1, 1]


_LEAVES = st.none() | st.booleans() | st.floats() | st.text()
_KEYS = st.sampled_from(["boundary", *KINDS, "x"])
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner)).map(json.dumps)


@given(st.text() | _JSON)
def test_any_reply_is_read_or_refused_in_words(text):
    try:
        found = read_requests(text)
    except ValueError as error:
        assert str(error)
    else:
        assert set(found) == {"boundary", *KINDS} and all(found[k] for k in KINDS)


_REQUESTS = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4)


@given(_REQUESTS, _REQUESTS, _REQUESTS, st.text(), st.booleans())
def test_a_well_formed_reply_is_read_whole(inside, near, outside, boundary, fenced):
    data = {"boundary": boundary, "inside": inside, "near": near, "outside": outside}
    text = json.dumps(data)
    stripped = {k: {r.strip() for r in data[k]} for k in KINDS}
    folded = [{r.casefold() for r in stripped[k]} for k in KINDS]
    if sum(map(len, folded)) > len(set().union(*folded)):
        with pytest.raises(ValueError, match="is both"):
            read_requests(text)
        return
    found = read_requests(f"```json\n{text}\n```" if fenced else text)
    assert {k: set(found[k]) for k in KINDS} == stripped and found["boundary"] == " ".join(boundary.split())
    assert all(len(found[k]) == len(set(found[k])) for k in KINDS)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        ('{"boundary": 3}', "boundary"),
        ('{"inside": "a", "near": ["b"], "outside": ["c"]}', "`inside` must be a list"),
        ('{"inside": ["a"], "near": [" "], "outside": ["c"]}', "`near` must be a list"),
        ('{"inside": ["a"], "near": ["b"]}', "`outside` must be a list"),
        ('{"inside": ["a"], "near": ["A "], "outside": ["c"]}', "'A' is both `inside` and `near`"),
    ],
)
def test_what_is_wrong_with_a_reply_is_said(reply, why):
    with pytest.raises(ValueError, match=why):
        read_requests(reply)


@pytest.fixture(scope="module")
def bench(root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("bench_scope", root / "bench" / "scope.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_feedback_is_varied_and_near_is_near(bench):
    informative = importlib.import_module("verbal.memory.words").informative
    rows = bench.FEEDBACK
    assert len(rows) >= 30 and len({r["id"] for r in rows}) == len({r["text"] for r in rows}) == len(rows)
    asked = [q for r in rows for k in KINDS for q in r[k]]
    assert len({q.casefold() for q in asked}) == len(asked) == 24 * len(rows)
    assert sum(r["wording"] == "other" for r in rows) * 2 == len(rows)
    own = [set(informative(f"{r['text']} {r['when']}")) for r in rows]
    shares = {
        (wording, kind): [
            bool(words & set(informative(q)))
            for r, words in zip(rows, own, strict=True)
            if r["wording"] == wording
            for q in r[kind]
        ]
        for wording in ("same", "other")
        for kind in KINDS
    }
    share = {key: sum(found) / len(found) for key, found in shares.items()}
    assert min(share["same", "near"], share["other", "near"], share["same", "inside"]) > 0.9
    assert max(share["other", "inside"], share["same", "outside"], share["other", "outside"]) < 0.1


async def test_what_is_held_out_is_never_used_by_the_test(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FEEDBACK", bench.FEEDBACK[:4])
    with Store(tmp_path / "b.db") as store:
        found = await bench.measure(store, "careful")
        questions = {i: t.info["question"] for i, t in store.tasks().items()}
        told = {questions[a.task] for a in store.attempts("careful-test-told")}
        measured = {questions[a.task] for a in store.attempts("careful-test")}
    first = {q for r in bench.FEEDBACK for k in KINDS for q in r[k][: bench.TOLD]}
    held = {q for r in bench.FEEDBACK for k in KINDS for q in r[k][bench.TOLD :]}
    assert told and told <= first and measured <= held
    assert found["test"]["s_out"][0] == found["overgeneralisation_with"] <= found["overgeneralisation_without"]
    assert sum(found["test"]["decided"].values()) == 4
