"""Verdicts where the rows are: does a query give what the gold query gives, on every state of a database.

A request has groups of predictions on one gold query; only verdicts travel back. Gold results are kept (in memory,
and those that took long in a file), connections stay open, cheap states come first, and a prediction leaves at its
first difference. The locks are those of every query here (`sqlite.py`): the connection can only read, a deadline ends
a query, cells and rows have limits; a thread ends the process when a query does not heed its deadline.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import OrderedDict
from typing import Any

from verbal.rows import OUTAGES, Row, compare, is_ordered, same

from . import test_suite
from .files import Failure, File, Files, Gold, is_unchanged
from .gold_cache import GoldCache, content_mark
from .sqlite import VALUE_BYTES, classify

GOLD_BYTES = 96 * 2**20
"""Memory for gold results, about."""

SLOW_GOLD = ", and the gold query itself takes about as long as a query may"
"""Why an answer that was stopped is not wrong."""

SLOW = 0.01
"""Seconds a gold query takes to be worth a row in the file."""

_CHUNK_CELLS = 1024
_GRACE = 0.25
_WORDS_ROWS = 2_000

Verdict = list[Any]
"""[right (true, false or null), text, states compared, index of the state that failed or -1, columns, rows]."""


class Matcher:
    """The states and gold results that this process knows."""

    def __init__(self, watched: bool = True) -> None:
        """`watched`: a thread ends the process at a query that does not end; False in tests."""
        self._files = Files(self._expired, self._let_go)
        self._recent: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._bytes = 0
        self._cache: GoldCache | None = None
        self._cache_path = ""
        self._slow = SLOW
        self._deadline = 0.0
        if watched:
            threading.Thread(target=self._watch, daemon=True).start()

    def match(self, request: dict[str, Any]) -> dict[str, Any]:
        """`{"verdicts": [one list of verdicts a group]}`.

        Args:
            request: `suites` (lists of paths, the task's own database first), `groups` of {gold, suite (its number),
                predictions}, `rules` (verbal, test_suite or test_suite_distinct), `words`, `seconds` a query,
                `gold_seconds` a gold query, `rows` and `bytes` of a result, `wait` for a lock, `cache` (a path or
                null), `slow` (seconds from which a gold result is kept in it).
        """
        if request.get("cache") != self._cache_path:
            self._cache_path = request.get("cache") or ""
            self._cache = GoldCache(self._cache_path) if self._cache_path else None
        self._slow = request.get("slow", SLOW)
        known: dict[str, os.stat_result | None] = {}
        verdicts = [
            self._group(group, request["suites"][group["suite"]], request, known) for group in request["groups"]
        ]
        return {"verdicts": verdicts}

    def close(self) -> None:
        """Lets go of all files."""
        self._files.close()
        if self._cache is not None:
            self._cache.close()

    def _group(
        self, group: dict[str, Any], paths: list[str], request: dict[str, Any], known: dict[str, os.stat_result | None]
    ) -> list[Verdict]:
        rules, official = request["rules"], request["rules"] != "verbal"
        gold_sql, asked = group["gold"], group["predictions"]
        ordered = test_suite.is_ordered(gold_sql) if official else is_ordered(gold_sql)
        if official:
            kept = rules == "test_suite_distinct"
            gold_sql, asked = test_suite.prepared(gold_sql, kept), [test_suite.prepared(p, kept) for p in asked]
        found: list[Verdict | None] = [None] * len(asked)
        spent, gold_spent = [0.0] * len(asked), 0.0
        for done, place in enumerate(_cheap_first(paths, known), 1):
            alive = [i for i, verdict in enumerate(found) if verdict is None]
            if not alive:
                break
            try:
                file = self._files.get(paths[place], known.get(paths[place]), request["wait"])
                gold = self._gold(file, gold_sql, request)
            except Failure as failure:
                why = f"the gold query does not run on {os.path.basename(paths[place])}: {failure.what}"
                for i in alive:
                    found[i] = [None, why, done, place, 0.0, 0.0]
                break
            gold_spent += gold.seconds
            alive = [i for i in alive if not same_text(asked[i], gold_sql)]  # right wherever the gold query runs
            allowed = max(4 * request["seconds"], 10 * gold_spent)
            for i in alive:
                started = time.perf_counter()
                said = self._judge(file, asked[i], gold, ordered, official, request)
                spent[i] += time.perf_counter() - started
                if said is None and spent[i] > allowed:
                    said = [False, f"stopped after {allowed:g} s over the states", 0.0, 0.0]
                if said is not None:
                    found[i] = [said[0], said[1], done, place, *said[2:]]
        return [verdict or [True, "", len(paths), -1, 1.0, 1.0] for verdict in found]

    def _judge(
        self, file: File, sql: str, gold: Gold, ordered: bool, official: bool, request: dict[str, Any]
    ) -> list[Any] | None:
        """None when the prediction is right on this state; else [right, text, columns, rows]."""
        try:
            cursor, rows = self._run(file, sql, request["seconds"], len(gold.rows) + 1, request["bytes"])
            self._deadline = 0.0  # comparing is our own time
            columns = [column[0] for column in cursor.description]
            if official:
                right = test_suite.equal(rows, gold.rows, ordered=ordered)
            else:
                right = len(columns) == len(gold.columns) and same(rows, gold.rows, ordered=ordered)
            if right:
                return None
            if not request["words"]:
                return [False, "", 0.0, 0.0]
            if len(rows) > len(gold.rows):
                self._deadline = time.monotonic() + request["seconds"]
                rows += _fetched(cursor, _WORDS_ROWS, request["bytes"])
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError, Failure) as error:
            failure = _failed(error, request["seconds"])
            slow = failure.kind == "timeout" and is_slow(gold.seconds, request["seconds"])
            unknown = slow or failure.kind in OUTAGES
            return [None if unknown else False, f"the query fails: {failure.what}{SLOW_GOLD * slow}", 0.0, 0.0]
        finally:
            self._deadline = 0.0
        said = compare(
            {"columns": columns, "rows": rows}, {"columns": gold.columns, "rows": gold.rows}, ordered=ordered
        )
        text = "the result differs by the rules of the test suite" if said.match else said.text
        return [False, text, said.parts["columns"], said.parts["rows"]]

    # the gold query -----------------------------------------------------------------------------------------------

    def _gold(self, file: File, sql: str, request: dict[str, Any]) -> Gold:
        """Its result on a file.

        Raises:
            Failure: it has none, or a limit cuts it.
        """
        gold = file.gold.get(sql)
        if gold is None:
            gold = self._kept_gold(file, sql)
            gold = gold or self._run_gold(file, sql, request)
            self._remember(file, sql, gold)
        else:
            self._recent.move_to_end((file.path, sql))
        return gold

    def _remember(self, file: File, sql: str, gold: Gold) -> None:
        file.gold[sql] = gold
        self._recent[(file.path, sql)] = gold.size
        self._bytes += gold.size
        while self._bytes > GOLD_BYTES and len(self._recent) > 1:
            (path, old), size = self._recent.popitem(last=False)
            self._bytes -= size
            self._files.drop_gold(path, old)

    def _let_go(self, file: File) -> None:
        for sql in file.gold:
            self._bytes -= self._recent.pop((file.path, sql), 0)

    def _run_gold(self, file: File, sql: str, request: dict[str, Any]) -> Gold:
        started = time.perf_counter()
        limits = request["gold_seconds"], request["rows"] + 1, request["bytes"]
        try:
            try:
                cursor, rows = self._run(file, sql, *limits)
            except sqlite3.Error as error:
                if classify(error) != "too_big":
                    raise
                file.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
                cursor, rows = self._run(file, sql, *limits)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            raise _failed(error, request["gold_seconds"]) from error
        finally:
            self._deadline = 0.0
        if len(rows) > request["rows"]:
            raise Failure("it gives more rows than are fetched", "too_big")
        columns = [column[0] for column in cursor.description]
        gold = Gold(rows, columns, time.perf_counter() - started, _size(rows))
        if self._cache is not None and gold.seconds >= self._slow and (key := self._key(file, sql)):
            self._cache.put(key, columns, rows, gold.seconds)
        return gold

    def _kept_gold(self, file: File, sql: str) -> Gold | None:
        if self._cache is None or not self._cache.filled() or not (key := self._key(file, sql)):
            return None
        kept = self._cache.get(key)
        return None if kept is None else Gold(kept[1], kept[0], kept[2], _size(kept[1]))

    def _key(self, file: File, sql: str) -> str:
        """The key of a gold query in the cache; "" when the file is no longer what was opened."""
        if not file.mark:
            try:
                mark = content_mark(file.path, file.stat)
                file.mark = mark if is_unchanged(file) else ""
            except OSError:
                return ""
        return GoldCache.key(file.mark, sql) if file.mark else ""

    # running ------------------------------------------------------------------------------------------------------

    def _run(self, file: File, sql: str, seconds: float, most: int, size: int) -> tuple[sqlite3.Cursor, list[Row]]:
        """The query's cursor and its first `most` rows; the deadline goes on until somebody takes it away."""
        self._deadline = time.monotonic() + seconds
        try:
            cursor = file.connection.execute(sql)
            if cursor.description is None:
                raise Failure("only a query that gives rows is run", "not_a_query")
            return cursor, _fetched(cursor, most, size)
        except sqlite3.OperationalError as error:
            if file.connection.text_factory is not str or "decode" not in str(error):
                raise
        file.connection.text_factory = _text  # slower, and reads what is no UTF-8
        cursor = file.connection.execute(sql)
        return cursor, _fetched(cursor, most, size)

    def _expired(self) -> bool:
        return time.monotonic() > self._deadline

    def _watch(self) -> None:
        while True:
            time.sleep(0.05)
            deadline = self._deadline
            if deadline and time.monotonic() > deadline + _GRACE:
                os._exit(75)


