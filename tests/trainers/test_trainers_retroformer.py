"""Retroformer: what a reflection earns, who is asked how often, what is trained and what is not."""

import dataclasses
import os
from pathlib import Path

import pytest

from verbal.contracts import Method
from verbal.errors import ConfigError, TrainError
from verbal.models.scripted import ScriptedModel
from verbal.parts import make_part
from verbal.recipe import load_recipe
from verbal.run import learn as run_loop
from verbal.run import open_workshop
from verbal.store import Store
from verbal.trainers import checkpoint
from verbal.trainers.retroformer import Retroformer
from verbal.trainers.retroformer_offline import RetroformerOffline
from verbal.verbs import make_recipe

from .group_runs import chat_model
from .role_runs import GOLD, HERE, TellingWeights, opened, world

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

TASKS = ["train-anchor", "train-basket"]
ACTOR = f"{HERE}:Actor"


def says(*lines):
    """A reflector that says these, one for each sample."""
    return lambda messages, index, seed: lines[index % len(lines)]


def sampled(folder, reply, *, tasks=("train-anchor",), critic="Percent", steps=(0,), **options):
    method = Retroformer(actor=ACTOR, **{"group": 4, **options})
    plan = method.plan(world(critic), "embedded")
    with opened(folder, plan, TellingWeights(reply), tasks) as rollouts:
        chosen = rollouts.run(method.choose(rollouts, list(tasks)))
        groups = [rollouts.run(method.sample(rollouts, chosen, step)) for step in steps]
        store = rollouts.context(0).store
        rollouts.calls = store.usage("rollouts")["solver"].calls
        rollouts.prompts = [a.steps[0].prompt[-1].content for a in store.attempts("rollouts")]
        return rollouts, groups


def rewards(group):
    return [round(row.reward, 6) for row in group]


def test_a_group_of_reflections_earns_what_their_retries_gained(tmp_path):
    """Section 9, checks 3 and 5."""
    from verbal.trainers.credit import group_mean

    rollouts, [[group]] = sampled(tmp_path, says("say 0", "say 30", "say 100", "say 30"))
    assert rewards(group) == [-0.3, 0.0, 0.7, 0.0]
    one = torch.zeros(4, dtype=torch.long)
    gained = group_mean(torch.tensor([row.reward for row in group]), one)
    assert torch.allclose(gained, torch.tensor([-0.4, -0.1, 0.6, -0.1]))
    assert torch.allclose(gained, group_mean(torch.tensor([0.0, 0.3, 1.0, 0.3]), one)), "G_i cancels within a group"
    assert [row.kind for row in group] == ["reflection"] * 4
    assert all(row.tokens.mask == [1, 1] and row.tokens.logprobs == [-0.5, -0.5] for row in group)
    (prompt,) = {tuple(row.tokens.prompt) for row in group}
    asked = [p for p, _ in rollouts.weights.heard]
    assert all("# Role: reflector" in p for p in asked), "only the reflector is asked; the actor is another model"
    assert prompt == tuple(rollouts.weights.prompt_ids([{"content": asked[0]}]))
    assert rollouts.notes == pytest.approx(
        {"before": 0.3, "after": 0.4, "retry_only": 0.3, "leaked": 0.0, "silent": 0.0}
    )


def test_the_reward_can_be_taken_over_retries_without_words(tmp_path):
    rollouts, [[group]] = sampled(tmp_path, says("say 0", "say 90"), baseline="retry", retry_temperature=0.7)
    gap = group[1].reward - group[0].reward
    controls = [text for text in rollouts.prompts if "<hint" not in text]
    assert gap == pytest.approx(0.9), "the same for all of a group"
    assert len(controls) == 1 + 4, "the first attempt, and as many retries as there are reflections"
    _, [[plain]] = sampled(tmp_path / "plain", says("say 0", "say 90"))
    assert group[0].reward != plain[0].reward


def test_a_reflection_that_holds_the_answer_is_not_tried(tmp_path):
    """Check 8: it counts as one whose retry failed."""
    rollouts, [[group]] = sampled(tmp_path, says(f"say {GOLD['anchor']}", "say 60"))
    assert rewards(group) == [-0.3, 0.3, -0.3, 0.3]
    assert not any(GOLD["anchor"] in text for text in rollouts.prompts)
    assert rollouts.counts["reflections that show the answer"] == 2
    assert rollouts.notes["leaked"] == 0.5


