"""LangGraph's store contract: the same tests on its InMemoryStore and on ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.base.batch import AsyncBatchedBaseStore
from langgraph.store.memory import InMemoryStore

from verbal.memory.hashing import HashingEmbedder
from verbal.memory.langgraph_store import VerbalStore

Make = Callable[..., BaseStore]


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [list(vector) for vector in HashingEmbedder(96).embed(texts)]


@pytest.fixture(params=["InMemoryStore", "VerbalStore"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as opened:

        def store(fields: list[str] | None = None, *, index: bool = True) -> BaseStore:
            config: Any = {"dims": 96, "embed": embed, **({"fields": fields} if fields else {})} if index else None
            if request.param == "InMemoryStore":
                return InMemoryStore(index=config)
            return opened.enter_context(VerbalStore(tmp_path / "v.db", index=config))

        yield store


def keys(found: Sequence[Item]) -> list[str]:
    return [item.key for item in found]


# put, get, delete -----------------------------------------------------------------------------------------------------


def test_what_is_put_is_got_until_it_is_deleted(make: Make) -> None:
    store = make()
    store.put(("users", "1"), "likes", {"food": "pizza", "n": 3, "nested": {"a": [1, 2.5, None, True]}})
    item = store.get(("users", "1"), "likes")
    assert item is not None and type(item) is Item
    assert item.value == {"food": "pizza", "n": 3, "nested": {"a": [1, 2.5, None, True]}}
    assert (item.namespace, item.key) == (("users", "1"), "likes")
    assert item.created_at.tzinfo is not None and item.created_at <= item.updated_at
    assert store.get(("users",), "likes") is None and store.get(("users", "1"), "other") is None
    store.put(("users", "1"), "likes", {"food": "soup"})
    assert store.get(("users", "1"), "likes").value == {"food": "soup"}  # type: ignore[union-attr]
    store.delete(("users", "1"), "likes")
    store.delete(("users", "1"), "never there")
    assert store.get(("users", "1"), "likes") is None and store.search(("users",)) == []
    store.put(("users", "1"), "likes", {"food": "bread"})
    assert store.get(("users", "1"), "likes").value == {"food": "bread"}  # type: ignore[union-attr]


def test_a_key_that_is_no_text_is_made_one(make: Make) -> None:
    store = make()
    store.put(("a",), 7, {"x": 1})  # type: ignore[arg-type]
    assert store.get(("a",), "7").value == {"x": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "namespace", [(), ("the", "thing.about"), ("some", "fun", ""), ("langgraph", "x"), ("a", 7), ("a\x00b",)]
)
async def test_bad_namespaces_are_refused_with_the_same_words(make: Make, namespace: tuple[Any, ...]) -> None:
    store = make()
    told = set()
    for error in (lambda: store.put(namespace, "k", {}), lambda: asyncio.run(store.aput(namespace, "k", {}))):
        with pytest.raises(InvalidNamespaceError) as caught:
            await asyncio.to_thread(error)
        told.add(str(caught.value))
    with pytest.raises(InvalidNamespaceError) as expected:
        InMemoryStore().put(namespace, "k", {})
    assert told == {str(expected.value)}
    assert store.search(()) == []
    if namespace not in ((), ("langgraph", "x")):
        for call in (store.search, lambda n: store.get(n, "k"), lambda n: store.delete(n, "k")):
            with pytest.raises(InvalidNamespaceError):
                call(namespace)


def test_batch_goes_past_the_check_of_the_root(make: Make) -> None:
    store = make()
    store.batch([PutOp(("langgraph", "x"), "k", {"a": 1}), PutOp((), "root", {"b": 2})])
    assert store.get(("langgraph", "x"), "k").value == {"a": 1}  # type: ignore[union-attr]
    assert store.get((), "root").value == {"b": 2}  # type: ignore[union-attr]
    assert store.batch([ListNamespacesOp()]) == [[(), ("langgraph", "x")]]
    with pytest.raises(ValueError, match="Unknown operation type"):
        store.batch(["get"])  # type: ignore[list-item]


def test_a_batch_reads_before_it_writes_and_the_last_put_of_a_key_counts(make: Make) -> None:
    store = make()
    store.put(("a",), "k", {"n": 0})
    results = store.batch(
        [
            PutOp(("a",), "k", {"n": 1}),
            GetOp(("a",), "k"),
            SearchOp(("a",)),
            PutOp(("a",), "k", {"n": 2}),
            PutOp(("b",), "gone", {"n": 3}),
            PutOp(("b",), "gone", None),
            ListNamespacesOp(),
        ]
    )
    assert results[0] is results[3] is results[4] is results[5] is None
    assert results[1].value == {"n": 0} and [i.value for i in results[2]] == [{"n": 0}]  # type: ignore[union-attr]
    assert results[6] == [("a",)]
    assert store.get(("a",), "k").value == {"n": 2}  # type: ignore[union-attr]
    assert store.get(("b",), "gone") is None


# search ---------------------------------------------------------------------------------------------------------------


def test_search_without_a_query_keeps_the_order_of_coming(make: Make) -> None:
    store = make()
    for i in (3, 1, 2):
        store.put(("docs", "x"), f"d{i}", {"n": i})
    store.put(("docs", "x"), "d3", {"n": 30})
    store.put(("docsy",), "other", {"n": 9})
    store.put(("docs",), "top", {"n": 0})
    found = store.search(("docs",))
    assert keys(found) == ["d3", "d1", "d2", "top"] and found[0].value == {"n": 30}
    assert all(type(i) is SearchItem and i.score is None for i in found)
    assert keys(store.search(("docs",), limit=2)) == ["d3", "d1"]
    assert keys(store.search(("docs",), limit=2, offset=1)) == ["d1", "d2"]
    assert keys(store.search(("docs",), offset=4)) == [] == keys(store.search(("docs",), limit=0))
    assert keys(store.search(())) == ["d3", "d1", "d2", "other", "top"]
    assert keys(store.search(("docs", "x", "y"))) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"color": "red"}, ["a", "b"]),
        ({"color": {"$eq": "red"}}, ["a", "b"]),
        ({"color": {"$ne": "red"}}, ["c", "d"]),
        ({"score": {"$gt": 3.5}}, ["a", "c"]),
        ({"score": {"$gte": 3.5}}, ["a", "c", "d"]),
        ({"score": {"$lt": 3.5}}, ["b"]),
        ({"score": {"$lte": 3.5}}, ["b", "d"]),
        ({"score": {"$gt": 3, "$lt": 4.2}}, ["c", "d"]),
        ({"score": {"$gt": "3.7"}}, ["a", "c"]),
        ({"score": {"$gte": 4.0}, "color": "green"}, ["c"]),
        ({"meta": {"by": "x"}}, ["a", "c"]),
        ({"meta": {"by": {"$ne": "x"}}}, ["b", "d"]),
        ({"meta": {}}, ["a", "b", "c", "d"]),
        ({"tags": ["p", "q"]}, ["a"]),
        ({"tags": ("p", {"$ne": "p"})}, ["a"]),
        ({"missing": None}, ["a", "b", "c", "d"]),
        ({"color": {"by": "x"}}, []),
        ({}, ["a", "b", "c", "d"]),
    ],
)
def test_filters(make: Make, wanted: dict[str, Any], found: list[str]) -> None:
    store = make()
    store.put(("t",), "a", {"color": "red", "score": 4.5, "meta": {"by": "x"}, "tags": ["p", "q"]})
    store.put(("t",), "b", {"color": "red", "score": 3, "meta": {"by": "y"}, "tags": ["p"]})
    store.put(("t",), "c", {"color": "green", "score": 4.0, "meta": {"by": "x", "m": 1}, "tags": []})
    store.put(("t",), "d", {"color": "blue", "score": 3.5, "meta": {"by": None}, "tags": ["q", "p"]})
    assert keys(store.search(("t",), filter=wanted)) == found
    assert sorted(keys(store.search(("t",), filter=wanted, query="red"))) == found
    assert keys(store.search(("t",), filter=wanted, limit=1, offset=1)) == found[1:2]
    with pytest.raises(ValueError, match="Unsupported operator"):
        store.search(("t",), filter={"score": {"$near": 1}})


def test_the_nearest_come_first_with_their_scores(make: Make) -> None:
    store = make(["text"])
    for key, text in (("cats", "cats purr at night"), ("dogs", "dogs bark at strangers"), ("fish", "fish swim")):
        store.put(("pets",), key, {"text": text})
    found = store.search(("pets",), query="do dogs bark", limit=2)
    assert found[0].key == "dogs" and len(found) == 2
    dogs, asked = (HashingEmbedder(96).embed([t])[0] for t in ("dogs bark at strangers", "do dogs bark"))
    assert found[0].score == pytest.approx(sum(a * b for a, b in zip(dogs, asked, strict=True)), abs=1e-5)
    assert found[0].score > found[1].score  # type: ignore[operator]
    assert keys(store.search(("pets",), query="do dogs bark", limit=1, offset=1)) == [found[1].key]
    assert keys(store.search(("pets",), query="")) == ["cats", "dogs", "fish"]
    assert store.search(("none",), query="dogs") == []


def test_an_update_moves_the_vector_and_a_delete_takes_it(make: Make) -> None:
    store = make(["text"])
    store.put(("t",), "doc1", {"text": "zany zebra xerxes"})
    store.put(("t",), "doc2", {"text": "something about dogs"})
    before = store.search(("t",), query="zany xerxes")
    assert before[0].key == "doc1"
    store.put(("t",), "doc1", {"text": "new text about dogs"})
    after = {i.key: i.score for i in store.search(("t",), query="zany xerxes")}
    assert after["doc1"] < before[0].score  # type: ignore[operator]
    store.delete(("t",), "doc1")
    assert keys(store.search(("t",), query="new text about dogs")) == ["doc2"]


def test_fields_of_the_store_and_of_a_put(make: Make) -> None:
    store = make(["title", "parts[*].text"])
    store.put(("t",), "a", {"title": "zebra", "parts": [{"text": "piano"}, {"text": "violin"}], "body": "cactus"})
    store.put(("t",), "b", {"title": "giraffe", "body": "cactus"}, index=["body"])
    store.put(("t",), "c", {"title": "zebra"}, index=False)
    store.put(("t",), "d", {"body": "no field of the store"})

    def scored(query: str) -> dict[str, float]:
        return {i.key: round(i.score, 3) for i in store.search(("t",), query=query) if i.score is not None}

    assert set(scored("zebra")) == {"a", "b"}, "c is not indexed, d has none of the fields"
    assert scored("zebra")["a"] == scored("violin")["a"] == scored("piano")["a"] == 1.0, "the nearest of its parts"
    assert scored("cactus")["b"] == 1.0 and scored("cactus")["a"] < 0.9 and scored("giraffe")["b"] < 0.9
    found = store.search(("t",), query="zebra", limit=10)
    assert [(i.key, i.score is None) for i in found[2:]] == [("c", True), ("d", True)], "then those without vectors"
    assert keys(store.search(("t",), query="zebra", limit=3)) == ["a", "b", "c"]


def test_without_an_index_a_query_is_not_looked_at(make: Make) -> None:
    store = make(index=False)
    store.put(("t",), "a", {"text": "zebra"}, index=["text"])
    store.put(("t",), "b", {"text": "piano"})
    assert [(i.key, i.score) for i in store.search(("t",), query="piano")] == [("a", None), ("b", None)]


def test_a_long_query_signs_and_another_alphabet(make: Make) -> None:
    store = make()
    store.put(("données", "日本"), "clé 🗝", {"naïve": "Zoë — Ωmega 漢字 \x00 \u2028", "": "empty name"})
    for query in ("test " * 500, "!@#$%^&*()", "漢字", "\x00"):
        assert keys(store.search(("données",), query=query)) == ["clé 🗝"]
    got = store.get(("données", "日本"), "clé 🗝")
    assert got is not None and got.value == {"naïve": "Zoë — Ωmega 漢字 \x00 \u2028", "": "empty name"}
    assert store.list_namespaces() == [("données", "日本")]


# namespaces -----------------------------------------------------------------------------------------------------------

SPACES = [
    ("a", "b", "c"),
    ("a", "b", "d", "e"),
    ("a", "b", "d", "i"),
    ("a", "b", "f"),
    ("a", "c", "f"),
    ("b", "a", "f"),
    ("users", "123"),
    ("users", "456", "settings"),
    ("admin", "users", "789"),
]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"prefix": ("a", "b")}, SPACES[:4]),
        ({"suffix": ("f",)}, SPACES[3:6]),
        ({"prefix": ("a",), "suffix": ("f",)}, SPACES[3:5]),
        ({"prefix": ("a", "b"), "max_depth": 3}, [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]),
        ({"prefix": ("a", "b"), "limit": 2}, SPACES[:2]),
        ({"prefix": ("a", "b"), "offset": 2}, SPACES[2:4]),
        ({"prefix": ("a", "*", "f")}, SPACES[3:5]),
        ({"suffix": ("*", "f")}, SPACES[3:6]),
        ({"prefix": ("*", "users"), "suffix": ("*", "settings")}, []),
        ({"prefix": ("users", "123")}, [("users", "123")]),
        ({"prefix": ("nothing",)}, []),
        ({"max_depth": 1}, [("a",), ("admin",), ("b",), ("users",)]),
        ({"max_depth": 1, "limit": 2, "offset": 1}, [("admin",), ("b",)]),
        ({}, sorted(SPACES)),
    ],
)
def test_namespaces_are_listed(make: Make, options: dict[str, Any], found: list[tuple[str, ...]]) -> None:
    store = make()
    for i, namespace in enumerate(reversed(SPACES)):
        store.put(namespace, f"k{i}", {"n": i})
    assert store.list_namespaces(**options) == found


def test_an_unknown_kind_of_match_is_refused(make: Make) -> None:
    store = make()
    store.put(("a",), "k", {})
    with pytest.raises(ValueError, match="Unsupported match type"):
        store.batch([ListNamespacesOp(match_conditions=(MatchCondition("infix", ("a",)),))])  # type: ignore[arg-type]


# async ----------------------------------------------------------------------------------------------------------------


async def test_the_async_forms_say_the_same(make: Make) -> None:
    store = make(["text"])
    await asyncio.gather(*(store.aput(("t", str(i % 2)), f"d{i}", {"text": f"word{i} cat", "n": i}) for i in range(8)))
    item = await store.aget(("t", "1"), "d3")
    assert item is not None and item.value == {"text": "word3 cat", "n": 3}
    found = await store.asearch(("t",), query="word5", filter={"n": {"$gte": 2}}, limit=3)
    assert found[0].key == "d5" and len(found) == 3
    await store.adelete(("t", "1"), "d3")
    assert await store.aget(("t", "1"), "d3") is None
    assert await store.alist_namespaces(max_depth=2) == [("t", "0"), ("t", "1")]
    results = await store.abatch([GetOp(("t", "0"), "d2"), SearchOp(("t",), query="word4", limit=1)])
    assert results[0].value["n"] == 2 and keys(results[1]) == ["d4"]  # type: ignore[union-attr,arg-type]


async def test_many_searches_at_once(make: Make) -> None:
    store = make(["text"])
    things = ["apple", "car", "house", "book", "phone"]
    for i in range(50):
        await store.aput(("t",), f"d{i}", {"text": f"color{i % 7} {things[i % 5]}", "n": i})
    await asyncio.gather(*(store.adelete(("t",), f"d{i}") for i in range(0, 50, 3)))
    found = await asyncio.gather(
        *(store.asearch(("t",), query=f"{thing} please", filter={"n": {"$gt": 20}}, limit=3) for thing in things)
    )
    for thing, items in zip(things, found, strict=True):
        assert len(items) == 3 and all(thing in i.value["text"] and i.value["n"] > 20 for i in items)
        assert all(i.value["n"] % 3 for i in items)


async def test_it_can_stand_behind_langgraphs_batching(make: Make) -> None:
    inner = make(["text"])

    class Batched(AsyncBatchedBaseStore):
        def batch(self, ops: Any) -> Any:
            return inner.batch(ops)

        async def abatch(self, ops: Any) -> Any:
            return await inner.abatch(ops)

    store = Batched()
    await asyncio.gather(*(store.aput(("t",), f"k{i % 3}", {"text": f"v{i}"}) for i in range(9)))
    assert sorted(i.value["text"] for i in await store.asearch(("t",))) == ["v6", "v7", "v8"]
