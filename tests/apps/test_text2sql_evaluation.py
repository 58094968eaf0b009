"""`verbal eval BENCHMARK` end to end on tiny benchmarks: scores, causes, what is left out, the page, a model's run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from benchmark_layouts import GOLD, bird, spider

from verbal.apps.text2sql.benchmarks import read_benchmark
from verbal.apps.text2sql.evaluation import Asked, evaluate
from verbal.apps.text2sql.model_run import solving
from verbal.apps.text2sql.results_page import results_page
from verbal.apps.text2sql.scoring import BenchmarkApp
from verbal.cli import main
from verbal.errors import ConfigError, DataError
from verbal.recipe import load_recipe
from verbal.rows import OUTAGES
from verbal.store import Store

RIGHT = list(GOLD.values())


def score(folder: Path, answers: list[str], **options: Any) -> dict[str, Any]:
    """Scores answers, in order, to the tiny Spider."""
    path = folder / "answers.json"
    path.write_text(json.dumps(answers), encoding="utf-8")
    asked = Asked(**{"benchmark": "spider", "data": str(folder), "predictions": str(path), **options})
    return asyncio.run(evaluate(asked, options={"workers": 1}))


def means(found: dict[str, Any]) -> dict[str, float]:
    return {name: round(s["mean"], 3) for name, s in found["scores"].items()}


def test_gold_scores_one_everywhere(tmp_path: Path) -> None:
    spider(tmp_path)
    found = score(tmp_path, RIGHT, suite=True)
    assert means(found) == dict.fromkeys(
        ("ex", "ex_official", "suite", "suite_official", "partial_faithful", "partial_hardened"), 1.0
    )
    assert (found["questions"], found["counted"], found["wrong"], found["causes"]) == (4, 4, [], [])
    assert [(g["name"], g["questions"]) for g in found["by_hardness"]] == [("easy", 2), ("medium", 2)]


def test_wrong_answers_have_one_cause_each(tmp_path: Path) -> None:
    spider(tmp_path)
    answers = [
        "",
        "SELECT name FROM singer WHERE age >= 40",
        RIGHT[2],
        "SELECT name, age, id FROM singer ORDER BY age DESC",
    ]
    found = score(tmp_path, answers, suite=True)
    # The second is right on the database asked; the other state has a singer of 36.
    assert means(found) == {
        "ex": 0.5, "ex_official": 0.5, "suite": 0.25, "suite_official": 0.25,
        "partial_faithful": 0.75, "partial_hardened": 0.667,
    }  # fmt: skip
    assert {c["cause"]: c["count"] for c in found["causes"]} == {
        "no query": 1, "right on one state only": 1, "columns too many": 1,
    }  # fmt: skip
    assert sum(c["count"] for c in found["causes"]) == len(found["wrong"]) == 3
    second = next(w for w in found["wrong"] if w["id"] == "spider-dev-1")
    assert second["right"] and not second["suite"] and "music_v1" in second["differs"]
    assert second["gold_result"]["rows"] == [["Bob"], ["Cid"]] and second["result"]["row_count"] == 2


def test_states_are_made_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spider(tmp_path, suite=False)
    answers = [RIGHT[0], "SELECT name FROM singer WHERE age >= 40", "SELECT name FROM singer WHERE age = 50", RIGHT[3]]
    with pytest.raises(DataError, match="no database has several states"):
        score(tmp_path, answers, suite=True)
    found = score(tmp_path, answers, suite=True, make_suite=True)
    assert means(found)["ex"] == 1.0 and means(found)["suite"] == 0.5 and "suite_official" not in found["scores"]
    assert [c["cause"] for c in found["causes"]] == ["right on one state only"]
    assert found["notes"] == ["states were made for the databases of 4 questions, which have no suite of their own"]


def test_published_rules_drop_distinct_and_ours_do_not(tmp_path: Path) -> None:
    root = spider(tmp_path)
    entry = {"db_id": "music", "question": "Ages?", "query": "SELECT DISTINCT age > 35 FROM singer"}
    (root / "dev.json").write_text(json.dumps([entry]), encoding="utf-8")
    found = score(tmp_path, ["SELECT age > 35 FROM singer"])
    assert (means(found)["ex"], means(found)["ex_official"]) == (0.0, 1.0)
    assert found["causes"] == [{"cause": "duplicate rows (DISTINCT)", "count": 1}]


def test_bird_is_published_as_sets_of_rows(tmp_path: Path) -> None:
    bird(tmp_path)
    twice = "SELECT name FROM singer UNION ALL SELECT name FROM singer"
    answers = ["SELECT count(*) FROM singer WHERE age > 39", twice]
    found = score(tmp_path, answers, benchmark="bird")
    assert means(found)["ex"] == 0.5 and means(found)["ex_official"] == 1.0
    assert [g["name"] for g in found["by_hardness"]] == ["simple", "challenging"]
    assert found["wrong"][0]["hardness"] == "challenging"


async def test_a_model_reads_birds_evidence(tmp_path: Path) -> None:
    bird(tmp_path)
    app = BenchmarkApp(read_benchmark("bird", tmp_path).questions, workers=1)
    first, second = (task.messages[-1].content for task in app.tasks())
    await app.aclose()
    assert "How many grown ups?\nEvidence: grown up: age >= 40\n" in first and "Evidence" not in second


def test_any_source_is_scored(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "singer.csv").write_text("name,age\nAnn,30\nBob,40\n", encoding="utf-8")
    line = {"question": "Names?", "sql": "SELECT name FROM singer", "split": "dev"}
    (tmp_path / "q.jsonl").write_text(json.dumps(line), encoding="utf-8")
    options = {"benchmark": str(tmp_path / "q.jsonl"), "db": str(tmp_path / "tables")}
    assert means(score(tmp_path, ['SELECT "name" FROM singer ORDER BY age'], **options))["ex"] == 1.0
    found = score(tmp_path, ["SELECT age FROM singer"], **options)
    assert means(found)["ex"] == means(found)["ex_official"] == 0.0
    assert found["causes"] == [{"cause": "wrong columns", "count": 1}]


def test_gold_that_does_not_run_is_counted_apart(tmp_path: Path) -> None:
    root = spider(tmp_path)
    entries = json.loads((root / "dev.json").read_text("utf-8"))
    entries[1]["query"] = "SELECT nothing FROM singer"
    (root / "dev.json").write_text(json.dumps(entries), encoding="utf-8")
    found = score(tmp_path, ["SELECT 7", *RIGHT[1:]])
    assert (found["questions"], found["counted"], found["gold_failed_count"]) == (4, 3, 1)
    assert found["scores"]["ex"]["questions"] == 3 and round(found["scores"]["ex"]["mean"], 3) == 0.667
    assert found["gold_failed"][0]["id"] == "spider-dev-1" and "nothing" in found["gold_failed"][0]["error"]
    assert any("1 gold queries do not run" in n and "spider-dev-1" in n for n in found["notes"])
    for entry in entries:
        entry["query"] = "SELECT nothing FROM singer"
    (root / "dev.json").write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(DataError, match="no gold query runs"):
        score(tmp_path, RIGHT)


@pytest.mark.parametrize("kind", sorted(OUTAGES))
def test_an_answer_that_an_outage_met_is_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asks = BenchmarkApp.execute

    async def execute(self: BenchmarkApp, task: Any, sql: str) -> Any:
        seen = await asks(self, task, sql)
        return (
            replace(seen, info={**seen.info, "error": "it is down", "error_class": kind}) if "id < 99" in sql else seen
        )

    monkeypatch.setattr(BenchmarkApp, "execute", execute)
    spider(tmp_path)
    found = score(tmp_path, [*RIGHT[:3], "SELECT name FROM singer WHERE id < 99"])
    assert means(found)["ex"] == 1.0 and found["counted"] == 3


def test_a_part_of_the_split_and_its_predictions(tmp_path: Path) -> None:
    spider(tmp_path)
    assert score(tmp_path, RIGHT, limit=2)["questions"] == 2
    assert means(score(tmp_path, RIGHT[:2], limit=2))["ex"] == 1.0
    with pytest.raises(DataError, match="the file has 3 entries, the split has 4 questions"):
        score(tmp_path, RIGHT[:3], limit=2)


def test_a_question_without_gold_has_no_score(tmp_path: Path) -> None:
    root = spider(tmp_path)
    (root / "dev.json").write_text(json.dumps([{"db_id": "music", "question": "What?"}]), encoding="utf-8")
    with pytest.raises(DataError, match="'spider-dev-0' has no gold query"):
        score(tmp_path, ["SELECT 1"])


# the page -------------------------------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    """Names of the tags of a page, and its attributes that could act."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.acting: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.acting += [(k, v) for k, v in attrs if k.startswith("on") or k == "src" or "javascript" in str(v)]


