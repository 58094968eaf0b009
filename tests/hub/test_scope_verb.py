"""`verbal memory scope`: one lesson of a memory, tried on the requests of a file or of a proposer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scope_desk import LESSON

from verbal.errors import ConfigError, DataError, TrainError, UnknownName
from verbal.parts import make_part
from verbal.scope_verb import _examples, run_scope
from verbal.store import Store
from verbal.trainers.rows import Selection, build
from verbal.types import MemoryOp, Reflection, Task

HINT = "active customer means status = 'K2'"
ROWS = {
    "inside": ["How many active customers are there?", "List the names of active customers."],
    "near": ["How many customers are there?", "List the names of customers from Berlin."],
    "outside": ["What is the average price of products?", "How many products are there?"],
}


@pytest.fixture
def shop_db(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, name TEXT, city TEXT, status TEXT)")
        db.execute("CREATE TABLE product (product_id INTEGER PRIMARY KEY, name TEXT, price REAL)")
        people = [(n, f"Name{n}", "Berlin" if n % 2 else "Porto", f"K{n % 3 + 1}") for n in range(30)]
        db.executemany("INSERT INTO customer VALUES (?, ?, ?, ?)", people)
        db.executemany("INSERT INTO product VALUES (?, ?, ?)", [(n, f"Thing{n}", 1.5 * n) for n in range(9)])
        db.commit()
    return path


@pytest.fixture
def filed(tmp_path: Path) -> str:
    with Store(tmp_path / "verbal.db") as store:
        memory = make_part("memory", "exact", store=store, name="m", quarantine=True)
        ops = [MemoryOp(op="ADD", item=Reflection(id=f"r{n}", text=HINT)) for n in (1, 2)]
        asyncio.run(memory.apply([*ops, MemoryOp(op="RETIRE", reflection="r2", author="user")]))
        memory.close()
    return str(tmp_path / "verbal.db")


def options(db: Path) -> dict[str, Any]:
    return {"recipe": "reflect", "model": "embedded", "app": {"db": str(db)}, "overrides": ["memory.name='exact'"]}


def lines(tmp_path: Path, *extra: str) -> Path:
    path = tmp_path / "requests.jsonl"
    rows = [json.dumps({"kind": kind, "request": text}) for kind, texts in ROWS.items() for text in texts]
    path.write_text("\n".join([*rows, *extra]), encoding="utf-8")
    return path


def test_the_verb_tries_a_lesson_on_the_requests_of_a_file(tmp_path, shop_db, filed, capsys):
    found = run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path, '{"boundary": "novels"}', ""))
    assert found["verdict"] == "kept" and found["now"]["status"] == "quarantined"
    assert sorted(found["first"]["changed"]["inside"]) == sorted(ROWS["inside"])
    assert found["first"]["changed"]["near"] == found["first"]["changed"]["outside"] == []
    printed = capsys.readouterr().out
    assert "2 of 2 inside" in printed and "stays as it is" in printed
    again = run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path), quiet=True)
    assert again["first"] == found["first"] and again["run"] == found["run"] and again["usage"] == found["usage"]
    assert json.loads(json.dumps(again)) == again and capsys.readouterr().out == ""
    with Store(filed) as store:
        assert store.run(found["run"])["status"] == "done"
        assert [op.author for _, op in store.ops("m")][-1] == "scope"
        # Nobody answers a request that the lesson is not found for, so this run gives no triples, and says why.
        with pytest.raises(TrainError, match=r"near requests without an answer .*: 2, outside requests .*: 2"):
            build(store, "scope", Selection(run=found["run"]))


def test_with_answers_the_run_gives_the_triples_of_c3po(tmp_path, shop_db, filed):
    plain = run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path), quiet=True)
    found = run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path), answers=True, quiet=True)
    assert found["first"] == plain["first"] and found["verdict"] == "kept" and found["run"] == plain["run"]
    calls = [sum(used["calls"] for used in f["usage"].values()) for f in (plain, found)]
    assert calls == [4, 8]  # two inside, with and without; then the other four once
    with Store(filed) as store:
        built = build(store, "scope", Selection(run=found["run"]))
    assert built.rows and len(built.rows) <= 2  # kept and held out requests are zipped apart
    for row in built.rows:
        assert "K2" in row.columns["chosen"][0]["content"] and "K2" not in row.columns["rejected"][0]["content"]
        assert row.columns["near_completion"] and row.columns["outside_completion"]


def test_examples_are_near_the_lesson_first_and_never_sealed():
    asked = [("t1", "boil an egg", "train"), ("t2", "mails to a boss", "train"), ("t3", "my boss", "test"),
             ("t4", "a boss", "train"), *((f"u{n}", f"walk {n} miles", "train") for n in range(9))]  # fmt: skip
    tasks = [Task(id=i, kind="desk", messages=(), split=split, info={"question": q}) for i, q, split in asked]
    assert [t.id for t in _examples(tasks, LESSON)] == ["t2", "t4", "t1", "u0", "u1"]
    assert _examples([], LESSON) == []


def test_the_verb_lets_a_proposer_write_the_requests(tmp_path, shop_db, filed):
    script = tmp_path / "proposer.jsonl"
    script.write_text(json.dumps({"reply": json.dumps({"boundary": "", **ROWS})}))
    given = options(shop_db)
    given["overrides"].append(f"model.roles.proposer='scripted:{script}'")
    found = run_scope(given, filed, "m", "r1", quiet=True)
    assert found["verdict"] == "kept" and len(found["first"]["changed"]["inside"]) == 2
    assert found["usage"]["proposer"]["calls"] == 1


@pytest.mark.parametrize(
    ("name", "item", "error"), [("x", "r1", UnknownName), ("m", "r9", UnknownName), ("m", "r2", ConfigError)]
)
def test_the_verb_says_what_it_does_not_know(tmp_path, shop_db, filed, name, item, error):
    with pytest.raises(error):
        run_scope(options(shop_db), filed, name, item, requests=lines(tmp_path), quiet=True)


def test_a_model_that_cannot_write_requests_is_not_asked_for_them(shop_db, filed):
    with pytest.raises(ConfigError, match="--requests FILE"):
        run_scope(options(shop_db), filed, "m", "r1", quiet=True)
    with Store(filed) as store:
        assert store.runs() == []


@pytest.mark.parametrize("line", ["{", "3", '{"kind": "far", "request": "x"}', '{"kind": "near"}', '{"boundary": 3}'])
def test_a_line_that_is_no_request_is_named(tmp_path, shop_db, filed, line):
    with pytest.raises(DataError, match=r"requests\.jsonl:7"):
        run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path, line), quiet=True)


def test_a_file_that_cannot_be_used_says_why(tmp_path, shop_db, filed):
    with pytest.raises(DataError, match="cannot be read"):
        run_scope(options(shop_db), filed, "m", "r1", requests=tmp_path / "none.jsonl", quiet=True)
    twice = json.dumps({"kind": "near", "request": ROWS["inside"][0]})
    with pytest.raises(DataError, match="is both"):
        run_scope(options(shop_db), filed, "m", "r1", requests=lines(tmp_path, twice), quiet=True)
