"""The graphs, end to end over the tiny world: what each node makes, and that none makes it twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from verbal.errors import (
    STOPS,
    BudgetError,
    ConfigError,
    EnvironmentFault,
    RefusedError,
    TransientError,
    UnknownName,
)
from verbal.loop.context import query
from verbal.loop.graphs import build
from verbal.run import MAX_UNREACHABLE, learn, make_context, run_batch
from verbal.types import Feedback, StopReason


async def test_reflect_learns_from_failures_and_solves_the_rest_with_the_lesson(tiny):
    shop, model = tiny()
    tasks = shop.app.tasks()
    summary = await learn(shop, tasks, run="r")
    assert summary.solved == 6
    items = shop.memory.at(len(shop.memory.history()))
    assert [i.text for i in items.values() if i.status == "active"] == ["zorp means double"]
    # first batch: a wrong attempt, a lesson and a retry each; second batch: one right attempt each
    assert model.count("reflector") == 3
    assert model.count("solver") == 3 * 2 + 3
    second = shop.store.attempts("r", task="t5")
    assert [a.answer for a in second] == ["10"] and second[0].steps[0].shown == ("r1",)


async def test_a_lesson_is_not_shown_for_the_task_it_came_from(tiny):
    shop, _ = tiny()
    tasks = shop.app.tasks()
    await learn(shop, tasks, run="r")
    source = next(iter(shop.memory.at(len(shop.memory.history())).values())).task
    context = make_context(shop, tasks, run="other", arm="x", seed=0)
    assert await context.hints(context.tasks[source]) == []
    assert len(await context.hints(context.tasks["t6"])) == 1


async def test_a_finished_run_is_not_made_again(tiny):
    shop, model = tiny()
    first = await learn(shop, shop.app.tasks(), run="r")
    asked = len(model.asked)
    assert await learn(shop, shop.app.tasks(), run="r") == first
    assert len(model.asked) == asked
    assert shop.progress.kept == 6


async def test_a_run_with_another_recipe_is_refused(tiny):
    shop, model = tiny()
    await learn(shop, shop.app.tasks(), run="r")
    other, _ = tiny(model, "loop.rounds=3", memory=False)
    with pytest.raises(ConfigError, match="another recipe"):
        await learn(other, other.app.tasks(), run="r")


async def test_sealed_tasks_are_refused(tiny):
    shop, model = tiny()
    with pytest.raises(ConfigError, match="sealed"):
        await learn(shop, [t.replace(split="test") for t in shop.app.tasks()], run="r")
    assert model.asked == []


async def test_same_seed_gives_the_same_attempts(tiny, tiny_model):
    def guess(number, sampling, i):
        return f"ANSWER: {(sampling.seed or 0) % 7}"

    shop, _ = tiny(tiny_model(guess=guess), "loop.reflect=false", "loop.rounds=3")
    for run in ("a", "b"):
        await learn(shop, shop.app.tasks(), run=run)
    answers = {run: [(a.task, a.round, a.answer) for a in shop.store.attempts(run)] for run in ("a", "b")}
    assert sorted(answers["a"]) == sorted(answers["b"])
    assert len({answer for _, _, answer in answers["a"]}) > 1


class Breaks:
    """Fails on the solver's call of that number, or on every call."""

    name = "tiny/model"

    def __init__(self, model, error, at):
        self.model, self.error, self.at, self.calls = model, error, at, 0

    async def generate(self, messages, n, sampling):
        self.calls += messages[-1].content.startswith("solver")
        if self.at is None or (self.calls == self.at and messages[-1].content.startswith("solver")):
            raise self.error
        return await self.model.generate(messages, n, sampling)


@pytest.mark.parametrize("at", [1, 2, 5, 8])
async def test_a_stopped_run_goes_on_where_it_was(tiny, tiny_model, at):
    shop, plain = tiny()
    breaking = Breaks(plain, BudgetError("limit"), at)
    shop.roles = lambda role: breaking
    with pytest.raises(BudgetError):
        await learn(shop, shop.app.tasks(), run="r")
    assert shop.store.runs()[0]["status"] == "stopped"
    shop.roles = lambda role: plain
    summary = await learn(shop, shop.app.tasks(), run="r")
    assert summary.solved == 6
    assert plain.count("reflector") == 3 and plain.count("solver") == 9, "nothing was made twice"
    ids = [a.id for a in shop.store.attempts("r")]
    assert len(ids) == len(set(ids)) == 9


