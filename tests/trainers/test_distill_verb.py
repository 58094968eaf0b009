"""The demo's whole story, small, and `verbal distill`, before and after. Slow: torch and TRL are loaded."""

from __future__ import annotations

import json
import sqlite3

import pytest

import verbal.demo
from verbal.demo import run_demo
from verbal.distill import Asked, run_distill
from verbal.errors import BudgetError, ConfigError, StoreError
from verbal.learning import run_learn
from verbal.store import Store
from verbal.types import Task
from verbal.verbs import resolve_checkpoint, run_export
from verbal.versions import make_policy, refuse_known

pytestmark = pytest.mark.slow


def test_the_story_is_told_and_memory_beats_the_controls(tmp_path, monkeypatch):
    monkeypatch.setitem(verbal.demo.FIT, "epochs", 1)  # that the weights learn is shown elsewhere
    results = run_demo(tmp_path / "d", model="embedded", seeds=1, tasks=16, max_cost=None, quiet=True, train=130)
    arms = {a["name"]: a for a in results["arms"]}
    assert set(arms) == {"base", "retry", "shuffled", "memory", "distilled", "distilled+memory"}
    assert all(0 <= a["low"] <= a["mean"] <= a["high"] <= 1 for a in arms.values())
    assert arms["memory"]["mean"] > arms["retry"]["mean"], results["claim"]
    assert not results["claim_holds"] and "fewer than 3 seeds" in results["claim"], "one seed claims nothing"
    assert results["lessons"] and results["usage"]["solver"]["calls"] > 0
    page = (tmp_path / "d" / "index.html").read_text(encoding="utf-8")
    assert results["lessons"][0]["id"] in page
    assert json.loads((tmp_path / "d" / "results.json").read_text())["seeds"] == [0]
    with Store(tmp_path / "d" / "demo.db") as store:
        sealed = {t.id for t in store.tasks().values() if t.split == "test"}
        assert not sealed
        assert resolve_checkpoint(store, "checkpoint:demo-0").startswith("embedded:")


@pytest.fixture
def learned(tmp_path):
    """A store in which a scripted model answered two questions rightly."""
    db = sqlite3.connect(tmp_path / "towns.sqlite")
    db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, country TEXT)")
    db.executemany("INSERT INTO city VALUES (?, ?, ?)", [(1, "Vienna", "A"), (2, "Linz", "A"), (3, "Bern", "S")])
    db.commit()
    db.close()
    asks = [
        {"id": "q1", "question": "How many cities are there?", "sql": "SELECT COUNT(*) FROM city", "split": "train"},
        {"id": "q2", "question": "Show the names of all cities.", "sql": "SELECT name FROM city", "split": "train"},
        {"id": "q3", "question": "Show the country of all cities.", "sql": "SELECT country FROM city", "split": "dev"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, asks)))
    rows = [
        {"match": "How many cities", "reply": "```sql\nSELECT COUNT(*) FROM city\n```"},
        {"reply": "```sql\nSELECT name FROM city\n```"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    app = {"db": str(tmp_path / "towns.sqlite"), "questions": str(tmp_path / "q.jsonl")}
    options = {"recipe": "reflect", "model": f"scripted:{tmp_path / 'm.jsonl'}", "app": app}
    options["overrides"] = ['memory.name="exact"']
    run_learn(
        options, tmp_path / "v.db", run="run", memory="run", split="train", limit=None, seeds=1,
        evaluate_on="", resume=False, dry_run=False, quiet=True,
    )  # fmt: skip
    return tmp_path / "v.db"


def distilled(store, **given):
    """`verbal distill` with the SFT method on a few steps."""
    options = {"recipe": "", "model": "", "app": {}, "overrides": given.pop("sets", SHORT)}
    return run_distill(options, store, runs=["run"], quiet=True, asked=Asked(**given))


SHORT = ["trainer.options.epochs=1", "trainer.options.rehearsal=0.0"]


def test_distill_scores_before_and_after_and_registers(learned, tmp_path):
    made = distilled(learned, name="mine", out=tmp_path / "w")
    assert made["rows"] == 2 and 0 <= made["before"] <= 1 and 0 <= made["after"] <= 1
    assert made["recipe"]["app"]["options"]["db"].endswith("towns.sqlite"), "the run's own database"
    papers = json.loads((tmp_path / "w/verbal.json").read_text())
    assert papers["recipe"]["trainer"]["options"]["epochs"] == 1 and papers["curve"][0]["loss"] > 0
    assert "Rejection-sampled fine-tuning" in (tmp_path / "w/README.md").read_text()
    assert (tmp_path / "w/curves.svg").is_file() == (len(papers["curve"]) > 1)
    with Store(learned) as opened:
        assert resolve_checkpoint(opened, "checkpoint:mine").endswith("w")
        mine, trained = make_policy(opened, "checkpoint:mine"), [a.task for a in opened.attempts("run")]
        with pytest.raises(ConfigError, match=f"trained on {len(set(trained))} of the"):
            refuse_known(opened, mine, list(opened.tasks(trained).values()))
        refuse_known(opened, mine, [Task(id="never seen", kind="text2sql", messages=())])
        paid = opened.usage("distill-mine")["trainer"]
        assert paid.seconds > 0 and paid.cost == 0.0, "this machine's own seconds cost nothing, but are counted"


def test_training_stops_before_the_step_that_could_cost_too_much_and_goes_on(learned, tmp_path):
    long = ["trainer.options.epochs=6", "trainer.options.rehearsal=0.0", "trainer.options.save_steps=1"]
    given = {"name": "dear", "out": tmp_path / "w", "split": "", "gpu_price": 3600.0}
    with pytest.raises(BudgetError, match=r"limit of \$0\.0010"):
        distilled(learned, sets=[*long, "limits.max_cost=0.001"], **given)
    with Store(learned) as opened:
        spent = opened.usage("distill-dear")["trainer"].cost
        assert spent > 0 and "dear" not in [c["name"] for c in opened.checkpoints()]
    made = distilled(learned, sets=[*long, "limits.max_cost=1000"], **given, resume=True)
    assert made["resumed"] and made["usage"]["trainer"]["cost"] > spent
    whole = distilled(learned, sets=long, name="whole", out=tmp_path / "v", split="")
    assert made["papers"]["weights"] == whole["papers"]["weights"], "as if it had never stopped"


def test_a_full_disk_registers_nothing(learned, tmp_path):
    short, out = ["trainer.options.epochs=6", "trainer.options.rehearsal=0.0"], tmp_path / "w"
    with pytest.raises(BudgetError):
        distilled(learned, sets=[*short, "limits.max_minutes=0"], name="full", out=out, split="")
    (out / "config.json").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"cannot be written.*No space left"):
        distilled(learned, sets=short, name="full", out=out, split="", resume=True)
    with Store(learned) as opened:
        assert opened.checkpoints() == []
    (out / "config.json").unlink()
    assert distilled(learned, sets=short, name="full", out=out, split="", resume=True)["resumed"]


def test_an_export_gives_the_same_rows_as_its_run(learned, tmp_path):
    run_export(str(learned), tmp_path / "rows", "sft", "run", False, quiet=True)
    options = {"recipe": "", "model": "", "app": {}, "overrides": []}
    made = run_distill(options, learned, quiet=True, asked=Asked(export=tmp_path / "rows", dry_run=True))
    plain = run_distill(options, learned, runs=["run"], quiet=True, asked=Asked(dry_run=True))
    assert made["rows_sha256"] == plain["rows_sha256"] and made["rows"] == plain["rows"] == 2
