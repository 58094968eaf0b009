"""Evaluation and training of the embedded model: rows compared, votes counted, conditions built, a run repeated."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from verbal.models.embedded import evaluate
from verbal.models.embedded.codec import Answer
from verbal.models.embedded.corpus.words import kept, sections


@pytest.fixture(scope="module")
def cases():
    return evaluate.held_out(20, 5)


@pytest.fixture(scope="module")
def hinted():
    return evaluate.held_out(12, 6, hinted=True)


def knowing(cases):
    """A solver that knows every right query by its question."""
    gold = {case.asked.text: case.asked.sql for case in cases}
    return lambda fields, k, temperature: [Answer(sql=gold[fields.question], verdict="right")] * k


def test_rows_are_compared_as_multisets_or_in_order():
    assert evaluate.same_rows([(1, "a"), (2, "b")], [(2.0, "b"), (1, "a")], ordered=False)
    assert not evaluate.same_rows([(1,), (2,)], [(2,), (1,)], ordered=True)
    assert not evaluate.same_rows([(1,)], [(1,), (1,)], ordered=False)
    assert not evaluate.same_rows([("a", 1)], [(1, "a")], ordered=False)
    assert not evaluate.same_rows("no such table: x", "no such table: x", ordered=False)
    assert evaluate.same_rows([(0.1 + 0.2,)], [(0.3,)], ordered=True)


def test_a_query_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(evaluate, "_STEPS", 1_000_000)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"
    with closing(sqlite3.connect(":memory:")) as connection:
        assert evaluate.run(connection, endless) == "interrupted"
        assert evaluate.run(connection, "SELECT 1") == [(1,)]


def test_held_out_questions_use_held_out_words_and_have_rows(cases):
    assert [case.asked.level for case in cases] == [1, 2, 3, 4, 5] * 4
    nouns = [word for word in sections()["entities"] if not kept(word)]
    for case in cases:
        assert all(rows and not isinstance(rows, str) for rows in case.rows)
        for table in case.world.tables:
            assert not set(table.noun.split()) & set(nouns)


def test_the_right_queries_score_one_and_silence_scores_zero(cases):
    assert evaluate.accuracy(knowing(cases), cases)["all"] == 1.0
    assert evaluate.accuracy(lambda fields, k, temperature: [Answer()] * k, cases)["all"] == 0.0
    assert all(good == count for good, count in evaluate.by_kind(knowing(cases), cases).values())


def test_hint_conditions_add_distractors_to_the_right_hint(hinted):
    for case in hinted:
        own = {term.hint for term in case.asked.terms}
        shown = {name: evaluate.fields_of(case, name).hints for name in evaluate.HINT_CONDITIONS}
        assert set(shown["hint"]) == own and shown["no_hint"] == ()
        assert own < set(shown["one_distractor"]) < set(shown["four_distractors"])
        assert len(shown["two_distractors"]) == len(own) + 2


def test_a_vote_takes_the_result_that_most_share_and_failures_last():
    rows = {"a": [(1,)], "b": [(2,)], "c": [(2,)], "bad": "error", "empty": []}
    answers = [Answer(sql=name) for name in ("bad", "bad", "bad", "empty", "a", "b", "c")]
    assert evaluate.voted(answers, rows.__getitem__).sql == "b"
    assert evaluate.voted(answers[:4], rows.__getitem__).sql in ("bad", "empty")


def test_samples_and_retries_of_a_perfect_solver(cases):
    found = evaluate.sampled(knowing(cases), cases[:5], k=3)
    assert found["greedy"] == found["vote@3"] == found["pass@3"] == found["mean_of_samples"] == 1.0
    assert evaluate.retried(knowing(cases), cases[:5])["critique"] == 1.0


def test_retries_help_a_solver_that_is_right_the_second_time(cases):
    gold = {case.asked.text: case.asked.sql for case in cases}

    def solve(fields, k, temperature):
        first = fields.role == "solver" and temperature == 0
        return [Answer(sql="SELECT 'wrong'" if first else gold[fields.question])] * k

    found = evaluate.retried(solve, cases[:5])
    assert (found["first"], found["critique"], found["resampling"]) == (0.0, 1.0, 1.0)


def test_reflections_are_compared_without_regard_to_plurals_and_table_names():
    found = evaluate.reflected(lambda fields, k, temperature: [Answer()] * k, 3, 12)
    assert found["exact"] == 0.0 and found["silent_where_none_due"] in (0.0, 1.0)
    assert evaluate._plain("Readers means the table mints") == evaluate._plain("reader means the table mints")
    assert evaluate._plain("net means a.x * a.y") == evaluate._plain("net means x * y")


def test_verdicts_of_a_solver_that_calls_everything_wrong():
    found = evaluate.judged(lambda fields, k, temperature: [Answer(verdict="wrong")] * k, 4, 12)
    assert found["caught"] == found["false_alarms"] == 1.0 and found["repaired"] == 0.0


@pytest.mark.slow
def test_training_by_steps_is_repeatable_and_writes_a_model(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from verbal.models.embedded.forward import Network
    from verbal.models.embedded.train import Schedule, Size, train

    small = Size(hidden=32, layers=1, heads=2, inner=64)
    plan = Schedule(batch=1, length=256, warmup=1, bf16=False)
    lines: list[str] = []
    first = train(tmp_path / "a", seed=3, steps=2, size=small, schedule=plan, report=lines.append)
    train(tmp_path / "b", seed=3, steps=2, size=small, schedule=plan, report=lines.append)
    assert first["steps"] == 2 and first["tokens"] > 100 and lines
    one, two = (Network(tmp_path / name).read([5, 6, 7])[0] for name in ("a", "b"))
    assert (one == two).all()
