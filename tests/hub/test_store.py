"""The store as a file: where things are, what older stores hold. What every store promises: tests/contracts."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.database import SQLite, in_key_order, open_database
from verbal.errors import ConfigError, MissingExtra, StoreError
from verbal.store import Store
from verbal.types import Attempt, MemoryOp


def test_a_store_says_where_it_is(tmp_path: Path) -> None:
    for url in (tmp_path / "new" / "mine.db", f"sqlite:///{tmp_path / 'new' / 'mine.db'}"):
        with Store(url) as store:
            assert store.path == tmp_path / "new" / "mine.db"
            assert store.where == str(store.path)
            assert store.folder == tmp_path / "new"
            assert store.memory_folder == tmp_path / "new" / "mine.memory"


@pytest.mark.parametrize("url", ["mysql://me:secret@localhost/x", "postgresql+psycopg://me:secret@localhost/x"])
def test_a_url_of_another_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="the store cannot live at") as caught:
        Store(url)
    assert "secret" not in str(caught.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in caught.value.todo


def test_a_url_that_pathlib_has_cut_makes_no_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="given as a path") as caught:
        Store(Path("postgresql://me:secret@localhost/x"))
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_psycopg_is_asked_for_by_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="psycopg") as caught:
        Store("postgresql://me:secret@localhost/x")
    assert caught.value.todo == "pip install 'verbal[postgres]'"
    assert "secret" not in str(caught.value)


def test_a_store_made_before_there_were_replies_and_versions_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "verbal.db"
    with Store(path) as store:
        store.put_attempt(Attempt(id="a", run="r", task="t"))
    with sqlite3.connect(path) as db:
        for table in ("reservations", "replies", "used_replies", "proposals", "versions", "sealed"):
            db.execute(f"DROP TABLE {table}")
    db.close()
    with Store(path) as store:
        assert [a.id for a in store.attempts()] == ["a"]
        assert store.add_version({}) == 1


def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = Store(tmp_path / "verbal.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.runs()


@given(st.lists(st.lists(st.sampled_from(["ADD", "RETIRE", "NOOP"]), max_size=3), max_size=5))
def test_the_log_counts_versions_without_gaps(batches: list[list[str]]) -> None:
    with Store(":memory:") as store:
        ops = [[MemoryOp(op=op, reflection=f"r{i}") for op in batch] for i, batch in enumerate(batches)]  # type: ignore[arg-type]
        for batch in ops:
            store.log_ops("m", batch)
        assert store.ops("m") == list(enumerate([op for batch in ops for op in batch], 1))
        assert store.ops("m", after=1) == store.ops("m")[1:]
        assert store.memories() == ({"m": sum(map(len, ops))} if any(ops) else {})


@given(st.lists(st.text(st.characters(categories=None) | st.sampled_from("\x00\x1a\ud800\udfff0f"))))
def test_any_text_goes_in_and_out_of_a_database(texts: list[str]) -> None:
    database = open_database(":memory:")
    assert isinstance(database, SQLite)
    database.create("CREATE TABLE IF NOT EXISTS texts (seq INTEGER PRIMARY KEY, text TEXT NOT NULL);")
    with database.write() as db:
        db.change_many("INSERT INTO texts (text) VALUES (?)", [(t,) for t in texts])
    assert [r[0] for r in database.read("SELECT text FROM texts ORDER BY seq")] == texts
    for text in texts:
        assert database.read("SELECT COUNT(*) FROM texts WHERE text = ?", (text,)) == [(texts.count(text),)]
    database.close()


def test_rows_in_the_order_of_their_keys_keep_the_order_of_equals() -> None:
    assert in_key_order([("b", "1"), ("a", "2"), ("a", "1")], 1) == [("a", "2"), ("a", "1"), ("b", "1")]
