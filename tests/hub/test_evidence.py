"""The verbs of evidence on the command line: JSON, exit codes, pages, and what may be claimed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

import verbal.testing
from verbal.evidence import adopted, decisions, sealed
from verbal.run_results import run_results
from verbal.store import Store

TINY = verbal.testing.__file__
CODES = {f"word{i:02}": str(100 + i) for i in range(24)}
MODEL = """
from pathlib import Path
from verbal.testing import ScriptedModel, tiny_reply

class Model(ScriptedModel):
    def __init__(self):
        if Path("closed").exists():
            raise AssertionError("a model was opened")
        super().__init__(tiny_reply)

class Knows(ScriptedModel):
    '''Knows every code by itself.'''

    def __init__(self):
        super().__init__(lambda messages, *_: answer(messages[-1].content), name="knows")

class Twin(Knows):
    '''Another model under the name of the first.'''

    def __init__(self):
        super().__init__()
        self.name = "scripted/function"

def answer(text):
    return f"The code is {100 + int(text.split('word')[-1][:2])}."
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What the first `LEARN` of this file made and said; each test that begins with it takes it from here."""
    return {"folder": tmp_path_factory.mktemp("learned") / "made"}


@pytest.fixture
def verbal(tmp_path, monkeypatch, command, learned):
    """Runs a command on the tiny app in this process; gives exit code, output (JSON when asked for), errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    codes = ", ".join(f'{w} = "{c}"' for w, c in CODES.items())
    (tmp_path / "tiny.toml").write_text(
        f'name = "tiny"\n[app]\nname = "{TINY}:TinyApp"\noptions = {{codes = {{{codes}}}}}\n'
        f'[model]\nname = "./m.py:Model"\n'
        f'[critics]\nnames = ["{TINY}:TinyCritic"]\nverdict = "{TINY}:TinyCritic"\n'
        '[memory]\nname = "exact"\nquarantine = false\nwithhold = 0.0\n[loop]\nbatch = 8\n'
    )

    def run(*arguments):
        if arguments != LEARN or Path("v.db").exists():
            return command(*arguments)
        if "said" not in learned:
            learned["said"] = command(*arguments)
            shutil.copytree(tmp_path, learned["folder"])
        shutil.copytree(learned["folder"], tmp_path, dirs_exist_ok=True)
        return learned["said"]

    return run


HERE = ("--store", "v.db", "--recipe", "tiny.toml")
STORE = ("--store", "v.db")
LEARN = ("learn", *HERE, "--eval", "", "--seeds", "1", "--json")
PROMOTE = ("promote", *HERE, "--guard", "none")


def versions():
    with Store("v.db") as store:
        return adopted(store)


def flat(text):
    """Words of a terminal's table or panel."""
    return " ".join(text.replace("│", " ").split())


# promote and rollback -------------------------------------------------------------------------------------------------


def test_promote_exits_0_only_when_accepted(verbal):
    assert verbal(*LEARN)[0] == 0
    code, made, err = verbal(*PROMOTE, "--memory", "run", "--seeds", "1", "--json")
    assert code == 0, err
    assert (made["verdict"], made["version"], made["id"]) == ("accept", 2, "gate-1")
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert [(v["number"], v["action"], v["active"]) for v in versions()] == [
        (1, "start", False), (2, "promote", True),
    ]  # fmt: skip
    code, made, _ = verbal(*PROMOTE, "--memory", "none", "--seeds", "1", "--json")
    assert (code, made["verdict"], made["version"]) == (1, "reject", None) and "does harm" in made["reason"]
    code, made, _ = verbal(*PROMOTE, "--memory", "none", "--seeds", "1", "--limit", "2", "--json")
    assert (code, made["verdict"]) == (1, "need_more") and "give more tasks" in made["reason"]
    assert len(versions()) == 2


