"""Rows of an exported folder: the same rows, trained on alike, and never all in memory."""

import gc
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from verbal.contracts import Example
from verbal.errors import ConfigError, DataError
from verbal.trainers import checkpoint
from verbal.trainers.data import export
from verbal.trainers.examples import Row
from verbal.trainers.exported import Exported, rows_from_export
from verbal.trainers.sft import SFT

from .attempt_stores import GOLD, filled, make_attempt, make_task
from .tiny_models import letter_rows, tiny_llama

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at its import, which is still to come
datasets = pytest.importorskip("datasets")

MANY = 200_000


def turns(i):
    return {
        "prompt": [{"role": "user", "content": f"question {i} of the many that do not fit into memory at once"}],
        "completion": [{"role": "assistant", "content": f"answer {i}"}],
    }


def written(folder, n):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w") as file:
        line = json.dumps(turns(12345)) + "\n"
        file.writelines(line.replace("12345", str(i)) for i in range(n))
    return folder


@pytest.mark.parametrize("parquet", [False, True])
def test_an_export_gives_the_rows_that_were_exported(tmp_path, parquet):
    task = make_task(licence="MIT")
    with filled(
        tmp_path, [task], [(make_attempt(task, 0, GOLD), 1.0), (make_attempt(task, 1, "SELECT 1"), 1.0)]
    ) as store:
        export(store, tmp_path / "rows", format="sft", parquet=parquet)
        expected = SFT().examples(store)
    found = rows_from_export(tmp_path / "rows", cache=tmp_path / "cache")
    assert list(found) == expected and isinstance(found[0], Row)
    assert (found[-1], list(found[1:])) == (expected[-1], expected[1:])
    assert checkpoint.digest(found) == checkpoint.digest(expected)
    about = {"method": "sft", "kind": "huggingface", "base": "x", "seed": 0}
    assert checkpoint.describe(found, **about) == checkpoint.describe(expected, **about)
    with pytest.raises(IndexError):
        found[len(found)]
    assert found.table.digest == rows_from_export(tmp_path / "rows", cache=tmp_path / "cache").table.digest


def anonymous():
    """MB of this process that are no mapped files."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_two_hundred_thousand_rows_are_never_in_memory_together(tmp_path):
    folder = written(tmp_path / "rows", MANY)
    found = rows_from_export(folder, cache=tmp_path / "cache")
    rows = found.columns("prompt", "completion")
    gc.collect()
    before, most, seen = anonymous(), 0.0, 0
    for i, row in enumerate(rows):
        seen += len(row["prompt"][0]["content"])
        if i % 20_000 == 0:
            most = max(most, anonymous() - before)
    assert len(found) == MANY and seen > 50 * MANY
    assert found[MANY - 1].columns == turns(MANY - 1)
    assert most < 40
    tracemalloc.start()
    held = list(found[:1000])
    each = tracemalloc.get_traced_memory()[0] / len(held)
    tracemalloc.stop()
    assert each * MANY > 120e6  # bytes of all of them as objects


def test_training_on_an_export_is_training_on_its_rows(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    from safetensors.torch import load_file

    model = tiny_llama(tmp_path / "tiny")
    examples = letter_rows(12)
    (tmp_path / "rows").mkdir()
    text = "".join(json.dumps({**e.columns, "attempts": e.attempts}) + "\n" for e in examples)
    (tmp_path / "rows" / "train.jsonl").write_text(text)
    found = rows_from_export(tmp_path / "rows", cache=tmp_path / "cache")
    assert list(found) == examples
    method = SFT(device="cpu", epochs=2, batch=4, learning_rate=1e-2)
    first, second = (method.train(r, model, str(tmp_path / n)) for r, n in ((examples, "a"), (found, "b")))
    same = ("steps", "rows", "tokens", "loss_first", "loss_last", "attempts", "rows_sha256")
    assert [first[k] for k in same] == [second[k] for k in same]
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    maps = [p for p in (tmp_path / "cache").rglob("*.arrow")]
    assert len(maps) > 1, "tokens went to the disk too"


def test_rows_of_others_have_no_papers(tmp_path):
    found = rows_from_export(written(tmp_path / "rows", 3), cache=tmp_path / "cache")
    assert list(found) == [Example(columns=turns(i), attempts=()) for i in range(3)]
    datasets.Dataset.from_list([turns(i) for i in range(3)]).save_to_disk(str(tmp_path / "saved"))
    saved = rows_from_export(tmp_path / "saved")
    assert isinstance(saved, Exported) and list(saved) == list(found)


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        rows_from_export(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no \.jsonl, no \.parquet"):
        rows_from_export(tmp_path / "empty")
    (tmp_path / "empty" / "train.jsonl").write_text("{not json\n")
    with pytest.raises(DataError, match="cannot be read"):
        rows_from_export(tmp_path / "empty", cache=tmp_path / "cache")
    pairs = written(tmp_path / "pairs", 2)
    with pytest.raises(DataError, match="not chosen, rejected"):
        rows_from_export(pairs, cache=tmp_path / "cache").columns("prompt", "chosen", "rejected")
    (pairs / "train.jsonl").write_text(
        json.dumps({**turns(0), "completion": None}) + "\n" + json.dumps(turns(1)) + "\n"
    )
    with pytest.raises(DataError, match="completion is empty in 1 of 2 rows"):
        SFT().train(rows_from_export(pairs, cache=tmp_path / "cache2"), "anything", str(tmp_path / "out"))
