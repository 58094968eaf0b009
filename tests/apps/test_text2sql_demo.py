"""The demo database and its questions, and the proof that `verbal check apps/text2sql` runs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio

from verbal.apps.text2sql import Text2Sql
from verbal.apps.text2sql.check import mutations, other_readings
from verbal.apps.text2sql.demo import TERMS, build_demo, demo_database
from verbal.contracts import CriticContext
from verbal.errors import DataError
from verbal.types import Attempt, Feedback, Reflection, Task


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest_asyncio.fixture
async def demo(cache: Path) -> AsyncIterator[Text2Sql]:
    app = Text2Sql(cache=cache)
    yield app
    await app.aclose()


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    first, second = build_demo(tmp_path / "a"), build_demo(tmp_path / "b")
    assert first == second and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert build_demo(tmp_path / "c", seed=8) != first


def test_the_database_is_realistic(cache: Path) -> None:
    with closing(sqlite3.connect(demo_database(cache))) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        sizes = {t: connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in tables}
        assert len(tables) == 11 and 30_000 < sum(sizes.values()) < 60_000
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for column in ("shipped", "delivered"):
            assert connection.execute(f"SELECT COUNT(*) FROM orders WHERE {column} IS NULL").fetchone()[0] > 100
        assert connection.execute("SELECT COUNT(*) - COUNT(DISTINCT name) FROM customer").fetchone()[0] > 100


def test_it_is_built_once_and_again_when_damaged(tmp_path: Path) -> None:
    path = demo_database(tmp_path)
    before = path.stat().st_mtime_ns
    assert demo_database(tmp_path) == path and path.stat().st_mtime_ns == before
    path.write_bytes(b"damaged" * 1000)
    assert demo_database(tmp_path) == path
    assert path.read_bytes().startswith(b"SQLite format 3")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be built") as caught:
        demo_database(tmp_path / "file")
    assert "XDG_CACHE_HOME" in caught.value.todo


async def test_the_questions(demo: Text2Sql) -> None:
    tasks = demo.tasks()
    assert len(tasks) >= 240
    splits = {split: demo.tasks(split) for split in ("train", "dev", "test")}
    assert all(len(found) >= 70 for found in splits.values())
    for split, found in splits.items():
        used = Counter(term for task in found for term in task.info["terms"])
        assert set(used) == set(TERMS), split
        assert min(used.values()) >= (5 if split == "train" else 3), split
        assert sum(not task.info["terms"] for task in found) >= 15
    asked = [task.info["question"].lower() for task in tasks]
    assert len(set(asked)) == len(asked)
    for task in tasks:
        assert all(term.lower() in task.info["question"].lower() for term in task.info["terms"])
    train = {task.gold for task in splits["train"]}
    assert not any(task.gold in train for task in (*splits["dev"], *splits["test"]))


async def test_no_prompt_shows_gold_or_the_meaning_of_a_term(demo: Text2Sql) -> None:
    hints = [term.hint for term in TERMS.values()]
    for task in demo.tasks():
        text = task.messages[0].content
        assert task.gold not in text
        assert not any(hint in text for hint in hints)
    hint = Reflection(id="r1", text=TERMS["late"].hint)
    task = next(task for task in demo.tasks("dev") if task.info["terms"] == ["late"])
    shown = demo.messages("solver", task, hints=[hint])[0].content
    assert '<hint id="r1">late order means shipped > promised</hint>' in shown


async def test_preflight_and_the_whole_check_pass(demo: Text2Sql) -> None:
    assert await demo.preflight() == len(demo.tasks())
    findings = await demo.check()
    assert [finding for finding in findings if not finding["ok"]] == []
    counts = Counter(finding["check"] for finding in findings)
    tasks = len(demo.tasks())
    for check in ("gold runs", "gold is determined", "gold scores 1", "empty scores 0", "new question"):
        assert counts[check] == tasks
    assert counts["terms are needed"] > 300 and counts["differs from neighbours"] > 500
    json.dumps(findings)


class AlwaysOne:
    """A critic that likes everything."""

    name = "always_one"
    oracle: ClassVar[bool] = False

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        return [Feedback(attempt=attempt.id, critic=self.name, value=1.0) for attempt in group]


class Silent(AlwaysOne):
    """A critic that never knows."""

    async def evaluate(self, task: Task, group: Sequence[Attempt], context: CriticContext) -> list[Feedback]:
        return [Feedback(attempt=attempt.id, critic=self.name, reason="no idea") for attempt in group]


@pytest.mark.parametrize(
    ("critic", "failing"),
    [
        (AlwaysOne(), {"empty scores 0", "differs from neighbours", "terms are needed"}),
        (Silent(), {"gold scores 1", "empty scores 0", "differs from neighbours", "terms are needed"}),
    ],
)
async def test_a_critic_that_cannot_judge_fails_the_check(demo: Text2Sql, critic: AlwaysOne, failing: set[str]) -> None:
    findings = await demo.check(critic, "dev")
    assert {finding["check"] for finding in findings if not finding["ok"]} == failing


@pytest.mark.parametrize(
    ("lines", "check", "words"),
    [
        ([{"question": "a", "sql": "SELECT nope FROM region"}], "gold runs", "no such column: nope"),
        ([{"question": "a", "sql": "SELECT name FROM region WHERE zone = 'X'"}], "gold runs", "gives no value"),
        ([{"question": "a", "sql": "SELECT closed FROM ticket WHERE closed IS NULL"}], "gold runs", "gives no value"),
        (
            [{"question": "a", "sql": "SELECT name FROM region ORDER BY zone LIMIT 1"}],
            "gold is determined",
            "ties decide",
        ),
        (
            [{"question": "a", "sql": "SELECT name FROM region LIMIT 2"}],
            "gold is determined",
            "the order of the scan decides",
        ),
        (
            [{"question": "a", "sql": "SELECT COUNT(*) FROM region WHERE region_id > 0"}],
            "differs from neighbours",
            "gives 1.0 to: SELECT COUNT(*) FROM region",
        ),
        (
            [
                {"question": "How many?", "sql": "SELECT COUNT(*) FROM region", "split": "train"},
                {"question": "how  many?", "sql": "SELECT COUNT(*) FROM region", "split": "test"},
            ],
            "new question",
            "the same question as q-1",
        ),
        (
            [
                {"question": "a", "sql": "SELECT COUNT(*) FROM region", "split": "train"},
                {"question": "b", "sql": "SELECT COUNT(*) FROM region", "split": "dev"},
            ],
            "new gold query",
            "the same gold query as q-1",
        ),
        (
            [
                {"question": "a", "sql": "SELECT name FROM region"},
                {"question": "b", "sql": "SELECT DISTINCT name FROM region"},
            ],
            "own result",
            "the same result as q-2",
        ),
        (
            [{"question": "b", "sql": "SELECT COUNT(zone) FROM region WHERE zone = 'Z2' OR 1", "terms": ["core"]}],
            "terms are needed",
            "gives 1.0 to: SELECT COUNT(zone)",
        ),
        ([{"question": "a"}], "questions", "0 questions have a gold query"),
    ],
)  # fmt: skip
async def test_bad_questions_fail_the_check(
    cache: Path, tmp_path: Path, lines: list[dict[str, object]], check: str, words: str
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    app = Text2Sql(demo_database(cache), path)
    failed = [finding for finding in await app.check() if not finding["ok"]]
    await app.aclose()
    assert any(finding["check"] == check and words in finding["what"] for finding in failed), failed


def test_mutations_change_one_thing() -> None:
    sql = "SELECT a, MAX(b) FROM t WHERE a = 1 AND c > 2 GROUP BY a ORDER BY MAX(b) DESC LIMIT 3"
    found = mutations(sql)
    assert "SELECT a, MAX(b) FROM t GROUP BY a ORDER BY MAX(b) DESC LIMIT 3" in found
    assert "SELECT a, MAX(b) FROM t WHERE a = 1 GROUP BY a ORDER BY MAX(b) DESC LIMIT 3" in found
    assert "SELECT a, MIN(b) FROM t WHERE a = 1 AND c > 2 GROUP BY a ORDER BY MAX(b) DESC LIMIT 3" in found
    assert "SELECT a FROM t WHERE a = 1 AND c > 2 GROUP BY a ORDER BY MAX(b) DESC LIMIT 3" in found
    assert any(query.endswith("LIMIT 4") for query in found) and sql not in found
    assert mutations("SELECT COUNT(*) FROM t JOIN u ON t.a = u.a") == []
    assert mutations("this is no query (") == []


def test_readings_of_a_term_in_one_and_in_several_tables() -> None:
    task = Task(id="t", kind="text2sql", messages=(), gold="SELECT 1 FROM orders WHERE shipped > promised")
    task = task.replace(info={"terms": ["late", "unknown"]})
    assert other_readings(task) == ["SELECT 1 FROM orders WHERE delivered > promised"]
    joined = task.replace(gold="SELECT 1 FROM orders JOIN x WHERE orders.shipped > orders.promised")
    assert other_readings(joined) == ["SELECT 1 FROM orders JOIN x WHERE orders.delivered > orders.promised"]


_FULL_DISK = """
import resource, sys
from pathlib import Path
from verbal.apps.text2sql.demo import demo_database
from verbal.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    demo_database(Path(sys.argv[1]))
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_a_data_error_and_leaves_nothing_behind(tmp_path: Path, root: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )
    assert "the demo database cannot be built" in found.stdout and "free space" in found.stdout
    assert list(tmp_path.iterdir()) == []
    assert demo_database(tmp_path).is_file()
