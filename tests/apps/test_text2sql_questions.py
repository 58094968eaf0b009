"""Questions files: what is read, and how what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.questions import read_questions
from verbal.errors import DataError

DB = Path("/somewhere/shop.sqlite")


def write(folder: Path, *lines: Any, name: str = "q.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_all_columns(tmp_path: Path) -> None:
    full = {
        "question": " How many? ",
        "sql": "SELECT 1",
        "id": 7,
        "split": "test",
        "db": "x/y.sqlite",
        "terms": ["a b"],
    }
    path = write(tmp_path, {"question": "Only this"}, "", full)
    first, second = read_questions(path, DB)
    assert (first.id, first.text, first.sql, first.db) == ("q-1", "Only this", None, DB)
    assert (second.id, second.text, second.sql, second.split) == ("7", "How many?", "SELECT 1", "test")
    assert second.db == (tmp_path / "x/y.sqlite").resolve()
    assert second.terms == ("a b",)
    assert second.where == f"{path}, line 3"


def test_spiders_columns(tmp_path: Path) -> None:
    line = {
        "id": "d-0",
        "db_id": "concert",
        "question": "How?",
        "question_syn": None,
        "query": "SELECT 1",
        "gold_rows": 1,
    }
    (question,) = read_questions(write(tmp_path, line, name="dev.jsonl"))
    assert question.db == (tmp_path / "database/concert/concert.sqlite").resolve()
    assert (question.split, question.sql) == ("dev", "SELECT 1")
    (there,) = read_questions(write(tmp_path, line, name="dev.jsonl"), tmp_path / "elsewhere")
    assert there.db == (tmp_path / "elsewhere/concert/concert.sqlite").resolve()


def test_splits_come_from_line_file_or_text(tmp_path: Path) -> None:
    lines = [{"question": f"Question {n}?"} for n in range(400)]
    found = [question.split for question in read_questions(write(tmp_path, *lines), DB)]
    assert found == [question.split for question in read_questions(write(tmp_path, *lines, name="other.jsonl"), DB)]
    assert 0.5 < found.count("train") / 400 < 0.7
    assert 0.13 < found.count("dev") / 400 < 0.27
    (named,) = read_questions(write(tmp_path, {"question": "a", "split": "dev"}, name="test.jsonl"), DB)
    assert named.split == "dev"


@pytest.mark.parametrize(
    ("line", "what", "where"),
    [
        ('{"question": "a",}', "not JSON", "line 2, column 18"),
        ("{'question': 'a'}", "not JSON", "line 2, column 2"),
        ("how many?", "not JSON", "line 2, column 1"),
        ("[1, 2]", "found list", "line 2, column 1"),
        ("[" * 100_000, "nested too deeply", "line 2, column 1"),
        ({"sql": "SELECT 1"}, "no question", "line 2"),
        ({"question": "  "}, "no question", "line 2"),
        ({"question": 5}, "question is a text, found 5", "line 2"),
        ({"question": "a", "sql": ["SELECT 1"]}, "sql is a text", "line 2"),
        ({"question": "a", "split": "training"}, "unknown split 'training'", "line 2"),
        ({"question": "a", "sqll": "SELECT 1"}, "unknown key 'sqll'", "line 2"),
        ({"question": "a", "id": [1]}, "id is a text or a number", "line 2"),
        ({"question": "a", "id": "one"}, "'one' is used twice", "line 1 and line 2"),
        ({"question": "a", "terms": "x"}, "terms is a list", "line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, what: str, where: str) -> None:
    path = write(tmp_path, {"question": "good", "id": "one"}, line)
    with pytest.raises(DataError) as caught:
        read_questions(path, DB)
    assert what in caught.value.what
    assert where in caught.value.where and str(path) in caught.value.where


def test_text_that_is_not_utf8_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"question": "ok é"}\n{"question": "é caf'.encode() + b'\xe9"}\n')
    with pytest.raises(DataError, match="not UTF-8 text: byte 0xe9") as caught:
        read_questions(path, DB)
    assert caught.value.where == f"{path}, line 2, column 20"


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "a"}\r\n{"question": "b"}\r\n')
    assert [question.text for question in read_questions(path, DB)] == ["a", "b"]


def test_no_file_no_question_no_database(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no questions file"):
        read_questions(tmp_path / "none.jsonl", DB)
    with pytest.raises(DataError, match="no questions file"):
        read_questions(tmp_path, DB)
    with pytest.raises(DataError, match="holds no question"):
        read_questions(write(tmp_path, "", ""), DB)
    with pytest.raises(DataError, match="names no database"):
        read_questions(write(tmp_path, {"question": "a"}))


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_give_questions_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    try:
        assert read_questions(path, DB)
    except DataError as error:
        assert error.where or error.what


@pytest.mark.parametrize(("name", "count"), [("train", 6647), ("dev", 543)])
def test_spider(real_data: Path, name: str, count: int) -> None:
    questions = read_questions(real_data / "spider" / f"{name}.jsonl")
    assert len(questions) == count
    assert all(question.db.is_file() and question.sql and question.split == name for question in questions)
