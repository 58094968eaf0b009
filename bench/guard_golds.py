"""Gold queries of every set in the data: Spider, GeoQuery, Restaurants, defog."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def gold_queries(data: Path) -> Iterator[tuple[str, Path, str]]:
    """(Set, database, SQL); GeoQuery and Restaurants once for each question, with its names filled in."""
    for split in ("train", "dev"):
        for line in (data / "spider" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            db = data / "spider" / "database" / row["db_id"] / f"{row['db_id']}.sqlite"
            yield f"spider {split}", db, row["query"]
    extra = data / "extra"
    for name in ("geography", "restaurants"):
        for row in json.loads((extra / f"{name}.json").read_text(encoding="utf-8")):
            for sentence in row["sentences"]:
                yield name, extra / f"{name}.sqlite", _filled(row["sql"][0], row["variables"], sentence["variables"])
    for file in ("instruct_basic_sqlite.csv", "questions_gen_sqlite.csv"):
        with open(extra / "defog" / file, encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                for sql in filter(None, (part.strip() for part in row["query"].split(";"))):
                    yield "defog", extra / "defog" / f"{row['db_name']}.sqlite", sql


def _filled(sql: str, variables: Sequence[dict[str, Any]], given: dict[str, str]) -> str:
    for variable in variables:
        name = variable["name"]
        sql = sql.replace(name, str(given.get(name, variable.get("example", ""))))
    return sql
