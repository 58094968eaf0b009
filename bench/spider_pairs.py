"""Pairs (database, gold query, prediction) on Spider dev for the benches of the reward: real and mutated ones.

Real predictions are the queries that agents sent in InterCode's trajectories; they were written for MySQL, so some do
not run on SQLite, as some of a model's answers do not. Mutated ones are the neighbours of gold queries.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One pair and where it came from."""

    db: str
    gold: str
    sql: str
    real: bool


def data_folder(parser: argparse.ArgumentParser) -> Path | None:
    """The folder of `--data` or VERBAL_DATA that holds spider/ and suites/; None, with a word, when there is none."""
    parser.add_argument("--data", type=Path, default=os.environ.get("VERBAL_DATA"))
    known = parser.parse_known_args()[0].data
    if known is None or not (Path(known) / "spider").is_dir():
        print("skipped: no data (give --data DIR or VERBAL_DATA)")
        return None
    return Path(known)


def golds(data: Path, split: str = "dev") -> list[tuple[str, str]]:
    """The different (database, gold query) of Spider dev or train."""
    lines = (json.loads(line) for line in (data / "spider" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys((q["db_id"], q["query"]) for q in lines))


def database(data: Path, db: str) -> str:
    """The path of a database."""
    return str(data / "spider" / "database" / db / f"{db}.sqlite")


def suite(data: Path, db: str) -> tuple[str, ...]:
    """The official states of a database; empty where there are none."""
    return tuple(map(str, sorted((data / "suites" / db).glob("*.sqlite"))))


def real(data: Path) -> list[Row]:
    """Different queries of InterCode's agents on the questions of Spider dev."""
    lines = (json.loads(line) for line in (data / "spider" / "dev.jsonl").read_text(encoding="utf-8").splitlines())
    asked = {(q["db_id"], q["question"]): q["query"] for q in lines}
    found: dict[Row, None] = {}
    for file in sorted((data / "intercode").glob("*.json")):
        for turn in json.loads(file.read_text(encoding="utf-8")).values():
            gold = asked.get((turn.get("db_id") or turn.get("db"), turn["query"]))
            for action in turn["turn_history"]["actions"] if gold else ():
                sent = re.match(r"\s*execute\[(.*)\]\s*$", action, re.DOTALL)
                sql = sent[1] if sent else action
                if gold and re.match(r"\s*(select|with)\b", sql, re.IGNORECASE):
                    found[Row(turn.get("db_id") or turn.get("db"), gold, sql, True)] = None
    return list(found)


def mutated(data: Path, per_gold: int = 80, split: str = "dev") -> list[Row]:
    """Neighbours of all gold queries, at most `per_gold` of each."""
    from verbal.parts import load_function

    mutations = load_function("apps", "text2sql.mutations", "mutations")
    kinds = load_function("apps", "text2sql.mutations", "ALL")
    content = load_function("apps", "text2sql.perturb", "Content")
    columns = {db: content(database(data, db), []).columns for db in dict(golds(data, split))}
    found = []
    for db, gold in golds(data, split):
        others = mutations(gold, kinds, columns[db])
        step = max(1.0, len(others) / per_gold)
        found += [Row(db, gold, others[int(i * step)], False) for i in range(min(len(others), per_gold))]
    return found
