"""Verdicts on several states, computed where the rows are: semantics, limits, the cache of gold results, faults."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from verbal.apps.text2sql.app import Text2Sql
from verbal.apps.text2sql.engines import files, test_suite
from verbal.apps.text2sql.engines.gold_cache import GoldCache, content_mark
from verbal.apps.text2sql.engines.match import Matcher
from verbal.apps.text2sql.matching import Pair, Rules, gold_cache_file, match, match_task
from verbal.apps.text2sql.worker import Limits, Pool
from verbal.contracts import CriticContext, Match
from verbal.parts import make_part
from verbal.types import Attempt

SCHEMA = "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, age INTEGER);"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"
GOLD = "SELECT name FROM person WHERE age > 20"


def make(path: Path, rows: Sequence[tuple[Any, ...]], script: str = SCHEMA) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        connection.executemany(f"INSERT INTO person VALUES ({', '.join('?' * 3)})", rows)
        connection.commit()
    return str(path)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three states of one database: the own one, one with an age of 20, one with two people of one name."""
    folder = tmp_path_factory.mktemp("states")
    return (
        make(folder / "own.sqlite", [(1, "Ada", 36), (2, "Bob", 12), (3, "Cy", 24)]),
        make(folder / "edge.sqlite", [(1, "Ada", 20), (2, "Bob", 21)]),
        make(folder / "twins.sqlite", [(i, "Ada" if i < 3 else f"P{i}", 30) for i in range(60)]),
    )


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(2, Limits(seconds=5))
    yield made
    made.close()


async def said(pool: Pool, cache: Path, sql: str, states: Sequence[str], gold: str = GOLD, **options: Any) -> Match:
    (found,) = await match(pool, [Pair(sql, gold, tuple(states))], cache=cache, **options)
    return found


async def test_right_on_every_state(pool: Pool, states: tuple[str, ...], tmp_path: Path) -> None:
    found = await said(pool, tmp_path / "c", "SELECT name FROM person WHERE age >= 21", states)
    assert found == Match(True, "the result is right on all 3 states of the database", 3, "", {"columns": 1, "rows": 1})


async def test_right_by_accident_on_one_state(pool: Pool, states: tuple[str, ...], tmp_path: Path) -> None:
    edge = await said(pool, tmp_path / "c", "SELECT name FROM person WHERE age >= 20", states)
    assert (edge.right, edge.failed) == (False, "edge.sqlite")
    assert edge.text.startswith("on another state of the database (edge.sqlite): the result has too many rows")
    twins = await said(pool, tmp_path / "c", "SELECT DISTINCT name FROM person WHERE age > 20", states)
    assert (twins.right, twins.failed) == (False, "twins.sqlite") and "duplicate" in twins.text
    assert (await said(pool, tmp_path / "c", "SELECT DISTINCT name FROM person WHERE age > 20", states[:1])).right
    assert not any("Ada" in found.text for found in (edge, twins))


async def test_small_states_come_first_and_the_first_difference_ends_it(
    pool: Pool, states: tuple[str, ...], tmp_path: Path
) -> None:
    big = make(tmp_path / "big.sqlite", [(i, "x" * 50, 30) for i in range(2000)])
    found = await said(pool, tmp_path / "c", "SELECT name FROM person", (big, *states))
    assert found.states < 4 and found.failed in ("own.sqlite", "edge.sqlite")


@pytest.mark.parametrize(
    ("sql", "right", "words"),
    [
        ("SELECT nme FROM person", False, "the query fails: no such column"),
        ("SELEC name", False, "the query fails: near"),
        ("DELETE FROM person", False, "the query fails: not authorized"),
        ("SELECT name FROM person; SELECT 1", False, "one statement at a time"),
        ("ATTACH 'x' AS y", False, "not authorized"),
        ("PRAGMA table_info(person)", False, "not authorized"),
        ("-- nothing", False, "only a query that gives rows"),
        (ENDLESS, False, "stopped after"),
        ("SELECT name FROM person, (SELECT 1 UNION ALL SELECT 2) WHERE age > 20", False, "duplicate rows"),
        ("SELECT zeroblob(1e9)", False, "too big"),
        ("SELECT name, '\ud800' FROM person", False, "fails"),
    ],
)
async def test_answers_that_fail(
    pool: Pool, states: tuple[str, ...], tmp_path: Path, sql: str, right: bool, words: str
) -> None:
    before = [hashlib.sha256(Path(s).read_bytes()).hexdigest() for s in states]
    found = await said(pool, tmp_path / "c", sql, states, limits=Limits(seconds=0.3))
    assert found.right is right and words in found.text
    assert before == [hashlib.sha256(Path(s).read_bytes()).hexdigest() for s in states]