async def test_a_refused_call_is_recorded_and_the_others_go_on(tiny):
    shop, plain = tiny()
    breaking = Breaks(plain, RefusedError("no"), 2)
    shop.roles = lambda role: breaking
    await learn(shop, shop.app.tasks(), run="r")
    failed = [a for a in shop.store.attempts("r") if a.error]
    assert len(failed) == 1 and failed[0].stop == StopReason.ERROR and "RefusedError" in failed[0].error


async def test_an_unreachable_model_stops_the_run_and_leaves_nothing_half_done(tiny):
    shop, plain = tiny(None, "loop.batch=6")
    breaking = Breaks(plain, TransientError("gone"), None)
    shop.roles = lambda role: breaking
    with pytest.raises(TransientError):
        await learn(shop, shop.app.tasks(), run="r")
    assert shop.store.attempts("r") == []
    assert MAX_UNREACHABLE <= 6
    shop.roles = lambda role: plain
    assert (await learn(shop, shop.app.tasks(), run="r")).solved == 6


async def test_a_few_unreachable_calls_leave_their_tasks_unfinished(tiny):
    shop, plain = tiny()
    breaking = Breaks(plain, TransientError("gone"), 1)
    shop.roles = lambda role: breaking
    summary = await learn(shop, shop.app.tasks(), run="r")
    assert len(summary.unfinished) == 1 and shop.store.runs()[0]["status"] == "incomplete"
    summary = await learn(shop, shop.app.tasks(), run="r")
    assert summary.unfinished == () and shop.store.runs()[0]["status"] == "done"


@pytest.mark.parametrize("reply", ["", "no idea", "ANSWER: none", "\x00\ud7ff ANSWER:"])
async def test_a_malformed_reply_is_a_recorded_attempt(tiny, tiny_model, reply):
    shop, _ = tiny(tiny_model(guess=lambda *_: reply), "loop.reflect=false", "loop.critique=false")
    summary = await learn(shop, shop.app.tasks(), run="r")
    attempts = shop.store.attempts("r")
    assert summary.solved == 0 and len(attempts) == 12
    assert {a.stop for a in attempts} == {StopReason.MALFORMED}
    assert attempts[0].steps[0].text == reply


async def test_group_chooses_by_verdict_and_keeps_the_pairs(tiny, tiny_model):
    model = tiny_model(guess=lambda number, sampling, i: f"ANSWER: {2 * number if i == 2 else 0}")
    shop, _ = tiny(model, 'loop.graph="group"', "loop.samples=4")
    summary = await learn(shop, shop.app.tasks(), run="g")
    assert summary.solved == 6
    group = shop.store.groups("g")[0]
    assert group.chosen.endswith("/0.2") and len(group.attempts) == 4
    assert sorted(group.preferences) == sorted((group.chosen, i) for i in group.attempts if i != group.chosen)
    assert model.count("solver") == 6, "the samples of a task are drawn in one call"


async def test_critique_is_kept_as_words_without_a_number(tiny):
    shop, _ = tiny()
    await learn(shop, shop.app.tasks(), run="r")
    failed = shop.store.attempts("r", task="t1")[0]
    words = [f for f in shop.store.feedback([failed.id])[failed.id] if f.critic == "critique"]
    assert words[0].text == "it is wrong" and words[0].value is None and words[0].reason
    assert shop.store.step(failed.id, "critique").role == "critic"


async def test_a_reflector_that_says_none_teaches_nothing(tiny, tiny_model):
    shop, _ = tiny(tiny_model(lesson="none"))
    await learn(shop, shop.app.tasks(), run="r")
    assert [op for op in shop.memory.history() if op.op == "ADD"] == []


@pytest.mark.parametrize(("verify", "kept"), [("true", 0), ("false", 1)])
async def test_a_lesson_that_did_not_help_is_kept_only_without_verification(tiny, tiny_model, verify, kept):
    shop, model = tiny(tiny_model(lesson="zorp means triple"), f"loop.verify={verify}")
    await learn(shop, shop.app.tasks(), run="r")
    assert len([op for op in shop.memory.history() if op.op == "ADD"]) == kept
    assert model.count("reflector") == (6 if verify == "true" else 12)


