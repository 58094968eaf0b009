"""Tiny benchmarks on disk: Spider's layout with a test suite, BIRD's layout, and predictions for them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

ROWS = [(1, "Ann", 30), (2, "Bob", 40), (3, "Cid", 50)]
GOLD = {
    "How many singers are there?": "SELECT count(*) FROM singer",
    "Names of singers older than 35?": "SELECT name FROM singer WHERE age > 35",
    "Who is oldest?": "SELECT name FROM singer ORDER BY age DESC LIMIT 1",
    "Names and ages, oldest first?": "SELECT name, age FROM singer ORDER BY age DESC",
}


def database(path: Path, rows: list[tuple[Any, ...]] = ROWS) -> Path:
    """A database with one table of singers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INT)")
        db.executemany("INSERT INTO singer VALUES (?, ?, ?)", rows)
        db.commit()
    return path


def spider(folder: Path, *, suite: bool = True) -> Path:
    """Spider's own layout under `folder/spider`, as its archive has it, and two more states under `folder/suites`."""
    entries = [
        {"db_id": "music", "question": q, "query": sql, "query_toks": sql.split(), "sql": {"select": []},
         **({"question_syn": q.replace("singers", "vocalists")} if "singers" in q else {})}
        for q, sql in GOLD.items()
    ]  # fmt: skip
    root = folder / "spider"
    database(root / "database" / "music" / "music.sqlite")
    (root / "dev.json").write_text(json.dumps(entries), encoding="utf-8")
    (root / "tables.json").write_text("[]", encoding="utf-8")
    if suite:
        database(folder / "suites" / "music" / "music.sqlite")
        database(folder / "suites" / "music" / "music_v1.sqlite", [(1, "Ann", 36), (2, "Bob", 38)])
    return root


def bird(folder: Path) -> Path:
    """BIRD's layout under `folder/bird`."""
    first = {"question_id": 7, "db_id": "music", "question": "How many grown ups?", "evidence": "grown up: age >= 40"}
    first |= {"SQL": "SELECT count(*) FROM singer WHERE age >= 40", "difficulty": "simple"}
    second = {"question_id": 8, "db_id": "music", "question": "All names?", "evidence": ""}
    second |= {"SQL": "SELECT name FROM singer", "difficulty": "challenging"}
    rows = [first, second]
    root = folder / "bird" / "dev_20240627"
    database(root / "dev_databases" / "music" / "music.sqlite")
    (root / "dev.json").write_text(json.dumps(rows), encoding="utf-8")
    return root
