"""Exports: what is written, that `datasets` reads it, and what is refused."""

import json
import os

import pytest

from verbal.errors import ConfigError, StoreError, TrainError
from verbal.store import Store
from verbal.trainers.data import export
from verbal.trainers.rows import FORMATS, Selection, build
from verbal.types import Attempt, Feedback, Message, Step, Task

from .attempt_stores import judged, make_attempt, make_task, trials


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


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A store that feeds every format: a criticised and a reflected retry, a labelled span, turns, a scope run."""
    path = tmp_path_factory.mktemp("everything")
    with trials(path, [0.0, 1.0]) as store:
        task = store.tasks()["t1"].replace(info={"licence": "CC0-1.0"})
        store.put_tasks([task])
        first = store.attempt("r/main/t1/0.0")
        assert first is not None
        store.put_feedback([judged(first, 0.0, "clauses", scope="span:0:6")])
        second = store.attempt("r/main/t1/1.0")
        assert second is not None
        for value, turn in ((0.0, first), (1.0, second)):
            store.put_feedback([judged(turn, value, scope="step:0", parts={"goal": value})])
        ids = {kind: [f"{kind}{i}" for i in range(4)] for kind in ("inside", "near", "outside")}
        for name in (n for names in ids.values() for n in names):
            request = make_task(name, gold=None)
            store.put_tasks([request])
            for arm, hints in (("scope-1", None), ("scope-2", {"r1": "be loud"})):
                answer = "SELECT 'LOUD'" if hints and "inside" in name else "SELECT 'quiet'"
                made = make_attempt(request, 0, answer, id=f"{arm}/{name}", run="s", arm=arm, hints=hints)
                recorded = made.steps[0].replace(token_ids=(1, 2), logprobs=(-0.5, -0.25))
                store.put_attempt(made.replace(steps=(recorded,)), [judged(made, float(bool(hints)))])
        store.start_run("s", {}, {"scope": {"memory": "m", "item": "r1"}, "requests": ids})
        yield store


FORMATS_READ = {
    "kto": ["prompt", "completion", "label"],
    "reward": ["prompt", "completion", "reward"],
    "prompt": ["prompt"],
    "spans": ["prompt", "completion", "spans"],
    "privileged": ["prompt", "completion", "privileged_context"],
    "refine": ["prompt", "completion", "first", "critique", "reward", "first_reward"],
    "retrospective": ["prompt", "completion", "before", "after", "reward"],
    "demonstrations": ["prompt", "completion", "failed"],
    "utterances": ["prompt", "completion", "reward"],
    "scope": [
        "prompt",
        "chosen",
        "rejected",
        "near_prompt",
        "near_completion",
        "outside_prompt",
        "outside_completion",
        "held_out",
    ],
}


@pytest.mark.parametrize("parquet", [False, True])
def test_datasets_reads_every_format_back(everything, tmp_path, monkeypatch, parquet):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert {"sft", "preference", *FORMATS_READ} == set(FORMATS)
    for format, columns in FORMATS_READ.items():
        out = tmp_path / format
        figures = export(everything, out, format=format, parquet=parquet, critic="sql_result", successes=1.0)
        written = build(everything, format, Selection(critic="sql_result", successes=1.0)).rows
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
        assert loaded.column_names[: len(columns)] == columns and len(loaded) == figures["rows"] == len(written)
        for row, back in zip(written, loaded, strict=True):
            assert {c: back[c] for c in columns} == dict(row.columns), format
            assert back["mask"] == row.record()["mask"] and back["off_policy"] == row.trace.off_policy
        card = (out / "README.md").read_text(encoding="utf-8")
        assert all(f"| `{c}` |" in card for c in loaded.column_names)
    rows = datasets.load_dataset(str(tmp_path / "reward"), cache_dir=str(tmp_path / "cache"))["train"]
    assert {(tuple(r["token_ids"] or ()), tuple(r["logprobs"] or ())) for r in rows} >= {((1, 2), (-0.5, -0.25))}
    assert "CC0-1.0" in (tmp_path / "refine" / "README.md").read_text(encoding="utf-8")