def test_promote_says_in_words_what_it_did(verbal):
    verbal(*LEARN)
    code, out, _ = verbal(*PROMOTE, "--memory", "run", "--seeds", "1")
    said = flat(out)
    assert code == 0
    for words in ("candidate: ./m.py:Model, memory run at version", "serving: ./m.py:Model, no memory", "24 tasks"):
        assert words in said, said
    assert "version 2 serves from now on; no guard set was given" in said and "it is better: +100.0" in said
    code, out, _ = verbal(*PROMOTE, "--memory", "none", "--seeds", "1")
    assert code == 1 and "what serves is left as it is" in flat(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--memory", "nobody"), "no memory 'nobody'"),
        (("--memory", "run@99"), "no version '99'"),
        (("--memory", "none"), "serves already"),
        (("--memory", "run", "--split", "test"), "sealed"),
        (("--memory", "run", "--guard", "app"), "no guard tasks of its own"),
        (("--memory", "run", "--guard", "nofile.jsonl"), "no file 'nofile.jsonl'"),
        (("--memory", "run", "--prompts", "nowhere"), "no prompts in 'nowhere'"),
        (("--memory", "run", "--model", "checkpoint:nobody"), "nobody"),
        (("--memory", "run", "--margin", "200"), "margin 2 (-1 to 1)"),
    ],
)
def test_a_wrong_proposal_costs_nothing_and_is_not_counted(verbal, arguments, words):
    verbal(*LEARN)
    Path("closed").touch()
    if arguments[-1] in ("test", "app", "nofile.jsonl", "none"):
        Path("closed").unlink()  # these are found once the app and the model are open, but before a call
    with Store("v.db") as store:
        before = sum(u.calls for r in store.runs() for u in store.usage(r["id"]).values())
    code, made, err = verbal(*PROMOTE, *arguments, "--json")
    assert code == 2 and made is None and words in json.loads(err)["error"], err
    with Store("v.db") as store:
        assert store.proposals() == [] and store.versions() == []
        assert sum(u.calls for r in store.runs() for u in store.usage(r["id"]).values()) == before


def test_a_model_is_promoted_and_the_ledger_has_the_gate(verbal):
    verbal(*LEARN)
    code, made, err = verbal(*PROMOTE, "--model", "./m.py:Knows", "--seeds", "1", "--json")
    assert code == 0, err
    assert made["candidate"] == "./m.py:Knows, no memory" and made["cost"]["solver"]["calls"] > 0
    assert versions()[-1]["policy"] == "./m.py:Knows, no memory"


def test_a_model_of_the_same_name_is_not_answered_with_the_others_replies(verbal):
    verbal(*LEARN)
    code, made, _ = verbal(*PROMOTE, "--model", "./m.py:Twin", "--seeds", "1", "--json")
    assert code == 0 and made["gain"]["mean"] == 1.0


def test_a_guard_of_an_app_keeps_what_worked(verbal, tmp_path):
    """The demo's app has guard tasks; here a file of questions is the guard."""
    db = sqlite3.connect("towns.sqlite")
    db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO city VALUES (?, ?)", [(i, f"Town {i}") for i in range(1, 100)])
    db.commit()
    db.close()

    def questions(name, numbers, split):
        line = '{{"id": "{n}{i}", "question": "Name of city {i}?", "sql": "SELECT name FROM city WHERE id = {i}", "split": "{s}"}}'  # noqa: E501
        Path(name).write_text("\n".join(line.format(n=name[0], i=i, s=split) for i in numbers))

    questions("dev.jsonl", range(1, 31), "dev")
    questions("guard.jsonl", range(60, 99), "train")
    right = "```sql\nSELECT name FROM city WHERE id = {}\n```"

    def script(name, known):
        rows = [{"match": f"city {i}\\?", "reply": right.format(i)} for i in known]
        rows.append({"reply": right.format(0)})
        Path(name).write_text("\n".join(map(json.dumps, rows)))

    script("old.jsonl", range(60, 99))
    script("good.jsonl", range(1, 99))
    script("forgets.jsonl", range(1, 70))
    Store("v.db").close()
    here = ("--store", "v.db", "--db", "towns.sqlite", "--questions", "dev.jsonl", "--seeds", "1", "--json")
    promote = ("promote", "--incumbent", "scripted:old.jsonl", "--guard", "guard.jsonl", *here)
    code, made, err = verbal(*promote, "--model", "scripted:forgets.jsonl")
    assert code == 1, err
    assert made["verdict"] == "reject" and "loses more than 2 points" in made["reason"]
    assert made["guard"]["name"] == "guard" and made["guard"]["gain"]["mean"] < 0 and versions() == []
    code, made, err = verbal(*promote, "--model", "scripted:good.jsonl")
    assert code == 0, (made, err)
    assert made["guard"]["passed"] and set(made["guard"]["gains"]) == {0.0} and len(versions()) == 2