def test_a_reflection_that_says_nothing_is_worth_a_retry_without_it(tmp_path):
    rollouts, [[group]] = sampled(tmp_path, says("none", "say 60"))
    assert rewards(group) == [0.0, 0.3, 0.0, 0.3] and rollouts.notes["silent"] == 0.5


def test_nothing_is_paid_for_twice(tmp_path):
    """First attempts, controls, and equal reflections on one attempt: the actor is greedy."""
    rollouts, _ = sampled(tmp_path, says("say 10", "say 20"), tasks=TASKS, steps=(0, 1, 2))
    assert rollouts.calls == len(TASKS) * (1 + 1 + 2)


def test_failures_are_reflected_on_and_a_share_of_successes(tmp_path):
    codes = {name: "777" for name in ("anchor", "basket", "candle", "dagger")}
    method = Retroformer(actor=ACTOR, successes=0.5)
    plan = method.plan(world("Odd", codes=codes), "embedded")
    tasks = [f"train-{name}" for name in codes]
    with opened(tmp_path, plan, TellingWeights(says("say 1")), tasks) as rollouts:
        assert rollouts.run(method.choose(rollouts, tasks)) == tasks[:3], "two failed, one right for both"
        none = dataclasses.replace(method, successes=0.0)
        assert rollouts.run(none.choose(rollouts, tasks)) == ["train-anchor", "train-candle"]
        with pytest.raises(TrainError, match="of 1 first attempts 0 failed"):
            rollouts.run(method.choose(rollouts, ["train-basket"]))


# training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def examples(tmp_path):
    from verbal.testing import TinyApp

    with Store(tmp_path / "tasks.db") as store:
        store.put_tasks(TinyApp(GOLD).tasks("train"))
        return Retroformer().examples(store)


FAST = {"group": 8, "tasks": 2, "learning_rate": 1e-2, "max_tokens": 2, "device": "cpu", "actor": ACTOR}


def likelihood(folder):
    """The chance of a reflection on a first attempt that begins with a number which helps."""
    from verbal.trainers.weights import open_weights

    weights = open_weights(folder)
    messages = [
        {"role": "user", "content": "# Role: reflector\n## Hints\n## Tried\n## Question\nWhat is the code of anchor?"}
    ]
    with torch.no_grad():
        chances = weights.network(torch.tensor([weights.prompt_ids(messages)])).logits[0, -1].softmax(-1)
    return sum(chances[weights.tokenizer.convert_tokens_to_ids(digit)].item() for digit in "56789")


def test_what_helps_becomes_likelier_and_the_actor_stays_as_it_was(tiny, examples, tmp_path, capfd):
    """Check 4, and the trained reflector in a loop afterwards."""
    method = Retroformer(**FAST, steps=12)
    assert isinstance(method, Method) and isinstance(make_part("trainers", "retroformer"), Method)
    out = str(tmp_path / "mr")
    papers = method.train(examples, tiny, out, seed=1, recipe=world("High"))
    assert capfd.readouterr() == ("", "")
    assert papers["reward_last"] > papers["reward_first"]
    assert likelihood(out) > likelihood(tiny) + 0.1
    assert papers["method"] == "retroformer" and papers["actor"] == ACTOR
    point = papers["curve"][0]
    assert {"before", "after", "retry_only", "leaked", "silent"} <= set(point)
    with Store(tmp_path / "s.db") as store:
        checkpoint.register(store, "mr", out)
        options = {"recipe": "reflect", "overrides": ['model.roles.reflector="checkpoint:mr"'], "model": "", "app": {}}
        assert make_recipe(options, store).model.roles == {"reflector": f"hf:{tmp_path / 'mr'}"}