def test_unknown_graph_names_the_known():
    with pytest.raises(UnknownName, match="reflect"):
        build("reflekt")


async def test_nobody_reflects_in_an_evaluation(tiny):
    shop, model = tiny()
    tasks = shop.app.tasks()
    context = make_context(shop, tasks, run="e", arm="x", seed=0, memory=None, learning=False)
    assert await run_batch(context, tasks, shop.progress) == []
    assert model.count("reflector") == 0 and model.count("solver") == 12
    assert query(tasks[0]) == "zorp of number 1"
    assert context.verdict([Feedback(attempt="a", critic="other", value=1.0)]) is None


# graphs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reflect", "group", "self_play"])
def test_a_graph_is_compiled_once_and_keeps_no_checkpoints(name):
    assert build(name) is build(name) and build(name).checkpointer is None


async def test_a_user_may_checkpoint_a_graph_of_their_own(tiny):
    from langgraph.checkpoint.memory import InMemorySaver

    shop, _ = tiny()
    graph = build("reflect", InMemorySaver())
    assert graph is not build("reflect")
    context = make_context(shop, shop.app.tasks(), run="r", arm="x", seed=0)
    config = {"configurable": {"thread_id": "t1"}}
    await graph.ainvoke({"task": "t1"}, config, context=context)
    kept = graph.get_state(config).values
    assert set(kept) == {"task", "round", "attempts", "solved"}, "ids and counters, never a transcript"


# the seal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["reflect", "group", "self_play"])
async def test_no_policy_and_no_prompt_is_given_a_gold(tiny, tiny_model, graph):
    model = tiny_model(guess=lambda number, sampling, i: f"ANSWER: {6 if (sampling.seed or 0) % 2 else 5}")
    shop, _ = tiny(model, f'loop.graph="{graph}"', "loop.samples=6")
    tasks = shop.app.tasks()
    assert all(t.gold for t in tasks)
    await learn(shop, tasks, run="r")
    wanted = {
        "reflect": {"environment", "critic", "reflector"},
        "group": {"environment"},
        "self_play": {"environment", "proposer", "judge", "reflector"},
    }[graph]
    assert {who for who, _ in shop.app.seen} == wanted
    assert [(who, t.id) for who, t in shop.app.seen if t.gold is not None] == []
    assert all(t.gold for t in shop.store.tasks([t.id for t in tasks]).values()), "the store keeps it for the critics"


async def test_test_tasks_are_sealed_in_an_evaluation_too(tiny):
    shop, _ = tiny()
    tasks = [t.replace(split="test") for t in shop.app.tasks()]
    context = make_context(shop, tasks, run="e", arm="x", seed=0, memory=None, learning=False)
    await run_batch(context, tasks, shop.progress)
    assert {who for who, _ in shop.app.seen} == {"environment", "critic"}
    assert [(who, t.id) for who, t in shop.app.seen if t.gold is not None] == []


# what stops a run, and what is data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", STOPS)
@pytest.mark.parametrize("role", ["solver", "critic", "reflector"])
async def test_what_stops_a_run_never_becomes_an_attempt(tiny, error, role):
    shop, plain = tiny(None, "loop.batch=6")

    class Stops:
        name = plain.name

        async def generate(self, messages, n, sampling):
            if messages[-1].content.startswith(role):
                raise error("it stops here", where="a test")
            return await plain.generate(messages, n, sampling)

    stops = Stops()
    shop.roles = lambda role: stops
    with pytest.raises(error, match="it stops here"):
        await learn(shop, shop.app.tasks(), run="r")
    assert shop.store.runs()[0]["status"] == "stopped"
    assert all(a.error is None and a.steps for a in shop.store.attempts("r")), "nothing half done is kept"
    assert shop.store.groups("r") == [] and [op for op in shop.memory.history() if op.op == "ADD"] == []
    shop.roles = lambda role: plain
    assert (await learn(shop, shop.app.tasks(), run="r")).solved == 6
    assert plain.count("solver") == 12 and plain.count("critic") == plain.count("reflector") == 6, "nothing made twice"


