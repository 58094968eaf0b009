"""What the embedded model can do, measured: levels, hints and distractors, samples, retries, roles, Spider, speed.

    python bench/embedded.py [--quick] [--data DIR] [--model FOLDER] [--out bench/results/embedded.json]

DIR holds `spider/` (train.jsonl, dev.jsonl, database/); without it the Spider part says so and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # with more, numpy's small products spin on busy cores

from verbal.apps.text2sql.values import Database
from verbal.errors import DataError
from verbal.models.embedded import evaluate
from verbal.models.embedded.ast import Unsupported
from verbal.models.embedded.codec import Answer, encode
from verbal.models.embedded.fields import Fields, Value
from verbal.models.embedded.read import read_schema

HERE = Path(__file__).parent


def solver(folder: Path | None) -> evaluate.Solve:
    """The shipped model, or the one in a folder, as a function from fields to answers; seeds count up from 1."""
    from verbal.models import embedded
    from verbal.models.embedded.decode import Decoder
    from verbal.models.embedded.forward import Network

    decoder = Decoder(Network(folder or Path(embedded.__file__).parent / "weights"))
    asked = [0]

    def solve(fields: Fields, k: int, temperature: float) -> list[Answer]:
        asked[0] += 1
        try:
            prompt = encode(fields)
            found = decoder.answers(prompt, k, temperature, seed=asked[0], avoid=fields.tried)
        except Unsupported:
            return [Answer()] * k
        return [sample.answer or Answer() for sample in found]

    return solve


@lru_cache(maxsize=200)
def _database(path: Path) -> tuple[Database, Any]:
    opened = Database(path)
    return opened, read_schema(opened.schema)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def spider_fields(folder: Path, row: dict[str, Any]) -> Fields:
    """The solver's prompt for one Spider question, as `verbal ask` would make it."""
    opened, schema = _database(folder / "database" / row["db_id"] / f"{row['db_id']}.sqlite")
    found = tuple(Value(cell.text, cell.table, cell.column) for cell in opened.values([row["question"]]))
    return Fields("solver", schema, row["question"], (), found)


def permuted(found: evaluate.Rows | str, wanted: evaluate.Rows | str, ordered: bool) -> bool:
    """Same rows for some order of the columns, duplicates apart: what Spider's own evaluator accepts."""
    if isinstance(found, str) or isinstance(wanted, str):
        return False
    if evaluate.same_rows(found, wanted, ordered):
        return True
    if not found or not wanted or len(found[0]) != len(wanted[0]):
        return False
    one, two = _canonical(found), _canonical(wanted)
    return one == two


def _canonical(rows: evaluate.Rows) -> list[tuple[str, ...]]:
    columns = sorted(range(len(rows[0])), key=lambda at: sorted(str(row[at]) for row in rows))
    return sorted({tuple(str(row[at]) for at in columns) for row in rows})


def spider(solve: evaluate.Solve, data: Path, split: str, limit: int = 0) -> dict[str, Any]:
    """Greedy zero-shot accuracy on Spider questions: strict, and as its own evaluator counts; by shape of the query."""
    rows = [json.loads(line) for line in (data / "spider" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    if limit:
        rows = Random(0).sample(rows, min(limit, len(rows)))
    marks: dict[str, list[int]] = {}
    loose = failing = unsupported = 0
    for row in rows:
        folder = data / "spider"
        answer = Answer()
        try:
            answer = solve(spider_fields(folder, row), 1, 0.0)[0]
        except (Unsupported, DataError):
            unsupported += 1
        ordered = "order by" in row["query"].lower()
        with closing(_connect(folder / "database" / row["db_id"] / f"{row['db_id']}.sqlite")) as connection:
            wanted = evaluate.run(connection, row["query"])
            found = evaluate.run(connection, answer.sql) if answer.sql else "no SQL"
        good = evaluate.same_rows(found, wanted, ordered)
        failing += isinstance(found, str)
        loose += permuted(found, wanted, ordered)
        for name in ("all", shape(row["query"]), row["db_id"]):
            marks.setdefault(name, []).append(good)
    n = len(rows)
    return {
        "n": n,
        "strict": sum(marks["all"]) / n,
        "column_order_and_duplicates_ignored": loose / n,
        "failing": failing / n,
        "unsupported": unsupported,
        "by": {name: [sum(m), len(m)] for name, m in sorted(marks.items()) if name != "all"},
    }


def shape(sql: str) -> str:
    """The shape of a query: nested, group, order, join or single."""
    text = sql.lower()
    if text.count("select") > 1:
        return "nested"
    if "group by" in text:
        return "group"
    if " join " in text:
        return "join"
    return "order" if "order by" in text else "single"


def speed(solve: evaluate.Solve, cases: Sequence[evaluate.Case]) -> dict[str, float]:
    """Seconds and answer tokens a question, one greedy answer, process time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for case in cases:
        solve(evaluate.fields_of(case), 1, 0.0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"questions": len(cases), "wall_seconds_each": wall / len(cases), "core_seconds_each": cpu / len(cases)}


def synthetic(solve: evaluate.Solve, scale: float) -> dict[str, Any]:
    """Every figure on held-out synthetic databases; `scale` shrinks the numbers of questions."""
    plain = evaluate.held_out(int(1000 * scale))
    hinted = evaluate.held_out(int(300 * scale), 7, hinted=True)
    few = plain[: int(250 * scale)]
    return {
        "held_out": evaluate.accuracy(solve, plain),
        "hints": {name: evaluate.accuracy(solve, hinted, name) for name in evaluate.HINT_CONDITIONS},
        "samples": evaluate.sampled(solve, few),
        "retry": evaluate.retried(solve, few),
        "critic": evaluate.judged(solve, 11, int(300 * scale)),
        "reflector": evaluate.reflected(solve, 13, int(300 * scale)),
        "by_kind": evaluate.by_kind(solve, plain),
        "speed": speed(solve, plain[: int(100 * scale)]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the questions")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VERBAL_DATA", "data")))
    parser.add_argument("--model", type=Path, help="folder of weights; the shipped ones if not given")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "embedded.json")
    asked = parser.parse_args()
    solve = solver(asked.model)
    found: dict[str, Any] = {"synthetic": synthetic(solve, 0.1 if asked.quick else 1.0)}
    print(json.dumps(found["synthetic"], indent=1))
    if (asked.data / "spider" / "dev.jsonl").is_file():
        limit = 60 if asked.quick else 0
        found["spider_dev"] = spider(solve, asked.data, "dev", limit)
        found["spider_train"] = spider(solve, asked.data, "train", 60 if asked.quick else 500)
        print(json.dumps({name: found[name] for name in ("spider_dev", "spider_train")}, indent=1))
    else:
        print(f"spider: skipped: no data in {asked.data}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