def same_text(sql: str, gold: str) -> bool:
    """Whether two queries are the same but for what stands around them: then their results need no comparison."""
    return sql.strip().rstrip(";").rstrip() == gold.strip().rstrip(";").rstrip()


def is_slow(gold_seconds: float, limit: float) -> bool:
    """Whether a gold query takes so long that an answer which is stopped at `limit` seconds may yet be right."""
    return gold_seconds > limit / 2


def _fetched(cursor: sqlite3.Cursor, most: int, size: int) -> list[Row]:
    """The next rows, `most` at most.

    Raises:
        Failure: they are larger than `size` bytes.
    """
    chunk = max(1, _CHUNK_CELLS // len(cursor.description))
    rows: list[Row] = cursor.fetchmany(min(chunk, most))
    if len(rows) < chunk:
        return rows
    taken, checked = 0, 0
    while len(rows) < most:
        taken, checked = taken + _text_size(rows[checked:]) + 8 * len(rows[0]) * (len(rows) - checked), len(rows)
        if taken > size:
            raise Failure("its rows are larger than what is fetched", "too_big")
        more = cursor.fetchmany(min(chunk, most - len(rows)))
        rows += more
        if len(more) < chunk:
            break
    return rows


def _size(rows: list[Row]) -> int:
    """Bytes of a result in memory, about: the text of some rows stands for that of all."""
    if not rows:
        return 200
    some = rows[:: 1 + len(rows) // 64]
    return 200 + (56 + 36 * len(rows[0])) * len(rows) + _text_size(some) * len(rows) // len(some)


def _text_size(rows: list[Row]) -> int:
    return sum([len(v) for row in rows for v in row if v.__class__ is str or v.__class__ is bytes])


def _cheap_first(paths: list[str], known: dict[str, os.stat_result | None]) -> list[int]:
    """The places of the states, small files first; one that is not there comes first of all."""
    if len(paths) == 1:
        return [0]
    sizes = []
    for path in paths:
        if path not in known:
            try:
                known[path] = os.stat(path)
            except (OSError, ValueError):
                known[path] = None
        found = known[path]
        sizes.append(found.st_size if found else -1)
    return sorted(range(len(paths)), key=lambda place: (sizes[place], place))


def _failed(error: BaseException, seconds: float) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        return Failure("out of memory: the query needs more than it may use", "too_big")
    if isinstance(error, UnicodeError):
        return Failure("syntax error: the query is not valid text", "syntax")
    kind = classify(error)
    return Failure(f"stopped after {seconds:g} s" if kind == "timeout" else str(error), kind)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_matcher: list[Matcher] = []


def match(request: dict[str, Any], engine: Any = None) -> dict[str, Any]:
    """The reply to a `match` request; what this process learned serves the next (`Matcher.match`)."""
    if not _matcher:
        _matcher.append(Matcher())
    return _matcher[0].match(request)


__all__ = ["SLOW_GOLD", "Matcher", "Verdict", "is_slow", "match", "same_text"]
