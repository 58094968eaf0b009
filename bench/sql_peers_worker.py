"""Runs SQL through one system's own public way, as a process that the bench can kill. Run by bench/sql_peers.py.

    PYTHON bench/sql_peers_worker.py vanna|langchain|llama_index|verbal|verbal_2s|sqlite3

Default settings throughout. The first line says {version} or {reason}; after it each line of JSON on the input,
{folder, db, sql}, is answered by one: {seconds, rows, columns, cut, error}. Opening a database is not timed, for none.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import resource
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

MEMORY = 4 * 2**30
"""Bytes of address space a worker may use: some attacks ask for gigabytes."""

Shape = tuple[int, int, bool]
"""Rows, columns, and whether the system says that rows were cut."""
Run = Callable[[str], Callable[[], Shape]]
"""Runs SQL; what it gives tells the shape of the result, outside the time taken."""


def main() -> None:
    """Answers requests until the input ends."""
    kind = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a system prints is no answer
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def tell(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        name, opened = SYSTEMS[kind]()
    except Exception as error:
        tell({"reason": f"{type(error).__name__}: {error}"})
        return
    tell({"version": name})
    run: Run | None = None
    place = ""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["db"] != place:
            os.chdir(asked["folder"])
            place, run = asked["db"], opened(asked["db"])
        assert run is not None
        tell(timed(run, asked["sql"]))


def timed(run: Run, sql: str) -> dict[str, Any]:
    """One query's time and what came of it."""
    began = time.perf_counter()
    try:
        shape = run(sql)
    except Exception as error:
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "error": f"{type(error).__name__}: {error}"[:300]}
    seconds = time.perf_counter() - began
    try:
        rows, columns, cut = shape()
    except Exception as error:
        return {"seconds": seconds, "error": f"its result was not read: {type(error).__name__}: {error}"[:300]}
    return {"seconds": seconds, "rows": rows, "columns": columns, "cut": cut, "error": None}


def vanna() -> tuple[str, Callable[[str], Run]]:
    """Vanna 2: what its tool `run_sql` calls for SQLite."""
    from vanna.capabilities.sql_runner import RunSqlToolArgs
    from vanna.core.tool import ToolContext
    from vanna.core.user import User
    from vanna.integrations.local.agent_memory import DemoAgentMemory
    from vanna.integrations.sqlite import SqliteRunner

    user = User(id="bench", email="bench@example.org", group_memberships=["user"])
    context = ToolContext(user=user, conversation_id="1", request_id="1", agent_memory=DemoAgentMemory(max_items=10))
    loop = asyncio.new_event_loop()

    def opened(db: str) -> Run:
        runner = SqliteRunner(database_path=db)

        def run(sql: str) -> Callable[[], Shape]:
            frame = loop.run_until_complete(runner.run_sql(RunSqlToolArgs(sql=sql), context))
            return lambda: (len(frame), len(frame.columns), False)

        return run

    return f"vanna {version('vanna')}", opened


def langchain() -> tuple[str, Callable[[str], Run]]:
    """langchain-community: `SQLDatabase.run`, as its SQL agents do. Its result is text."""
    from langchain_community.utilities import SQLDatabase

    def opened(db: str) -> Run:
        database = SQLDatabase.from_uri(f"sqlite:///{db}")

        def run(sql: str) -> Callable[[], Shape]:
            text = database.run(sql)

            def shape() -> Shape:
                rows = ast.literal_eval(text) if text else []
                return len(rows), len(rows[0]) if rows else 0, False

            return shape

        return run

    return f"langchain-community {version('langchain-community')}", opened


def llama_index() -> tuple[str, Callable[[str], Run]]:
    """LlamaIndex: `SQLDatabase.run_sql`, as its NLSQL engines do."""
    from llama_index.core import SQLDatabase

    def opened(db: str) -> Run:
        database = SQLDatabase.from_uri(f"sqlite:///{db}")

        def run(sql: str) -> Callable[[], Shape]:
            _, info = database.run_sql(sql)
            return lambda: (len(info.get("result", ())), len(info.get("col_keys", ())), False)

        return run

    return f"llama-index-core {version('llama-index-core')}", opened


def verbal(**settings: float) -> tuple[str, Callable[[str], Run]]:
    """Ours: `Text2Sql.execute`, guard, worker process and all."""
    from verbal.apps.text2sql.app import Text2Sql

    loop = asyncio.new_event_loop()

    def opened(db: str) -> Run:
        app = Text2Sql(db, **settings)  # type: ignore[arg-type]
        task = app.task("What is asked?")

        def run(sql: str) -> Callable[[], Shape]:
            seen = loop.run_until_complete(app.execute(task, sql)).info
            if seen["error"] is not None:
                raise RuntimeError(f"{seen['error_class']}: {seen['error']}")
            return lambda: (seen["row_count"], len(seen["columns"]), seen["truncated"])

        return run

    return f"verbal {version('verbal')}", opened


def sqlsaber() -> tuple[str, Callable[[str], Run]]:
    """No adapter: it asks for Python 3.12 or later, and its API was not tried here."""
    raise NotImplementedError("no adapter: it asks for Python 3.12 or later, and its API was not tried here")


def bare() -> tuple[str, Callable[[str], Run]]:
    """The bound of the times: Python's sqlite3 on a connection held open, read-only. No guard, limit, or process."""

    def opened(db: str) -> Run:
        connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)

        def run(sql: str) -> Callable[[], Shape]:
            cursor = connection.execute(sql)
            rows = cursor.fetchall()
            return lambda: (len(rows), len(cursor.description or ()), False)

        return run

    return f"sqlite3 {sqlite3.sqlite_version}", opened


SYSTEMS: dict[str, Callable[[], tuple[str, Callable[[str], Run]]]] = {
    "vanna": vanna,
    "langchain": langchain,
    "llama_index": llama_index,
    "sqlsaber": sqlsaber,
    "verbal": verbal,
    "verbal_2s": lambda: verbal(seconds=2.0),
    "sqlite3": bare,
}

if __name__ == "__main__":
    main()
