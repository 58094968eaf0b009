"""Proposals, sealed tests and gold on the command line: killed for real, counted once, kept where it belongs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import verbal.testing
from verbal.store import Store

TINY = verbal.testing.__file__
WORDS = [f"word{i:02}" for i in range(24)]
CODES = {w: str(100 + i) for i, w in enumerate(WORDS)}

MODEL = """
import json, os
from verbal.cache import fingerprint_of, requests_of
from verbal.testing import ScriptedModel, tiny_reply

class Noted(ScriptedModel):
    def __init__(self):
        super().__init__(tiny_reply, latency=float(os.environ.get("LATENCY", "0")))

    async def generate(self, messages, n, sampling):
        replies = await super().generate(messages, n, sampling)
        (request,) = requests_of(self.name, fingerprint_of(self), messages, n, sampling)
        with open("calls", "a") as file:
            file.write(request.key + "\\n")
        return replies
"""


@pytest.fixture
def verbal(tmp_path, monkeypatch, command):
    """Runs a command on the tiny app in this process; gives exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    codes = ", ".join(f'{w} = "{c}"' for w, c in CODES.items())
    (tmp_path / "tiny.toml").write_text(
        f'[app]\nname = "{TINY}:TinyApp"\noptions = {{codes = {{{codes}}}}}\n[model]\nname = "./m.py:Noted"\n'
        f'[critics]\nnames = ["{TINY}:TinyCritic"]\nverdict = "{TINY}:TinyCritic"\n'
        '[memory]\nname = "exact"\nquarantine = false\nwithhold = 0.0\n[loop]\nbatch = 8\n'
    )

    return command


HERE = ("--store", "v.db", "--recipe", "tiny.toml", "--json")
LEARN = ("learn", *HERE, "--eval", "", "--seeds", "1")
PROMOTE = ("promote", "--memory", "run", "--guard", "none", *HERE)


