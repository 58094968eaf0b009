"""Exports: what is written, that `datasets` reads it, and what is refused."""

import json
import os

import pytest

from verbal.errors import ConfigError, StoreError, TrainError
from verbal.store import Store
from verbal.trainers.data import export
from verbal.types import Attempt, Feedback, Message, Step, Task


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "verbal.db") as store:
        for i in range(4):
            messages = (Message(role="user", content=f"## Question\nWie viele Straßen {i}?"),)
            task = Task(id=f"t{i}", kind="text2sql", messages=messages, split="test" if i == 3 else "train")
            store.put_tasks([task])
            for j, value in enumerate((1.0, 0.0)):
                step = Step(author="policy", text=f"```sql\nSELECT {j}\n```")
                attempt = Attempt(
                    id=f"a{i}{j}", run="r", task=task.id, answer=f"SELECT {j}", steps=(step,), model="m/x"
                )
                store.put_attempt(attempt, [Feedback(attempt=attempt.id, critic="judge", value=value)])
        yield store


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(
    ("format", "columns"), [("sft", ["prompt", "completion"]), ("preference", ["prompt", "chosen", "rejected"])]
)
def test_datasets_opens_what_is_written(store, tmp_path, monkeypatch, parquet, format, columns):
    datasets = pytest.importorskip("datasets")
    figures = export(store, tmp_path / "out", format=format, run="r", parquet=parquet)
    assert (figures["rows"], figures["tasks"], figures["critic"], figures["oracle_rows"]) == (3, 3, "judge", 0)
    assert figures["filtered"]["split test"] == 2
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.column_names[: len(columns)] == columns
    assert loaded[0]["prompt"] == [{"role": "user", "content": "## Question\nWie viele Straßen 0?"}]
    assert loaded[0][columns[1]] == [{"role": "assistant", "content": "```sql\nSELECT 0\n```"}]
    assert loaded[0]["attempts"] == ["a00"] if format == "sft" else ["a00", "a01"]
    assert loaded[0]["oracle"] is False


def test_the_card_says_what_is_in_it(store, tmp_path):
    figures = export(store, tmp_path / "out", format="sft", arms=["main"], per_task=2)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for text in (
        "| rows | 3 (3 sampled) |",
        "`judge` >= 1",
        "| split test | 2 |",
        "m/x",
        "| arms | main |",
        "train.jsonl",
    ):
        assert text in card
    lines = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["task"] for line in lines] == ["t0", "t1", "t2"] and figures["rows"] == 3


def test_an_export_is_replaced_but_nothing_else_is(store, tmp_path):
    out = tmp_path / "out"
    export(store, out, format="sft")
    before = (out / "train.jsonl").read_bytes()
    export(store, out, format="sft")
    assert (out / "train.jsonl").read_bytes() == before
    (out / "README.md").write_text("my notes")
    with pytest.raises(ConfigError, match="not written by verbal"):
        export(store, out, format="sft")
    with pytest.raises(ConfigError, match="is a file"):
        export(store, tmp_path / "verbal.db", format="sft")
    assert sorted(os.listdir(out)) == ["README.md", "train.jsonl"]


def test_nothing_is_written_when_there_is_nothing_to_train_on(store, tmp_path):
    with pytest.raises(TrainError, match="no attempt reached 2"):
        export(store, tmp_path / "out", format="sft", minimum=2.0)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_is_explained(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.jsonl.part").mkdir()
    with pytest.raises((StoreError, OSError), match="the export failed"):
        export(store, tmp_path / "out", format="sft")
