"""Attempts that leave another one at a turn: what is played again, what is advised, what a replay that differs is."""

from __future__ import annotations

import pytest

from verbal.contracts import Environment, Observation, Sampling
from verbal.errors import ConfigError
from verbal.loop.branches import Branch, diverged, unguided
from verbal.loop.nodes import make_attempt
from verbal.models.scripted import ScriptedModel
from verbal.recipe import parse_recipe
from verbal.run import Progress, Workshop, make_context
from verbal.store import Store
from verbal.types import Attempt, Message, Reflection, Step, StopReason, Task

TASK = Task(id="t", kind="stairs", messages=(Message(role="user", content="climb"),))
ADVICE = "Advice: jump."


class Stairs:
    """Three steps up, each with a number that the replies decide, unless the stairs move by themselves."""

    def __init__(self, moving=False, short=False):
        self.moving, self.short, self.open, self.visits = moving, short, 0, 0

    def environment(self):
        return Flight(self)


class Flight:
    def __init__(self, app):
        self.app, self.said = app, []

    async def start(self, task, *, hints=(), tried=()):
        assert task.gold is None
        self.app.open += 1
        self.app.visits += 1
        return [Message(role="user", content="; ".join(["step 0", *(h.text for h in hints)]))]

    async def step(self, reply):
        self.said.append(reply.text)
        done = len(self.said) == 3 or (self.app.short and self.app.visits > 1)
        stir = f" at visit {self.app.visits}" if self.app.moving else ""
        return Observation(text=f"step {len(self.said)}{stir}", done=done, answer=" ".join(self.said))

    async def aclose(self):
        self.app.open -= 1


def says(messages, index=0, seed=None):
    text = "\n".join(m.content for m in messages)
    return f"{'jump' if ADVICE in text else 'walk'}{sum(m.role == 'assistant' for m in messages)}"


@pytest.fixture
def world(tmp_path):
    """A function that opens a context over stairs."""
    stores = []

    def make(app=None, reply=says, **loop):
        store = Store(tmp_path / f"{len(stores)}.db")
        stores.append(store)
        recipe = parse_recipe("", [f"loop.{k}={v}" for k, v in loop.items()])
        model = ScriptedModel(reply)
        shop = Workshop(recipe, store, app or Stairs(), lambda role: model, [], None, None, Progress())
        store.put_tasks([TASK])
        return make_context(shop, [TASK], run="r", arm="a", seed=0), model

    yield make
    for store in stores:
        store.close()


async def attempt(context, **options):
    given = {"round_": 0, "hints": [], "sampling": Sampling(seed=1), **options}
    return await make_attempt(context, TASK, **given)


async def test_the_first_turns_are_played_again_and_not_asked_again(world):
    context, model = world()
    parent = await attempt(context)
    assert parent.answer == "walk0 walk1 walk2" and model.calls == 3
    made = await attempt(context, round_=1, branch=Branch(parent, 2))
    assert model.calls == 4
    assert (made.parent, made.branch_step, made.round) == (parent.id, 2, 1)
    assert made.steps[:2] == parent.steps[:2] and made.steps[2].prompt == parent.steps[2].prompt
    assert (made.answer, made.stop, made.error) == (parent.answer, StopReason.ANSWERED, None)
    assert made.usage.calls == 1, "what was played again costs nothing"
    assert context.app.open == 0
    assert context.store.attempt(made.id) == made
    assert await attempt(context, round_=1, branch=Branch(parent, 2)) == made and model.calls == 4


