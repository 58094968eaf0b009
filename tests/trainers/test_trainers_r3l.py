"""R3L: the eleven checks of its specification, and that it trains and goes on after a kill."""

import dataclasses
import json
import os

import pytest

from verbal.contracts import Method
from verbal.errors import ConfigError, TrainError
from verbal.loop.branches import diverged, unguided
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.trainers.grpo import GRPO
from verbal.trainers.pivots import Look, better, echoes, read_look, shared
from verbal.trainers.r3l import R3L
from verbal.trainers.rollouts import Made
from verbal.types import Attempt, Message, Step

from .corridor import CHATML, HERE, STRICT, Corridor, byte_model, corridor, look_back, recipe, record, walker

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

WRONG_AT_1 = ("left", "right", "left")
"""A walk whose second door is wrong for the task c0."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return byte_model(tmp_path_factory.mktemp("bytes"), context=1024)


def sampled(rollouts, tasks=("c0",), step=0, **options):
    """The rows of one step, a list for each task."""
    return rollouts.run(R3L(**{"group": 2, **options}).sample(rollouts, list(tasks), step))


def batch(scores, kinds=None, groups=None, method=None):
    """Weights that R3L gives to rows, before the division by 1 + tau."""
    from verbal.trainers.group import Batch

    n, method = len(scores), method or R3L()
    rows = Batch(
        scores=torch.tensor([float("nan") if s is None else s for s in scores]),
        groups=torch.tensor(groups or [0] * n),
        mask=torch.ones(n, 1),
        kinds=tuple(kinds or ["initial"] * n),
        pivots=torch.zeros(n, dtype=torch.long),
    )
    return (method.credit(rows) * (1 + method.tau)).tolist()


# 1 to 3, 11: credit ---------------------------------------------------------------------------------------------------


def test_1_amplified_weights_as_the_code_has_them():
    scores = [0, 0, 0.5, 0, 1, 0, 0, 0.25]
    expected = [-0.21875, -0.21875, 0.84375, -0.21875, 1, -0.21875, -0.21875, 0.09375]
    assert batch(scores) == pytest.approx(expected)
    expected[4] = 3
    assert batch(scores, method=R3L(max_reward=3.0)) == pytest.approx(expected)


def test_2_one_success_among_eight():
    scores = [0.0] * 7 + [1.0]
    assert batch(scores) == pytest.approx([-0.125] * 7 + [1.0])
    assert batch(scores, method=R3L(max_reward=3.0))[-1] == pytest.approx(3.0)
    assert batch(scores, method=R3L(max_reward=None))[-1] == pytest.approx(2.625)


def test_3_groups_without_a_difference():
    assert batch([1.0] * 8) == [1.0] * 8
    assert batch([0.0] * 8) == [0.0] * 8


def test_rows_to_imitate_weigh_one_and_move_no_mean_and_fillers_weigh_nothing():
    scores, kinds = (
        [0.0, 0.0, 0.5, None, None, 1.0],
        ["initial", "initial", "retry", "supervised", "filler", "supervised"],
    )
    assert batch(scores, kinds) == pytest.approx([-1 / 6, -1 / 6, 1.0, 1.0, 0.0, 1.0])
    assert batch([0.5, 0.0, 1.0], groups=[0, 1, 1]) == pytest.approx([1.5, -0.5, 1.0])  # a group of one has mean 0


def gradients(tiny, folder, method, rows):
    """The gradient of the first step of a method that is given its rows."""
    from transformers import TrainerCallback

    found = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))

    class Given(type(method)):
        async def sample(self, rollouts, tasks, step):
            return [rows for _ in tasks]

        def callbacks(self, trainer):
            return [Keep()]

    options = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    Given(**options).train(tasks_of(1), tiny, str(folder), recipe=recipe(), seed=0)
    return found[0]


def tasks_of(n):
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/t.db") as store:
        store.put_tasks(Corridor().tasks()[:n])
        return GRPO().examples(store)


FAST = {"tasks": 1, "steps": 1, "learning_rate": 1e-3, "max_tokens": 6, "device": "cpu", "max_grad_norm": 1e9}


def test_11_without_retries_and_amplification_it_is_reinforce_with_a_mean_baseline(tiny, tmp_path):
    with corridor(tiny, tmp_path / "rows", max_tokens=6) as rollouts:
        (made,) = rollouts.run(rollouts.groups(0, ["c0"], 4))
        rows = [dataclasses.replace(rollouts.row(m), reward=r) for m, r in zip(made, (0, 1, 0.5, 0), strict=True)]
    plain = {**FAST, "group": 4, "entropy": 0.0}
    own = R3L(**plain, alpha=1.0, max_reward=None, supervised=False, tau=0.0)
    reinforce = gradients(tiny, tmp_path / "grpo", GRPO(**plain, loss="bnpo"), rows)
    assert torch.allclose(gradients(tiny, tmp_path / "r3l", own, rows), reinforce, rtol=1e-4, atol=1e-7)
    spare = R3L(**plain, alpha=1.0, max_reward=None, tau=1.0, extra=2)  # fillers count in no mean
    half = gradients(tiny, tmp_path / "spare", spare, rows)
    assert torch.allclose(2 * half, reinforce, rtol=1e-4, atol=1e-7) and float(reinforce.abs().max()) > 0


# 4 to 8: rows ---------------------------------------------------------------------------------------------------------


def live(row):
    """Which tokens of a row count, as the trainer is told."""
    return [m if i >= row.pivot else 0 for i, m in enumerate(row.tokens.mask)]


def test_4_turns_before_the_pivot_are_masked():
    from verbal.trainers.weights import Tokens

    mask = [1] * 3 + [0] + [1] * 4 + [0] + [1] * 5
    tokens = Tokens([7], list(range(14)), mask, None, (0, 4, 9))
    other = dataclasses.replace(tokens, completion=[*range(4), *[99] * 10])
    cuts = {k: shared(tokens, other, k) for k in range(3)}
    assert cuts == {0: 0, 1: 4, 2: 4}, "what is not shared is not masked"
    assert [sum(mask[c:]) for c in (shared(tokens, tokens, k) for k in range(3))] == [12, 9, 5]
    assert shared(tokens, tokens, 3) == 0 and shared(tokens, dataclasses.replace(tokens, prompt=[8]), 1) == 0


def test_5_7_8_base_and_retry_share_a_masked_prefix_and_only_the_copy_to_imitate_has_advice(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker(WRONG_AT_1)) as rollouts:
        (rows,) = sampled(rollouts, extra=2)
        decode = rollouts.weights.tokenizer.decode
        assert [r.kind for r in rows] == ["initial", "retry", "supervised", "supervised"]
        assert [r.reward for r in rows] == [pytest.approx(2 / 3), 1.0, None, None]
        base, retry, reflection, guided = rows
        cut = base.tokens.turns[1]
        assert base.pivot == retry.pivot == cut > 0
        assert base.tokens.prompt == retry.tokens.prompt
        assert base.tokens.completion[:cut] == retry.tokens.completion[:cut]
        for row, turns in ((base, ["I go right", "I go left"]), (retry, ["I go left", "I go left"])):
            words = [t for t, m in zip(row.tokens.completion, live(row), strict=True) if m]
            assert decode(words) == "".join(f"{t}<|im_end|>" for t in turns)
        assert "other one" not in decode([*retry.tokens.prompt, *retry.tokens.completion])
        text = decode([*guided.tokens.prompt, *guided.tokens.completion])
        assert text.count("At door 1 take the other one.") == 1 and text.count("Door 1?") == 1
        suffix = retry.tokens.completion[retry.tokens.turns[1] :]
        assert guided.tokens.completion[guided.pivot :] == suffix and guided.pivot == guided.tokens.turns[1]
        assert decode(reflection.tokens.completion).startswith('{"trajectory_summary"')
        assert "walked: door 1 was wrong" in decode(reflection.tokens.prompt)
        assert reflection.tokens.mask == [1] * len(reflection.tokens.completion)
        assert dict(rollouts.counts) == {
            "reflections": 1, "retries": 1, "retries that were better": 1, "rows to imitate without a place": 0,
        }  # fmt: skip


def test_retries_stand_in_the_store_beside_what_they_left(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker(WRONG_AT_1)) as rollouts:
        sampled(rollouts)
        store = rollouts.context(0).store
        base, retry = sorted(store.attempts("rollouts"), key=lambda a: a.round)
        assert (retry.parent, retry.branch_step) == (base.id, 1)
        assert retry.steps[0] == base.steps[0] and retry.steps[1].author == "hint"
        assert unguided(retry).steps[1].prompt == base.steps[1].prompt
        assert store.feedback([retry.id])[retry.id][0].value == 1.0
        assert read_look(store.step(base.id, "reflect").text, 3) == Look("failure", "At door 1 take the other one.", 1)
        before = dict(rollouts.counts)
        again = sampled(rollouts)  # as after a kill: nothing is asked again
        assert [r.kind for r in again[0]] == ["initial", "retry", "supervised"]
        assert len(store.attempts("rollouts")) == 2 and rollouts.counts["retries"] == 2 * before["retries"]


def test_a_pivot_of_0_masks_nothing_and_advice_stands_in_front(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker(("right", "left", "left"))) as rollouts:
        ((base, retry, *imitated),) = sampled(rollouts, extra=2)
        assert (base.pivot, retry.pivot, imitated[1].pivot) == (0, 0, 0)
        first = rollouts.weights.tokenizer.decode(imitated[1].tokens.prompt)
        assert (
            first.startswith("<|im_start|>system\nAdvice for what comes next")
            and base.tokens.prompt == retry.tokens.prompt
        )


def test_6_the_loss_is_a_token_mean_over_one_plus_tau():
    from verbal.trainers.losses import aggregate

    for weight, loss, slopes in ((1.0, 0.5, [-0.25, -0.25]), (-0.2, -0.1, [0.05, 0.05])):
        logps = torch.tensor([[-0.5, -1.5]], requires_grad=True)
        value = aggregate(-logps * weight / (1 + R3L().tau), torch.ones(1, 2), "token")
        value.backward()
        assert value.item() == pytest.approx(loss) and logps.grad[0].tolist() == pytest.approx(slopes)


# 9, 10: what is tried, what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "turns", "kept"),
    [
        (0, 1, (2, 2), True),
        (1, 1, (3, 2), True),
        (1, 1, (2, 2), False),
        (0.2, 0.8, (2, 2), False),
        (1, 0, (3, 1), False),
    ],
)
def test_9_what_is_imitated(before, after, turns, kept):
    base, again = (
        Made(Attempt(id=i, run="r", task="t", steps=(Step(author="policy", text="x"),) * n), v)
        for i, n, v in zip("ab", turns, (before, after), strict=True)
    )
    assert better(base, again) is kept


def test_10_reflections_are_read_by_the_rule():
    assert read_look(f"so: {record(retry_from_step=2)} ok", 3) == Look("failure", "take the other door", 2)
    assert read_look(record(trajectory_outcome="success_but_inefficient"), 1).outcome == "success_but_inefficient"
    perfect = record(trajectory_outcome="success", improvement_suggestion=None, retry_from_step=None)
    assert read_look(perfect, 1) == Look("success") and read_look(perfect, 1).perfect
    wrong = [
        "", "none", "{", "} {", "[1]", "{}", record()[:-5], record(retry_from_step=3), record(retry_from_step=-1),
        record(retry_from_step="1"), record(retry_from_step=True), record(retry_from_step=None),
        record(trajectory_outcome="fail"), record(trajectory_outcome=None), record(trajectory_outcome=["failure"]),
        record(trajectory_summary=" "), record(root_cause_analysis=None), record(improvement_suggestion=""),
        record(improvement_suggestion=7), json.dumps({"a": record()}),
    ]  # fmt: skip
    assert [read_look(text, 3) for text in wrong] == [None] * len(wrong)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I do not know", "reflections without a readable verdict"),
        (record(retry_from_step=3), "reflections without a readable verdict"),
        (record(improvement_suggestion="Go left left left"), "advice that gives the answer away"),
    ],
)
def test_10_without_a_valid_reflection_the_base_attempt_stays_alone(tiny, tmp_path, text, count):
    def reply(messages, index, seed):
        return text if "JSON object" in messages[-1].content else walker(WRONG_AT_1)(messages, index, seed)

    with corridor(tiny, tmp_path, reply) as rollouts:
        ((base,),) = sampled(rollouts)
        assert (base.kind, base.pivot, rollouts.counts[count], rollouts.counts["retries"]) == ("initial", 0, 1, 0)


def test_what_is_judged_perfect_is_not_tried_again_and_its_reflection_imitated_if_it_was(tiny, tmp_path):
    with corridor(tiny, tmp_path / "right", walker(("left",) * 3)) as rollouts:
        (rows,) = sampled(rollouts)
        assert [r.kind for r in rows] == ["initial", "supervised"]
        assert [r.kind for r in sampled(rollouts, step=1, trigger="reward")[0]] == ["initial"]
        assert [r.kind for r in sampled(rollouts, step=2, supervised=False)[0]] == ["initial"]

    def pleased(messages, index, seed):
        good = record(trajectory_outcome="success")
        return good if "JSON object" in messages[-1].content else walker(WRONG_AT_1)(messages, index, seed)

    with corridor(tiny, tmp_path / "wrong", pleased) as rollouts:
        assert [r.kind for r in sampled(rollouts)[0]] == ["initial"]


def test_a_replay_that_diverges_is_dropped_and_counted(tiny, tmp_path):
    with corridor(tiny, tmp_path, walker(WRONG_AT_1), restless=True) as rollouts:
        ((base,),) = sampled(rollouts)
        assert (base.kind, base.pivot) == ("initial", 0)
        assert rollouts.counts["replays that diverged"] == rollouts.counts["retries"] == 1
        assert [diverged(a) for a in sorted(rollouts.context(0).store.attempts("rollouts"), key=lambda a: a.round)] == [
            False, True,
        ]  # fmt: skip


def test_retries_that_speak_of_their_advice_are_dropped(tiny, tmp_path):
    def reply(messages, index, seed):
        said = walker(WRONG_AT_1)(messages, index, seed)
        return f"As the hint says {said}" if "Advice for what" in str(messages) and "{" not in said else said

    with corridor(tiny, tmp_path, reply) as rollouts:
        ((base,),) = sampled(rollouts)
        assert rollouts.counts["retries that speak of their advice"] == 1 and base.pivot == 0


def test_what_counts_as_speaking_of_advice():
    def retry(text, prompt="go"):
        step = Step(author="policy", text=text, prompt=(Message(role="user", content=prompt),))
        return Attempt(id="a", run="r", task="t", steps=(step,), branch_step=0)

    assert echoes(retry("Following the guidance, left"), "left")
    assert echoes(retry("SELECT hint FROM t"), "x") and not echoes(retry("SELECT hint FROM t", "column hint"), "x")
    assert not echoes(retry("go left"), "go left"), "short advice is what the reply should be"
    long = "count the rows of the table that holds all orders"
    assert echoes(retry(f"I will {long}."), long) and not echoes(retry("SELECT COUNT(*) FROM orders"), long)


def test_rows_to_imitate_take_open_places_of_other_groups(tiny, tmp_path):
    """c0 is solved at once, c2 is not: its rows to imitate find a place in the group of c0."""
    with corridor(tiny, tmp_path, walker(("left",) * 3), tasks=("c0", "c2")) as rollouts:
        first, second = sampled(rollouts, ("c0", "c2"), extra=0)
        assert [r.kind for r in first] == ["initial", "supervised"] and [r.kind for r in second] == ["initial", "retry"]
        assert rollouts.counts["rows to imitate without a place"] == 2


def test_a_template_that_allows_no_advice_there_says_what_to_do(tmp_path):
    model = byte_model(tmp_path / "model", STRICT + CHATML, context=1024)
    with corridor(model, tmp_path / "out", walker(WRONG_AT_1)) as rollouts:
        with pytest.raises(TrainError, match="allows no system message") as told:
            sampled(rollouts)
        assert 'place = "user"' in str(told.value)
        (rows,) = sampled(rollouts, place="user")
        assert [r.kind for r in rows] == ["initial", "retry", "supervised"]


def test_a_model_that_follows_no_free_words_reflects_in_the_apps_role_and_begins_anew(tiny, tmp_path):
    def reply(messages, index, seed):
        text = messages[-1].content
        if text.startswith("reflector"):
            return "At door 0 take the other one."
        return walker(("left", "right"))(messages, index, seed)

    with corridor(tiny, tmp_path, reply, chats=False, doors=1, tasks=("c1",)) as rollouts:
        (rows,) = sampled(rollouts, ("c1",), extra=2)
        decode = rollouts.weights.tokenizer.decode
        assert [r.kind for r in rows] == ["initial", "retry", "supervised", "supervised"]
        base, retry, reflection, guided = rows
        assert retry.tokens.prompt == base.tokens.prompt and "hint:" not in decode(retry.tokens.prompt)
        assert "hint: At door 0" in decode(guided.tokens.prompt)
        assert decode(reflection.tokens.prompt).startswith("<|im_start|>user\nreflector")


# options, training ----------------------------------------------------------------------------------------------------


def test_it_is_a_method_with_a_recipe():
    method = make_part("trainers", "r3l", group=4)
    assert isinstance(method, Method) and method.slots == 6
    assert R3L(extra=1).slots == 9 and R3L(supervised=False).slots == 8
    assert (R3L().loss, R3L().beta, R3L().scale, R3L().alpha, R3L().max_reward) == ("dapo", 0.0, "none", 3.0, 1.0)
    load_recipe("r3l").resolve()
    for wrong in ({"group": 3}, {"alpha": -1.0}, {"tau": -1.0}, {"micro_batch": 5}):
        with pytest.raises(ConfigError):
            R3L(**wrong)


def test_it_trains_and_goes_on_after_a_kill_bit_for_bit(tiny, tmp_path):
    from safetensors.torch import load_file

    examples = tasks_of(4)
    plan = recipe(roles={"reflector": f"{HERE}:Reflector"})
    method = R3L(**{**FAST, "tasks": 2, "steps": 3}, group=2, save_steps=1)
    whole = method.train(examples, tiny, str(tmp_path / "whole"), seed=3, recipe=plan)
    assert whole["counts"]["retries"] > 0 and whole["counts"]["reflections"] == 3 * 2
    assert whole["steps"] == len(whole["curve"]) == 3

    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=plan, on_progress=kill)
    again = method.train(examples, tiny, str(tmp_path / "cut"), seed=3, recipe=plan, resume=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert again["counts"] == whole["counts"]


def test_look_back_of_the_test_is_valid():
    said = Message(role="user", content="walked: door 2 was wrong")
    assert read_look(look_back([said]), 3).pivot == 2
