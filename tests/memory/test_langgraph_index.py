"""How the LangGraph store finds: where InMemoryStore slips, pages, embedders of both worlds, vectors that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, PutOp
from langgraph.store.memory import InMemoryStore

from verbal.errors import ConfigError, UnknownName
from verbal.memory.exact import ExactMemory
from verbal.memory.hashing import HashingEmbedder
from verbal.memory.langgraph_store import VerbalStore
from verbal.store import Store


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as store:
        yield store


# where InMemoryStore slips --------------------------------------------------------------------------------------------


def test_slips_of_langgraphs_own_that_are_not_ours(base: Store) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [list(v) for v in HashingEmbedder(64).embed(texts)]

    config: Any = {"dims": 64, "embed": embed, "fields": ["text"]}
    theirs, ours = InMemoryStore(index=config), VerbalStore(base, index=config)
    twice = [PutOp(("t",), "a", {"text": "zebra"}), PutOp(("t",), "b", {"text": "zebra"})]
    with pytest.raises(ValueError, match="Number of embeddings"):
        theirs.batch(twice)
    ours.batch(twice)
    assert [(i.key, i.score) for i in ours.search((), query="zebra")] == [("a", 1.0), ("b", 1.0)]
    for store in (theirs, ours):
        store.put(("t",), "a", {"text": "zebra"})
        store.put(("t",), "a", {"text": "secret"}, index=False)
    assert theirs.search((), query="zebra")[0].score == pytest.approx(1), "the vector of words that are gone"
    assert [(i.key, i.score) for i in ours.search((), query="zebra")] == [("b", 1.0), ("a", None)]
    with pytest.raises(TypeError):
        theirs.search((), filter={"missing": {"$gt": 1}})
    assert ours.search((), filter={"missing": {"$gt": 1}}) == [] == ours.search((), filter={"text": {"$gt": 1}})
    assert [i.key for i in ours.search((), filter={"text": {"$lt": "t"}})] == ["a"], "words compare as text"
    theirs.get(("never",), "k")
    assert ("never",) in theirs.list_namespaces() and ours.get(("never",), "k") is None
    assert ours.list_namespaces() == [("t",)]


def test_equal_scores_are_ordered_by_namespace_and_key(base: Store) -> None:
    store = VerbalStore(base)
    for namespace, key in (("z", "b"), ("z", "a"), ("c", "z")):
        store.put((namespace,), key, {"text": "zebra"})
    assert [(i.namespace[0], i.key) for i in store.search((), query="zebra")] == [("c", "z"), ("z", "a"), ("z", "b")]
    assert [i.key for i in store.search((), query="zebra", limit=2)] == ["z", "a"]


def test_pages_of_a_search_by_meaning_never_overlap(base: Store) -> None:
    store = VerbalStore(base, index={"embed": "hashing", "fields": ["text"]})
    for i in range(23):
        store.put(("t", str(i % 3)), f"k{i:02d}", {"text": f"cat {i % 4}"} if i % 5 else {})
    pages = [store.search((), query="cat 2", limit=4, offset=o) for o in range(0, 24, 4)]
    assert [(i.key, i.score) for page in pages for i in page] == [
        (i.key, i.score) for i in store.search((), query="cat 2", limit=100)
    ]
    assert len({i.key for page in pages for i in page}) == 23


# embedders ------------------------------------------------------------------------------------------------------------


class Counting(Embeddings):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return [[float(len(t)), 3.0 * t.count("a"), 0.0] for t in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


async def test_any_embedder_of_langgraph_fits(base: Store) -> None:
    async def coroutine(texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return Counting().embed_documents(list(texts))

    counting = Counting()
    for name, embed in (("class", counting), ("coroutine", coroutine), ("function", Counting().embed_documents)):
        store = VerbalStore(base, name, index={"dims": 3, "embed": embed, "fields": ["text"]})
        await store.aput(("t",), "many", {"text": "aaaa"})
        await store.aput(("t",), "none", {"text": "bbbb"})
        await store.aput(("t",), "zero", {"text": ""})
        found = await store.asearch(("t",), query="aaa")
        assert [i.key for i in found] == ["many", "none", "zero"]
        assert found[0].score == pytest.approx(1, abs=1e-5) and found[2].score == 0.0
    assert store.embeddings is not None
    with pytest.raises(ValueError, match="async"):
        only = VerbalStore(base, "coroutine", index={"embed": coroutine, "fields": ["text"]})
        await asyncio.to_thread(only.search, ("t",), query="aaa")
    assert sorted(counting.texts) == ["", "aaa", "aaaa", "bbbb"], "each text once"


async def test_no_call_waits_for_an_embedder_that_another_one_asked(base: Store) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(texts: Sequence[str]) -> list[list[float]]:
        asked.set()
        await answer.wait()
        return Counting().embed_documents(list(texts))

    store = VerbalStore(base, index={"embed": slow, "dims": 3, "fields": ["text"]})
    store.put(("t",), "a", {"text": "aa"})
    search = asyncio.create_task(store.asearch(("t",), query="a"))
    await asked.wait()
    assert store.get(("t",), "a") is not None, "on the very loop that the embedder needs"
    store.put(("t",), "b", {"text": "aab"})
    store.put(("t",), "a", {"text": "bb"})
    answer.set()
    assert [(i.key, round(i.score or 0, 2)) for i in await search] == [("b", 0.99), ("a", 0.32)], "as it is by now"


def test_vectors_are_made_once_and_when_they_are_needed(base: Store) -> None:
    counting = Counting()
    store = VerbalStore(base, index={"embed": counting, "fields": ["text"]})
    store.batch([PutOp(("t",), f"k{i}", {"text": "same words"}) for i in range(5)])
    store.batch([GetOp(("t",), "k1")])
    assert counting.texts == []
    for _ in range(3):
        assert len(store.search(("t",), query="same")) == 5
    assert counting.texts.count("same words") == 1
    store.put(("t",), "k1", {"text": "other"})
    store.search(("t",), query="same")
    assert counting.texts.count("same words") == 1 and counting.texts.count("other") == 1


def test_vectors_outlive_the_process_under_the_name_of_their_embedder(tmp_path: Path) -> None:
    path, counting = tmp_path / "v.db", Counting()

    def texts(**index: Any) -> list[str]:
        counting.texts.clear()
        with VerbalStore(path, index={"embed": counting, "fields": ["text"], **index}) as store:
            found = store.search(("t",), query="aa")
            assert {i.key: i.score is None for i in found} == {"a": False, "many": False, "none": True}
            best = max(i.score for i in found if i.score is not None)
            assert found[0].score == best and best > 0.9
        return sorted(counting.texts)

    with VerbalStore(path, index={"embed": counting, "fields": ["text"], "name": "counting-3"}) as store:
        store.put(("t",), "a", {"text": "a", "title": "b"})
        store.put(("t",), "many", {"text": "aab", "parts": ["xaa", "yaaa"]}, index=["parts[*]", "text"])
        store.put(("t",), "none", {"title": "b"}, index=["text"])
    every = ["a", "aa", "aab", "xaa", "yaaa"]
    assert texts(name="counting-3") == every
    assert texts(name="counting-3") == ["aa"], "kept"
    assert texts(name="counting-4") == every and texts() == every and texts() == every
    assert texts(name="counting-3", fields=["title"]) == ["aa", "aab", "b", "xaa", "yaaa"], "other fields"
    assert texts(name="counting-3") == ["aa"]
    with VerbalStore(path, index={"embed": counting, "fields": ["text"], "name": "counting-3"}) as store:
        store.put(("t",), "a", {"text": "aaa"})
    assert texts(name="counting-3") == ["aa", "aaa"] and texts(name="counting-3") == ["aa"]
    with Store(path) as base:
        bad = [row._replace(vector=row.vector[:-4]) for row in base.vectors("langgraph", "counting-3 of text")]
        base.log_ops("langgraph", [], vectors=bad)
    assert texts(name="counting-3") == ["aa", "aaa", "aab", "xaa", "yaaa"], "damaged ones are made again"


def test_wrong_embedders_are_refused(base: Store) -> None:
    with pytest.raises(UnknownName):
        VerbalStore(base, index={"embed": "hashin"})
    for embed in ("hashing", Counting()):
        store = VerbalStore(base, index={"embed": embed, "dims": 12})
        store.put(("t",), "k", {"n": 1})
        with pytest.raises(ConfigError, match="12 numbers were expected"):
            store.search((), query="x")
    assert store.get(("t",), "k") is not None
    own = VerbalStore(base, index={"embed": HashingEmbedder(32)})
    assert own.search((), query="n")[0].key == "k" and own.embeddings is None


def test_a_reflection_memory_beside_it_sees_none_of_it(base: Store) -> None:
    VerbalStore(base).put(("t",), "k", {"text": "vip means tier = 3"})
    memory = ExactMemory(base)
    try:
        assert asyncio.run(memory.search("who is vip", 5)) == []
    finally:
        memory.close()