@pytest.mark.parametrize("gold", ["SELECT nope FROM person", "DELETE FROM person"])
async def test_a_gold_query_that_fails_gives_no_verdict(
    pool: Pool, states: tuple[str, ...], tmp_path: Path, gold: str
) -> None:
    found = await said(pool, tmp_path / "c", "SELECT 1", states, gold)
    assert found.right is None and "the gold query does not run on" in found.text


async def test_states_that_are_missing_or_no_databases_give_no_verdict(
    pool: Pool, states: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 50)
    (tmp_path / "folder.sqlite").mkdir()
    for name in ("gone.sqlite", "text.sqlite", "folder.sqlite"):
        found = await said(pool, tmp_path / "c", GOLD, (*states, str(tmp_path / name)))
        assert found.right is None and found.failed == name, found


async def test_a_batch_is_in_order_and_equal_answers_are_compared_once(
    pool: Pool, states: tuple[str, ...], tmp_path: Path
) -> None:
    answers = [GOLD, "SELECT name FROM person", f"{GOLD} AND 1", "SELECT 1"]
    pairs = [Pair(answers[i % 4], GOLD if i % 3 else f"{GOLD} OR 0", states[: 1 + i % 3]) for i in range(300)]
    found = await match(pool, pairs, cache=tmp_path / "c", words=False)
    assert [f.right for f in found] == [i % 4 in (0, 2) for i in range(300)]
    assert await match(pool, [], cache=tmp_path / "c") == []


async def test_a_process_that_dies_costs_nobody_else(states: tuple[str, ...], tmp_path: Path) -> None:
    pool = Pool(1, Limits(seconds=5))
    try:
        assert pool.submit(lambda ask: ask({"op": "match"}, 5.0)).result() is None, "a request that ends its process"
        pairs = [Pair(GOLD, GOLD, states[:1]), Pair("SELECT 2", GOLD, states[:1])]
        assert [f.right for f in await match(pool, pairs, cache=tmp_path / "c")] == [True, False]
    finally:
        pool.close()


async def test_a_query_that_heeds_no_deadline_is_ended_with_its_process(
    pool: Pool, states: tuple[str, ...], tmp_path: Path
) -> None:
    many = "printf('%.*c', {}, 'a')"
    deaf = f"SELECT name FROM person WHERE instr({many.format(10**6)}, {many.format(5 * 10**5)} || 'b')"  # one step
    pairs = [Pair(sql, GOLD, states[:1]) for sql in (GOLD, deaf, "SELECT 1")]
    found = await match(pool, pairs, cache=tmp_path / "c", limits=Limits(seconds=0.2))
    assert [f.right for f in found] == [True, False, False] and "ended its worker process" in found[1].text


def test_a_file_that_changed_meanwhile_is_not_cached(tmp_path: Path) -> None:
    path, cache = make(tmp_path / "a.sqlite", [(1, "Ada", 36)]), tmp_path / "gold.sqlite"
    matcher = Matcher(watched=False)
    matcher.match(request([path], None))
    matcher._cache = GoldCache(str(cache))
    held = next(iter(matcher._files._held.values()))
    assert matcher._key(held, GOLD)
    held.mark = ""
    os.utime(path, ns=(1, 1))
    assert matcher._key(held, GOLD) == ""
    matcher.close()


async def test_a_file_that_changes_is_read_again(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "live.sqlite", [(1, "Ada", 36)])
    sql = "SELECT name FROM person WHERE age > 30"
    assert (await said(pool, tmp_path / "c", sql, (path,))).right
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO person VALUES (2, 'Bob', 25)")
        connection.commit()
    assert not (await said(pool, tmp_path / "c", sql, (path,))).right


async def test_a_database_in_wal_mode_is_seen_as_it_is(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "wal.sqlite", [(1, "Ada", 36)], "PRAGMA journal_mode = WAL;" + SCHEMA)
    sql = "SELECT name FROM person WHERE age > 30"
    with closing(sqlite3.connect(path)) as writer:
        assert (await said(pool, tmp_path / "c", sql, (path,))).right
        writer.execute("INSERT INTO person VALUES (2, 'Bob', 25)")
        writer.commit()
        assert not (await said(pool, tmp_path / "c", sql, (path,))).right


async def test_text_that_is_not_utf8(pool: Pool, tmp_path: Path) -> None:
    path = make(tmp_path / "odd.sqlite", [])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO person VALUES (1, CAST(x'ff41' AS TEXT), 30)")
        connection.commit()
    assert (await said(pool, tmp_path / "c", "SELECT name FROM person", (path,))).right
    assert not (await said(pool, tmp_path / "c", "SELECT 'A' FROM person", (path,))).right


