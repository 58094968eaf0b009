"""Rows of words: reflections and their reward, demonstrations, critique-refine triples, privileged context, scope."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verbal.errors import TrainError
from verbal.trainers.attempts import Selection
from verbal.trainers.critiques import pick, privileged, refine
from verbal.trainers.refusals import require_groups, require_rewards
from verbal.trainers.retrospect import as_kto, as_preference, demonstrations, hard, retrospective
from verbal.trainers.scoped import held_out, scope
from verbal.trainers.words import contains, shows
from verbal.types import Step, StopReason

from .attempt_stores import GOLD, fenced, filled, judged, make_attempt, make_task, reflect, trials

ALL = Selection(minimum=2.0)  # nothing counts as right, so that no reflection is left out for that


def rewards_of(rows):
    by_try = sorted(rows, key=lambda row: row.attempts[0])
    return [None if r is None else round(r, 9) for r in (row.columns["reward"] for row in by_try)]


# retroformer.md, section 9 --------------------------------------------------------------------------------------------


def test_a_reflection_is_worth_what_the_next_try_returns_more(tmp_path):
    rows = retrospective(trials(tmp_path, [0.0, 0.4, 1.0]), ALL).rows
    assert rewards_of(rows) == [0.4, 0.6, None]
    row = next(r for r in rows if r.attempts[0].endswith("0.0"))
    assert set(row.columns) == {"prompt", "completion", "before", "after", "reward"}
    assert row.columns["completion"] == [{"role": "assistant", "content": "HINT: look at column 0"}]
    assert "# Role: reflector" in row.columns["prompt"][0]["content"]
    assert (row.origin, row.attempts) == ("reflection", ("r/main/t1/0.0", "r/main/t1/1.0"))
    assert row.trace.off_policy.startswith("text only")


def test_a_reflection_can_do_harm(tmp_path):
    assert rewards_of(retrospective(trials(tmp_path, [1.0, 0.0]), ALL).rows) == [-1.0, None]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.0, 0.25, 0.3, 1.0]), min_size=2, max_size=5))
def test_rewards_of_a_task_telescope(tmp_path_factory, returns):
    with trials(tmp_path_factory.mktemp("store"), returns) as store:
        known = [r for r in rewards_of(retrospective(store, ALL).rows) if r is not None]
    assert sum(known) == pytest.approx(returns[-1] - returns[0])


def test_of_right_attempts_only_a_few_are_reflected_on(tmp_path):
    tasks = [make_task(f"t{i}") for i in range(6)]
    attempts = [make_attempt(t, 0, f"SELECT {i}") for i, t in enumerate(tasks)]
    store = filled(tmp_path, tasks, [(a, float(i >= 4)) for i, a in enumerate(attempts)])
    for a in attempts:
        reflect(store, a, "HINT: look again")
    assert [r.task for r in retrospective(store, Selection()).rows] == ["t0", "t1", "t2", "t3"]
    assert retrospective(store, Selection()).filtered == {"about a right attempt": 2}
    some = retrospective(store, Selection(successes=0.25)).rows
    assert len(some) == 5 and len({r.task for r in some} & {"t4", "t5"}) == 1
    assert len(retrospective(store, Selection(successes=1)).rows) == 6


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (f"HINT: write {GOLD.lower()};", False),
        ("HINT: SELECT  COUNT ( * )  FROM sale\nWHERE status = 'K2'", False),
        ("HINT: it begins SELECT COUNT(*) FROM sale WHERE status = 'K", False),
        ("HINT: the status has a code", True),
    ],
)
def test_a_reflection_that_holds_the_gold_answer_is_no_row(tmp_path, words, kept):
    store = trials(tmp_path, [0.0, 1.0], words)
    if kept:
        assert len(retrospective(store, ALL).rows) >= 1
    else:
        with pytest.raises(TrainError, match="the reflection holds a right answer: 2"):
            retrospective(store, ALL)


def test_a_prompt_that_showed_the_gold_answer_is_no_row(tmp_path):
    task = make_task()
    attempt = make_attempt(task, 0, "SELECT 0")
    store = filled(tmp_path, [task], [(attempt, 0.0)])
    reflect(store, attempt, "HINT: look again", asked=f"## Right SQL\n{GOLD}")
    with pytest.raises(TrainError, match="prompt shows the gold answer: 1"):
        retrospective(store, Selection())


def test_a_retry_that_read_other_words_gives_no_reward_and_no_answer_returns_nothing(tmp_path):
    task = make_task()
    tries = [make_attempt(task, 0, "SELECT 0"), make_attempt(task, 1, "SELECT 1", hints={"r9": "something else"})]
    store = filled(tmp_path, [task], [(a, 0.0) for a in tries])
    reflect(store, tries[0], "HINT: look at column 0")
    assert rewards_of(retrospective(store, Selection()).rows) == [None]
    other = make_task("t2")
    cut = make_attempt(other, 0, "", stop=StopReason.LENGTH, error="no answer")
    again = make_attempt(other, 1, "SELECT 1", hints={"new:t2/0.0": "be brief"})
    store.put_tasks([other])
    store.put_attempt(cut, [])
    store.put_attempt(again, [judged(again, 1.0)])
    reflect(store, cut, "HINT: be brief")
    rows = {r.task: r for r in retrospective(store, Selection()).rows}
    assert (rows["t2"].columns["before"], rows["t2"].columns["reward"]) == (0.0, 1.0)


def several(tmp_path, before, after):
    """One prompt, several reflections, each with a retry of its own (as several runs of one seed leave them)."""
    task = make_task()
    store = filled(tmp_path, [task], [])
    for i, value in enumerate(after):
        run = f"r{i}"
        start = make_attempt(task, 0, "SELECT 0", id=f"{run}/main/t1/0.0", run=run)
        told = {"new:t1/0.0": f"look at column {i}"}
        retry = make_attempt(task, 1, f"SELECT {i}", id=f"{run}/main/t1/1.0", run=run, parent=start.id, hints=told)
        store.put_attempt(start, [judged(start, before)])
        store.put_attempt(retry, [judged(retry, value)])
        reflect(store, start, f"HINT: look at column {i}")
    return [r for r in retrospective(store, ALL).rows if r.columns["reward"] is not None]


def test_within_a_group_the_first_return_cancels(tmp_path):
    rows = several(tmp_path, 0.3, [0.0, 0.3, 1.0, 0.3])
    gains, after = ([row.columns[c] for row in rows] for c in ("reward", "after"))
    assert gains == pytest.approx([-0.3, 0.0, 0.7, 0.0])
    means = sum(gains) / 4, sum(after) / 4
    assert means == pytest.approx((0.1, 0.4))
    assert [g - means[0] for g in gains] == pytest.approx([-0.4, -0.1, 0.6, -0.1])
    assert [g - means[0] for g in gains] == pytest.approx([a - means[1] for a in after])
    require_groups(rows, "retroformer")


def test_pairs_and_labels_of_reflections(tmp_path):
    rows = several(tmp_path, 0.3, [0.9, 0.1, 0.1])
    pairs = as_preference(rows)
    assert {(p.columns["chosen"][0]["content"][-1], p.columns["rejected"][0]["content"][-1]) for p in pairs} == {
        ("0", "1"), ("0", "2"),
    }, "equal rewards are no pair"  # fmt: skip
    assert all(p.columns["prompt"] == rows[0].columns["prompt"] and len(p.attempts) == 4 for p in pairs)
    assert as_preference(rows, margin=0.8) == [] and len(as_preference(rows, margin=0.7)) == 2
    assert [r.columns["label"] for r in as_kto(rows)] == [True, False, False]
    (exact,) = [r for r in several(tmp_path / "x", 0.25, [0.5, 0.25, 0.25]) if r.columns["after"] == 0.5]
    assert as_kto([exact])[0].columns["label"] is False, "0.25 is not above 0.25"
    assert as_kto([exact], threshold=0.2)[0].columns["label"] is True


def test_a_world_that_never_changes_gives_nothing_to_learn(tmp_path):
    rows = several(tmp_path, 0.0, [0.0, 0.0, 0.0])
    assert [row.columns["reward"] for row in rows] == [0.0, 0.0, 0.0]
    with pytest.raises(TrainError, match=r"all 3 rewards are 0: every advantage of retroformer would be 0"):
        require_rewards(rows, "retroformer")
    with pytest.raises(TrainError, match="each of 1 prompts has one sample"):
        require_groups(rows[:1], "retroformer")
    assert as_preference(rows) == []


# relift.md, section 8 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "wanted"),
    [([0.0] * 8, 1), ([0.0] * 7 + [1.0], 0), ([1.0] * 8, 0), ([-1.0] * 8, 0), ([0.0] * 6 + [None] * 2, 1)],
)
def test_a_question_is_hard_when_its_whole_group_failed(tmp_path, returns, wanted):
    assert hard([r for r in returns if r is not None]) == bool(wanted)
    task = make_task()
    group = [(make_attempt(task, 0, f"SELECT {i}", id=f"g{i}", sample=i), r) for i, r in enumerate(returns)]
    words = {"r7": "the status has a code"}
    retry = make_attempt(task, 1, "SELECT 99", id="retry", parent="g0", hints=words)
    twin = make_attempt(task, 1, "SELECT 98", id="twin", parent="g1", hints=words)
    store = filled(tmp_path, [task], [*group, (retry, 1.0), (twin, 1.0)])
    if not wanted:
        with pytest.raises(TrainError, match="of 0 questions that a whole group failed"):
            demonstrations(store, Selection())
        return
    (row,) = demonstrations(store, Selection()).rows
    assert row.columns["prompt"][0]["content"] == task.messages[0].content, "the reflection is not in the prompt"
    assert row.columns["completion"] == [{"role": "assistant", "content": fenced("SELECT 98")}]
    assert (row.columns["failed"], row.origin) == (sum(r is not None for r in returns), "refined")
    assert [s.keep for s in row.trace.mask] == [True, False, True]
    assert len(demonstrations(store, Selection(per_task=5)).rows) == 2


def test_a_right_answer_without_words_is_no_demonstration_and_a_correction_is(tmp_path):
    task = make_task()
    wrong = make_attempt(task, 0, "SELECT 0", id="a0")
    lucky = make_attempt(task, 0, "SELECT 1", id="a1", arm="other")
    store = filled(tmp_path, [task], [(wrong, 0.0), (lucky, 1.0)])
    with pytest.raises(TrainError, match="right without any words: 1"):
        demonstrations(store, Selection())
    said = judged(wrong, 0.0, "user", source="user", correction="SELECT 5", oracle=False)
    store.put_feedback([said])
    (row,) = demonstrations(store, Selection(critic="sql_result")).rows
    assert (row.origin, row.columns["completion"][0]["content"]) == ("correction", fenced("SELECT 5"))


# critique_grpo.md, section 10 -----------------------------------------------------------------------------------------

CRITIQUE = "VERDICT: wrong\nThe status is a code."


def criticised(tmp_path, words=CRITIQUE, refined="SELECT 1", text="", values=(0.0, 1.0)):
    task = make_task()
    start = make_attempt(task, 0, "SELECT 0")
    retry = make_attempt(task, 1, refined, hints={"critique:t1/0.0": words.replace("\n", " ")})
    if text:
        retry = retry.replace(steps=(retry.steps[0].replace(text=text),))
    store = filled(tmp_path, [task], zip((start, retry), values, strict=True))
    store.put_step(start.id, "critique", Step(author="guide", role="critic", text=words))
    return store, task


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_refined_row_has_its_siblings_prompt_and_no_word_of_the_critique(tmp_path, value):
    store, task = criticised(tmp_path, values=(0.0, value))
    (row,) = refine(store, Selection()).rows
    c = row.columns
    assert c["prompt"] == [{"role": "user", "content": task.messages[0].content}]
    assert (c["first"][0]["content"], c["completion"][0]["content"]) == (fenced("SELECT 0"), fenced("SELECT 1"))
    assert (c["critique"], c["first_reward"], c["reward"]) == (CRITIQUE, 0.0, value)
    assert not any(contains(str(c[k]), line) for k in ("prompt", "completion") for line in CRITIQUE.splitlines())
    assert row.trace.logprobs is None and row.trace.off_policy and row.origin == "refined"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"words": f"VERDICT: wrong\n{GOLD}"}, "the critique holds a right answer"),
        ({"words": "VERDICT: right\nFine."}, "the critique contradicts the verdict"),
        ({"text": f"As the critique says:\n{fenced('SELECT 1')}"}, "the refined answer speaks of the critique"),
    ],
)
def test_critiques_that_leak_or_contradict_are_left_out(tmp_path, changed, why):
    store, _ = criticised(tmp_path, **changed)
    with pytest.raises(TrainError, match=f"{why}: 1"):
        refine(store, Selection())


def test_the_first_perfect_refinement_is_picked_else_the_best():
    assert (pick([0, 1, 0, 1]), pick([0.2, 0.7, 0]), pick([0.5, 0.5])) == (1, 1, 0)


def test_privileged_context_is_what_the_student_does_not_see(tmp_path):
    store, task = criticised(tmp_path)
    built = privileged(store, Selection())
    (row,) = built.rows
    assert row.columns["privileged_context"] == CRITIQUE.replace("\n", " ")
    assert row.columns["prompt"][0]["content"] == task.messages[0].content
    assert row.columns["completion"][0]["content"] == fenced("SELECT 1")
    assert built.filtered == {"sql_result below 1": 1}
    leaky, _ = criticised(tmp_path / "b", words=f"write {GOLD}")
    with pytest.raises(TrainError, match="the words hold a right answer: 1"):
        privileged(leaky, Selection())


# rlvf_c3po.md, section 8 ----------------------------------------------------------------------------------------------


def scope_store(tmp_path, n=40, empty=()):
    """A run of `verbal memory scope`, its lesson changing the answers inside only."""
    kinds = {kind: [f"scope/{kind}{i}" for i in range(n)] for kind in ("inside", "near", "outside")}
    tasks = {i: make_task(i, gold=None) for ids in kinds.values() for i in ids}
    pairs = []
    for i, task in tasks.items():
        answer = "" if i in empty else f"SELECT '{i}'"
        pairs.append((make_attempt(task, 0, answer, id=f"without/{i}", arm="scope-1"), None))
        changed = f"SELECT upper('{i}')" if "inside" in i else answer
        pairs.append((make_attempt(task, 0, changed, id=f"with/{i}", arm="scope-2", hints={"r1": "be loud"}), None))
    store = filled(tmp_path, tasks.values(), pairs)
    store.start_run("r", {}, {"scope": {"memory": "m", "item": "r1"}, "requests": kinds})
    return store


def test_scope_triples_pair_inside_and_keep_near_and_outside(tmp_path):
    store = scope_store(tmp_path, n=12, empty=("scope/near3", "scope/outside5"))
    rows = scope(store, Selection()).rows
    assert 8 <= len(rows) <= 11, "one near answer is empty, and each side is cut to its shortest set"
    for row in rows:
        c = row.columns
        assert "upper" in str(c["chosen"]) and "upper" not in str([c[k] for k in c if k != "chosen"])
        assert all(c[k][0]["content"] for k in ("near_completion", "outside_completion"))
        assert "be loud" not in str(dict(c)) and len(row.attempts) == 4
    assert all("near3" not in str(dict(row.columns)) for row in rows)


def test_no_prompt_is_both_trained_and_held_out(tmp_path):
    rows = scope(scope_store(tmp_path), Selection()).rows
    sides = {
        side: {str(r.columns[k]) for r in rows if r.columns["held_out"] is side
               for k in ("prompt", "near_prompt", "outside_prompt")}
        for side in (True, False)
    }  # fmt: skip
    assert sides[True] and not sides[True] & sides[False]
    share = sum(held_out(f"prompt {i}") for i in range(2000)) / 2000
    assert 0.07 < share < 0.13 and held_out("x", 1.0) and not held_out("x", 0.0)


def test_scope_says_what_is_missing(tmp_path):
    store = trials(tmp_path, [0.0, 1.0])
    with pytest.raises(TrainError, match=r"no run tried a lesson's scope(.|\n)*verbal memory scope"):
        scope(store, Selection())


# leaks ----------------------------------------------------------------------------------------------------------------

tokens = st.lists(st.sampled_from(["select", "a", "from", "t", "where", "=", "1", ","]), min_size=1, max_size=12)


@given(tokens, tokens, tokens)
def test_an_answer_is_found_wherever_it_stands(before, answer, after):
    text = " ".join([*before, *answer, *after])
    assert contains(text, " ".join(answer)) and shows(text.upper(), ["\n".join(answer)])
    assert not shows("", [" ".join(answer)]) and not shows(text, ["", " ; "])
