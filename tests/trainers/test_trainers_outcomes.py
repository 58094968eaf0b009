"""Rows with an outcome, their traces, and what methods refuse before anything heavy is loaded."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import TrainError
from verbal.store import Store
from verbal.trainers.attempts import Selection
from verbal.trainers.outcomes import kto, prompts, reward, spans
from verbal.trainers.refusals import (
    require_columns,
    require_groups,
    require_labels,
    require_on_policy,
    require_rewards,
)  # fmt: skip
from verbal.trainers.rows import sft
from verbal.trainers.traces import keep_mask
from verbal.types import Message, Step

from .attempt_stores import fenced, filled, judged, make_attempt, make_task


def first(task, answer, n=0, **fields):
    return make_attempt(task, 0, answer, id=f"a{n}", sample=n, **fields)


def test_kto_labels_every_distinct_answer_once(tmp_path):
    task = make_task(licence="CC-BY-4.0")
    answers = [("SELECT 1", 1.0), ("SELECT 2", 0.0), ("SELECT 2", 0.0), ("SELECT 3", 1.0), ("SELECT 3", 0.0)]
    store = filled(tmp_path, [task], [(first(task, a, n), v) for n, (a, v) in enumerate(answers)])
    store.put_feedback([judged(first(task, "", 1), 0.0, "user", source="user", correction="SELECT 9", oracle=False)])
    built = kto(store, Selection(critic="sql_result"))
    found = {row.columns["completion"][0]["content"]: row for row in built.rows}
    assert {text: row.columns["label"] for text, row in found.items()} == {
        fenced("SELECT 1"): True, fenced("SELECT 2"): False, fenced("SELECT 9"): True,
    }  # fmt: skip
    assert found[fenced("SELECT 2")].attempts == ("a1", "a2")
    assert (found[fenced("SELECT 9")].origin, found[fenced("SELECT 9")].critic) == ("correction", "user")
    assert built.filtered == {"judged both right and wrong": 2, "same answer again": 1}
    assert {(*row.licences, *row.runs) for row in built.rows} == {("CC-BY-4.0", "r")}
    assert [set(row.columns) for row in built.rows] == 3 * [{"prompt", "completion", "label"}]
    one = kto(store, Selection(critic="sql_result", per_task=1))
    assert sorted(row.columns["label"] for row in one.rows) == [False, True], "the limit holds for each label"


def test_rewards_are_finite_means_of_equal_answers(tmp_path):
    task = make_task()
    given = [(first(task, "SELECT 1"), 1.0), (first(task, "SELECT 1", 1), 0.0), (first(task, "SELECT 2", 2), 1.0)]
    store = filled(tmp_path, [task], given)
    store.put_feedback([judged(given[2][0], 0.0, "user", source="user")])
    rows = reward(store, Selection(critic="sql_result")).rows
    assert [(row.columns["reward"], row.attempts) for row in rows] == [(0.5, ("a0", "a1")), (0.0, ("a2",))]


def test_prompts_are_the_tasks_that_may_be_learned_from(tmp_path):
    tasks = [make_task("t1"), make_task("t2"), make_task("t3", split="test"), make_task("t4", asked="How many t3?")]
    tasks += [make_task("t5", asked="How many t1?"), make_task("t6", asked='<hint id="r1">late</hint> How many?')]
    store = filled(tmp_path, tasks, [(first(tasks[0], "SELECT 1"), 1.0), (first(tasks[0], "", 1), None)])
    rows = prompts(store, Selection()).rows
    assert [(row.task, row.value, row.attempts) for row in rows] == [("t1", 0.5, ("a0", "a1")), ("t2", None, ())]
    assert [set(row.columns) for row in rows] == 2 * [{"prompt"}]
    assert [row.task for row in prompts(store, Selection(run="r")).rows] == ["t1"]
    with pytest.raises(TrainError, match="run 'b' holds no attempt"):
        prompts(store, Selection(run="b"))
    with Store(tmp_path / "fresh.db") as fresh:
        fresh.put_tasks(tasks[:1])
        assert [row.task for row in prompts(fresh, Selection()).rows] == ["t1"]


def test_spans_are_characters_of_the_completion(tmp_path):
    task = make_task()
    attempt = first(task, "SELECT name FROM city")
    store = filled(tmp_path, [task], [(attempt, 0.0)])
    with pytest.raises(TrainError, match="scope of a span or a step"):
        spans(store, Selection())
    marks = [("span:7:11", 0.0), ("step:0", 0.5), ("span:7:99", 0.0), ("span:a:b", 0.0), ("step:4", 1.0)]
    store.put_feedback([judged(attempt, value, "clauses", scope=scope) for scope, value in marks])
    built = spans(store, Selection(critic="sql_result"))
    (row,) = built.rows
    text = row.columns["completion"][0]["content"]
    assert [(text[m["start"] : m["end"]], m["value"]) for m in row.columns["spans"]] == [(text, 0.5), ("name", 0.0)]
    assert built.filtered == {"a label outside the completion": 3}


IDS = {"token_ids": (5, 6, 7), "logprobs": (-0.1, -0.2, -0.3)}


@pytest.mark.parametrize(
    ("changed", "hints", "why", "kept"),
    [
        (IDS, None, "", True),
        (IDS, {"r1": "late"}, "another prompt", True),
        ({"token_ids": (5, 6, 7)}, None, "no log-prob", True),
        ({"token_ids": (5, 6, 7), "logprobs": (-0.1,)}, None, "no log-prob", True),
        ({}, None, "text only", False),
        (IDS | {"text": f"By the hint:\n{fenced('SELECT 1')}"}, None, "cut out", False),
        (IDS | {"prompt": ()}, None, "not recorded", True),
    ],
)
def test_log_probabilities_are_kept_only_with_the_prompt_they_belong_to(tmp_path, changed, hints, why, kept):
    task = make_task()
    attempt = first(task, "SELECT 1", hints=hints)
    attempt = attempt.replace(steps=(attempt.steps[0].replace(**changed),))
    (row,) = sft(filled(tmp_path, [task], [(attempt, 1.0)]), Selection()).rows
    assert why in row.trace.off_policy and bool(row.trace.off_policy) == bool(why)
    assert (row.trace.token_ids == IDS["token_ids"]) == kept
    assert (row.trace.logprobs == IDS["logprobs"]) == (not why)
    if why:
        with pytest.raises(TrainError, match=f"grpo is on-policy, and 1 of 1 rows are not: .*{why}"):
            require_on_policy([row], "grpo")
    else:
        require_on_policy([row], "grpo")


def test_the_mask_tells_what_the_prompt_left_out(tmp_path):
    task = make_task()
    attempt = first(task, "SELECT 1", hints={"r1": "late means 3 days"})
    (row,) = sft(filled(tmp_path, [task], [(attempt, 1.0)]), Selection()).rows
    seen = attempt.steps[0].prompt[0].content
    discarded = [seen[s.start : s.end] for s in row.trace.mask if not s.keep]
    assert discarded == ['<hint id="r1">late means 3 days</hint>\n']
    assert "late means" not in row.columns["prompt"][0]["content"]


lines = st.lists(st.sampled_from(["a\n", "b\n", "c", "", "hint\n"]), max_size=6).map("".join)


@given(st.lists(lines, max_size=3), st.lists(lines, max_size=3))
def test_a_mask_covers_the_prompt_and_keeps_only_what_is_the_tasks_own(seen, own):
    said, asked = ([Message(role="user", content=text) for text in side] for side in (seen, own))
    mask = keep_mask(said, asked)
    if not mask:
        assert all(text in ("", *own[i : i + 1]) or set(text.splitlines()) <= set("".join(own).splitlines())
                   for i, text in enumerate(seen))  # fmt: skip
        return
    for i, text in enumerate(seen):
        parts = [s for s in mask if s.message == i]
        assert "".join(text[s.start : s.end] for s in parts) == text
        kept = "".join(text[s.start : s.end] for s in parts if s.keep).splitlines()
        assert set(kept) <= set(own[i].splitlines() if i < len(own) else [])
    assert any(not s.keep for s in mask)


def test_several_turns_are_off_policy(tmp_path):
    task = make_task()
    attempt = first(task, "SELECT 1")
    attempt = attempt.replace(steps=(Step(author="policy", text="look"), attempt.steps[0].replace(**IDS)))
    (row,) = reward(filled(tmp_path, [task], [(attempt, 1.0)]), Selection()).rows
    assert row.trace.off_policy == "it stood after other turns" and row.trace.logprobs is None


def test_degenerate_batches_are_refused_with_what_to_do(tmp_path):
    tasks = [make_task("t1"), make_task("t2")]
    given = [(make_attempt(t, 0, f"SELECT {i}", id=f"{t.id}{i}"), float(i)) for t in tasks for i in (0, 1)]
    rows = reward(filled(tmp_path, tasks, given), Selection()).rows
    require_groups(rows, "grpo")
    require_rewards(rows, "grpo")
    with pytest.raises(TrainError, match=r"each of 2 prompts has one sample: grpo(.|\n)*to do: sample several"):
        require_groups([rows[0], rows[2]], "grpo")
    flat = [rows[0], rows[0]]
    with pytest.raises(TrainError, match=r"equal within each of 1 groups(.|\n)*1 groups all 0(.|\n)*solved sometimes"):
        require_groups(flat, "grpo")
    with pytest.raises(TrainError, match=r"all 2 rewards are 0: every advantage of rloo would be 0"):
        require_rewards(flat, "rloo")
    with pytest.raises(TrainError, match=r"dpo has no pairs to train on(.|\n)*succeed and attempts that fail"):
        require_columns([], "dpo", ("prompt", "chosen", "rejected"))
    with pytest.raises(TrainError, match=r"dpo needs chosen as well"):
        require_columns(rows, "dpo", ("prompt", "chosen"))
    labelled = kto(Store(tmp_path / "verbal.db"), Selection()).rows
    require_labels(labelled, "kto")
    for label, told in ((True, "all 2 labels are right"), (False, "all 2 labels are wrong")):
        with pytest.raises(TrainError, match=told):
            require_labels([row for row in labelled if row.columns["label"] is label], "kto")


def test_no_builder_loads_torch():
    code = (
        "import sys, verbal.trainers.rows, verbal.trainers.refusals, verbal.trainers.data; "
        "print([m for m in ('torch', 'trl', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