def test_where_nothing_helps_nothing_changes(tiny, examples, tmp_path):
    """Check 9: returns that are always 0 give no reward and no gradient; here the actor is the model itself."""
    from safetensors.torch import load_file

    options = {**FAST, "actor": "", "entropy": 0.0, "weight_decay": 0.0}
    before = (Path(tiny) / "model.safetensors").read_bytes()
    papers = Retroformer(**options, steps=2).train(examples, tiny, str(tmp_path / "out"), recipe=world("Never"))
    assert (Path(tiny) / "model.safetensors").read_bytes() == before
    assert papers["actor"] == f"hf:{tiny}" and len(papers["actor_sha256"]) >= 32
    assert [p["reward"] for p in papers["curve"]] == [0.0, 0.0]
    one, other = load_file(f"{tiny}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "options", [{"successes": -1.0}, {"retry_temperature": -0.1}, {"group": 1}, {"actr": "x"}]
)  # fmt: skip
def test_bad_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make_part("trainers", "retroformer", **options)


# from stored reflections ---------------------------------------------------------------------------------------------


async def collected(folder, reply, **loop):
    """A store with the attempts of a loop in which the model of `reply` plays all roles."""
    plan = world(rounds=2, reflect=True, verify=False, **loop)
    plan = dataclasses.replace(
        plan, loop=dataclasses.replace(plan.loop, graph="reflect"),
        model=dataclasses.replace(plan.model, logprobs=True, cache="off"),
    )  # fmt: skip
    store = Store(folder / "v.db")
    async with open_workshop(plan, store, run="r", model=reply) as shop:
        await run_loop(shop, shop.app.tasks("train"), run="r")
    return store


def heeds(right):
    """Guesses 30; its reflection helps on tasks of the words in `right`."""

    def reply(messages, index, seed):
        text = messages[-1].content
        if "# Role: reflector" in text:
            return "say 90" if any(word in text for word in right) else "say 31"
        return text.partition("say ")[2][:2] or "30"

    return TellingWeights(reply).model


async def test_labels_say_whether_the_retry_gained_more_than_a_quarter(tmp_path):
    with await collected(tmp_path, heeds(["anchor"])) as store:
        rows = RetroformerOffline().examples(store)
        assert [(r.task, r.columns["label"]) for r in rows] == [("train-anchor", True), ("train-basket", False)]
        assert all(r.trace.token_ids for r in rows), "steps of roles keep tokens where log-probabilities are asked for"
        assert RetroformerOffline(threshold=0.005).through == "kto"
        with pytest.raises(TrainError, match="no two of the 2 reflections stand on one attempt"):
            RetroformerOffline(through="dpo").examples(store)


async def test_stores_that_teach_nothing_are_refused(tmp_path):
    with await collected(tmp_path, heeds([])) as store, pytest.raises(TrainError, match="all 2 labels are wrong"):
        RetroformerOffline().examples(store)


async def test_steps_of_roles_have_no_tokens_unless_asked(tmp_path):
    plan = dataclasses.replace(world(rounds=2, reflect=True), model=dataclasses.replace(world().model, cache="off"))
    with Store(tmp_path / "v.db") as store:
        plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, graph="reflect"))
        async with open_workshop(plan, store, run="r", model=ScriptedModel(["30"])) as shop:
            await run_loop(shop, shop.app.tasks("train"), run="r")
        assert store.step("r/learn/train-anchor/0.0", "reflect").token_ids is None


async def test_a_stored_reflector_is_trained_by_kto(tiny, tmp_path):
    with await collected(tmp_path, heeds(["anchor"])) as store:
        options = {"steps": 4, "batch": 2, "learning_rate": 1e-2, "device": "cpu"}
        method = RetroformerOffline(options=options)
        papers = method.train(method.examples(store), tiny, str(tmp_path / "out"))
    assert (papers["method"], papers["through"], papers["options"]["threshold"]) == ("retroformer_offline", "kto", 0.25)
    assert checkpoint.read(tmp_path / "out")["method"] == "retroformer_offline"


def test_bad_offline_options_are_named():
    for options in ({"through": "ppo"}, {"margin": -1.0}, {"options": {"bta": 1}}, {"options": {"beta": -1.0}}):
        with pytest.raises(ConfigError):
            make_part("trainers", "retroformer_offline", **options)


@pytest.mark.parametrize("name", ["retroformer", "retroformer_offline"])
def test_recipes_name_parts_that_exist(name):
    assert f"trainers {name:12}" in "\n".join(load_recipe(name).resolve())
