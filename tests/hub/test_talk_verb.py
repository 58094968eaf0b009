"""`verbal chat` without a database, as a person types it: streaming text, slash commands, Ctrl-C, JSON."""

from __future__ import annotations

import io
import json
import sys

import pytest

from verbal.cli import main
from verbal.flow import Flow, Waiting
from verbal.options import command_options
from verbal.store import Store
from verbal.talk_verb import run_talk, took

TALK = """Write a mail to my boss that I am late
don't use emojis when you write to my boss
Write a mail to my boss that I am late
/why
/up
/memory
/narrow u1 when mails to my boss
/narrow u1 not a birthday
/narrow u1
/share u1
/again shorter
/edit Dear boss,\\nI am late.
/edit
/correct no: sign with Jo
/undo
/down
/history
/chats
/cost
/export out.md
/export no/such/place.md
/nonsense
/s x y
/forget u1

/help
/new
/cost
/up
/quit
never read
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a scripted model that follows a lesson on emojis."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"match": "# Role: feedback", "reply": "cannot say"},
        {"match": '"do": "don\'t use emojis"', "reply": "Dear boss, I am late \x1b[31m.\n\nUSED: u1"},
        {"match": "broken", "error": "model"},
        {"reply": "Dear boss 🎉, I am late."},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.py").write_text("def weather(city: str) -> str:\n    'Weather.'\n    return city\n")
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


MINE = ("--model", "scripted:m.jsonl", "--store", "v.db")


def test_a_conversation_from_a_pipe(world, verbal):
    code, out, err = verbal("chat", *MINE, "--team", "blue", "--tool", "./mine.py:weather", stdin=TALK)
    assert code == 0, err
    for words in (
        "me of blue, 0 lessons, tools weather", "Dear boss 🎉", "Noted (u1)", "when I write to your boss, and",
        "fits: u1 don't use emojis", "followed u1", "u1 was followed", "counts for u1",
        "In 1 judged answers: 1 right, 0 wrong",
        "Narrowed (u1)", "but not for a birthday", "/narrow u1 when you write", "Shared as t1", "give the whole answer",
        "Noted (u2)", "Taken back", "what should be otherwise?", "chat-", "together", "written: out.md",
        "cannot be written",
        "there is no /nonsense", "Forgotten", "/narrow ID when", "a new conversation",
        "nothing was answered yet", "nobody is called",
    ):  # fmt: skip
        assert words in " ".join(out.split()), words
    assert "never read" not in out and "\x1b[31m" not in out and "USED" not in out
    assert "# Write a mail to my boss" in (world / "out.md").read_text()
    with Store("v.db") as store:
        assert {r["status"] for r in store.runs()} == {"done"}


def test_json_going_on_and_what_is_refused(world, verbal):
    code, out, err = verbal("chat", *MINE, "--json", stdin="hello\n")
    made = json.loads(out)
    assert code == 0 and made["turns"][0]["status"] == "answered" and not err
    code, out, err = verbal("chat", *MINE, "--chat", made["chat"], stdin="and now?\nbroken\n")
    assert code == 0 and "> hello" in out and f"[{made['chat']}-2]" in out and "No answer: scripted model error" in out
    for arguments, what in [
        (("--chat", "chat-zzzzz"), "unknown conversation"), (("--user", "../x"), "is no name"),
        (("--tool", "no.py:x"), "no tool"),
        (("--mcp", "no-such-program-x"), "MCP server"), (("--memory", "x"), "about a database"),
        (("--budget", "3"), "budget"),
        (("--db", "x.sqlite", "--user", "eve"), "without a database"),
        (("--set", "model.name=embedded"), "cannot chat"),
    ]:  # fmt: skip
        given = MINE if "--set" not in arguments else MINE[2:]
        code, out, err = verbal("chat", *given, *arguments, stdin="")
        assert code == 2 and what in " ".join((out + err).replace("│", " ").split()), (arguments, out, err)


def test_a_limit_of_money_is_told_and_the_conversation_goes_on(world, verbal):
    prices = ("--set", "model.price_in=100", "--set", "model.price_out=100")
    code, out, err = verbal("chat", *MINE, *prices, "--max-cost", "0.01", stdin="hello\n/history\n/quit\n")
    assert code == 0 and "limit" in out and "stopped" in out, err
    code, out, _ = verbal("chat", *MINE, *prices, "--max-cost", "0.01", "--json", stdin="hello\n/forget u9\n")
    assert ["limit" in e or "unknown lesson" in e for e in json.loads(out)["errors"]] == [True, True]


def test_ctrl_c_drops_the_answer_and_nothing_else(world, monkeypatch, capsys):
    lines = iter(["one", "two", "three"])
    monkeypatch.setattr("verbal.talk_verb.next_line", lambda: next(lines))
    flow = Flow.add
    calls = []

    def interrupted(self, piece):
        calls.append(piece)
        if len(calls) == 2:
            raise KeyboardInterrupt
        flow(self, piece)

    monkeypatch.setattr(Flow, "add", interrupted)
    with pytest.raises(StopIteration):
        run_talk(command_options("chat", "scripted:m.jsonl", None, None), "v.db", quiet=False)
    assert "stopped; the answer was dropped" in capsys.readouterr().out
    with Store("v.db") as store:
        (run,) = store.runs()
        assert [t["status"] for t in run["info"]["turns"]] == ["stopped", "answered", "answered"]


def test_text_flows_in_whole_words(capsys):
    flow = Flow(width=12)
    for piece in ("one tw", "o three four", " five\n\n- six", " seveneightnine"):
        flow.add(piece)
    flow.end()
    flow.end()
    assert capsys.readouterr().out == "one two \nthree four \nfive\n\n- six \nseveneightnine\n"
    flow.add("a word of 12")  # as wide as the screen: the space after it must not begin a line of its own
    flow.add(" and more")
    flow.end()
    assert capsys.readouterr().out == "a word of 12\nand more\n"
    Flow(quiet=True).add("nothing")
    waiting = Waiting(quiet=False)
    waiting.start()
    waiting.stop()
    assert capsys.readouterr().out == "" and took({"calls": 0}) == "no model call"
