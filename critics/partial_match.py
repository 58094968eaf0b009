"""Partial match: how much of the gold result an answer has, as a reward from 0 to 10 (PaVeRL-SQL, arXiv 2509.07159).

`faithful` is the paper's reward with all it can be tricked by: extra columns and up to five surplus rows are free, rows
may be paired wrongly, any query that runs is paid. It reads cells as typed values, so the paper's numbers come out
whatever reads the tables. `hardened` closes these holes: the F1 of whole rows, over the share of the columns, in order
where the gold query orders. The functions are pure, for trainers and evaluation; the critic is `PartialMatch`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from verbal.errors import ConfigError
from verbal.rows import Row, compare, is_ordered, normal
from verbal.types import Attempt, Feedback, Task

from .sql_result import SqlResult

Mode = Literal["faithful", "hardened"]
"""Whose rules: the paper's, or those that close its holes."""

Table = Mapping[str, Any]
"""A result: `columns` (names) and `rows`."""

CUTOFF = 5
"""Rows by which the counts may differ: 5 in the paper's reward, 30 in its evaluation."""

SHORTEST = 16
"""Characters of the shortest query that the paper rewards."""

_NULL = -1e10
_Column = tuple[str, list[Any]]  # its kind (int, float or object) and its filled values


class PartialMatch(SqlResult):
    """Value in [0, 1], a tenth of the reward; `parts["reward"]` is the reward itself. None when that cannot be said."""

    name = "partial_match"
    oracle: ClassVar[bool] = True

    def __init__(
        self, *, mode: Mode = "faithful", cutoff: int = CUTOFF, shortest: int = SHORTEST, show_gold: bool = False
    ) -> None:
        """Opens nothing.

        Args:
            mode: The paper's rules, or the ones that cannot be tricked in the known ways.
            cutoff: Rows by which the counts may differ in `faithful`.
            shortest: Characters that a query needs in `faithful`.
            show_gold: Whether a wrong answer is told the gold query; never that of a test task.

        Raises:
            ConfigError: no such mode.
        """
        super().__init__(show_gold=show_gold)
        if mode not in ("faithful", "hardened"):
            raise ConfigError(f"partial_match has no mode {mode!r}", todo="use faithful or hardened")
        self._mode: Mode = mode
        self._cutoff, self._shortest = cutoff, shortest

    def _scored(
        self, task: Task, attempt: Attempt, answer: dict[str, Any] | None, gold: dict[str, Any], text: str
    ) -> Feedback:
        ordered = is_ordered(task.gold or "")
        found = reward(
            attempt.answer,
            answer,
            [gold],
            mode=self._mode,
            ordered=ordered,
            cutoff=self._cutoff,
            shortest=self._shortest,
        )
        said = compare(answer, gold, ordered=ordered) if answer is not None else None
        parts = {**(said.parts if said else {"columns": 0.0, "rows": 0.0}), "reward": found}
        return self._known(task, attempt, found / 10, said.text if said else text, parts)


def query_of(reply: str) -> str:
    """The last fenced SQL block of a reply, "" without one: the paper's only check of the form."""
    blocks = re.findall(r"```sql\s*\n?(.*?)```", reply, re.DOTALL | re.IGNORECASE)
    return blocks[-1].strip() if blocks else ""


def reward(
    sql: str,
    answer: Table | None,
    golds: Sequence[Table],
    *,
    mode: Mode = "faithful",
    ordered: bool = False,
    cutoff: int = CUTOFF,
    shortest: int = SHORTEST,
) -> float:
    """R: 0 for no result, 0.5 for a result with nothing right, else 10 times the share that is right.

    Args:
        sql: The query (`query_of` takes it from a reply).
        answer: Its result; None when it gave none (an error, a timeout, a statement that is no query).
        golds: Right results; the one that fits best counts.
        mode: Whose rules.
        ordered: Whether the gold query orders; `hardened` asks for it.
        cutoff: See `CUTOFF`.
        shortest: See `SHORTEST`.
    """
    if answer is None or answer.get("error") or (mode == "faithful" and len(sql) < shortest):
        return 0.0
    if mode == "faithful":
        share = max((faithful(answer, gold, cutoff) for gold in golds), default=0.0)
    else:
        share = max((hardened(answer, gold, ordered) for gold in golds), default=0.0)
    return max(10 * share, 0.5)


# the paper's rules ------------------------------------------------------------------------------------------------


def faithful(answer: Table, gold: Table, cutoff: int = CUTOFF) -> float:
    """The share of the gold table that the answer has, by the paper's rules. Range: [0, 1].

    acc = m k / (rows of gold * columns of gold): m rows entered the comparison, k gold columns were found in it.
    """
    ours, right = answer["rows"], gold["rows"]
    width, wanted = len(answer["columns"]), len(gold["columns"])
    if len(set(answer["columns"])) < width or not wanted:
        return 0.0  # two columns of one name end the paper's comparison
    if not right:
        return min(width, wanted) / wanted if not ours else 0.0
    if abs(len(ours) - len(right)) > cutoff or not ours:
        return 0.0
    mine, theirs = _columns(ours, width), _columns(right, wanted)
    compared = len(right)
    if len(ours) > len(right):
        mine = _kept(mine, _key(theirs), len(right))
    elif len(ours) < len(right):
        compared = len(ours)
        theirs = _partners(theirs, _key(mine))
    return compared * _found(mine, theirs) / (len(right) * wanted) if mine and theirs else 0.0


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[_Column]:
    return [_filled([row[i] for row in rows]) for i in range(width)]


