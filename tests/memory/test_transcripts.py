"""Candidates from transcripts: what a trajectory or a conversation shows, and what it does not."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import DataError
from verbal.memory.transcripts import candidates, read_transcripts


def trajectory(*turns, **fields):
    actions, observations, rewards = map(list, zip(*turns, strict=True))
    history = {"actions": actions, "observations": observations, "rewards": rewards}
    return {"task_id": 7, "query": "How many singers are there?", "db_id": "concert", "turn_history": history, **fields}


def test_a_name_that_was_wrong_and_the_one_that_was_right():
    record = trajectory(
        ("SELECT COUNT(*) FROM singers", "Error executing query: Table 'concert.singers' doesn't exist", 0.0),
        ("SHOW TABLES", "[('singer',)]", 0.0),
        ("execute[SELECT COUNT(*) FROM singer]", "[(6,)]", 0),
        ("submit", "[(6,)]", 1.0),
    )
    (found,) = candidates(record, "file/7")
    assert found.text == "in concert there is no table singers; read singer"
    assert (found.status, found.attempts, found.task) == ("quarantined", ("file/7",), "concert/7")
    assert found.boundary == "another database than concert"


def test_a_small_change_that_made_it_right():
    record = trajectory(
        ("SELECT name FROM singer ORDER BY age", "[('a',)]", 0.2),
        ("SELECT DISTINCT name FROM singer ORDER BY age", "[('b',)]", 1.0),
    )
    (found,) = candidates(record, "x")
    assert found.kind == "case" and "add 'DISTINCT'" in found.text and found.when == "How many singers are there?"


@pytest.mark.parametrize(
    "turns",
    [
        [("SELECT 1", "[]", 1.0)],
        [("SELECT 1 FROM a", "[]", 0.0), ("SELECT 2 FROM b", "[]", 0.5)],
        [("SELECT * FROM a", "[]", 0.0), ("SELECT x FROM a", "[]", 1.0)],
        [("SELECT x FROM a", "[]", 0.0), ("select  x from A;", "[]", 1.0)],
        [("DROP TABLE a", "Error", 0.0), ("SELECT x FROM a", "[]", 1.0)],
    ],
)
def test_nothing_is_made_of_what_shows_nothing(turns):
    assert list(candidates(trajectory(*turns), "x")) == []


def test_what_a_person_corrects():
    messages = [
        {"role": "user", "content": "How many active customers are there?"},
        {"role": "assistant", "content": "SELECT COUNT(*) FROM customers"},
        {"role": "user", "content": [{"type": "text", "text": "No, active customers are those with status 'A'."}]},
        {"role": "assistant", "content": "SELECT COUNT(*) FROM customers WHERE status = 'A'"},
        {"role": "user", "content": "Thanks! From now on never show deleted rows."},
        {"role": "user", "content": "Why is it always slow?"},
    ]
    found = list(candidates({"messages": messages}, "chat/1"))
    assert [(r.text, r.when) for r in found] == [
        ("active customers are those with status 'A'.", "How many active customers are there?"),
        ("From now on never show deleted rows.", "How many active customers are there?"),
    ]
    assert list(candidates({"messages": messages[:2]}, "chat/1")) == []
    assert list(candidates({"messages": messages[2:3]}, "chat/1")) == [], "there was no answer to correct"


def test_a_tool_call_that_was_mended():
    messages = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "run", "input": {"sql": "SELEC 1"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "is_error": True, "content": "syntax"}]},
        {"role": "assistant", "tool_calls": [{"id": "2", "function": {"name": "run", "arguments": "SELECT 1"}}]},
        {"role": "tool", "tool_call_id": "2", "content": "1"},
    ]  # fmt: skip
    (found,) = candidates({"messages": messages}, "chat")
    assert "failed with" in found.text and "syntax" in found.text and found.when == "calling run"


def test_files_of_transcripts(tmp_path):
    chat = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "No, I meant rows of 2024."},
    ]
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, chat)))
    (tmp_path / "two.jsonl").write_text(json.dumps({"messages": chat}) + "\n{\n" + json.dumps({"messages": 3}))
    taken = read_transcripts(tmp_path)
    (found,) = taken.items
    assert found.text == "I meant rows of 2024." and found.attempts == ("one/0", "two/1")
    assert [left.place for left in taken.left] == ["two/2", "two/3"]
    (tmp_path / "three.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="no transcript"):
        read_transcripts(tmp_path / "three.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "tool_calls", "turn_history", "actions", "rewards", "type", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_transcript_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("t") / "f.json"
    file.write_text(json.dumps(data))
    with contextlib.suppress(DataError):
        assert all(r.status == "quarantined" for r in read_transcripts(file).items)


def test_real_trajectories(real_data):
    folder = real_data / "intercode"
    if not folder.is_dir():
        pytest.skip("skipped: no data")
    found = read_transcripts(folder)
    assert 100 <= len(found.items) <= 300 and found.left == []
    assert all(r.attempts and r.task and r.status == "quarantined" for r in found.items)
    texts = [r.text for r in found.items]
    assert "in singer there is no table singers; read singer" in texts and len(set(texts)) > 100
