"""Predictions that somebody made elsewhere, as the benchmarks' own evaluators take them. Nothing runs until all fit.

* text: one query a line, or `SQL<TAB>db_id` (Spider); a line without a query is an answer without one
* `.json`: a list of queries, or {"0": "SQL<TAB>----- bird -----<TAB>db_id"} (BIRD)
* `.jsonl`: {"id": "spider-dev-0", "sql": "SELECT ..."} in any order; a question without a line has no answer
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import DataError

from .questions import Question, decoded

_BIRD = "\t----- bird -----\t"


def read_predictions(path: str | Path, questions: Sequence[Question]) -> tuple[dict[str, str], list[str]]:
    """The predicted query of each question by id ("" where there is none), and notes for who reads the scores.

    Args:
        path: The file.
        questions: All questions of the split, in order: a file by lines has one for each.

    Raises:
        DataError: the file cannot be read, has another number of lines, or a line is malformed, names an unknown id,
            an id twice or the database of another question. Names the line.
    """
    path = Path(path)
    try:
        raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"no predictions file {str(path)!r}: {error.strerror}", where="--predictions") from error
    lines = [decoded(line, f"{path}, line {n}").rstrip("\r") for n, line in enumerate(raw.split(b"\n"), start=1)]
    blank = -1  # the line break at the end of the file makes no line
    while lines and not lines[-1].strip():
        lines.pop()
        blank += 1
    if not lines:
        raise DataError("the predictions file is empty", where=str(path), todo="one query a line, in order")
    if path.suffix == ".jsonl":
        return _by_id(lines, path, questions)
    if path.suffix == ".json" or lines[0].lstrip().startswith(("[", "{")):
        return _from_json("\n".join(lines), path, questions)
    return _by_line(lines, max(blank, 0), path, questions)


def _by_line(
    lines: Sequence[str], blank: int, path: Path, questions: Sequence[Question]
) -> tuple[dict[str, str], list[str]]:
    """By lines up to the last query; `blank` empty ones stand behind it."""
    numbered = list(enumerate(lines, start=1))
    filled = [(n, line) for n, line in numbered if line.strip()]
    # Spider's own files part sessions by empty lines; where every line counts they are answers without a query.
    if len(numbered) != len(questions) and len(filled) == len(questions):
        numbered = filled
    missing = len(questions) - len(numbered)
    if 0 < missing <= blank:  # the last answers are empty ones
        numbered += [(len(lines) + n, "") for n in range(1, missing + 1)]
    _same_count(len(numbered), path, questions, "lines")
    return _in_order([(f"{path}, line {n}", line) for n, line in numbered], questions), []


def _in_order(answers: Sequence[tuple[str, str]], questions: Sequence[Question]) -> dict[str, str]:
    found: dict[str, str] = {}
    for (where, answer), question in zip(answers, questions, strict=True):
        sql, tab, named = answer.rpartition(_BIRD if _BIRD in answer else "\t")
        own = question.info["db_id"]
        if tab and named.strip() != own and named.strip() in {q.info["db_id"] for q in questions}:
            what = f"the answer is about {named.strip()!r}, question {question.id!r} about {own!r}"
            raise DataError(what, where=where, todo="give the answers in the order of the questions")
        found[question.id] = _clean(sql if tab and named.strip() == own else answer)
    return found


def _from_json(text: str, path: Path, questions: Sequence[Question]) -> tuple[dict[str, str], list[str]]:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            "the file is not JSON", where=f"{path}{place}", todo="a list of queries, or one a line"
        ) from error
    if isinstance(data, dict):
        if not all(key.isdecimal() for key in data):
            return _of_entries([(f"{path}, key {k!r}", {"id": k, "sql": v}) for k, v in data.items()], questions)
        wanted = [str(i) for i in range(len(questions))]
        if unknown := [k for k in data if k not in wanted]:
            what = f"there is no question number {unknown[0]}, they go from 0 to {len(questions) - 1}"
            raise DataError(what, where=f"{path}, key {unknown[0]!r}")
        values = [(f"{path}, key {k!r}", data.get(k, "")) for k in wanted]
        return _in_order([(w, _text(v, w)) for w, v in values], questions), _without(len(questions) - len(data))
    if not isinstance(data, list):
        raise DataError(f"a list or an object is needed, found {type(data).__name__}", where=str(path))
    places = [(f"{path}, entry {n}", value) for n, value in enumerate(data, start=1)]
    if data and all(isinstance(value, dict) and "id" in value for value in data):
        return _of_entries(places, questions)
    _same_count(len(data), path, questions, "entries")
    return _in_order([(where, _text(value, where)) for where, value in places], questions), []


def _by_id(lines: Sequence[str], path: Path, questions: Sequence[Question]) -> tuple[dict[str, str], list[str]]:
    entries = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            entries.append((where, json.loads(line)))
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError("the line is not JSON", where=where, todo='{"id": "...", "sql": "..."}') from error
    return _of_entries(entries, questions)


def _of_entries(entries: Sequence[tuple[str, Any]], questions: Sequence[Question]) -> tuple[dict[str, str], list[str]]:
    known, found = {q.id for q in questions}, dict.fromkeys((q.id for q in questions), "")
    seen: dict[str, str] = {}
    for where, entry in entries:
        if not isinstance(entry, Mapping) or "id" not in entry:
            raise DataError("a line needs an id and a query", where=where, todo='{"id": "...", "sql": "..."}')
        name = str(entry["id"])
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            todo = f"did you mean {' or '.join(map(repr, near))}?" if near else f"such as {questions[0].id!r}"
            raise DataError(f"no question has the id {name!r}", where=where, todo=todo)
        if name in seen:
            raise DataError(f"the id {name!r} is used twice", where=f"{seen[name]} and {where}")
        seen[name] = where
        sql = next((entry[k] for k in ("sql", "SQL", "query", "answer") if k in entry), None)
        found[name] = _clean(_text(sql, where))
    return found, _without(len(known) - len(seen))


def _without(count: int) -> list[str]:
    told = "question has" if count == 1 else "questions have"
    return [f"{count} {told} no line in the predictions: no answer, so wrong"] if count else []


def _same_count(count: int, path: Path, questions: Sequence[Question], noun: str) -> None:
    if count != len(questions):
        place = f"{noun.removesuffix('s') if noun == 'lines' else 'entry'} {min(count, len(questions)) + 1}"
        what = f"the file has {count} {noun}, the split has {len(questions)} questions"
        todo = "give one query for each question, in order (an empty line where there is none), or lines with ids"
        raise DataError(what, where=f"{path}, {place}", todo=todo)


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"a query is a text, found {value!r:.80}", where=where, todo="put the query in quotes")
    return value


def _clean(sql: str) -> str:
    return sql.strip().rstrip(";").strip()


__all__ = ["read_predictions"]
