"""The command line on good and on bad input: exit codes, words, JSON, nothing paid for before the check."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from verbal.cli import main
from verbal.store import Store

REPLY = "```sql\nSELECT name FROM city WHERE id = 1\n```"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a database, a questions file and a scripted model; `verbal(*arguments)` runs there."""
    monkeypatch.chdir(tmp_path)
    db = sqlite3.connect("towns.sqlite")
    db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO city VALUES (?, ?)", [(1, "Vienna"), (2, "Linz"), (3, "Graz")])
    db.commit()
    db.close()
    lines = [
        {"id": f"q{i}", "question": f"Name of city {i}?", "sql": f"SELECT name FROM city WHERE id = {i}", "split": s}
        for i, s in ((1, "train"), (2, "train"), (3, "dev"))
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [
        {"match": "Role: reflector", "reply": "HINT: linz means id = 2"},
        {"match": "Role: critic", "reply": "VERDICT: wrong"},
        {"match": "Role: solver", "reply": REPLY},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def verbal(monkeypatch, capsys):
    """Runs a command in this process; gives exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["verbal", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


LEARN = ("learn", "--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "scripted:m.jsonl", "--store", "v.db")
EXACT = ("--set", 'memory.name="exact"', "--set", "memory.quarantine=false")


def test_learn_then_look_at_everything(world, verbal):
    code, out, err = verbal(*LEARN, *EXACT, "--set", "loop.verify=false", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["solved"] == 1 and made["tasks"] == 2
    assert [x["text"] for x in made["lessons"]] == ["linz means id = 2"]
    code, out, _ = verbal("traces", "--store", "v.db", "--json")
    assert json.loads(out)[0]["status"] == "done"
    code, out, _ = verbal("traces", "run", "--store", "v.db", "--json")
    attempts = json.loads(out)
    assert len(attempts) == 3
    code, out, _ = verbal("traces", "run", "--attempt", attempts[0]["id"], "--store", "v.db")
    assert "SELECT name" in out and "sql_result" in out
    code, out, _ = verbal("memory", "list", "run", "--store", "v.db")
    assert "linz means id = 2" in out
    code, out, _ = verbal("memory", "search", "run", "where is linz", "--index", "exact", "--store", "v.db", "--json")
    assert [x["text"] for x in json.loads(out)] == ["linz means id = 2"]
    code, out, _ = verbal("memory", "history", "run", "--store", "v.db", "--json")
    assert "ADD" in {x["op"] for x in json.loads(out)}


def test_eval_scores_the_arms_and_ask_answers(world, verbal):
    assert verbal(*LEARN, *EXACT, "--json")[0] == 0
    arguments = ("--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "scripted:m.jsonl", "--store", "v.db")
    code, out, err = verbal("eval", *arguments, *EXACT, "--memory", "run", "--seeds", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    arms = {a["name"]: a for a in found["arms"]}
    assert set(arms) == {"base", "retry", "shuffled", "memory"} and arms["retry"]["tasks"] == 1
    assert {d["name"]: d["mean"] for d in found["differences"]}["memory - retry-only"] == 0.0
    assert not found["claim_holds"] and "from fewer than 3 seeds" in found["claim"]
    code, out, err = verbal("ask", "towns.sqlite", "Name of city 1?", "--model", "scripted:m.jsonl", "--store", "v.db")
    assert code == 0 and "Vienna" in out, err


def test_dry_run_calls_nothing(world, verbal):
    code, out, _ = verbal(*LEARN, *EXACT, "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["tasks"] == 2 and plan["calls_at_most"] > 0
    assert not Store(world / "v.db").runs()


def test_export_writes_rows(world, verbal):
    verbal(*LEARN, *EXACT, "--json")
    code, out, err = verbal("export", "rows", "--format", "sft", "--run", "run", "--store", "v.db", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"] >= 1 and (world / "rows" / "README.md").is_file()


def bad(path, text="", binary=b""):
    path.write_bytes(binary or text.encode())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("learn", "--db", "nowhere.sqlite", "--model", "scripted:m.jsonl"), 2, "nowhere.sqlite"),
        (("learn", "--db", "text.sqlite", "--questions", "q.jsonl", "--model", "scripted:m.jsonl"), 2, "text.sqlite"),
        (("learn", "--db", "empty.sqlite", "--questions", "q.jsonl", "--model", "scripted:m.jsonl"), 2, "empty.sqlite"),
        (("learn", "--db", "towns.sqlite", "--questions", "broken.jsonl", "--model", "scripted:m.jsonl"), 2, "line 2"),
        (("learn", "--db", "towns.sqlite", "--questions", "gold.jsonl", "--model", "scripted:m.jsonl"), 2, "nope"),
        (("learn", "--questions", "q.jsonl", "--model", "scripted:m.jsonl"), 2, "--db"),
        ((*LEARN, "--set", "loop.roundz=3"), 2, "loop.rounds"),
        ((*LEARN, "--set", "nonsense"), 2, "loop.rounds=3"),
        ((*LEARN, "--set", 'critics.names=["sql_rezult"]', "--set", 'critics.verdict="sql_rezult"'), 2, "sql_result"),
        ((*LEARN, "--recipe", "reflekt"), 2, "reflect"),
        ((*LEARN, "--split", "test"), 2, "no task of split 'test'"),
        (("learn", "--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "what is this"), 2, "PROVIDER/MODEL"),
        (("learn", "--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "scripted:no.jsonl"), 2, "no.jsonl"),
        (("learn", "--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "openai/gpt-x"), 2, "OPENAI_API_KEY"),
        (
            ("learn", "--db", "towns.sqlite", "--questions", "q.jsonl", "--model", "http/m@http://127.0.0.1:9/v1"),
            1,
            "9",
        ),
        (("eval", "--memory", "nobody", "--model", "scripted:m.jsonl"), 2, "nobody"),
        (("ask", "towns.sqlite", " ", "--model", "scripted:m.jsonl"), 2, "empty"),
        (("traces",), 2, "no store"),
        (("memory", "list", "x"), 2, "no store"),
        (("export", "rows"), 2, "no store"),
        (("check", "apps/nothing"), 2, "text2sql"),
    ],
)
def test_bad_input_is_explained_and_costs_nothing(world, verbal, monkeypatch, arguments, code, words):
    for key in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(key, raising=False)
    bad(world / "text.sqlite", "this is not a database, it is a poem about one, long enough to have a header" * 20)
    sqlite3.connect(world / "empty.sqlite").close()
    bad(world / "broken.jsonl", '{"question": "a", "sql": "SELECT 1", "split": "train"}\n{"question": oops}\n')
    bad(world / "gold.jsonl", '{"question": "a", "sql": "SELECT nope FROM city", "split": "train"}\n')
    if "--store" not in arguments and arguments[0] not in ("check",):
        arguments = (*arguments, "--store", "new.db")
    found, out, err = verbal(*arguments)
    assert found == code, (out, err)
    seen = "".join((out + err).replace("│", " ").split())
    assert "".join(words.split()) in seen, err
    assert "Traceback" not in err and "Traceback" not in out
    for name in ("v.db", "new.db"):
        if (world / name).exists():
            assert Store(world / name).attempts() == []


def test_errors_are_json_with_json(world, verbal):
    code, out, err = verbal("traces", "--store", "none.db", "--json")
    assert code == 2 and out == "" and json.loads(err)["todo"]


def test_a_known_run_needs_resume(world, verbal):
    assert verbal(*LEARN, *EXACT, "--json")[0] == 0
    code, _, err = verbal(*LEARN, *EXACT)
    assert code == 2 and "--resume" in err
    code, out, _ = verbal(*LEARN, *EXACT, "--resume", "--json")
    assert code == 0 and json.loads(out)["solved"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no query here",
        "```sql\nSELECT 1",
        "```sql\nDROP TABLE city\n```",
        "```sql\nSELECT 1; SELECT 2\n```",
        "\udce9\x00",
    ],
)
def test_a_malformed_reply_is_a_recorded_attempt(world, verbal, reply):
    before = (world / "towns.sqlite").read_bytes()
    (world / "m.jsonl").write_text(json.dumps({"reply": reply}))
    code, out, err = verbal(*LEARN, *EXACT, "--json")
    assert code == 0, err
    attempts = Store(world / "v.db").attempts("run")
    assert len(attempts) == 4 and json.loads(out)["solved"] == 0
    assert (world / "towns.sqlite").read_bytes() == before


def test_of_two_blocks_the_last_counts(world, verbal):
    two = "```sql\nSELECT 1\n```\nno, rather\n" + REPLY
    (world / "m.jsonl").write_text(json.dumps({"reply": two}))
    verbal(*LEARN, *EXACT, "--json")
    assert Store(world / "v.db").attempts("run")[0].answer.startswith("SELECT name")


def test_text_that_is_not_utf8_is_an_answer_not_a_crash(world, verbal):
    db = sqlite3.connect("towns.sqlite")
    db.execute("INSERT INTO city VALUES (4, CAST(X'ff41' AS TEXT))")
    db.commit()
    db.close()
    (world / "m.jsonl").write_text(json.dumps({"reply": "```sql\nSELECT name FROM city\n```"}))
    code, out, err = verbal(
        "ask", "towns.sqlite", "All names?", "--model", "scripted:m.jsonl", "--store", "v.db", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["row_count"] == 4


def test_a_store_that_cannot_be_written_is_explained(world, verbal):
    (world / "file").write_text("x")
    code, _, err = verbal(*LEARN[:-2], "--store", "file/v.db", *EXACT)
    assert code == 1 and "--store" in err
    assert "Traceback" not in err


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(world):
    (world / "m.jsonl").write_text(json.dumps({"reply": REPLY, "delay": 1.5}))
    command = [sys.executable, "-m", "verbal.cli", *LEARN, *EXACT, "--set", "loop.batch=1"]
    process = subprocess.Popen(
        command, cwd=world, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ}
    )
    deadline = time.monotonic() + 30
    while not ((world / "v.db").exists() and Store(world / "v.db").attempts("run")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert b"--resume" in err and b"Traceback" not in err
    with Store(world / "v.db") as store:
        assert store.runs()[0]["status"] == "stopped"
        kept = len(store.attempts("run"))
    (world / "m.jsonl").write_text(json.dumps({"reply": REPLY}))
    done = subprocess.run([*command, "--resume", "--json"], cwd=world, capture_output=True, check=True)
    assert json.loads(done.stdout)["tasks"] == 2
    with Store(world / "v.db") as store:
        ids = [a.id for a in store.attempts("run")]
        assert len(ids) == len(set(ids)) >= kept


def test_doctor_reports(world, verbal):
    code, out, _ = verbal("doctor", "--model", "scripted:m.jsonl", "--json")
    found = json.loads(out)["findings"]
    assert code == 0 and any("python" in json.dumps(f).lower() for f in found)
    code, out, _ = verbal("doctor", "--model", "scripted:absent.jsonl", "--json")
    assert code == 1 and "absent.jsonl" in out
