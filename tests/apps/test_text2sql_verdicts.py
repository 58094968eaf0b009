"""What is not an answer's fault gives no verdict: an outage, a gold query that is itself slow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from verbal.apps.text2sql.matching import Pair, match
from verbal.apps.text2sql.worker import Limits, Pool, Result
from verbal.rows import OUTAGES

GOLD = "SELECT name FROM person WHERE age > 20"


class Scripted(Pool):
    """A pool whose queries give what the test says."""

    def __init__(self, gold: Result, ours: Result) -> None:
        super().__init__(1, Limits(seconds=1))
        self.gives, self.ran = {GOLD: gold}, list[str]()
        self.other = ours

    async def run(self, db: Any, sql: str, limits: Limits | None = None) -> Result:
        self.ran.append(sql)
        return self.gives.get(sql, self.other)


@pytest.mark.parametrize(
    ("gold_seconds", "kind", "right"),
    [(0.1, "timeout", False), (0.9, "timeout", None), (0.1, "no_such_column", False), (0.9, "no_such_column", False)]
    + [(0.1, kind, None) for kind in sorted(OUTAGES)],
)
async def test_what_a_server_says_of_itself_is_no_verdict(gold_seconds: float, kind: str, right: bool | None) -> None:
    gold = Result(columns=("name",), rows=(("Ada",),), seconds=gold_seconds)
    pool = Scripted(gold, Result(error="it stopped", error_class=kind))
    try:
        pairs = [Pair(sql, GOLD, ("postgresql://localhost/shop",)) for sql in ("SELECT 1", f"{GOLD};\n")]
        found = await match(pool, pairs)
        assert [f.right for f in found] == [right, True] and "it stopped" in found[0].text
        assert pool.ran == [GOLD, "SELECT 1", GOLD], "the gold query itself is right at once"
    finally:
        pool.close()


async def test_a_slow_gold_query_makes_no_answer_wrong(tmp_path: Path) -> None:
    slow = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT {}) SELECT COUNT(*) FROM r"
    gold, limits = slow.format(4_000_000), Limits(seconds=0.1)
    pairs = [
        Pair(sql, gold, (str(tmp_path / "a.sqlite"),))
        for sql in (gold, f" {gold} ; ", slow.format(4_000_001), "SELECT 4", "SELECT")
    ]
    sqlite3.connect(tmp_path / "a.sqlite").close()
    pool = Pool(1)
    try:
        for rules in ("verbal", "test_suite"):
            found = await match(pool, pairs, cache=tmp_path / "c", limits=limits, rules=rules)  # type: ignore[arg-type]
            assert [f.right for f in found] == [True, True, None, False, False]
            assert found[2].text.startswith("the query fails: stopped after 0.1 s, and the gold query itself takes")
    finally:
        pool.close()
