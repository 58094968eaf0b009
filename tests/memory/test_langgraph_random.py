"""Random operations on LangGraph's InMemoryStore and on ours: equal answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from verbal.memory.hashing import HashingEmbedder
from verbal.memory.langgraph_store import VerbalStore


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [list(vector) for vector in HashingEmbedder(96).embed(texts)]


labels = st.sampled_from(["a", "b", "c", "é"])
namespaces = st.lists(labels, min_size=1, max_size=3).map(tuple)
names = st.sampled_from(["k1", "k2", "k3"])
words = st.lists(st.sampled_from(["cat", "dog", "vip", "late", "order"]), min_size=1, max_size=4).map(" ".join)
values = st.fixed_dictionaries(
    {"n": st.integers(-3, 3)},
    optional={"text": words, "tags": st.lists(words, max_size=2), "deep": st.fixed_dictionaries({"x": st.booleans()})},
)
indexes = st.sampled_from([None, None, False, ["text"], ["tags[*]", "text"], []])
filters = st.sampled_from(
    [
        None,
        {"n": 1},
        {"n": {"$gt": 0}},
        {"n": {"$lte": 1, "$ne": 0}},
        {"deep": {"x": True}},
        {"tags": []},
        {"text": "cat"},
    ]
)
puts = st.builds(PutOp, namespaces, names, values, indexes, st.none())
deletes = st.builds(PutOp, namespaces, names, st.none(), st.none(), st.none())
gets = st.builds(GetOp, namespaces, names)
prefixes = st.lists(labels, max_size=2).map(tuple)
searches = st.builds(
    SearchOp, prefixes, filters, st.integers(0, 6), st.integers(0, 3), st.one_of(st.none(), st.just(""), words)
)
paths = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2).map(tuple)
conditions = st.lists(st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), paths), max_size=2).map(tuple)
listings = st.builds(
    ListNamespacesOp, conditions, st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 5), st.integers(0, 2)
)
batches = st.lists(st.one_of(puts, puts, puts, deletes, gets, searches, listings), min_size=1, max_size=6)


class Reference(InMemoryStore):
    """InMemoryStore without its slips: texts that are equal in one batch, vectors of a value that was replaced, and
    namespaces that a `get` or a delete makes or leaves empty. Pages of a search by meaning are cut from all of it.
    """

    def batch(self, ops: Any) -> Any:
        ops = list(ops)
        results = [None if isinstance(op, PutOp) else self._read(op) for op in ops]
        for op in ops:
            if isinstance(op, PutOp):
                self._vectors[op.namespace].pop(op.key, None)
        for op in {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}.values():
            self._put(op)
            self._tidy()
        return results

    def _read(self, op: Any) -> Any:
        whole = op._replace(limit=1000, offset=0) if isinstance(op, SearchOp) and op.query else op
        found = self._page(op, super().batch([whole])[0])
        self._tidy()
        return found

    def _tidy(self) -> None:
        for namespace in [n for n, held in self._data.items() if not held]:
            del self._data[namespace]

    def _put(self, op: PutOp) -> None:
        # One text a time, for it pairs vectors with texts wrongly when two texts are equal.
        super().batch([op._replace(index=False)])
        if op.value is not None and op.index is not False:
            fields = op.index if op.index is not None else ["text", "tags[*]"]
            texts = [op.value["text"]] if "text" in fields and "text" in op.value else []
            texts += op.value.get("tags", []) if "tags[*]" in fields else []
            for i, text in enumerate(texts):
                self._vectors[op.namespace][op.key][str(i)] = embed([text])[0]

    @staticmethod
    def _page(op: Any, found: Any) -> Any:
        if not (isinstance(op, SearchOp) and op.query):
            return found
        scored = sorted(
            (i for i in found if i.score is not None), key=lambda i: (-round(i.score, 5), i.namespace, i.key)
        )
        return [*scored, *(i for i in found if i.score is None)][op.offset : op.offset + op.limit]


def told(result: Any) -> Any:
    if isinstance(result, SearchItem):
        return result.namespace, result.key, result.value, None if result.score is None else round(result.score, 4)
    if isinstance(result, Item):
        return result.namespace, result.key, result.value
    return [told(part) for part in result] if isinstance(result, list) else result


@settings(max_examples=80, deadline=None)
@given(st.lists(batches, min_size=1, max_size=12), st.integers(0, 11))
def test_any_operations_give_what_langgraphs_own_gives(
    tmp_path_factory: pytest.TempPathFactory, work: list[list[Any]], reopened: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "v.db"
    config: Any = {"dims": 96, "embed": embed, "fields": ["text", "tags[*]"]}
    theirs, ours = Reference(index=config), VerbalStore(path, index=config)
    try:
        for i, ops in enumerate(work):
            if i == reopened:
                ours.close()
                ours = VerbalStore(path, index=config)
            assert _near(told(ours.batch(ops)), told(theirs.batch(ops))), ops
    finally:
        ours.close()


def _near(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 2e-4
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_near, ours, theirs))
    return bool(ours == theirs)
