"""Verdicts of this reward beside those of the official test-suite evaluator, on the same pairs.

    pip download --no-deps nl2sql360==1.1.0 && pip install sqlparse     # a wheel that holds a copy: unzip it elsewhere
    .venv/bin/python bench/evaluator.py --data DIR --official UNZIPPED/nl2sql360/evaluator/test_suite_sql_eval

The official evaluator (test-suite-sql-eval, Zhong et al. 2020) is called as it is (`eval_exec_match`, no plugged
values), with DISTINCT dropped as is its default and with `keep_distinct`. It needs sqlparse. Pairs: every different
query of InterCode's agents on Spider dev, all neighbours of dev's gold queries and two of each of train's, on Spider's
own databases, one state; and on the official suites some that are right there on one state. It writes to databases, so
it gets copies.

`evaluator_disagreements` counts verdicts of the rules `test_suite` and `test_suite_distinct` that are not the official
ones, over both ways; each is listed with its class. `default_*` says the same of the default rules, by cause.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import shutil
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

from spider_pairs import Row, data_folder, database, mutated, real, suite

from verbal.parts import load_function

match = load_function("apps", "text2sql.matching", "match")
Pair = load_function("apps", "text2sql.matching", "Pair")
Pool = load_function("apps", "text2sql.worker", "Pool")
Limits = load_function("apps", "text2sql.worker", "Limits")
SLOWEST = 20.0


def official(folder: Path) -> Any:
    """The official module, wherever its imports expect its neighbours."""
    sys.modules["official"] = types.ModuleType("official")
    sys.modules["official"].__path__ = [str(folder)]
    sys.modules.setdefault("tqdm", types.ModuleType("tqdm"))  # only for a progress bar that is not asked for
    sys.path.insert(0, str(folder))
    module = importlib.import_module("official.exec_eval")
    module.TIMEOUT = SLOWEST
    return module


def theirs(module: Any, path: str, row: Row, keep: bool) -> bool | str:
    """The official verdict; its error where it has none."""
    try:
        return bool(module.eval_exec_match(path, row.sql, row.gold, False, keep, False))
    except Exception as error:  # whatever it does
        return f"{type(error).__name__}: {str(error)[:80]}"


def copies(data: Path, scratch: Path, names: set[str]) -> dict[str, tuple[str, str | None]]:
    """For each database a folder with one state and one with the official suite, both copied."""
    found: dict[str, tuple[str, str | None]] = {}
    for db in names:
        (scratch / "one" / db).mkdir(parents=True)
        shutil.copy(database(data, db), scratch / "one" / db)
        many = suite(data, db)
        if many:
            shutil.copytree(Path(many[0]).parent, scratch / "many" / db)
        found[db] = (str(scratch / "one" / db / f"{db}.sqlite"), str(scratch / "many" / db / "x") if many else None)
    return found


def cause(row: Row, ours: Any, true: bool | str) -> str:
    """Why two verdicts differ, in a few words."""
    if isinstance(true, str):
        return f"the official evaluator fails: {true.split(':')[0]}"
    if ours.right is None:
        return f"not decided here: {ours.text.split(': ')[-1][:60]}"
    if true and "the query fails" in ours.text:
        return f"runs there, refused here: {ours.text.split(': ')[-1][:60]}"
    if "distinct" in (row.sql + row.gold).lower():
        return "distinct: dropped from both queries there"
    if "wrong order" in ours.text or ("order by" in row.gold.lower()):
        return "order: a subquery's ORDER BY counts there" if ours.right else "order"
    if ours.right:
        return "numbers within the tolerance are equal here"
    return "columns of an empty result" if "column" in ours.text else "other"


async def ours(pool: Any, rows: list[Row], states: list[tuple[str, ...]], rules: str) -> list[Any]:
    """Our verdicts."""
    pairs = [Pair(row.sql, row.gold, paths) for row, paths in zip(rows, states, strict=True)]
    found = []
    for start in range(0, len(pairs), 1024):
        found += await match(pool, pairs[start : start + 1024], rules=rules, limits=Limits(seconds=SLOWEST))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="folder with exec_eval.py and parse.py")
    parser.add_argument("--limit", type=int, default=0, help="pairs of each kind")
    parser.add_argument("--suite-pairs", type=int, default=1500, help="pairs judged on suites as well")
    parser.add_argument("--out", type=Path, default=Path("bench/results/evaluator.json"))
    data = data_folder(parser)
    options = parser.parse_args()
    if data is None:
        return
    if options.official is None or not (options.official / "exec_eval.py").is_file():
        print("skipped: no official evaluator (give --official DIR)")
        return
    module = official(options.official)
    rows = [
        row
        for kind in (real(data), mutated(data, 120), mutated(data, 2, "train"))
        for row in kind[: options.limit or None]
    ]
    scratch = Path(tempfile.mkdtemp())
    where = copies(data, scratch, {row.db for row in rows})
    pool = Pool(2)
    result: dict[str, Any] = {"evaluator_pairs": 0, "evaluator_disagreements": 0, "runs": {}}
    right: list[Row] = []
    for name, keep in (("test_suite", False), ("test_suite_distinct", True)):
        started = time.perf_counter()
        true = [theirs(module, where[row.db][0], row, keep) for row in rows]
        seconds = time.perf_counter() - started
        table = compared(pool, data, rows, true, name, [(database(data, row.db),) for row in rows])
        result["runs"][f"one state, {name}"] = {**table, "official_seconds": round(seconds, 1)}
        if not keep:
            right = [r for r, said in zip(rows, true, strict=True) if said is True and where[r.db][1]]
            right = right[:: max(1, len(right) // options.suite_pairs)]
        true = [theirs(module, where[row.db][1] or "", row, keep) for row in right]
        table = compared(pool, data, right, true, name, [suite(data, row.db) for row in right])
        result["runs"][f"suites, {name}"] = table
    for table in result["runs"].values():
        result["evaluator_pairs"] += table["pairs"]
        result["evaluator_disagreements"] += table["disagreements"]
    result["different_pairs"] = len(rows)
    result["evaluator_agreement"] = 1 - result["evaluator_disagreements"] / result["evaluator_pairs"]
    pool.close()
    shutil.rmtree(scratch)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "runs"}, indent=1))


def compared(
    pool: Any, data: Path, rows: list[Row], true: list[bool | str], rules: str, states: list[tuple[str, ...]]
) -> dict[str, Any]:
    """Both verdicts side by side: by the official rules and by the default ones."""
    table: dict[str, Any] = {
        "pairs": len(rows),
        "real": sum(row.real for row in rows),
        "right": sum(t is True for t in true),
    }
    for kind in (rules, "verbal"):
        started = time.perf_counter()
        said = asyncio.run(ours(pool, rows, states, kind))
        seconds = round(time.perf_counter() - started, 1)
        differ = [(r, s, t) for r, s, t in zip(rows, said, true, strict=True) if s.right != t]
        causes = Counter(cause(*one) for one in differ)
        listed = [
            {
                "db": r.db,
                "gold": r.gold,
                "sql": r.sql,
                "official": t,
                "ours": s.right,
                "text": s.text,
                "cause": cause(r, s, t),
            }
            for r, s, t in differ
        ]
        prefix = "" if kind == rules else "default_"
        table |= {
            f"{prefix}disagreements": len(differ),
            f"{prefix}causes": dict(causes.most_common()),
            f"{prefix}seconds": seconds,
        }
        table[f"{prefix}listed"] = listed if kind == rules else listed[:20]
    print(rules, {k: v for k, v in table.items() if "listed" not in k}, flush=True)
    return table


if __name__ == "__main__":
    main()