# the app and the critic ---------------------------------------------------------------------------------------------


async def test_the_app_compares_on_the_tasks_states(states: tuple[str, ...], tmp_path: Path) -> None:
    app = Text2Sql(db=states[0], workers=1, cache=tmp_path)
    try:
        task = app.task("Who is over 20?", gold=GOLD)
        task = task.replace(info={**task.info, "states": list(states)})
        found = await app.match(task, [GOLD, "SELECT name FROM person WHERE age >= 20", " "])
        assert [f.right for f in found] == [True, False, False] and found[0].states == 3
        group = [
            Attempt(id=s, run="r", task=task.id, answer=s) for s in (GOLD, "SELECT name FROM person WHERE age >= 20")
        ]
        said = await make_part("critics", "suite_match").evaluate(task, group, CriticContext(match=app.match))
        assert [f.value for f in said] == [1.0, 0.0] and "edge.sqlite" in said[1].text
        (none,) = await app.match(task.replace(gold=None), ["SELECT 1"])
        assert none.right is None and none.text == "the task has no gold answer"
    finally:
        await app.aclose()


async def test_databases_of_other_kinds_are_compared_as_well(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "person.csv").write_text("name,age\nAda,36\nBob,12\n")
    task = Text2Sql(db=make(tmp_path / "x.sqlite", [])).task("who?", gold="SELECT name FROM person WHERE age > 20")
    task = task.replace(info={**task.info, "db": str(tmp_path / "person.csv")})
    answers = ["SELECT name FROM person WHERE age > 30", "SELECT name FROM person", "SELECT nope FROM person"]
    found = await match_task(pool, task, answers)
    assert [f.right for f in found] == [True, False, False] and "too many rows" in found[1].text


# the cache of gold results ------------------------------------------------------------------------------------------


def request(
    states: Sequence[str], cache: Path | None, sql: str = GOLD, gold: str = GOLD, **more: Any
) -> dict[str, Any]:
    group = {"gold": gold, "suite": 0, "predictions": [sql]}
    base = {"suites": [list(states)], "groups": [group], "rules": "verbal", "words": True, "seconds": 5.0}
    limits = {"gold_seconds": 5.0, "rows": 1000, "bytes": 1 << 20, "wait": 0.1, "slow": 0.0}
    return {**base, **limits, "cache": None if cache is None else str(cache), **more}


def right(asked: dict[str, Any]) -> Any:
    """The verdict of a process that knows nothing yet."""
    matcher = Matcher(watched=False)
    try:
        return matcher.match(asked)["verdicts"][0][0][0]
    finally:
        matcher.close()


