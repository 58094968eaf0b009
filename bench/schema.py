"""What a prompt needs of a schema: tokens, schema linking, near cells, profiles. Writes bench/results/schema.json.

* tokens: every Spider database in full, compact and compact within a budget; the estimate beside two real tokenizers.
* linking: share of Spider dev questions (original and synonym wording) whose gold tables (columns) are all among the
  first k, in their own database and in one of 200 tables (theirs and those of other Spider databases); beside BM25 over
  names alone, and beside the whole schema, which always holds them and costs `full` tokens.
* budget: the same for what the compact text within a budget still shows, in the 200-table schemas.
* cells: gold literals of dev and train questions with one edit, found exactly and nearly; cells added without an edit.
* profiles: seconds cold and from disk; foreign keys found again from names and values when nobody declares them.

    python bench/schema.py --data DIR [--limit 543] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from schema_gold import WIDE, Need, baseline, database_path, need, noisy, questions, widened

from verbal.apps.text2sql import profile_cache, schema
from verbal.apps.text2sql.compact import render, tokens
from verbal.apps.text2sql.linking import fit
from verbal.apps.text2sql.profile import profile, profile_file
from verbal.apps.text2sql.schema import Table, read_tables, schema_text
from verbal.apps.text2sql.values import Database
from verbal.errors import DataError

HERE = Path(__file__).parent
TABLE_KS, COLUMN_KS = (1, 2, 3, 5, 8, 15), (5, 10, 20, 40, 60)
BUDGETS = (500, 1000, 2000, 4000)
WORDINGS = {"dev": "question", "synonyms": "question_syn"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("VERBAL_DATA"), help="the folder that holds spider/")
    parser.add_argument("--limit", type=int, default=None, help="dev questions at most")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "schema.json")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "spider").is_dir():
        print("skipped: no data (give --data DIR, the folder that holds spider/)")
        return
    data = Path(options.data).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        found: dict[str, Any] = {"profiles": profiles(data, Path(folder)), "tokens": token_counts(data)}
        dev = questions(data, "dev")[: options.limit]
        own = {name: Database(database_path(data, name)) for name in sorted({q["db_id"] for q in dev})}
        found["linking"] = linking(dev, own)
        wide = {name: Database(widened(data, name, spider(data), Path(folder))) for name in own}
        found["wide"] = {
            "tables": WIDE,
            "columns": round(statistics.mean(sum(len(t.columns) for t in d.tables) for d in wide.values())),
            "full_tokens": round(statistics.mean(tokens(d.schema) for d in wide.values())),
            "compact_tokens": round(statistics.mean(render(d.tables).tokens for d in wide.values())),
            **linking(dev, wide),
            "budget": budgeted(dev, wide),
        }
        found["cells"] = near_cells([*dev, *questions(data, "train")[::6]], data, own, Path(folder))
    found["keys"] = recovered(data)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def spider(data: Path) -> list[str]:
    """The names of Spider's databases that are there."""
    folders = sorted((data / "spider" / "database").iterdir())
    return [folder.name for folder in folders if database_path(data, folder.name).is_file()]


