"""A LangGraph store keeps its contract on each kind of database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from verbal.memory.langgraph_store import VerbalStore


def test_values_vectors_and_lives_outlive_the_process(store_url: str) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    value = {"text": "zebra \x00 \ud800 漢字", "n": 2**70, "x": [1.5, None, {"deep": True}]}
    with VerbalStore(store_url, clock=lambda: now[0]) as store:
        store.put(("a", "é"), "k\x00\x1a", value)
        store.put(("a", "é"), "short", {"text": "piano"}, ttl=5)
        store.put(("b",), "gone", {"text": "violin"})
        store.delete(("b",), "gone")
        before = [item.dict() for item in store.search((), query="zebra")]
    now[0] += timedelta(minutes=4)
    with VerbalStore(store_url, clock=lambda: now[0]) as store:
        assert store.get(("a", "é"), "k\x00\x1a").value == value  # type: ignore[union-attr]
        assert [item.dict() for item in store.search((), query="zebra", refresh_ttl=False)] == before
        assert store.list_namespaces() == [("a", "é")]
        assert store.get(("a", "é"), "short") is not None
    now[0] += timedelta(minutes=4)
    with VerbalStore(store_url, clock=lambda: now[0]) as store:
        assert store.sweep_ttl() == 0, "a read prolonged it"
        now[0] += timedelta(minutes=1)
        assert store.sweep_ttl() == 1
        assert [item.key for item in store.search(())] == ["k\x00\x1a"]


def test_writers_on_connections_of_their_own(store_url: str) -> None:
    VerbalStore(store_url).close()

    def write(who: int) -> None:
        with VerbalStore(store_url) as store:
            for n in range(15):
                store.put(("w", str(who)), f"k{n}", {"n": n})
                store.put(("shared",), "last", {"who": who, "n": n})

    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with VerbalStore(store_url) as store:
        for who in range(3):
            assert [item.value["n"] for item in store.search(("w", str(who)), limit=99)] == list(range(15))
        assert store.get(("shared",), "last").value["n"] == 14  # type: ignore[union-attr]
        assert len(store.search((), limit=99)) == 46