async def test_advice_is_seen_from_the_turn_of_leaving_on_and_can_be_taken_out(world):
    context, _ = world()
    parent = await attempt(context)
    made = await attempt(context, round_=1, branch=Branch(parent, 1, ADVICE))
    assert made.answer == "walk0 jump1 jump2"
    assert [s.author for s in made.steps] == ["policy", "hint", "policy", "policy"]
    first, _, second, third = made.steps
    assert first == parent.steps[0]
    assert [m.role for m in second.prompt] == ["user", "assistant", "user", "system"]
    assert second.prompt[:3] == parent.steps[1].prompt, "the observation of that turn stands once"
    assert third.prompt == (*second.prompt, Message(role="assistant", content="jump1"),
                            Message(role="user", content="step 2"))  # fmt: skip
    plain = unguided(made)
    assert [s.author for s in plain.steps] == ["policy"] * 3
    assert plain.steps[1].prompt == parent.steps[1].prompt
    assert ADVICE not in str(plain.to_json()) and ADVICE in str(made.to_json())
    assert [s.text for s in plain.steps] == ["walk0", "jump1", "jump2"]
    assert unguided(parent) == parent


@pytest.mark.parametrize(
    ("at", "place", "system", "roles"),
    [
        (0, "system", False, ["system", "user"]),
        (0, "system", True, ["system", "user"]),
        (0, "user", False, ["user"]),
        (1, "user", False, ["user", "assistant", "user"]),
        (1, "user", True, ["system", "user", "assistant", "user"]),
    ],
)
def test_where_advice_stands(at, place, system, roles):
    opening = [Message(role="system", content="be brief")] * system + [Message(role="user", content="step 0")]
    turn = [Message(role="assistant", content="walk"), Message(role="user", content="step 1")] * at
    parent = Attempt(
        id="p", run="r", task="t", steps=tuple(Step(author="policy", text="walk") for _ in range(2)), answer="x"
    )
    branch = Branch(parent, at, ADVICE, place)
    told = branch.advised([*opening, *turn])
    assert [m.role for m in told] == roles
    assert sum(ADVICE in m.content for m in told) == 1
    where = next(i for i, m in enumerate(told) if ADVICE in m.content)
    assert where == (0 if place == "system" else len(told) - 1)
    made = Attempt(
        id="q", run="r", task="t", steps=(*branch.steps, Step(author="policy", text="j", prompt=tuple(told)))
    )
    assert unguided(made).steps[-1].prompt == (*opening, *turn)


async def test_hints_alone_may_tell_them_apart(world):
    context, _ = world()
    parent = await attempt(context)
    made = await attempt(context, round_=1, branch=Branch(parent), hints=[Reflection(id="n", text=ADVICE)])
    assert (made.branch_step, made.parent, made.answer) == (0, parent.id, "jump0 jump1 jump2")
    assert made.steps[0].shown == ("n",)


@pytest.mark.parametrize("options", [{"moving": True}, {"short": True}])
async def test_a_replay_that_sees_something_else_ends_the_attempt(world, options):
    context, model = world(Stairs(**options))
    parent = await attempt(context)
    made = await attempt(context, round_=1, branch=Branch(parent, 2))
    assert diverged(made) and not diverged(parent)
    assert (made.stop, model.calls) == (StopReason.ERROR, 3)
    assert "turn 0" in made.error and "seed the environment" in made.error
    assert context.app.open == 0


async def test_another_opening_is_no_replay(world):
    context, _ = world()
    parent = await attempt(context)
    told = [Reflection(id="n", text="new")]
    assert diverged(await attempt(context, round_=1, branch=Branch(parent, 1), hints=told))


async def test_turns_that_were_played_again_count_towards_the_limit(world):
    context, model = world(turns=2)
    parent = await attempt(context)
    assert parent.stop == StopReason.STEP_LIMIT and model.calls == 2
    made = await attempt(context, round_=1, branch=Branch(parent, 1, ADVICE))
    assert (made.stop, made.answer, model.calls) == (StopReason.STEP_LIMIT, "walk0 jump1", 3)


@pytest.mark.parametrize("at", [-1, 3, 7])
async def test_a_turn_that_there_is_not_is_refused(world, at):
    context, _ = world()
    parent = await attempt(context)
    with pytest.raises(ConfigError, match=f"turn {at} of an attempt of 3 turns"):
        Branch(parent, at)


def test_it_is_an_environment():
    parent = Attempt(id="p", run="r", task="t")
    assert isinstance(Branch(parent).environment(Flight(Stairs())), Environment)