def test_rollback_and_its_exit_codes(verbal):
    verbal(*LEARN)
    code, made, err = verbal("rollback", *STORE, "--json")
    assert code == 2 and "no earlier version" in json.loads(err)["error"]
    verbal(*PROMOTE, "--memory", "run", "--seeds", "1", "--json")
    code, made, _ = verbal("rollback", *STORE, "--json")
    assert (code, made["number"], made["of"], made["action"]) == (0, 3, 1, "rollback")
    assert made["policy_words"] == "./m.py:Model, no memory"
    code, out, _ = verbal("rollback", *STORE, "--to", "2")
    assert code == 0 and "version 4 serves from now on: ./m.py:Model, memory run at version" in flat(out)
    code, _, err = verbal("rollback", *STORE, "--to", "17", "--json")
    assert code == 2 and "no version 17" in json.loads(err)["error"]
    code, _, err = verbal("rollback", "--store", "none.db", "--json")
    assert code == 2 and not Path("none.db").exists()
    assert [v["action"] for v in versions()] == ["start", "promote", "rollback", "rollback"]


# replay and diff ------------------------------------------------------------------------------------------------------


def test_replay_repeats_a_run_and_its_companions(verbal):
    assert verbal("learn", *HERE, "--seeds", "2", "--json")[0] == 0
    Path("closed").touch()
    code, made, err = verbal("replay", "run", *STORE, "--json")
    assert code == 0, err
    assert made["equal"] and [m["run"] for m in made["runs"]] == ["run", "run:1", "run:eval"]
    assert all(m["model_calls"] == 0 < m["replies"] for m in made["runs"])
    code, out, _ = verbal("replay", "run", *STORE)
    assert code == 0 and "run:eval: equal" in flat(out) and "0 model calls" in flat(out)


def test_a_run_whose_evaluation_was_left_out_is_replayed_and_packed(verbal):
    assert verbal(*LEARN)[0] == 0
    Path("closed").touch()
    code, made, err = verbal("replay", "run", *STORE, "--json")
    assert code == 0 and [m["run"] for m in made["runs"]] == ["run"], err
    code, made, err = verbal("replay", "run", "--pack", "p.db", *STORE, "--json")
    assert code == 0 and list(made["runs"]) == ["run"] and made["file"] == "p.db", err
    assert Path("p.md").is_file()
    code, made, err = verbal("replay", "run", "--store", "p.db", "--json")
    assert code == 0 and made["equal"], err
    code, _, err = verbal("replay", "run", "--pack", "p.db", *STORE, "--json")
    assert code == 2 and "exists" in json.loads(err)["error"]


def test_replay_exits_1_when_it_is_not_equal_or_misses_a_call(verbal):
    verbal(*LEARN)
    db = sqlite3.connect("v.db")
    db.execute("UPDATE attempts SET record = replace(record, 'I guess', 'I know')")
    db.commit()
    code, made, _ = verbal("replay", "run", *STORE, "--json")
    assert code == 1 and not made["equal"] and "I know" in made["runs"][0]["first_difference"]
    code, out, _ = verbal("replay", "run", *STORE)
    assert code == 1 and "DIFFERENT" in out and "I guess" in out
    db.execute("DELETE FROM replies")
    db.commit()
    db.close()
    code, made, err = verbal("replay", "run", *STORE, "--json")
    assert code == 1 and made is None and "never recorded" in json.loads(err)["error"]
    code, _, err = verbal("replay", "nobody", *STORE, "--json")
    assert code == 2 and "nobody" in json.loads(err)["error"]


def test_diff_shows_where_two_runs_part(verbal):
    verbal(*LEARN)
    verbal("learn", *HERE, "--eval", "", "--seeds", "1", "--run", "other", "--set", "loop.rounds=1", "--json")
    code, made, _ = verbal("diff", "run", "other", *STORE, "--json")
    assert code == 0 and not made["equal"] and made["rows"][0]["what"] == "recipe loop.rounds"
    code, out, _ = verbal("diff", "run", "other", *STORE)
    assert code == 0 and "recipe loop.rounds" in flat(out) and f"{len(made['rows'])} differences" in flat(out)
    code, out, _ = verbal("diff", "run", "run", *STORE, "--other-store", "v.db")
    assert code == 0 and "the runs are equal" in out
    code, _, err = verbal("diff", "run", "nobody", *STORE, "--json")
    assert code == 2 and "nobody" in json.loads(err)["error"]


