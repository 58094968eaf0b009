"""Neighbours of queries, other contents of a database, and the suites made of both."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.matching import Pair, match
from verbal.apps.text2sql.mutations import ALL, BASIC, mutations
from verbal.apps.text2sql.perturb import Content
from verbal.apps.text2sql.states import fewest, make_states, with_states
from verbal.apps.text2sql.worker import Limits, Pool
from verbal.errors import DataError
from verbal.types import Task

SHOP = """
CREATE TABLE "city of" (code TEXT PRIMARY KEY, name TEXT, size REAL);
CREATE TABLE shop (
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, "the city" TEXT REFERENCES "city of" (code), opened INTEGER
);
CREATE TABLE sale (shop INTEGER REFERENCES shop (id), day INTEGER, amount INTEGER, note TEXT, PRIMARY KEY (shop, day));
CREATE TABLE log (line TEXT);
CREATE VIEW big AS SELECT * FROM sale WHERE amount > 50;
INSERT INTO "city of" VALUES ('A', 'Aal', 1.5), ('B', 'Bonn', 2.5), ('C', 'Cham', 0.5);
INSERT INTO shop VALUES (1, 'one', 'A', 1990), (2, 'two', 'A', 2001), (3, 'three', 'B', 2001), (4, 'four', NULL, 2010);
INSERT INTO sale VALUES (1, 1, 40, 'x'), (1, 2, 60, NULL), (2, 1, 70, 'y'), (3, 1, 10, 'x'), (3, 5, 90, 'z');
INSERT INTO log VALUES ('a'), ('b'), ('b');
"""
GOLDS = (
    "SELECT name FROM shop WHERE opened > 2000",
    "SELECT count(DISTINCT shop) FROM sale WHERE amount >= 40",
    "SELECT T1.name FROM shop AS T1 JOIN sale AS T2 ON T1.id = T2.shop GROUP BY T1.id HAVING count(*) > 1",
    "SELECT name FROM shop ORDER BY opened DESC LIMIT 1",
)
ACCIDENTS = (
    ("SELECT name FROM shop WHERE opened > 2000", "SELECT name FROM shop WHERE opened >= 2000"),
    (
        "SELECT count(DISTINCT shop) FROM sale WHERE amount >= 40",
        "SELECT count(DISTINCT shop) FROM sale WHERE amount > 39.5",
    ),
    (GOLDS[2], "SELECT T1.name FROM shop AS T1 JOIN sale AS T2 ON T1.id = T2.shop GROUP BY T1.id HAVING count(*) = 2"),
)
"""Gold queries and answers that are right on the database by accident (the second is right in truth)."""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("db") / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(1, Limits(seconds=5))
    yield made
    made.close()


# neighbours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t WHERE b > 3", "SELECT a FROM t WHERE b >= 3"),
        ("SELECT a FROM t WHERE b > 3", "SELECT a FROM t WHERE b > 4"),
        ("SELECT a FROM t WHERE b > 3 AND c = 1", "SELECT a FROM t WHERE b > 3 OR c = 1"),
        ("SELECT a FROM t WHERE b > 3 AND c = 1", "SELECT a FROM t WHERE c = 1"),
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
        ("SELECT count(a) FROM t", "SELECT COUNT(DISTINCT a) FROM t"),
        ("SELECT count(DISTINCT a) FROM t", "SELECT COUNT(a) FROM t"),
        ("SELECT count(a) FROM t", "SELECT COUNT(*) FROM t"),
        ("SELECT x.a FROM t AS x JOIN u AS y ON x.i = y.i", "SELECT x.a FROM t AS x LEFT JOIN u AS y ON x.i = y.i"),
        ("SELECT x.a FROM t AS x JOIN u AS y ON x.i = y.i", "SELECT x.a FROM t AS x"),
        ("SELECT a FROM t UNION SELECT a FROM u", "SELECT a FROM t UNION ALL SELECT a FROM u"),
        ("SELECT a FROM t EXCEPT SELECT a FROM u", "SELECT a FROM t"),
        ("SELECT a FROM t INTERSECT SELECT a FROM u", "SELECT a FROM t UNION SELECT a FROM u"),
        ("SELECT a FROM t GROUP BY a HAVING count(*) > 1", "SELECT a FROM t GROUP BY a"),
        ("SELECT a FROM t WHERE a IN (1, 2)", "SELECT a FROM t WHERE NOT a IN (1, 2)"),
        ("SELECT a FROM t WHERE a LIKE '%x%'", "SELECT a FROM t WHERE a LIKE 'x%'"),
        ("SELECT a FROM t ORDER BY b LIMIT 1", "SELECT a FROM t LIMIT 1"),
        ("SELECT a FROM t ORDER BY b LIMIT 1", "SELECT a FROM t ORDER BY b"),
        ("SELECT a FROM t", 'SELECT "b" FROM t'),
    ],
)
def test_each_kind_of_neighbour(sql: str, expected: str) -> None:
    found = mutations(sql, ALL, {"t": ["i", "a", "b"]})
    assert expected in found and sql not in found and found == sorted(set(found))


def test_the_basic_kinds_are_some_and_nonsense_has_no_neighbours() -> None:
    sql = "SELECT a, b FROM t WHERE c > 1 ORDER BY a LIMIT 2"
    assert set(mutations(sql, BASIC)) < set(mutations(sql, ALL))
    assert mutations("SELEC nonsense FROM (", ALL) == [] == mutations("", ALL)


# contents -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_contents_are_lawful_and_follow_from_the_seed(db: Path, tmp_path_factory: Any, seed: int) -> None:
    content = Content(db, GOLDS)
    rows = content.other(f"{seed}")
    assert rows == Content(db, GOLDS).other(f"{seed}")
    codes = {row[0] for row in rows["city of"]}
    assert all(row[2] in codes or row[2] is None for row in rows["shop"])
    shops = {row[0] for row in rows["shop"]}
    assert all(row[0] in shops for row in rows["sale"]), "no null was ever seen there"
    assert len({(row[0], row[1]) for row in rows["sale"]}) == len(rows["sale"])
    assert len({row[1] for row in rows["shop"]}) == len(rows["shop"]) and len(shops) == len(rows["shop"])


def test_contents_are_written_with_the_whole_schema(db: Path, tmp_path: Path) -> None:
    content = Content(db, GOLDS)
    seen: set[str] = set()
    for number in range(30):
        content.write(content.other(f"0/{number}"), tmp_path / "s.sqlite")
        with closing(sqlite3.connect(tmp_path / "s.sqlite")) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")]
            assert {"city of", "shop", "sale", "log", "big"} <= set(names)
            assert not connection.execute("PRAGMA foreign_key_check").fetchall()
            ages = [cell for (cell,) in connection.execute("SELECT opened FROM shop")]
            seen |= {"edge"} if {1999, 2000, 2001} & set(ages) else set()
            seen |= {"twins"} if len(set(ages)) < len(ages) else set()
            seen |= {"empty"} if not ages else set()
            if connection.execute("SELECT 1 FROM sale WHERE note IS NULL").fetchone():
                seen.add("null")
    assert seen == {"edge", "twins", "empty", "null"}
    assert content.columns["shop"] == ["id", "name", "the city", "opened"]


# suites -------------------------------------------------------------------------------------------------------------


async def test_a_made_suite_tells_accidents_and_spares_what_is_right(pool: Pool, db: Path, tmp_path: Path) -> None:
    before, beside = hashlib.sha256(db.read_bytes()).digest(), sorted(db.parent.iterdir())
    suite = await make_states(pool, db, GOLDS, folder=tmp_path, candidates=24, most=6)
    assert 1 <= len(suite.states) <= 6 and all(Path(state).is_relative_to(tmp_path) for state in suite.states)
    assert suite.figures["killed"] > 0.6 * suite.figures["survivors"] > 0
    pairs = [Pair(sql, gold, (str(db), *suite.of(gold))) for gold, sql in ACCIDENTS]
    assert [said.right for said in await match(pool, pairs, cache=tmp_path / "c")] == [False, True, False]
    assert [said.right for said in await match(pool, [p._replace(states=(str(db),)) for p in pairs])] == [True] * 3
    assert before == hashlib.sha256(db.read_bytes()).digest() and beside == sorted(db.parent.iterdir())


async def test_the_same_seed_makes_the_same_suite_and_the_cache_keeps_it(pool: Pool, db: Path, tmp_path: Path) -> None:
    first = await make_states(pool, db, GOLDS, folder=tmp_path / "a", candidates=8)
    again = await make_states(pool, db, GOLDS[::-1], folder=tmp_path / "b", candidates=8)
    assert [Path(s).read_bytes() for s in first.states] == [Path(s).read_bytes() for s in again.states]
    kept = await make_states(pool, db, GOLDS, folder=tmp_path / "a", candidates=8)
    assert kept == first
    other = await make_states(pool, db, GOLDS, folder=tmp_path / "a", candidates=8, seed=1)
    assert [Path(s).read_bytes() for s in first.states] != [Path(s).read_bytes() for s in other.states]
    Path(first.states[0]).unlink()
    assert (await make_states(pool, db, GOLDS, folder=tmp_path / "a", candidates=8)).states == first.states


async def test_tasks_get_states(pool: Pool, db: Path, tmp_path: Path) -> None:
    base = Task(id="a", kind="text2sql", messages=(), gold=GOLDS[0], info={"db": str(db)})
    tasks = [base, base.replace(id="b", gold=None), base.replace(id="c", info={"db": str(db), "states": ["x"]})]
    first, second, third = await with_states(pool, tasks, folder=tmp_path, candidates=6)
    assert first.info["states"] and second == tasks[1] and third == tasks[2]


async def test_ties_that_the_gold_leaves_open_are_not_judged(pool: Pool, db: Path, tmp_path: Path) -> None:
    suite = await make_states(pool, db, GOLDS, folder=tmp_path, candidates=24, most=8)
    assert suite.undetermined[GOLDS[3]], "opened is the same for several shops on some state"
    for state in suite.of(GOLDS[3]):
        with closing(sqlite3.connect(state)) as connection:
            rows = connection.execute("SELECT opened, name FROM shop ORDER BY opened DESC LIMIT 2").fetchall()
            assert len(rows) < 2 or rows[0][0] != rows[1][0]


async def test_a_database_that_cannot_be_read(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    for name in ("gone.sqlite", "text.sqlite"):
        with pytest.raises(DataError, match="no states can be made"):
            await make_states(pool, tmp_path / name, GOLDS, folder=tmp_path)


async def test_a_database_without_rows_or_golds_has_a_small_suite(pool: Pool, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as connection:
        connection.executescript("CREATE TABLE t (a, b)")
    suite = await make_states(pool, tmp_path / "empty.sqlite", ["SELECT a FROM t"], folder=tmp_path, candidates=6)
    assert len(suite.states) <= 6 and suite.figures["survivors"] > 0
    assert (await make_states(pool, tmp_path / "empty.sqlite", [], folder=tmp_path, candidates=2)).states == ()


@given(st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 8)), max_size=6), st.integers(1, 3))
def test_the_fewest_cover_what_all_cover(killed: dict[int, set[int]], depth: int) -> None:
    chosen = fewest(killed, most=99, depth=depth)
    assert len(set(chosen)) == len(chosen)
    assert set().union(*(killed[c] for c in chosen)) == set().union(*killed.values())
    assert len(fewest(killed, most=1, depth=depth)) <= 1