def kept(cache: Path) -> int:
    with closing(sqlite3.connect(cache)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM gold").fetchone()[0])


def test_gold_results_survive_a_restart(
    states: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "new" / "gold.sqlite"
    assert right(request(states, cache)) is True and kept(cache) == 3
    assert stat.S_IMODE(os.stat(cache).st_mode) == 0o600
    ran: list[str] = []
    monkeypatch.setattr(Matcher, "_run_gold", lambda *args: ran.append(args[2]))
    assert right(request(states, cache)) is True and not ran


def test_a_changed_file_is_not_answered_from_the_cache(tmp_path: Path) -> None:
    path, cache = make(tmp_path / "a.sqlite", [(1, "Ada", 36)]), tmp_path / "gold.sqlite"
    assert right(request([path], cache, "SELECT 'Ada'")) is True
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE person SET name = 'Eve'")
        connection.commit()
    assert right(request([path], cache, "SELECT 'Ada'")) is False


@pytest.mark.parametrize("damage", ["text", "cut", "cells", "digest", "empty", "folder", "other table"])
def test_a_damaged_cache_breaks_no_verdict(states: tuple[str, ...], tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "gold.sqlite"
    right(request(states, cache))
    if damage == "text":
        cache.write_text("this is no database " * 400)
    elif damage == "cut":
        os.truncate(cache, 5000)
    elif damage == "empty":
        os.truncate(cache, 0)
    elif damage == "folder":
        cache.unlink()
        cache.mkdir()
    else:
        with closing(sqlite3.connect(cache)) as connection:
            what = {"cells": "UPDATE gold SET body = x'00'", "digest": "UPDATE gold SET digest = x'00'"}
            connection.execute(what.get(damage, "ALTER TABLE gold RENAME TO silver"))
            connection.commit()
    assert right(request(states, cache)) is True
    assert right(request(states, cache, "SELECT 1")) is False


def test_a_locked_cache_breaks_no_verdict(states: tuple[str, ...], tmp_path: Path) -> None:
    cache = tmp_path / "gold.sqlite"
    right(request(states[:1], cache))
    with closing(sqlite3.connect(cache, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert right(request(states[:1], cache)) is True


def test_the_cache_has_a_bound_and_forgets_what_is_old(tmp_path: Path) -> None:
    cache = GoldCache(str(tmp_path / "gold.sqlite"), max_bytes=20_000)
    rows = [(os.urandom(600).hex(), b"\x00", None, 1.5)]
    for number in range(60):
        cache.put(f"key{number}", ["a", "b", "c", "d"], rows, 0.5)
    assert cache.get("key59") == (["a", "b", "c", "d"], rows, 0.5) and cache.get("key0") is None
    cache.put("huge", ["a"], [(os.urandom(9000).hex(),)], 0.5)
    assert cache.get("huge") is None
    cache.close()
    assert 0 < kept(tmp_path / "gold.sqlite") < 40


def test_content_decides_the_key_and_a_copy_has_the_same(states: tuple[str, ...], tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(Path(states[0]).read_bytes())
    assert content_mark(str(copy), (0, 0, 1, 0)) == content_mark(states[0], (1, 1, 1, 1))
    assert content_mark(states[1], (0, 0, 1, 0)) != content_mark(states[0], (0, 0, 1, 0))


def test_the_cache_stands_in_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gold_cache_file() == tmp_path / "verbal" / "text2sql-gold.sqlite"


def test_memory_is_bounded(states: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Matcher.__module__], "GOLD_BYTES", 8000)
    monkeypatch.setattr(files, "HELD_FILES", 2)
    matcher = Matcher(False)
    for number in range(8):
        answered = matcher.match(request(states, None, gold=f"{GOLD} AND {number + 1}"))
        assert answered["verdicts"][0][0][0] is True
    assert 5000 < matcher._bytes <= 8000 and len(matcher._files._held) == 2
    assert matcher._bytes == sum(matcher._recent.values())
    matcher.close()
    assert matcher._bytes == 0


def test_gold_results_have_limits(states: tuple[str, ...]) -> None:
    assert right(request(states, None, rows=60)) is True and right(request(states, None, rows=10)) is None
    assert right(request(states, None, gold=ENDLESS, gold_seconds=0.2)) is None


# the official rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "gold", "verdicts"),
    [
        ("SELECT DISTINCT name FROM person WHERE age > 20", GOLD, (False, True, False)),
        ("SELECT name FROM person WHERE age > = 21", GOLD, (False, True, True)),
        ("SELECT name, 1 FROM person WHERE 0", "SELECT name FROM person WHERE 0", (False, True, True)),
        ("SELECT AVG(age) + 1e-12 FROM person", "SELECT AVG(age) FROM person", (True, False, False)),
        ("SELECT name FROM person WHERE age > 20 ORDER BY id DESC", f"{GOLD} ORDER BY id", (False, False, False)),
        ("SELECT id FROM person ORDER BY id DESC",
         "SELECT id FROM person WHERE id IN (SELECT id FROM person ORDER BY id)", (True, False, False)),
        ("SELECT name FROM person WHERE age > 20; SELECT 1", GOLD, (False, True, False)),
    ],
)  # fmt: skip
async def test_three_sets_of_rules(
    pool: Pool, states: tuple[str, ...], tmp_path: Path, sql: str, gold: str, verdicts: tuple[bool, ...]
) -> None:
    rules: tuple[Rules, ...] = ("verbal", "test_suite", "test_suite_distinct")
    found = [(await said(pool, tmp_path / "c", sql, states, gold, rules=each)).right for each in rules]
    assert tuple(found) == verdicts


def test_distinct_is_taken_out_of_code_alone() -> None:
    sql = """SELECT DISTINCT count(distinct "distinct") FROM t WHERE a = 'distinct' -- distinct"""
    assert test_suite.prepared(sql) == """SELECT  count( "distinct") FROM t WHERE a = 'distinct' -- distinct"""
    assert test_suite.prepared(sql, keep_distinct=True) == sql
    assert test_suite.prepared("SELECT year(curdate()) - a") == "SELECT 2020- a"


async def test_an_answer_cannot_blame_the_file(pool: Pool, tmp_path: Path, states: tuple[str, ...]) -> None:
    for sql in ("SELECT name FROM person ORDER BY name COLLATE locked", "SELECT json_extract(name, '$.x') FROM person"):
        verdict = await said(pool, tmp_path / "cache.sqlite", sql, states)
        assert verdict.right is False, "no verdict: the answer's words were taken for a fault"
