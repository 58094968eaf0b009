"""Made test suites beside the official ones, on the databases of Spider dev that have one.

    .venv/bin/python bench/suite_making.py --data DIR [--most 16] [--out bench/results/suite_making.json]

A false positive is a prediction with the gold query's result on Spider's own database that fails the official suite.
Headline `made_suite_recall`: the share of the real ones (InterCode's agents) that the suite made by `apps/text2sql/
states.py` from the database's gold queries rejects as well. Mutated golds are counted apart: suites are made to catch
such. `recall_other_golds` is for suites made from every second gold query and predictions on the others alone. A false
alarm is right by the official suite and on Spider's database, and rejected by the made one. The bound is the official
suite itself: recall 1, no alarm, by definition. The generator was written with an eye on these databases.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from spider_pairs import Row, data_folder, database, golds, mutated, real, suite

from verbal.parts import load_function

make_states = load_function("apps", "text2sql.states", "make_states")
match = load_function("apps", "text2sql.matching", "match")
Pair = load_function("apps", "text2sql.matching", "Pair")
Pool = load_function("apps", "text2sql.worker", "Pool")


async def one(
    pool: Any, data: Path, db: str, rows: list[Row], most: int, folder: Path, learn: set[str]
) -> dict[str, Any]:
    """The figures of one database."""
    started = time.perf_counter()
    made = await make_states(pool, database(data, db), sorted({row.gold for row in rows}), folder=folder, most=most)
    half = await make_states(pool, database(data, db), sorted(learn), folder=folder, most=most)
    seconds = time.perf_counter() - started
    own, official = (database(data, db),), suite(data, db)
    right = [said.right for said in await match(pool, [Pair(r.sql, r.gold, own) for r in rows], words=False)]
    rows = [row for row, said in zip(rows, right, strict=True) if said]
    truth = await match(pool, [Pair(r.sql, r.gold, official) for r in rows], words=False)
    ours = await match(pool, [Pair(r.sql, r.gold, (*own, *made.of(r.gold))) for r in rows], words=False)
    blind = await match(pool, [Pair(r.sql, r.gold, (*own, *half.of(r.gold))) for r in rows], words=False)
    found: Counter[str] = Counter()
    alarms, missed = [], []
    for row, true, said, unseen in zip(rows, truth, ours, blind, strict=True):
        kind = "real" if row.real else "mutated"
        found[f"{kind}_positives"] += 1
        if true.right is False:
            found[f"{kind}_false"] += 1
            found[f"{kind}_caught"] += said.right is False
            found[f"{kind}_other_false"] += row.gold not in learn
            found[f"{kind}_other_caught"] += row.gold not in learn and unseen.right is False
            if said.right is not False:
                missed.append({"gold": row.gold, "sql": row.sql, "real": row.real, "state": true.failed})
        elif true.right and said.right is False:
            found[f"{kind}_alarms"] += 1
            alarms.append({"gold": row.gold, "sql": row.sql, "real": row.real, "state": said.failed})
    return {
        "db": db, **found, "states": len(made.states), "states_half": len(half.states),
        "official_states": len(official), "seconds": round(seconds, 1),
        "made": made.figures, "alarms": alarms, "missed": missed,
    }  # fmt: skip


def share(tables: list[dict[str, Any]], top: str, bottom: str, *kinds: str) -> float:
    """A ratio of two counts over all databases."""
    whole = sum(t.get(f"{kind}_{bottom}", 0) for t in tables for kind in kinds)
    return sum(t.get(f"{kind}_{top}", 0) for t in tables for kind in kinds) / whole if whole else 0.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=16)
    parser.add_argument("--only", nargs="*", help="databases")
    parser.add_argument("--keep", type=Path, help="a folder for the made suites; kept")
    parser.add_argument("--out", type=Path, default=Path("bench/results/suite_making.json"))
    data = data_folder(parser)
    options = parser.parse_args()
    if data is None:
        return
    rows = real(data) + mutated(data, 30)
    names = [db for db in dict(golds(data)) if suite(data, db) and (not options.only or db in options.only)]
    folder = options.keep or Path(tempfile.mkdtemp())
    pool = Pool(2)
    tables = []
    for db in names:
        of_db = [gold for name, gold in golds(data) if name == db]
        table = await one(pool, data, db, [r for r in rows if r.db == db], options.most, folder, set(of_db[::2]))
        tables.append(table)
        print({key: value for key, value in table.items() if key not in ("alarms", "missed", "made")}, flush=True)
    await pool.aclose()
    if not options.keep:
        shutil.rmtree(folder)
    result = {
        "made_suite_recall": share(tables, "caught", "false", "real"),
        "recall_other_golds": share(tables, "caught", "false", "real_other"),
        "recall_mutated": share(tables, "caught", "false", "mutated"),
        "recall_mutated_other_golds": share(tables, "caught", "false", "mutated_other"),
        "false_positives_real": sum(t["real_false"] for t in tables),
        "one_database_positives_real": sum(t["real_positives"] for t in tables),
        "alarm_share_real": share(tables, "alarms", "positives", "real"),
        "alarm_share_mutated": share(tables, "alarms", "positives", "mutated"),
        "states": sum(t["states"] for t in tables), "official_states": sum(t["official_states"] for t in tables),
        "seconds": sum(t["seconds"] for t in tables), "databases": tables,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result.items() if k != "databases"}, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
