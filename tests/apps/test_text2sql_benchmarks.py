"""Benchmarks as they lie on disk, and predictions files: what is read, and how what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_layouts import GOLD, bird, database, spider
from hypothesis import given
from hypothesis import strategies as st

from verbal.apps.text2sql.benchmarks import read_benchmark
from verbal.apps.text2sql.predictions import read_predictions
from verbal.apps.text2sql.questions import Question
from verbal.errors import ConfigError, DataError, UnknownName


def test_spiders_own_layout(tmp_path: Path) -> None:
    root = spider(tmp_path)
    found = read_benchmark("spider", tmp_path)
    assert (found.name, found.split, found.layout, found.files) == ("spider", "dev", "spider", (root / "dev.json",))
    assert [q.text for q in found.questions] == list(GOLD)
    first = found.questions[0]
    assert (first.id, first.sql, first.split) == ("spider-dev-0", "SELECT count(*) FROM singer", "dev")
    assert first.db == root / "database" / "music" / "music.sqlite" and first.db.is_file()
    assert (first.info["db_id"], first.info["hardness"]) == ("music", "easy")
    assert "states" not in first.info
    assert read_benchmark(str(root)).questions == found.questions == read_benchmark("spider", root).questions


def test_train_is_two_files(tmp_path: Path) -> None:
    root = spider(tmp_path)
    for name in ("train_spider", "train_others"):
        entry = {"db_id": "music", "question": f"{name}?", "query": "SELECT 1"}
        (root / f"{name}.json").write_text(json.dumps([entry]), encoding="utf-8")
    found = read_benchmark("spider", tmp_path, "train")
    assert [(q.id, q.text, q.split) for q in found.questions] == [
        ("spider-train-0", "train_spider?", "train"),
        ("spider-train-others-0", "train_others?", "train"),
    ]


def test_a_suite_is_the_own_database_first_and_no_copy_of_it(tmp_path: Path) -> None:
    spider(tmp_path)
    found = read_benchmark("spider", tmp_path, suite=True)
    (states,) = {tuple(Path(s).name for s in q.info["states"]) for q in found.questions}
    assert states == ("music.sqlite", "music_v1.sqlite")
    assert found.notes(found.questions, suite=True, synonyms=False) == []


def test_a_suite_in_the_databases_own_folder(tmp_path: Path) -> None:
    root = spider(tmp_path, suite=False)
    with pytest.raises(DataError, match="no database has several states"):
        read_benchmark("spider", tmp_path, suite=True)
    database(root / "database" / "music" / "music_v2.sqlite", [])
    states = read_benchmark("spider", tmp_path, suite=True).questions[0].info["states"]
    assert [Path(s).name for s in states] == ["music.sqlite", "music_v2.sqlite"]


def test_synonyms_fall_back_and_are_counted(tmp_path: Path) -> None:
    spider(tmp_path)
    found = read_benchmark("spider", tmp_path, synonyms=True)
    assert [q.text for q in found.questions][:3] == [
        "How many vocalists are there?", "Names of vocalists older than 35?", "Who is oldest?",
    ]  # fmt: skip
    told = "4 questions in synonym wording; 2 have none and are asked as they are"
    assert found.notes(found.questions, suite=False, synonyms=True) == [told]
    told = "1 questions have no suite (databases: music); suite accuracy leaves them out"
    assert found.notes(found.questions[:1], suite=True, synonyms=False) == [told]
    bird(tmp_path)
    with pytest.raises(DataError, match="no question has another wording"):
        read_benchmark("bird", tmp_path, synonyms=True)


def test_birds_layout(tmp_path: Path) -> None:
    root = bird(tmp_path)
    found = read_benchmark("bird", tmp_path)
    assert found.layout == "bird"
    first = found.questions[0]
    assert (first.id, first.info["hardness"], first.info["evidence"]) == ("bird-dev-7", "simple", "grown up: age >= 40")
    assert first.db == root / "dev_databases" / "music" / "music.sqlite"
    assert first.sql == "SELECT count(*) FROM singer WHERE age >= 40"


def test_json_lines_beside_one_file(tmp_path: Path) -> None:
    db = database(tmp_path / "shop.sqlite")
    lines = [{"question": f"Q{i}?", "sql": "SELECT 1", "split": s} for i, s in enumerate(("dev", "train", "dev"))]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = read_benchmark(str(tmp_path / "mine.jsonl"), db=db)
    assert [(q.id, q.db, q.info["db_id"]) for q in found.questions] == [("mine-1", db, "shop"), ("mine-3", db, "shop")]


def test_databases_are_chosen_by_name_and_must_be_there(tmp_path: Path) -> None:
    root = spider(tmp_path)
    entries = json.loads((root / "dev.json").read_text("utf-8"))
    gone = {"db_id": "gone", "question": "What?", "query": "SELECT 1"}
    (root / "dev.json").write_text(json.dumps([*entries, gone, gone]), encoding="utf-8")
    found = read_benchmark("spider", tmp_path)
    assert len(found.select(["music"])) == 4 and len(found.select(limit=2)) == 2
    with pytest.raises(DataError, match="asks the database 'gone', which is not there") as caught:
        found.select()
    assert "2 questions about 1 databases" in caught.value.what and "gone.sqlite" in caught.value.where
    with pytest.raises(UnknownName, match="unknown database 'musik'") as unknown:
        found.select(["musik"])
    assert "did you mean 'music'" in unknown.value.todo


def test_nothing_where_it_should_be(tmp_path: Path) -> None:
    spider(tmp_path)
    with pytest.raises(UnknownName, match="unknown benchmark 'spyder'") as caught:
        read_benchmark("spyder", tmp_path)
    assert "did you mean 'spider'" in caught.value.todo
    with pytest.raises(ConfigError, match="needs its data"):
        read_benchmark("spider")
    with pytest.raises(DataError, match="there is no folder"):
        read_benchmark("spider", tmp_path / "nowhere")
    with pytest.raises(DataError, match="there are no test questions"):
        read_benchmark("spider", tmp_path, "test")
    with pytest.raises(UnknownName, match="unknown split 'deb'"):
        read_benchmark("spider", tmp_path, "deb")


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        (b"", "not JSON", "line 1"),
        (b"[]", "an empty list", "dev.json"),
        (b'{"a": 1}', "a list of questions is needed, found dict", "dev.json"),
        (b"[1]", "found int", "entry 1"),
        (b'[\n{"question": "a", "db_id": "x"},\n{"question": 5}\n]', "question is a text", "entry 2"),
        (b'[{"db_id": "x"}]', "no question", "entry 1"),
        (b'[\n"caf\xe9"]', "not UTF-8", "line 2, column 5"),
        (b"[" * 100_000, "not JSON", "dev.json"),
        (
            b'[{"question": "a", "id": 1, "db_id": "x"}, {"question": "b", "id": 1, "db_id": "x"}]',
            "used twice",
            "entry 2",
        ),
    ],
)
def test_a_bad_json_file_is_named(tmp_path: Path, text: bytes, what: str, where: str) -> None:
    (tmp_path / "dev.json").write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_benchmark(str(tmp_path))
    assert what in caught.value.what and where in caught.value.where


# predictions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked() -> list[Question]:
    """Three questions about two databases."""
    return [
        Question(id=f"q{i}", text=f"Question {i}?", db=Path(f"/x/{d}.sqlite"), info={"db_id": d})
        for i, d in enumerate(("a", "a", "b"))
    ]


RIGHT = {"q0": "SELECT 0", "q1": "SELECT 1", "q2": "SELECT 2"}


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("p.txt", "SELECT 0\nSELECT 1;\nSELECT 2", RIGHT),
        ("p.sql", "SELECT 0\ta\nSELECT 1\ta\nSELECT 2\tb\n", RIGHT),
        ("p.txt", "SELECT 0\r\nSELECT 1\r\nSELECT 2\r\n", RIGHT),
        ("p.txt", "SELECT 0\n\nSELECT 1\nSELECT 2\n", RIGHT),
        ("p.txt", "SELECT 0\n\nSELECT 2\n", {**RIGHT, "q1": ""}),
        ("p.txt", "SELECT 0\nSELECT 1\n\n", {**RIGHT, "q2": ""}),
        ("p.txt", "SELECT 0\r\nSELECT 1\r\n\r\n", {**RIGHT, "q2": ""}),
        ("p.txt", "SELECT 0\n\n\n", {"q0": "SELECT 0", "q1": "", "q2": ""}),
        ("p.txt", "SELECT 0\nSELECT 1\nSELECT 2\n\n\n", RIGHT),
        ("p.txt", "SELECT 0\nSELECT\t1\nSELECT 2", {**RIGHT, "q1": "SELECT\t1"}),
        ("p.json", '["SELECT 0", "SELECT 1", "SELECT 2"]', RIGHT),
        ("p.json", '["SELECT 0", null, "SELECT 2"]', {**RIGHT, "q1": ""}),
        ("p.json", json.dumps({str(i): f"SELECT {i}\t----- bird -----\t{'aab'[i]}" for i in range(3)}), RIGHT),
        ("p.json", '{"0": "SELECT 0", "2": "SELECT 2"}', {**RIGHT, "q1": ""}),
        ("p.json", '{"q2": "SELECT 2", "q0": "SELECT 0", "q1": "SELECT 1"}', RIGHT),
        ("p.json", '[{"id": "q1", "sql": "SELECT 1"}]', {"q0": "", "q1": "SELECT 1", "q2": ""}),
        ("p.jsonl", '{"id": "q2", "sql": "SELECT 2"}\n\n{"id": "q0", "query": "SELECT 0"}', {**RIGHT, "q1": ""}),
    ],
)
def test_predictions_in_every_form(tmp_path: Path, asked: list[Question], name: str, text: str, wanted: Any) -> None:
    (tmp_path / name).write_bytes(text.encode())
    found, notes = read_predictions(tmp_path / name, asked)
    assert found == wanted
    by_id = name == "p.jsonl" or '"id"' in text or text.startswith('{"0": "SELECT 0", "2"')
    assert bool(notes) == by_id and all("no line in the predictions" in n for n in notes)


@pytest.mark.parametrize(
    ("name", "text", "what", "where"),
    [
        ("p.txt", b"", "is empty", "p.txt"),
        ("p.txt", b"\n\n", "is empty", "p.txt"),
        ("p.txt", b"SELECT 0\nSELECT 2", "the file has 2 lines, the split has 3 questions", "line 3"),
        ("p.txt", b"SELECT 0\nSELECT 2\n", "the file has 2 lines, the split has 3 questions", "line 3"),
        ("p.txt", b"SELECT 0\n\n", "the file has 1 lines, the split has 3 questions", "line 2"),
        ("p.txt", b"SELECT 0", "the file has 1 lines, the split has 3 questions", "line 2"),
        ("p.txt", b"SELECT 0\n" * 5, "the file has 5 lines", "line 4"),
        (
            "p.txt",
            b"SELECT 0\tb\nSELECT 1\ta\nSELECT 2\tb",
            "the answer is about 'b', question 'q0' about 'a'",
            "line 1",
        ),
        ("p.txt", b"SELECT 0\nSELECT '\xff'\nSELECT 2", "not UTF-8", "line 2, column 9"),
        ("p.json", b'["SELECT 0", "SELECT 1"]', "the file has 2 entries", "entry 3"),
        ("p.json", b'["SELECT 0", 5, "SELECT 2"]', "a query is a text, found 5", "entry 2"),
        ("p.json", b'{"0": "SELECT 0", "3": "SELECT 3"}', "no question number 3", "key '3'"),
        ("p.json", b'{"qq": "SELECT 0"}', "no question has the id 'qq'", "key 'qq'"),
        ("p.json", b"[", "not JSON", "line 1"),
        ("p.json", b"5", "a list or an object is needed, found int", "p.json"),
        ("p.jsonl", b'{"id": "q0", "sql": "x"}\n{"id": "q9", "sql": "x"}', "no question has the id 'q9'", "line 2"),
        ("p.jsonl", b'{"id": "q0", "sql": "x"}\n{"id": "q0", "sql": "x"}', "used twice", "line 2"),
        ("p.jsonl", b'{"id": "q0", "sql": "x"}\nSELECT 1', "not JSON", "line 2"),
        ("p.jsonl", b'{"sql": "x"}', "needs an id", "line 1"),
    ],
)
def test_bad_predictions_name_the_line(
    tmp_path: Path, asked: list[Question], name: str, text: bytes, what: str, where: str
) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_predictions(tmp_path / name, asked)
    assert what in caught.value.what and where in caught.value.where


def test_no_predictions_file(tmp_path: Path, asked: list[Question]) -> None:
    with pytest.raises(DataError, match="no predictions file"):
        read_predictions(tmp_path / "none.txt", asked)
    with pytest.raises(DataError, match="no predictions file"):
        read_predictions(tmp_path, asked)


@given(st.binary(max_size=200), st.sampled_from(["any.txt", "any.json", "any.jsonl"]))
def test_any_bytes_give_an_answer_to_each_question_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    questions = [Question(id="q0", text="?", db=Path("/x/a.sqlite"), info={"db_id": "a"})]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        found, _ = read_predictions(path, questions)
    except DataError as error:
        assert error.where
    else:
        assert set(found) == {"q0"}


def test_real_spider(real_data: Path) -> None:
    found = read_benchmark("spider", real_data, suite=True, synonyms=True)
    assert len(found.questions) == 543 and len(found.select(["pets_1"])) == 42
    assert sum("states" in q.info for q in found.questions) == 489
    assert all(q.info["hardness"] != "unknown" for q in found.questions)
