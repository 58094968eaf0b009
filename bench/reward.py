"""Speed of the reward beside the official test-suite evaluator and bare SQLite: same pairs, same run, one process each.

    .venv/bin/python bench/reward.py --data DIR [--official DIR] [--out bench/results/reward.json]

`pairs`: different gold queries of Spider dev and train against themselves on one state (Spider's own databases), as
the official evaluator was timed (240 pairs/s); `suite`: the same for dev on the official suites, where no first
difference ends it. `predictions` and `suite_predictions`: different queries of InterCode's agents, as a reward sees
them. Each runs with nothing known (`cold`: databases closed, no gold result) and again (`warm`: as from the second
answer of a group on). Headlines: cold for one state, warm for suites (the goal speaks of cached gold results); both are
printed. The bound opens the file, runs both queries and compares two lists. The official evaluator (bench/evaluator.py)
runs the same pairs (of `suite_predictions` every n-th): as it is by default, which the ratios are to, and with DISTINCT
kept, which spares it a parser and is what our default rules do.
`batch`: 1,024 candidates, 8 for each question, in one call, cold, as a trainer asks. Gold results are not read from
the cache file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from spider_pairs import Row, data_folder, database, golds, real, suite

from verbal.parts import load_function

match = load_function("apps", "text2sql.matching", "match")
Pair = load_function("apps", "text2sql.matching", "Pair")
Pool = load_function("apps", "text2sql.worker", "Pool")


def other_text(row: Row) -> str:
    """The prediction, written otherwise where it is the gold query: equal text is right without being run."""
    return row.sql.replace(" ", "  ", 1) if row.sql.strip() == row.gold.strip() else row.sql


async def ours(pairs: list[Any], processes: int, rules: str) -> dict[str, float]:
    """Pairs a second, cold and warm, without words and (warm) with them."""
    pool = Pool(processes)
    try:
        await asyncio.gather(*(pool.run(pairs[0].states[0], "SELECT 1") for _ in range(4 * processes)))
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, words in (("cold", False), ("warm", False), ("warm_words", True)):
                started = time.perf_counter()
                for start in range(0, len(pairs), 1024):
                    cache = Path(folder) / "gold.sqlite"
                    await match(pool, pairs[start : start + 1024], rules=rules, words=words, cache=cache)
                found[name] = len(pairs) / (time.perf_counter() - started)
        return found
    finally:
        await pool.aclose()


def bare(pairs: list[Any]) -> float:
    """Pairs a second of SQLite alone: open, run both, compare the lists; the first difference ends a pair."""
    started = time.perf_counter()
    for pair in pairs:
        for state in pair.states:
            with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
                connection.text_factory = lambda value: value.decode(errors="ignore")
                try:
                    right = connection.execute(pair.gold).fetchall() == connection.execute(pair.sql).fetchall()
                except (sqlite3.Error, sqlite3.Warning):
                    right = False
            if not right:
                break
    return len(pairs) / (time.perf_counter() - started)


def officially(module: Any, rows: list[Row], folder_of: Callable[[str], str], keep_distinct: bool) -> float:
    """Pairs a second of the official evaluator."""
    started = time.perf_counter()
    for row in rows:
        try:
            module.eval_exec_match(folder_of(row.db), row.sql, row.gold, False, keep_distinct, False)
        except Exception as error:  # whatever it does
            print(f"official evaluator: {type(error).__name__}: {str(error)[:100]}")
    return len(rows) / (time.perf_counter() - started)


def sampled(items: list[Any], most: int) -> list[Any]:
    """Every n-th, so that at most `most` are left."""
    return items[:: max(1, -(-len(items) // most))]


def measure(data: Path, folder: Path | None, scratch: Path, limit: int) -> dict[str, Any]:
    """All figures."""
    rows = sampled(real(data), limit)
    train = sampled(golds(data, "train"), limit)
    alike = [Row(db, gold, gold, False) for db, gold in golds(data) + train]
    same = [row for row in alike if suite(data, row.db)]
    on_suites = [row for row in rows if suite(data, row.db)]
    sets = {"pairs": (alike, False), "predictions": (rows, False), "suite": (same, True)}
    sets["suite_predictions"] = (on_suites, True)
    result: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0))}
    module, where = None, {}
    if folder is not None:
        from evaluator import copies, official

        module, where = official(folder), copies(data, scratch, {row.db for row in rows + alike})
    for name, (chosen, many) in sets.items():
        pairs = [Pair(other_text(r), r.gold, suite(data, r.db) if many else (database(data, r.db),)) for r in chosen]
        table: dict[str, Any] = {"pairs": len(pairs), "databases": sum(len(p.states) for p in pairs)}
        for processes in (1, 2):
            for kind, rate in asyncio.run(ours(pairs, processes, "verbal")).items():
                table[f"{kind}_{processes}"] = round(rate, 1)
        table["bare_sqlite"] = round(bare(pairs), 1)
        if module is not None:
            fewer = sampled(chosen, 300 if many else 4000)
            for key, keep in (("official", False), ("official_keep_distinct", True)):
                table[key] = round(officially(module, fewer, lambda db, i=int(many): where[db][i] or "", keep), 1)
            table["official_pairs"] = len(fewer)
        table["scaling_cold"] = round(table["cold_2"] / table["cold_1"], 2)
        table["scaling_warm"] = round(table["warm_2"] / table["warm_1"], 2)
        result[name] = table
        print(name, table, flush=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in real(data):
        groups.setdefault((row.db, row.gold), []).append(row)
    full = [g[:8] for g in groups.values() if len(g) >= 8 and suite(data, g[0].db)][:128]
    batch = [Pair(r.sql, r.gold, suite(data, r.db)) for group in full for r in group]
    result["batch"] = {"candidates": len(batch), "questions": len(full)}
    for processes in (1, 2):
        rate = asyncio.run(ours(batch, processes, "verbal"))["cold"]
        result["batch"][f"seconds_{processes}"] = round(len(batch) / rate, 3)
    return result


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="folder with exec_eval.py and parse.py")
    parser.add_argument("--limit", type=int, default=2000, help="pairs of each kind")
    parser.add_argument("--out", type=Path, default=Path("bench/results/reward.json"))
    data = data_folder(parser)
    options = parser.parse_args()
    if data is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(data, options.official, Path(scratch), options.limit)
    result["pairs_per_s"] = result["pairs"]["cold_1"]
    result["suite_questions_per_s"] = result["suite"]["warm_1"]
    if options.official is None:
        print("skipped: no official evaluator (give --official DIR); its ratios are left out")
    else:
        result["pairs_ratio_official"] = round(result["pairs_per_s"] / result["pairs"]["official"], 1)
        result["suite_ratio_official"] = round(result["suite_questions_per_s"] / result["suite"]["official"], 1)
        for name, own in (("pairs", result["pairs_per_s"]), ("suite", result["suite_questions_per_s"])):
            result[f"{name}_ratio_keep_distinct"] = round(own / result[name]["official_keep_distinct"], 1)
        result["suite_cold_ratio_official"] = round(result["suite"]["cold_1"] / result["suite"]["official"], 1)
    result["pairs_ratio_bare"] = round(result["pairs_per_s"] / result["pairs"]["bare_sqlite"], 2)
    result["suite_ratio_bare"] = round(result["suite_questions_per_s"] / result["suite"]["bare_sqlite"], 2)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if not isinstance(v, dict)}, indent=1))


if __name__ == "__main__":
    main()