def test_a_gate_that_was_killed_goes_on_under_its_number(verbal, tmp_path):
    assert verbal(*LEARN)[0] == 0
    (tmp_path / "calls").unlink()
    command = [sys.executable, "-m", "verbal.cli", *PROMOTE]
    process = subprocess.Popen(command, env={**os.environ, "LATENCY": "0.05"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        (tmp_path / "calls").exists() and len((tmp_path / "calls").read_text().split()) >= 12
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Store("v.db") as store:
        assert [(p["id"], p["status"]) for p in store.proposals()] == [("gate-1", "declared")]
        assert store.run("gate-1")["status"] == "running" and store.versions() == []
        recorded = {key for key, _ in store.used_replies("gate-1")}
        under_way = len(store.open_calls("gate-1"))
    before = (tmp_path / "calls").read_text().split()
    code, made, err = verbal(*PROMOTE)
    assert code == 0, err
    after = (tmp_path / "calls").read_text().split()[len(before) :]
    assert made["verdict"] == "accept" and made["id"] == "gate-1" and made["version"] == 2
    assert not recorded & set(after), "what was recorded is not asked again"
    assert len(set(before) & set(after)) <= under_way
    with Store("v.db") as store:
        assert [(p["id"], p["status"]) for p in store.proposals()] == [("gate-1", "accept")]
        assert [v["action"] for v in store.versions()] == ["start", "promote"]
        assert store.proposal("gate-1")["spec"]["dev_uses"] == 1


def uses():
    with Store("v.db") as store:
        return store.sealed_uses()


def test_the_sealed_tasks_answer_once_for_each_version(verbal):
    assert verbal(*LEARN)[0] == 0
    code, _, err = verbal("eval", *HERE, "--split", "test")
    assert code == 2 and "sealed" in err and uses() == []
    code, _, err = verbal("eval", *HERE, "--test")
    assert code == 2 and "nothing is adopted" in err and uses() == []
    code, _, err = verbal("promote", "--memory", "run", "--guard", "none", *HERE, "--split", "test")
    assert code == 2 and "sealed" in err
    with Store("v.db") as store:
        assert store.proposals() == []
    assert verbal(*PROMOTE)[0] == 0
    code, found, err = verbal("eval", *HERE, "--test", "--seeds", "1")
    assert code == 0, err
    (use,) = uses()
    assert (use["version"], use["run"], use["status"], use["mean"]) == (2, "test-2", "done", 1.0)
    assert use["tasks"] == len(WORDS) and {a["name"]: a["mean"] for a in found["arms"]}["memory"] == 1.0
    for again in ((), ("--run", "other"), ("--seeds", "3")):
        code, _, err = verbal("eval", *HERE, "--test", *again)
        assert code == 2 and "tested on 24 of these 24 sealed tasks already" in err and "verbal report test-2" in err
    assert len(uses()) == 1
    assert verbal("rollback", "--store", "v.db", "--json")[0] == 0
    assert verbal("eval", *HERE, "--test", "--seeds", "1")[0] == 0
    assert [(u["version"], u["mean"]) for u in uses()] == [(2, 1.0), (1, 0.0)], "version 3 is version 1 again"


def test_a_part_of_the_sealed_tasks_is_not_another_look(verbal):
    assert verbal(*LEARN)[0] == verbal(*PROMOTE)[0] == 0
    assert verbal("eval", *HERE, "--test", "--seeds", "1", "--limit", "20")[0] == 0
    assert verbal("eval", *HERE, "--test", "--seeds", "1", "--limit", "21", "--run", "other")[0] == 2


def test_a_sealed_test_that_was_interrupted_goes_on(verbal, tmp_path):
    assert verbal(*LEARN)[0] == verbal(*PROMOTE)[0] == 0
    (tmp_path / "calls").unlink()
    code, _, err = verbal("eval", *HERE, "--test", "--seeds", "1", "--max-calls", "20")
    assert code == 1 and "limit of 20 calls" in err
    assert [(u["status"], u["run"]) for u in uses()] == [("running", "test-2")]
    code, _, err = verbal("eval", *HERE, "--test", "--seeds", "1", "--run", "other")
    assert code == 2 and "already" in err
    code, _, err = verbal("eval", *HERE, "--test", "--seeds", "1")
    assert code == 0, err
    assert [(u["status"], u["run"], u["mean"]) for u in uses()] == [("done", "test-2", 1.0)]
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) == len(set(calls))


CANARY = "canary7f3"


def places(path, word):
    """Tables of a store, and columns, in which a word stands."""
    db = sqlite3.connect(path)
    names = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = set()
    for name in names:
        cursor = db.execute(f"SELECT * FROM {name}")
        heads = [c[0] for c in cursor.description]
        found |= {(name, h) for row in cursor for h, v in zip(heads, row, strict=True) if word in str(v)}
    db.close()
    return found


def towns(tmp_path):
    """A database, 16 questions of each split with the canary in the gold of test, and a model that needs one lesson."""
    db = sqlite3.connect("towns.sqlite")
    db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO city VALUES (?, ?)", [(i, f"Town {i}") for i in range(1, 60)])
    db.commit()
    db.close()
    lines = [
        {
            "id": f"q{i}",
            "question": f"Name of city {i}?",
            "sql": f"SELECT name FROM city WHERE id = {i}" + (f" AND '{CANARY}' = '{CANARY}'" if s == "test" else ""),
            "split": s,
        }
        for at, s in enumerate(("train", "dev", "test"))
        for i in range(1 + 16 * at, 17 + 16 * at)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    right = "```sql\nSELECT name FROM city WHERE id = {}\n```"
    rows = [{"match": "Role: reflector", "reply": "HINT: the name of a city is found by its id"}]
    rows += [{"match": "Role: critic", "reply": "VERDICT: wrong"}]
    # With the lesson every question is answered rightly, without it none.
    rows += [
        {"match": f"(?s)Role: solver.*found by its id.*Name of city {i}\\?", "reply": right.format(i)}
        for i in range(1, 49)
    ]
    rows += [{"match": r"Role: solver(?!(?s:.*)found by its id)", "reply": right.format(0)}]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_test_gold_never_leaves_the_table_of_tasks(verbal, tmp_path):
    """Learning, scoring, promoting, the sealed test itself, exports, pages: only the critic reads gold."""
    towns(tmp_path)
    here = ("--db", "towns.sqlite", "--questions", "q.jsonl", "--store", "v.db", "--json")
    exact = ("--set", 'memory.name="exact"', "--set", "memory.quarantine=false", "--set", "loop.batch=8")
    code, made, err = verbal("learn", *here, *exact, "--model", "scripted:s.jsonl", "--seeds", "1")
    assert code == 0, err
    assert made["lessons"], made
    promote = ("promote", "--memory", "run", "--incumbent", "scripted:s.jsonl", "--guard", "none", *here, *exact)
    code, made, err = verbal(*promote)
    assert code == 0, (made, err)
    assert places("v.db", CANARY) == set(), "nobody has read a test task yet"
    code, made, err = verbal("eval", "--test", *here, *exact, "--seeds", "1")
    assert code == 0, err
    assert {a["name"]: a["mean"] for a in made["arms"]}["memory"] == 1.0
    assert places("v.db", CANARY) == {("tasks", "record")}
    with Store("v.db") as store:
        shown = [m.content for a in store.attempts() for s in a.steps for m in s.prompt]
        assert len(shown) > 100 and not any(CANARY in text for text in shown)
        assert not any(CANARY in op.to_json() for name in store.memories() for _, op in store.ops(name))
    for form in ("sft", "preference"):
        code, _, err = verbal("export", f"rows-{form}", "--format", form, "--store", "v.db", "--json")
        assert code == 0, err
        assert not any(CANARY in f.read_text() for f in Path(f"rows-{form}").rglob("*") if f.is_file())
    code, made, err = verbal("report", "run", "--store", "v.db", "--json")
    assert code == 0 and CANARY not in Path(made["page"]).read_text()