def token_counts(data: Path) -> dict[str, Any]:
    """Tokens of every schema by style, and how far the estimate is from real tokenizers."""
    schemas = []
    for name in spider(data):
        try:
            schemas.append(read_tables(database_path(data, name)))
        except DataError:
            continue
    full, compact = [schema_text(t) for t in schemas], [render(t).text for t in schemas]
    sums = {"full": sum(map(tokens, full)), "compact": sum(map(tokens, compact))}
    halved = sum(render(t, budget=max(40, tokens(f) // 4)).tokens for t, f in zip(schemas, full, strict=True))
    return {
        "databases": len(schemas),
        **{f"{style}_mean": round(total / len(schemas), 1) for style, total in sums.items()},
        "quarter_budget_mean": round(halved / len(schemas), 1),
        "compact_of_full": round(sums["compact"] / sums["full"], 4),
        "estimate_over_real": {
            f"{name}_{style}": [round(x, 3) for x in (min(shares), statistics.median(shares), max(shares))]
            for name, count in tokenizers().items()
            for style, texts in (("full", full), ("compact", compact))
            if (shares := [tokens(text) / count(text) for text in texts])
        },
    }


def tokenizers() -> dict[str, Callable[[str], int]]:
    """Real tokenizers whose files come with litellm: cl100k_base and DeepSeek's."""
    import tiktoken
    from tokenizers import Tokenizer

    package = find_spec("litellm")  # found, not imported: it asks the network
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    base = tiktoken.get_encoding("cl100k_base")
    deepseek = Tokenizer.from_file(str(folder / "deepseek_tokenizer.json"))
    return {
        "cl100k": lambda text: len(base.encode(text, disallowed_special=())),
        "deepseek": lambda text: len(deepseek.encode(text, add_special_tokens=False).ids),
    }


def asked(rows: Sequence[dict[str, Any]], databases: dict[str, Database], key: str) -> Iterator[tuple[str, str, Need]]:
    """(database, text, what gold needs) of the questions in one wording."""
    for row in rows:
        text = row.get(key)
        wanted = need(row["query"], databases[row["db_id"]].tables) if text else None
        if wanted is not None:
            yield row["db_id"], text, wanted


def linking(rows: Sequence[dict[str, Any]], databases: dict[str, Database]) -> dict[str, Any]:
    """Recall at k of tables and columns: ours, BM25 over names; and the tokens of the whole schema beside it."""
    bases = {name: baseline(database.tables) for name, database in databases.items()}
    for database in databases.values():
        assert database.linker and database.values([""], fuzzy=True) == []  # built before the clock starts
    found: dict[str, Any] = {}
    for wording, key in WORDINGS.items():
        ranks: dict[str, list[tuple[list[Any], frozenset[Any]]]] = {}
        seconds = 0.0
        for name, text, wanted in asked(rows, databases, key):
            database, (by_table, by_column, columns) = databases[name], bases[name]
            began = time.perf_counter()
            linked = database.linker.link(text, database.values([text], fuzzy=True))
            seconds += time.perf_counter() - began
            ours = [score.table for score in linked.tables], [(c.table, c.column) for c in linked.columns]
            theirs = (
                [database.tables[i].name for i in by_table.ranked(text)],
                [columns[i] for i in by_column.ranked(text)],
            )
            for who, (tables, places) in {"ours": ours, "bm25": theirs}.items():
                ranks.setdefault(f"{who}_tables", []).append((tables, wanted.tables))
                ranks.setdefault(f"{who}_columns", []).append((places, wanted.columns))
        count = len(ranks["ours_tables"])
        found[wording] = {
            "questions": count,
            **{
                name: {str(k): share([gold <= set(order[:k]) for order, gold in pairs])
                       for k in (TABLE_KS if name.endswith("tables") else COLUMN_KS)}
                for name, pairs in ranks.items()
            },
            "ms_a_question": round(1000 * seconds / count, 2),
        }  # fmt: skip
        for kind, k in (("tables", "2"), ("columns", "10")):
            ratio = found[wording][f"ours_{kind}"][k] / max(1e-9, found[wording][f"bm25_{kind}"][k])
            found[wording][f"{kind}_at_{k}_over_bm25"] = round(ratio, 3)
    return found


def budgeted(rows: Sequence[dict[str, Any]], databases: dict[str, Database]) -> dict[str, Any]:
    """Share of every other question whose gold tables and columns a budget shows; without linking beside it."""
    found: dict[str, Any] = {}
    for wording, key in WORDINGS.items():
        for budget in BUDGETS:
            rows_, over = list[tuple[bool, bool]](), 0
            bare = {name: render(database.tables, budget=budget) for name, database in databases.items()}
            unlinked = []
            for name, text, wanted in asked(rows[::2], databases, key):
                shown = fit(databases[name], text, budget)
                over += shown.tokens > budget or tokens(shown.text) > budget
                rows_.append((wanted.tables <= shown.tables, wanted.columns <= shown.columns))
                unlinked.append(wanted.columns <= bare[name].columns)
            found.setdefault(wording, {})[str(budget)] = {
                "tables_named": share([a for a, _ in rows_]),
                "columns_shown": share([b for _, b in rows_]),
                "columns_shown_without_linking": share(unlinked),
                "over_budget": over,
            }
    return found


def near_cells(
    rows: Sequence[dict[str, Any]], data: Path, own: dict[str, Database], folder: Path
) -> dict[str, Any]:  # fmt: skip
    """Literals with one edit, found exactly and nearly; and what the near look-up adds where nothing is misspelled."""
    rng, databases = Random(3), dict(own)
    tried, exact, near, added, asked_ = 0, 0, 0, 0, 0
    seconds = [0.0, 0.0]
    for row in rows:
        name, text = row["db_id"], row["question"]
        if name not in databases:
            databases[name] = Database(database_path(data, name))
        database = databases[name]
        wanted = need(row["query"], database.tables)
        if wanted is None:
            continue
        database.values([text], fuzzy=True)
        found = []
        for place, fuzzy in enumerate((False, True)):
            began = time.perf_counter()
            found.append(database.values([text], 50, fuzzy=fuzzy))
            seconds[place] += time.perf_counter() - began
        asked_ += 1
        gold = {value.casefold() for value in wanted.literals}
        added += any(cell.text.casefold() not in gold for cell in found[1][len(found[0]) :])
        for value in wanted.literals:
            changed = noisy(value, rng)
            if changed != value and value in text and any(cell.text == value for cell in found[0]):
                edited = text.replace(value, changed)
                tried += 1
                exact += any(cell.text == value for cell in database.values([edited]))
                near += any(cell.text == value for cell in database.values([edited], fuzzy=True))
    return {
        "edited_literals": tried,
        "found_exactly": round(exact / max(1, tried), 4),
        "found_nearly": round(near / max(1, tried), 4),
        "questions": asked_,
        "questions_with_a_wrong_cell_added": round(added / max(1, asked_), 4),
        "ms_exact": round(1000 * seconds[0] / asked_, 3),
        "ms_near": round(1000 * seconds[1] / asked_, 3),
        **large_index(folder),
    }


def large_index(folder: Path) -> dict[str, Any]:
    """The value index at its limit: half a million different names in 30 columns."""
    path, rng = folder / "large.sqlite", Random(5)
    parts = [
        "".join(rng.choice(("ba", "ko", "ri", "tu", "se", "mon", "lar", "ing")) for _ in range(4)) for _ in range(900)
    ]
    with closing(sqlite3.connect(path)) as connection:
        for number in range(30):
            connection.execute(f"CREATE TABLE t{number} (name TEXT)")
            names = ((f"{rng.choice(parts)} {rng.choice(parts)}",) for _ in range(20_000))
            connection.executemany(f"INSERT INTO t{number} VALUES (?)", names)
        (some,) = connection.execute("SELECT name FROM t3 LIMIT 1").fetchone()
        connection.commit()
    database = Database(path)
    began = time.perf_counter()
    database.values([""])
    built = time.perf_counter() - began
    database.values(["x"], fuzzy=True)
    fuzzy = time.perf_counter() - began - built
    text = f"How much did {some[:4]}{some[5:]} spend in the last year, and who else lives where they do?"
    began = time.perf_counter()
    for _ in range(20):
        found = database.values([text], fuzzy=True)
    return {
        "large_cells": sum(map(len, database._values().values())),
        "large_build_s": round(built, 2),
        "large_near_build_s": round(fuzzy, 2),
        "large_ms_near": round(50 * (time.perf_counter() - began), 2),
        "large_found": some in [cell.text for cell in found],
    }


def profiles(data: Path, folder: Path) -> dict[str, Any]:
    """Seconds to profile: all Spider databases, one of a million rows; cold, from disk, and `read_tables` beside it."""
    big = folder / "big.sqlite"
    with closing(sqlite3.connect(big)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, kind TEXT, price REAL, day TEXT)")
        rows = ((n, f"name {n % 70_000}", "abc"[n % 3], n / 7, f"2024-01-{n % 28 + 1:02}") for n in range(1_000_000))
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    files = [path for name in spider(data) if (path := database_path(data, name)).is_file()]
    found: dict[str, Any] = {}
    for name, paths in {"spider": files, "million_rows": [big]}.items():
        cold, disk, plain = [], [], []
        for path in paths:
            try:
                plain.append(timed(lambda p=path: read_tables(p)))
            except DataError:
                continue
            cold.append(timed(lambda p=path: profile_file(p)))
            profile_cache._hashes.clear()
            disk.append(timed(lambda p=path: profile_file(p)))
        found[name] = {
            "databases": len(cold),
            "cold_s": round(sum(cold), 3),
            "cached_s": round(sum(disk), 3),
            "read_tables_s": round(sum(plain), 3),
            "cold_over_cached": round(sum(cold) / sum(disk), 1),
        }
    return found


def recovered(data: Path) -> dict[str, Any]:
    """Declared foreign keys found again from names and values alone, in databases whose declarations are taken away."""
    hits, declared, guessed = 0, 0, 0
    for name in spider(data):
        path = database_path(data, name)
        try:
            catalog = schema.read_catalog(path)
        except DataError:
            continue
        told = {
            (t.name, k.columns[0].lower(), k.target) for t in catalog for k in t.foreign_keys if len(k.columns) == 1
        }
        if not told:
            continue
        with schema.reading(path) as connection:
            bare: list[Table] = [replace(table, foreign_keys=()) for table in catalog]
            made = profile(lambda sql, c=connection: c.execute(sql).fetchall(), bare, "sqlite").profiles
        found = {(t.name, k.columns[0].lower(), k.target) for t in made for k in t.foreign_keys}
        hits, declared, guessed = hits + len(told & found), declared + len(told), guessed + len(found)
    # A guess that nobody declared is not always wrong: the precision is a lower bound.
    return {
        "declared": declared,
        "guessed": guessed,
        "recall": round(hits / declared, 4),
        "precision_at_least": round(hits / guessed, 4),
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def share(flags: Sequence[bool]) -> float:
    """Share of the true ones."""
    return round(sum(flags) / max(1, len(flags)), 4)


if __name__ == "__main__":
    main()
