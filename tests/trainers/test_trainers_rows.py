"""Rows from attempts: what becomes one, what never does, and that order does not matter."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verbal.errors import ConfigError, TrainError, UnknownName
from verbal.store import Store
from verbal.trainers.rows import Selection, build, preference, sft
from verbal.types import Attempt, Feedback, Group, Message, Step, StopReason, Task

PROMPT = "# Role: solver\n## Hints\n{hints}\n## Tried\n{tried}\n## Question\n{question}\n## Answer\n"


def prompt_text(question: str, hints: str = "none", tried: str = "none") -> str:
    return PROMPT.format(hints=hints, tried=tried, question=question)


def make_task(name: str, split: str = "train", question: str | None = None) -> Task:
    text = prompt_text(question or f"How many {name}?")
    return Task(id=name, kind="text2sql", messages=(Message(role="user", content=text),), gold="SELECT 1", split=split)


def make_attempt(
    id: str, task: Task, answer: str, *, text: str | None = None, hint: str = "", **fields: object
) -> Attempt:
    hints = f'<hint id="r7">{hint}</hint>' if hint else "none"
    seen = prompt_text(f"How many {task.id}?", hints)
    shown = ("r7",) if hint else ()
    step = Step(
        author="policy",
        text=f"```sql\n{answer}\n```" if text is None else text,
        prompt=(Message(role="user", content=seen),),
        shown=shown,
    )
    return Attempt(
        **{"id": id, "run": "a", "task": task.id, "answer": answer, "steps": (step,), "model": "m/1"} | fields
    )


def judged(attempt: Attempt, value: float | None, critic: str = "sql_result", **fields: object) -> Feedback:
    return Feedback(
        **{"attempt": attempt.id, "critic": critic, "value": value, "oracle": critic == "sql_result"} | fields
    )


def filled(path: Path, tasks: Iterable[Task], pairs: Iterable[tuple[Attempt, list[Feedback]]]) -> Store:
    store = Store(path / "verbal.db")
    store.put_tasks(tasks)
    for attempt, feedback in pairs:
        assert store.put_attempt(attempt, feedback)
    return store


def texts(rows: Iterable, column: str = "completion") -> list[str]:
    return [row.columns[column][0]["content"] for row in rows]


def test_a_right_retry_is_trained_under_the_first_prompt(tmp_path):
    task = make_task("t1")
    first = make_attempt("a1", task, "SELECT 0")
    retry = make_attempt("a2", task, "SELECT 1", hint="late means days > 3", round=1, parent="a1")
    store = filled(tmp_path, [task], [(first, [judged(first, 0.0)]), (retry, [judged(retry, 1.0)])])
    built = sft(store, Selection())
    (row,) = built.rows
    assert row.columns["prompt"] == [{"role": "user", "content": task.messages[0].content}]
    assert row.columns["completion"] == [{"role": "assistant", "content": "```sql\nSELECT 1\n```"}]
    assert set(row.columns) == {"prompt", "completion"}
    assert (row.origin, row.oracle, row.attempts, row.models) == ("refined", True, ("a2",), ("m/1",))
    assert built.filtered == {"sql_result below 1": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("By the hint r7, late counts.\n```sql\nSELECT 1\n```", "```sql\nSELECT 1\n```"),
        ("late means days > 3, so\n```sql\nSELECT 1\n```\nis it", "```sql\nSELECT 1\n```"),
        ("The Hints say so: SELECT 1", None),
        ("```sql\n-- late means days > 3\nSELECT 1\n```", None),
        ("Counting gives\n```sql\nSELECT 1\n```", "Counting gives\n```sql\nSELECT 1\n```"),
    ],
)
def test_a_completion_that_speaks_of_hints_is_cut_to_its_answer_or_left_out(tmp_path, text, expected):
    task = make_task("t1")
    attempt = make_attempt("a1", task, "SELECT 1", text=text, hint="late means days > 3")
    store = filled(tmp_path, [task], [(attempt, [judged(attempt, 1.0)])])
    if expected is None:
        with pytest.raises(TrainError, match="stands without its hints: 1"):
            sft(store, Selection())
    else:
        assert texts(sft(store, Selection()).rows) == [expected]


def test_test_and_dev_tasks_are_refused_and_counted(tmp_path):
    tasks = [make_task("t1"), make_task("t2", "test"), make_task("t3", "dev")]
    twin = make_task("t4", "train", question="How many t2?")
    attempts = [make_attempt(f"a{i}", task, f"SELECT {i}") for i, task in enumerate([*tasks, twin])]
    store = filled(tmp_path, [*tasks, twin], [(a, [judged(a, 1.0)]) for a in attempts])
    built = sft(store, Selection())
    assert [row.task for row in built.rows] == ["t1"]
    assert built.filtered == {"same prompt as a test task": 1, "split dev": 1, "split test": 1}
    with pytest.raises(TrainError, match="sealed"):
        Selection(splits=("train", "test"))


def test_what_broke_or_was_not_judged_gives_no_row(tmp_path):
    task = make_task("t1")
    good = make_attempt("a0", task, "SELECT 9")
    cases = {
        "the attempt broke": make_attempt("a1", task, "SELECT 1", error="server down"),
        "the attempt broke ": make_attempt("a2", task, "SELECT 2", stop=StopReason.BUDGET),
        "no answer, or none that stands without its hints": make_attempt("a3", task, ""),
        "sql_result gave no value": make_attempt("a4", task, "SELECT 4"),
        "task not in the store": make_attempt("a5", make_task("gone"), "SELECT 5"),
        "arm shuffled": make_attempt("a6", task, "SELECT 6", arm="shuffled"),
    }
    others = [a for reason, a in cases.items() if reason != "sql_result gave no value"]
    pairs = [(a, [judged(a, 1.0)]) for a in (good, *others)]
    unjudged = cases["sql_result gave no value"]
    store = filled(tmp_path, [task], [*pairs, (unjudged, [judged(unjudged, None, reason="timeout")])])
    built = sft(store, Selection(arms=("main",), critic="sql_result"))
    assert texts(built.rows) == ["```sql\nSELECT 9\n```"]
    assert built.filtered.pop("the attempt broke") == 2
    assert built.filtered == {reason: 1 for reason in cases if not reason.startswith("the attempt broke")}


def test_guides_critics_and_reflectors_are_never_completions(tmp_path):
    task = make_task("t1")
    steps = (
        Step(author="policy", text="```sql\nSELECT 1\n```"),
        Step(author="policy", text="VERDICT: right", role="critic"),
        Step(author="guide", text="SELECT 2"),
        Step(author="policy", text="HINT: late means days > 3", role="reflector"),
    )
    attempt = make_attempt("a1", task, "SELECT 1", steps=steps)
    store = filled(tmp_path, [task], [(attempt, [judged(attempt, 1.0)])])
    assert texts(sft(store, Selection()).rows) == ["```sql\nSELECT 1\n```"]


def test_a_user_outweighs_a_critic_and_corrections_are_learned(tmp_path):
    task = make_task("t1")
    attempt = make_attempt("a1", task, "SELECT 1")
    user = judged(attempt, 0.0, "user", source="user", correction="SELECT 5")
    gold = judged(attempt, 1.0, correction="SELECT gold", source="gold")
    store = filled(tmp_path, [task], [(attempt, [gold, user])])
    (row,) = sft(store, Selection(critic="sql_result")).rows
    assert texts([row]) == ["```sql\nSELECT 5\n```"]
    assert (row.origin, row.oracle, row.critic, row.models) == ("correction", False, "user", ())
    store.put_feedback([judged(attempt, 0.0, "user", source="user", correction="SELECT 5", oracle=True)])
    with pytest.raises(TrainError, match="no attempt reached"):
        sft(store, Selection(critic="sql_result"))
    (row,) = sft(store, Selection(critic="sql_result", corrections="all")).rows
    assert (row.origin, row.oracle) == ("correction", True)
    store.put_feedback([user])
    (pair,) = preference(store, Selection(critic="sql_result")).rows
    assert (texts([pair], "chosen"), texts([pair], "rejected")) == (
        ["```sql\nSELECT 5\n```"],
        ["```sql\nSELECT 1\n```"],
    )


def test_pairs_come_from_retries_groups_and_samples_once_each(tmp_path):
    task = make_task("t1")
    wrong, right = make_attempt("a1", task, "SELECT 0"), make_attempt("a2", task, "SELECT 1", parent="a1", round=1)
    again, other = make_attempt("a3", task, "SELECT 0", sample=1), make_attempt("a4", task, "SELECT 1", sample=2)
    pairs = [(a, [judged(a, float(a.answer == "SELECT 1"))]) for a in (wrong, right, again, other)]
    store = filled(tmp_path, [task], pairs)
    store.put_group("a", Group(task="t1", attempts=("a1", "a2"), preferences=(("a2", "a1"),)))
    (row,) = preference(store, Selection()).rows
    assert set(row.columns) == {"prompt", "chosen", "rejected"}
    assert (row.origin, row.attempts, row.value) == ("refined", ("a1", "a2", "a3", "a4"), 1.0)
    assert texts([row], "chosen") != texts([row], "rejected")


def test_reasons_for_nothing_to_train_on(tmp_path):
    task = make_task("t1")
    store = Store(tmp_path / "empty.db")
    with pytest.raises(TrainError, match="holds no attempt"):
        sft(store, Selection())
    attempt = make_attempt("a1", task, "SELECT 1")
    store = filled(tmp_path, [task], [(attempt, [])])
    with pytest.raises(TrainError, match="run 'b' holds no attempt"):
        sft(store, Selection(run="b"))
    with pytest.raises(TrainError, match="no critic gave"):
        sft(store, Selection())
    store.put_feedback([judged(attempt, 0.0)])
    with pytest.raises(TrainError, match=r"no attempt reached 1 .*sql_result"):
        sft(store, Selection())
    store.put_feedback([judged(attempt, 1.0)])
    with pytest.raises(TrainError, match="both a right and a wrong answer"):
        preference(store, Selection())
    store.put_feedback([judged(attempt, 1.0, "judge"), judged(attempt, 1.0, "self_check")])
    with pytest.raises(TrainError, match="3 critics gave values"):
        sft(store, Selection())
    store.start_run("a", {"critics": {"names": ["judge", "sql_result"], "verdict": "judge"}})
    assert sft(store, Selection()).critic == "judge"
    with pytest.raises(UnknownName, match="kind of corrections"):
        Selection(corrections="gold")
    with pytest.raises(UnknownName, match="unknown format"):
        build(store, "rlhf", Selection())
    with pytest.raises(ConfigError, match="per_task is 0"):
        Selection(per_task=0)


HINT = "churned means status = 'X'"
answers = st.sampled_from(["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 'ü'"])
shapes = st.sampled_from(
    ["```sql\n{a}\n```", "Per the hint:\n```sql\n{a}\n```", HINT + "\n```sql\n{a}\n```", "{a}", "Hint! {a}"]
)
attempts = st.lists(
    st.tuples(st.integers(0, 5), answers, shapes, st.sampled_from([None, 0.0, 0.5, 1.0]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts, st.integers(0, 2**16), st.sampled_from(["sft", "preference"]), st.sampled_from([None, 1, 2]))
def test_rows_hold_no_hint_no_test_task_no_duplicate_and_no_order(tmp_path_factory, drawn, seed, format, per_task):
    tasks = [make_task(f"t{i}", ("train", "train", "train", "dev", "test", "train")[i]) for i in range(5)]
    tasks.append(make_task("t5", "train", question="How many t4?"))
    pairs = []
    for i, (which, answer, shape, value, hinted, retry) in enumerate(drawn):
        fields = {"round": 1, "parent": "a0"} if retry and i else {"sample": i}
        hint = HINT if hinted else ""
        attempt = make_attempt(f"a{i}", tasks[which], answer, text=shape.format(a=answer), hint=hint, **fields)
        pairs.append((attempt, [judged(attempt, value)] if value is not None else []))
    results = []
    for order in (pairs, random.Random(seed).sample(pairs, len(pairs))):
        with filled(tmp_path_factory.mktemp("store"), tasks, order) as store:
            try:
                results.append(build(store, format, Selection(per_task=per_task, critic="sql_result")))
            except TrainError as error:
                results.append((error.what, error.where if "left out" in error.where else ""))
    assert results[0] == results[1]
    if isinstance(results[0], tuple):
        return
    rows = results[0].rows
    shown = {a.id for a, _ in pairs if a.steps[0].shown}
    for row in rows:
        text = str(dict(row.columns))
        assert "hint" not in text.lower().replace("## hints", "")
        assert not (HINT in text and set(row.attempts) <= shown)
        assert row.task in ("t0", "t1", "t2")
        assert row.columns["prompt"] == [{"role": "user", "content": tasks[int(row.task[1])].messages[0].content}]
        assert row.attempts and all(i.startswith("a") for i in row.attempts)
    assert len({str(row.columns) for row in rows}) == len(rows)
    if per_task:
        assert max(sum(r.task == row.task for r in rows) for row in rows) <= per_task