# the page -------------------------------------------------------------------------------------------------------------


def test_the_page_has_the_verdicts_the_versions_and_the_costs(verbal):
    assert verbal("learn", *HERE, "--seeds", "3", "--json")[0] == 0
    verbal(*PROMOTE, "--memory", "run", "--seeds", "1", "--json")
    verbal(*PROMOTE, "--memory", "none", "--seeds", "1", "--json")
    verbal("eval", *HERE, "--test", "--seeds", "1", "--json")
    code, made, err = verbal("report", "run", *STORE, "--json")
    assert code == 0, err
    assert [g["verdict"] for g in made["gates"]] == ["accept", "reject"]
    assert [v["number"] for v in made["versions"] if v["active"]] == [2]
    assert made["sealed"][0]["mean"] == 1.0 and made["usage"]["solver"]["calls"] > 0 and made["cost_gain"]
    assert made["claim_holds"] and made["gates"][0]["cost"]["calls"] == 0, "all was asked before"
    page = Path(made["page"]).read_text(encoding="utf-8").lower()
    for words in ("it is better", "does harm", "gate-1", "memory run at version", "the claim holds", "retry-only"):
        assert words in page, words
    code, out, _ = verbal("report", "gate-2", *STORE, "--out", "mine.html")
    assert code == 0 and "mine.html" in out and "does harm" in Path("mine.html").read_text(encoding="utf-8")
    with Store("v.db") as store:
        found = run_results(store, store.run("run"))
        assert found["gates"] == decisions(store) and found["sealed"] == sealed(store)


def test_a_proposal_that_is_open_is_no_decision(verbal):
    verbal(*LEARN)
    code, made, err = verbal(*PROMOTE, "--memory", "run", "--max-calls", "10", "--json")
    assert code == 1 and made["reason"].startswith("the budget ended first"), err
    with Store("v.db") as store:
        assert [p["status"] for p in store.proposals()] == ["declared"] and decisions(store) == []
    code, made, _ = verbal(*PROMOTE, "--memory", "run", "--json")
    assert code == 0 and made["id"] == "gate-1"


# claims ---------------------------------------------------------------------------------------------------------------


def test_a_claim_is_made_when_memory_beats_retry_only(verbal):
    code, out, _ = verbal("learn", *HERE, "--seeds", "3")
    assert code == 0 and "Memory beats retry-only: +100.0" in flat(out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", "2"), "does not clearly beat retry-only: +100.0"),
        (("--seeds", "3", "--model", "./m.py:Knows"), "does not clearly beat retry-only: +0.0"),
        (("--seeds", "3", "--eval", ""), "Nothing is claimed: --eval ''"),
    ],
)
def test_no_claim_without_three_seeds_a_gain_over_retrying_and_held_out_tasks(verbal, options, words):
    code, out, err = verbal("learn", *HERE, *options)
    assert code == 0, err
    assert words in flat(out) and "Memory beats" not in out


def test_a_second_memory_is_not_answered_with_the_first_ones_scores(verbal):
    verbal(*LEARN)
    verbal("learn", *HERE, "--eval", "", "--seeds", "1", "--run", "none", "--set", "loop.reflect=false", "--json")
    with Store("v.db") as store:
        assert store.memories()["none"] < store.memories()["run"]
    code, made, _ = verbal("eval", *HERE, "--memory", "run", "--seeds", "1", "--json")
    assert code == 0 and {a["name"]: a["mean"] for a in made["arms"]}["memory"] == 1.0
    code, made, err = verbal("eval", *HERE, "--memory", "none", "--seeds", "1", "--json")
    assert code == 2 and "begun for something else" in json.loads(err)["error"]
    code, made, _ = verbal("eval", *HERE, "--memory", "none", "--seeds", "1", "--run", "second", "--json")
    assert code == 0 and {a["name"]: a["mean"] for a in made["arms"]}["memory"] == 0.0
