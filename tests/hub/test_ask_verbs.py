"""`verbal ask`, `chat` and `sql` as a person types them: words, JSON, exit codes, corrections and the way back."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys

import pytest

from verbal.chat_verb import run_chat
from verbal.cli import main
from verbal.cli_sql import _options
from verbal.options import command_options
from verbal.store import Store

RIGHT = "SELECT COUNT(*) FROM customer WHERE status = 'A'"
STORE = ("--store", "v.db")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a database and a scripted model that knows what `active` means only from a hint."""
    monkeypatch.chdir(tmp_path)
    db = sqlite3.connect("shop.sqlite")
    db.executescript(
        "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT, status TEXT);"
        "INSERT INTO customer VALUES (1, 'Ann', 'Rome', 'A'), (2, 'Bob', 'Oslo', 'B'), (3, 'Cid', 'Rome', 'A');"
    )
    db.close()
    rows = [
        {"match": "Role: reflector", "reply": "HINT: active means status = 'A'"},
        {"match": "Role: followup", "reply": "QUESTION: customers for each city?"},
        {"match": "active means(.|\n)*## Question\n.*active", "reply": f"```sql\n{RIGHT}\n```"},
        {
            "match": "## Question\n.*each city",
            "reply": "```sql\nSELECT city, COUNT(*) AS n FROM customer GROUP BY city\n```",
        },
        {
            "match": "## Question\n.*or cities",
            "reply": [
                "```sql\nSELECT COUNT(*) FROM customer\n```",
                "```sql\nSELECT COUNT(DISTINCT city) FROM customer\n```",
            ],
        },
        {"match": "## Question\n.*moon", "reply": "no idea"},
        {"reply": "```sql\nSELECT COUNT(*) FROM customer\n```"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def verbal(monkeypatch, capsys):
    """Runs a command in this process; gives exit code, output, errors."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["verbal", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            main()
            code = 0
        except SystemExit as done:
            code = done.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def ask(verbal, question, *more):
    return verbal("ask", "shop.sqlite", question, "--model", "scripted:m.jsonl", *STORE, *more)


def asked(verbal, question, *more):
    code, out, err = ask(verbal, question, "--json", *more)
    assert out, err
    made = json.loads(out)
    assert code == {"ambiguous": 3, "abstained": 3, "failed": 1, "refused": 1}.get(made["status"], 0)
    return made


def test_ask_tells_everything_and_writes_the_chart(world, verbal):
    code, out, err = ask(verbal, "How many customers for each city?", "--chart", "c.json", "--rows", "1")
    assert code == 0, err
    for words in (
        "tables: customer",
        "GROUP BY city",
        "Rome",
        "1 of 2 rows",
        "█",
        "The query lists the city",
        "5 calls",
    ):
        assert words in out or words == "5 calls"
    assert json.loads((world / "c.json").read_text())["mark"] == {"type": "bar"}
    made = asked(verbal, "How many customers for each city?", "--rows", "1")
    old = {"question", "answer", "columns", "rows", "row_count", "says", "error", "agreement", "lessons", "usage"}
    assert old <= set(made) and made["row_count"] == 2 and len(made["rows"]) == 1 and made["status"] == "answered"
    assert made["usage"] == {} or made["usage"]["solver"]["calls"] <= 1, "recorded before: nothing is paid twice"


def test_ask_back_and_choose(world, verbal):
    code, out, _ = ask(verbal, "How many customers or cities?")
    assert code == 3 and "2 ways" in out and "--reading 2" in out
    second = asked(verbal, "How many customers or cities?")["readings"][1]
    made = asked(verbal, "How many customers or cities?", "--reading", "2")
    assert (
        (made["answer"], made["rows"]) == (second["sql"], second["rows"])
        and made["status"] == "answered"
        and made["usage"] == {}
    )
    code, _, err = ask(verbal, "How many customers or cities?", "--reading", "3")
    assert code == 2 and "2 readings, not 3" in err
    assert asked(verbal, "How many customers?", "--reading", "2")["rows"] == [[3]], "one reading: that is the answer"


def test_abstaining_is_an_outcome_in_words(world, verbal):
    code, out, err = ask(verbal, "Who is on the moon?")
    assert code == 3 and "No answer: none of 5 candidate queries runs" in out and "Traceback" not in out + err
    assert asked(verbal, "DROP TABLE customer")["status"] == "refused"
    for question in ("", "   ", "y" * 50_000):
        code, _, err = ask(verbal, question)
        assert code == 2 and ("empty" in err or "50,000 characters" in err)


def test_correct_history_thumbs_and_undo(world, verbal):
    first = asked(verbal, "How many active customers?")
    assert first["rows"] == [[3]]
    code, out, err = verbal("sql", "correct", first["id"], "--sql", RIGHT, *STORE)
    assert code == 0, err
    assert "lesson r1 of memory sql-shop: active means status = 'A' (on trial" in out and "verbal sql undo" in out
    again = asked(verbal, "How many active customers?")
    assert again["rows"] == [[2]] and "your own query" in again["reason"]
    again = asked(verbal, "Number of active customers?")
    code, out, _ = verbal("sql", "thumbs", again["id"], "up", *STORE)
    assert code == 0 and "counts for r1" in out
    code, out, _ = verbal("sql", "thumbs", again["id"], "up", *STORE)
    assert code == 0 and "counts as right already" in out and "to take it back" not in out
    code, out, _ = verbal("sql", "history", "shop.sqlite", *STORE)
    assert first["id"] in out and f"{first['id']}.1  sql: SELECT" in out and f"{again['id']}.1  up" in out
    code, out, _ = verbal("sql", "undo", f"{first['id']}.1", *STORE)
    assert code == 0 and "r1 retired" in out
    assert asked(verbal, "How many active customers?")["rows"] == [[3]]
    code, out, err = verbal("sql", "correct", first["id"], "--sql", "SELECT nothing FROM x", *STORE)
    assert code == 1 and "nothing was kept" in out
    wrong = first["id"].replace("-1", "-7")
    code, _, err = verbal("sql", "thumbs", wrong, "down", *STORE)
    assert code == 2 and "did you mean" in err and first["id"] in err
    assert verbal("sql", "undo", first["id"], *STORE)[0] == 2
    assert verbal("sql", "thumbs", "x", "up", "--store", "none.db")[0] == 2


def test_learn_fills_the_memory_that_is_asked_with(world, verbal):
    lines = [
        {"id": f"q{i}", "question": f"How many active customers are in {c}?", "split": s,
         "sql": f"{RIGHT} AND city = '{c}'"}
        for i, (c, s) in enumerate([("Rome", "train"), ("Oslo", "train"), ("Rome", "dev")])
    ]  # fmt: skip
    (world / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, err = verbal(
        "sql", "learn", "shop.sqlite", "--questions", "q.jsonl", "--model", "scripted:m.jsonl", "--seeds", "1",
        "--set", 'memory.name="exact"', "--set", "loop.verify=false", *STORE, "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(out)
    assert {a["name"] for a in made["arms"]} == {"base", "retry", "shuffled", "memory"}
    assert [x["text"] for x in made["lessons"]] == ["active means status = 'A'"]
    with Store("v.db") as store:
        assert list(store.memories()) == ["sql-shop"] and store.run("sql-shop-learn")["status"] == "done"


CHAT = """How many customers?
and by city?
/sql
/why
/chart
no: active means status = 'A'
/undo
How many customers or cities?
2
/up
/nonsense
7
/s
/edit SELECT nope
/edit SELECT COUNT(*) FROM customer WHERE id > 1

DROP TABLE customer
/history
/help
/quit
never read
"""


def test_chat_from_a_pipe(world, verbal):
    code, out, err = verbal("chat", "--db", "shop.sqlite", "--model", "scripted:m.jsonl", *STORE, stdin=CHAT)
    assert code == 0, err
    for words in (
        "understood as: customers for each city?", "SELECT city, COUNT(*)", "of the candidate queries agree",
        "vega-lite", "lesson r1 of memory sql-shop", "r1 retired", "Which one is meant?", "there is no /nonsense",
        "does not run", "only read here", "leave (or Ctrl-D)", "no readings to choose from", "to take it back: /undo",
    ):  # fmt: skip
        assert words in out, words
    assert "never read" not in out
    chart = next(line for line in out.splitlines() if line.startswith('{"$schema"'))
    assert json.loads(chart)["mark"] == {"type": "bar"}, "the line can be copied as it is"
    with Store("v.db") as store:
        (run,) = store.runs()
        assert run["status"] == "done" and len(run["info"]["answers"]) >= 5
    code, out, _ = verbal("chat", "--db", "shop.sqlite", "--model", "scripted:m.jsonl", *STORE, "--json", stdin="/up\n")
    assert code == 0 and json.loads(out) == {"answers": []}


def test_ctrl_c_drops_a_question_and_leaves_nothing_broken(world, monkeypatch):
    from verbal.ask_verbs import make_assistant

    options = {**command_options("ask", "scripted:m.jsonl", None, None), "app": {"db": "shop.sqlite"}}
    lines = iter(["How many customers?", "How many customers?", ""])
    monkeypatch.setattr("verbal.chat_verb.next_line", lambda: next(lines))
    calls = []

    def interrupted(*given, **more):
        made = make_assistant(*given, **more)
        stream = made.stream

        async def once(question, *, after=None):
            calls.append(question)
            async for event in stream(question, after=after):
                yield event
                if len(calls) == 1:
                    raise KeyboardInterrupt

        monkeypatch.setattr(made, "stream", once)
        return made

    monkeypatch.setattr("verbal.chat_verb.make_assistant", interrupted)
    with pytest.raises(StopIteration):
        run_chat(options, "v.db", "", adopted=False, rows=None, quiet=True)
    with Store("v.db") as store:
        (run,) = store.runs()
        assert run["status"] == "done" and [a["status"] for a in run["info"]["answers"]] == ["answered"]


def test_help_stays_quick_to_load(root):
    code = (
        "import sys; import verbal.cli; bad = {'sqlglot', 'langgraph', 'rich.live', 'verbal.screen', 'duckdb'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_answer_is_judged_on_its_own_database_wherever_that_is(world, verbal):
    first = asked(verbal, "How many active customers?", "--memory", "none")
    code, out, _ = verbal("sql", "thumbs", first["id"], "down", *STORE)
    assert code == 0 and f"verbal sql correct {first['id']}" in out
    assert verbal("sql", "undo", *STORE)[0] == 0, "without a memory there is only the feedback"
    own = asked(verbal, "How many active customers?")
    (world / "shop.sqlite").rename(world / "moved.sqlite")
    assert verbal("sql", "correct", own["id"], "--sql", RIGHT, *STORE)[0] == 2, "it is not where it was"
    code, out, err = verbal("sql", "correct", own["id"], "--sql", RIGHT, "--db", "moved.sqlite", *STORE)
    assert code == 0 and "lesson r1 of memory sql-shop" in out and "gets your query" in out, err
    moved = ("ask", "moved.sqlite", "How many active customers?", "--model", "scripted:m.jsonl", *STORE, "--json")
    assert json.loads(verbal(*moved)[1])["rows"] == [[2]]
    assert verbal("sql", "undo", own["id"], *STORE)[0] == 0
    assert json.loads(verbal(*moved)[1])["rows"] == [[3]]


def test_demo_is_the_shop_where_no_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _options("", "demo", None, None)["app"] == {}
    (tmp_path / "demo").touch()
    assert _options("", "demo", None, None)["app"] == {"db": "demo"}