def test_the_page_shows_both_sides_and_escapes_what_comes_from_data(tmp_path: Path) -> None:
    root = spider(tmp_path)
    evil = "<script>alert(1)</script>"
    entries = json.loads((root / "dev.json").read_text("utf-8"))
    entries[0]["question"] = f"How many {evil}?"
    entries[1]["query"] = f"SELECT '{evil}' AS \"<img src=x onerror=alert(1)>\" FROM singer"
    (root / "dev.json").write_text(json.dumps(entries), encoding="utf-8")
    answers = [f"SELECT '</pre>{evil}' FROM singer", "SELECT name FROM singer", "SELECT \x1b[31m", RIGHT[3]]
    found = score(tmp_path, answers, suite=True)
    text = results_page(found)
    tags = _Tags()
    tags.feed(text)
    assert not tags.acting and not tags.names & {"script", "img", "iframe", "link", "object", "form"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "\x1b" not in text
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", text)
    assert "Gold" in text and "Ann" in text and "spider-dev-1" in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_a_sealed_split_shows_no_gold(tmp_path: Path) -> None:
    root = spider(tmp_path)
    (root / "dev.json").rename(root / "test.json")
    found = score(tmp_path, ["SELECT 7", *RIGHT[1:]], split="test")
    text = json.dumps(found) + results_page(found)
    assert means(found)["ex"] == 0.75 and found["causes"]
    assert found["wrong"] == [] and "count(*)" not in text and "sealed" in text


def test_the_page_of_nothing_scored_is_a_page(tmp_path: Path) -> None:
    spider(tmp_path)
    found = score(tmp_path, RIGHT)
    found |= {"scores": {}, "by_hardness": [], "by_database": [], "causes": [], "wrong": [], "arms": []}
    assert results_page(found).startswith("<!doctype html>")


# the command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verbal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs `verbal eval` in a folder with the tiny Spider; gives exit code, output, errors."""
    spider(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [{"match": "How many", "reply": f"```sql\n{RIGHT[0]}\n```"}, {"match": "", "reply": "```sql\nSELECT 1\n```"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["verbal", *(() if "replay" in arguments else ("eval",)), *arguments])
        try:
            main()
            code = 0
        except SystemExit as done:
            code = int(done.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


MODEL = ("spider", "--data", ".", "--model", "scripted:m.jsonl", "--store", "v.db")


def test_a_models_run_is_kept_and_a_repeat_is_free(verbal: Callable[..., Any], tmp_path: Path) -> None:
    code, out, err = verbal(*MODEL, "--suite", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["scores"]["ex"]["mean"] == found["scores"]["suite"]["mean"] == 0.25
    assert found["usage"]["solver"]["calls"] == 4
    with Store(tmp_path / "v.db") as store:
        assert len(store.attempts(found["run"])) == 4 and (store.run(found["run"]) or {})["status"] == "done"
    code, out, err = verbal(*MODEL, "--suite", "--json")
    assert code == 0 and json.loads(out)["usage"] == found["usage"], err
    code, out, err = verbal("replay", found["run"], "--store", "v.db", "--json")
    assert code == 0 and json.loads(out)["equal"] and json.loads(out)["runs"][0]["replies"] == 4, err


def test_samples_give_pass_at_k(verbal: Callable[..., Any]) -> None:
    code, out, err = verbal(*MODEL, "--samples", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(p["k"], p["ex"]["mean"]) for p in found["pass_at_k"]] == [(1, 0.25), (2, 0.25), (3, 0.25)]
    assert any("the first one counts" in n for n in found["notes"])


def test_predictions_on_the_terminal_with_a_page(verbal: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n".join([*RIGHT[:3], "SELECT 1"]), encoding="utf-8")
    arguments = ("spider", "--data", ".", "--predictions", "p.txt", "--suite", "--out", "page.html")
    code, out, err = verbal(*arguments)
    assert code == 0, err
    assert "75.0 %" in out and "By hardness" in out and "wrong tables" in out and "page.html" in out
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("spyder", "--data", "."), "did you mean 'spider'"),
        (("spider",), "--data DIR"),
        (("spider", "--data", "nowhere"), "there is no folder"),
        (("spider", "--data", ".", "--databases", "musik"), "did you mean 'music'"),
        (("spider", "--data", ".", "--split", "test"), "sealed"),
        (("spider", "--data", ".", "--split", "deb"), "unknown split"),
        (("spider", "--data", ".", "--predictions", "p.txt", "--samples", "2"), "one answer"),
        (("spider", "--data", ".", "--predictions", "none.txt"), "no predictions file"),
        (("spider", "--data", ".", "--memory", "m"), "does not go with a benchmark"),
        (("spider", "--data", ".", "--questions", "q.jsonl"), "does not go with a benchmark"),
        (("--suite",), "needs a benchmark"),
        (("--predictions", "p.txt"), "needs a benchmark"),
    ],
)
def test_wrong_use_is_told_before_anything(
    verbal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    monkeypatch.delenv("VERBAL_DATA", raising=False)
    model = () if "--predictions" in arguments else ("--model", "scripted:m.jsonl", "--store", "v.db")
    code, out, err = verbal(*arguments, *model)
    assert code == 2 and not out
    assert word in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "v.db").exists() or not Store(tmp_path / "v.db").runs()


def test_a_recipe_that_would_choose_by_gold_runs_plain() -> None:
    plain, selects = solving(load_recipe("reflect"))
    assert not selects and (plain.loop.graph, plain.loop.rounds, plain.memory.name) == ("reflect", 1, "")
    assert plain.critics.names == ("sql_result",) and not plain.loop.critique and not plain.loop.reflect
    many, _ = solving(load_recipe("reflect"), 4)
    assert (many.loop.graph, many.loop.samples) == ("group", 4)
    chosen, selects = solving(load_recipe("ask"), 3)
    assert selects and chosen.loop.samples == 3 and chosen.critics.names == load_recipe("ask").critics.names


def test_a_recipe_that_judges_itself_keeps_its_rounds_and_reads_no_gold() -> None:
    refine, selects = solving(load_recipe("self_refine", ['critics.names=["sql_result", "judge"]']))
    assert selects and (refine.loop.rounds, refine.loop.critique) == (4, True)
    assert refine.critics.names == ("judge",)
    with pytest.raises(ConfigError, match="answers no questions"):
        solving(load_recipe("self_play"))