def _filled(column: list[Any]) -> _Column:
    """The column's kind and its values without nulls: a number far away, or the word none."""
    known = [v for v in column if v is not None]
    if all(isinstance(v, int | float) for v in known):
        whole = len(known) == len(column) and all(isinstance(v, int) for v in known)
        return ("int" if whole else "float", [_NULL if v is None else v for v in column])
    if len(known) == len(column):
        return ("object", [v if isinstance(v, str) else str(v) for v in column])
    try:
        return ("float", [_NULL if v is None else float(v) for v in column])
    except (TypeError, ValueError):
        return ("object", ["none" if v is None else str(v) for v in column])


def _key(columns: Sequence[_Column]) -> _Column:
    """The column by which rows are found again: the first of text, else of floats, else of ints."""
    return next(column for kind in ("object", "float", "int") for column in columns if column[0] == kind)


def _kept(columns: list[_Column], key: _Column, count: int) -> list[_Column]:
    """Our rows whose key is one of the gold table's, when these are as many as the gold table's; else nothing."""
    wanted = set(key[1])
    for kind, values in columns:
        if kind == key[0]:
            places = [i for i, v in enumerate(values) if v in wanted]
            if len(places) == count:
                return [(k, [v[i] for i in places]) for k, v in columns]
    return []


def _partners(columns: list[_Column], key: _Column) -> list[_Column]:
    """For each of our rows one gold row with its key, when all have one; else nothing."""
    for kind, values in columns:
        if kind == key[0]:
            free: dict[Any, list[int]] = defaultdict(list)
            for place in range(len(values) - 1, -1, -1):
                free[values[place]].append(place)
            places = sorted(free[v].pop() for v in key[1] if free[v])
            if len(places) == len(key[1]):
                return [(k, [v[i] for i in places]) for k, v in columns]
    return []


def _found(mine: Sequence[_Column], theirs: Sequence[_Column]) -> int:
    """How many gold columns have one of ours of their own with the same values, in whatever order."""
    free = list(mine)
    found = 0
    for column in theirs:
        place = next((i for i, ours in enumerate(free) if _alike(ours, column)), None)
        if place is not None:
            del free[place]
            found += 1
    return found


def _alike(ours: _Column, right: _Column) -> bool:
    first, second = _as_ints(ours), _as_ints(right)
    if first[0] == "object" or second[0] == "object":
        return ours[0] == right[0] == "object" and sorted(ours[1]) == sorted(right[1])
    if first[0] == second[0] == "int":
        return sorted(first[1]) == sorted(second[1])
    pairs = zip(sorted(first[1]), sorted(second[1]), strict=True)
    return all(a == b or abs(round(a, 3) - round(b, 3)) <= 0.005 for a, b in pairs)


def _as_ints(column: _Column) -> _Column:
    if column[0] != "object":
        return column
    try:
        return "int", [int(v) for v in column[1]]
    except ValueError:
        return column


# the hardened rules -----------------------------------------------------------------------------------------------


def hardened(answer: Table, gold: Table, ordered: bool = False) -> float:
    """The share of the gold table that the answer has, with nothing for free. Range: [0, 1], and 1 for a match only.

    F1 of the rows cut to the j columns that fit, times j / max(columns of both); the j that gives most counts. Where
    the order counts, only rows that follow each other as in the gold table do.
    """
    if compare(dict(answer), dict(gold), ordered=ordered).match:
        return 1.0
    ours, right = normal(answer["rows"]), normal(gold["rows"])
    if not ours or not right:
        return 0.0
    most = max(len(answer["columns"]), len(gold["columns"]))
    pairs = _fitting(ours, right)
    best = 0.0
    for count in range(1, len(pairs) + 1):
        mine = [tuple([row[i] for i, _ in pairs[:count]]) for row in ours]
        theirs = [tuple([row[j] for _, j in pairs[:count]]) for row in right]
        common = _in_order(mine, theirs) if ordered else sum((Counter(mine) & Counter(theirs)).values())
        best = max(best, 2 * common / (len(ours) + len(right)) * count / most)
    return min(best, math.nextafter(1.0, 0.0))


def _fitting(ours: list[Row], right: list[Row]) -> list[tuple[int, int]]:
    """Pairs (our column, gold column) that share values, those that share most first; each column once."""
    mine, theirs = [Counter(c) for c in zip(*ours, strict=True)], [Counter(c) for c in zip(*right, strict=True)]
    shared = [(-sum((a & b).values()), abs(i - j), i, j) for i, a in enumerate(mine) for j, b in enumerate(theirs)]
    pairs: list[tuple[int, int]] = []
    for overlap, _, i, j in sorted(shared):
        if overlap < 0 and all(i != p and j != q for p, q in pairs):
            pairs.append((i, j))
    return pairs


def _in_order(ours: list[Row], right: list[Row]) -> int:
    """Length of the longest run (gaps allowed) of gold rows that ours has in the same order."""
    places: dict[Row, list[int]] = defaultdict(list)
    for place in range(len(right) - 1, -1, -1):
        places[right[place]].append(place)
    tails: list[int] = []
    for row in ours:
        if places[row]:
            place = places[row].pop()  # of equal rows, the first of ours goes with the first of the gold table
            at = bisect_left(tails, place)
            tails[at : at + 1] = [place]
    return len(tails)


__all__ = ["PartialMatch", "faithful", "hardened", "query_of", "reward"]