@pytest.mark.parametrize("error", STOPS)
async def test_what_stops_a_run_stops_it_from_an_environment_too(tiny, monkeypatch, error):
    shop, _ = tiny()

    class Broken:
        async def start(self, *_, **__):
            raise error("it stops here")

        async def aclose(self):
            closed.append(self)

    closed = []
    monkeypatch.setattr(shop.app, "environment", Broken)
    if error is TransientError:
        assert len((await learn(shop, shop.app.tasks()[:3], run="r")).unfinished) == 3
    else:
        with pytest.raises(error):
            await learn(shop, shop.app.tasks()[:3], run="r")
    assert shop.store.attempts("r") == [] and closed


async def test_an_environment_that_breaks_is_data_and_what_came_before_is_kept(tiny, monkeypatch):
    shop, model = tiny(None, "loop.reflect=false", "loop.critique=false", "loop.rounds=1")
    whole = shop.app.environment

    def breaks():
        made = whole()
        step = made.step

        async def once(reply):
            seen = await step(reply)
            if len(calls) % 2:
                raise EnvironmentFault("the world broke", where="a test")
            calls.append(1)
            return replace(seen, done=False)

        calls = []
        made.step = once
        return made

    monkeypatch.setattr(shop.app, "environment", breaks)
    summary = await learn(shop, shop.app.tasks(), run="r")
    attempts = shop.store.attempts("r")
    assert summary.unfinished == () and len(attempts) == 6 and model.count("solver") == 12
    assert {(a.stop, a.error.split("\n")[0]) for a in attempts} == {
        (StopReason.ERROR, "EnvironmentFault: the world broke")
    }
    assert all(len(a.steps) == 1 and a.usage.calls == 1 for a in attempts), "the turn before it is kept"


class Hangs:
    """Never answers about one number."""

    name = "tiny/hangs"

    def __init__(self, model, number):
        self.model, self.number = model, number

    async def generate(self, messages, n, sampling):
        if f"number {self.number}" in messages[-1].content:
            await asyncio.Event().wait()
        return await self.model.generate(messages, n, sampling)


async def test_an_attempt_over_its_time_is_kept_as_one_and_the_others_go_on(tiny):
    shop, plain = tiny(None, "loop.timeout=0.05", "loop.rounds=1", "loop.reflect=false", "loop.critique=false")
    hangs = Hangs(plain, 2)
    shop.roles = lambda role: hangs
    summary = await learn(shop, shop.app.tasks(), run="r")
    by_task = {a.task: a for a in shop.store.attempts("r")}
    assert summary.unfinished == () and len(by_task) == 6
    late = by_task.pop("t2")
    assert late.stop is StopReason.TIMEOUT and late.steps == () and "longer than 0.05 s" in late.error
    assert "where: task t2" in late.error and "to do: raise loop.timeout" in late.error
    assert {a.error for a in by_task.values()} == {None}


async def test_attempts_that_run_out_of_time_together_are_all_kept(tiny):
    """Some wait for a slot that frees in the very moment in which they give up."""
    from verbal.models import ModelCalls

    shop, plain = tiny(None, "loop.timeout=0.05", "loop.rounds=1", "loop.reflect=false", "loop.critique=false")
    calls = ModelCalls(Hangs(plain, ""), price_in=0.0, price_out=0.0, concurrency=2)
    shop.roles = calls.for_role
    summary = await learn(shop, shop.app.tasks(), run="r")
    assert summary.unfinished == () and calls.concurrency.active == 0
    assert [a.stop for a in shop.store.attempts("r")] == [StopReason.TIMEOUT] * 6


@pytest.mark.parametrize("graph", ["group", "self_play"])
async def test_a_refused_call_is_data_in_every_graph(tiny, graph):
    shop, plain = tiny(None, f'loop.graph="{graph}"')
    asked = []

    class Refuses:
        name = plain.name

        async def generate(self, messages, n, sampling):
            asked.append(messages)
            if len(asked) == 2:
                raise RefusedError("content filter")
            return await plain.generate(messages, n, sampling)

    refuses = Refuses()
    shop.roles = lambda role: refuses
    await learn(shop, shop.app.tasks(), run="r")
    assert len(shop.store.groups("r")) == 6
    assert sum("RefusedError" in (a.error or "") for a in shop.store.attempts("r")) >= 1
