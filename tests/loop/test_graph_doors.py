"""Our graphs as nodes of another LangGraph app: subgraph, checkpoints, streams, made once; `langgraph dev`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

import verbal.testing
from verbal.errors import ConfigError, DataError, UnknownName
from verbal.loop.doors import make_graph
from verbal.parts import make_part
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, Recipe
from verbal.store import Store
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Feedback, MemoryOp, Reflection

ROOT = Path(__file__).parents[2]
TINY = verbal.testing.__file__
HERE = f"{__file__}:Looks"
RECIPE = Recipe(
    app=AppTable(name=f"{TINY}:TinyApp"),
    loop=LoopTable(rounds=2),
    critics=CriticsTable(names=(HERE,), verdict=HERE),
    memory=MemoryTable(name="exact", k=2),
)
QUESTION = "What is the code of anchor?"
A_SCENARIO = {"person": "Mira, a baker", "setting": "A street.", "goal": "Get Mira to bake.", "temper": "wary",
              "secret": "the oven is broken"}  # fmt: skip
CODE = TinyApp().codes["anchor"]


class Looks:
    """Says of numbers below 100 that they cannot be right; reads no gold."""

    name = "looks"
    oracle = False

    async def evaluate(self, task, group, context):
        return [Feedback(attempt=a.id, critic=self.name, value=float(int(a.answer) > 99)) for a in group]


@pytest.fixture
async def store(tmp_path):
    """A store whose memory knows the code of the anchor."""
    with Store(tmp_path / "v.db") as kept:
        memory = make_part("memory", "exact", store=kept, name="codes")
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text=f"the code of anchor is {CODE}"))])
        memory.close()
    return str(tmp_path / "v.db")


def parent(**nodes):
    builder = StateGraph(MessagesState)
    builder.add_sequence(list(nodes.items()))
    builder.add_edge(START, next(iter(nodes)))
    return builder


async def test_a_graph_is_a_node_that_answers_with_lessons(store) -> None:
    model = ScriptedModel(tiny_reply)
    with Store(store) as opened:
        before = opened.memories()
    async with make_graph(RECIPE, store=store, memory="codes", model=model) as graph:
        app = parent(known=graph).compile(checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        first = await app.ainvoke({"messages": [("user", QUESTION)]}, config)
        again = await app.ainvoke({"messages": [("user", "And of basket?")]}, config)
        kept = (await app.aget_state(config)).values["messages"]
    said = first["messages"][-1]
    assert isinstance(said, AIMessage) and said.content == f"The code is {CODE}."
    assert said.response_metadata["verbal"]["lessons"] == ["r1"]
    assert [m.type for m in again["messages"]] == ["human", "ai", "human", "ai"] == [m.type for m in kept]
    with Store(store) as opened:
        (one, two) = opened.attempts()
        assert {one.answer, two.answer} >= {CODE} and one.steps[0].shown == ("r1",)
        longer = max((one, two), key=lambda a: len(a.steps[0].prompt))
        assert [m.role for m in longer.steps[0].prompt] == ["user", "assistant", "user"]
        assert opened.memories() == before, "nothing is learned here"


async def test_results_of_tools_stay_with_their_calls(store) -> None:
    asked = AIMessage("", tool_calls=[{"name": "find", "args": {"word": "anchor"}, "id": "c1"}])
    before = [HumanMessage("Look it up."), asked, ToolMessage("found", tool_call_id="c1"), AIMessage("Done.")]
    async with make_graph(RECIPE, store=store, model=ScriptedModel(tiny_reply)) as graph:
        await graph.ainvoke({"messages": [*before, HumanMessage(QUESTION)]})
    with Store(store) as opened:
        (made,) = opened.attempts()
    _, call, result, *_ = made.steps[0].prompt
    assert (call.tool_calls[0].id, json.loads(call.tool_calls[0].arguments)) == ("c1", {"word": "anchor"})
    assert (result.role, result.tool_call_id) == ("tool", "c1"), "a provider refuses one without its call"


async def test_it_streams_updates_and_pieces(store) -> None:
    async with make_graph(RECIPE, store=store, memory="codes", model=ScriptedModel(tiny_reply)) as graph:
        app = parent(known=graph).compile()
        seen = [
            (kind, data)
            async for _, kind, data in app.astream(
                {"messages": [HumanMessage([{"type": "text", "text": QUESTION}])]},
                stream_mode=["updates", "custom"], subgraphs=True,
            )
        ]  # fmt: skip
    assert "".join(d["text"] for kind, d in seen if kind == "custom") == f"The code is {CODE}."
    assert [next(iter(d)) for kind, d in seen if kind == "updates"] == ["retrieve", "answer", "known"]


async def test_a_node_that_runs_again_pays_nothing(store) -> None:
    model = ScriptedModel(tiny_reply)
    for _ in range(2):
        async with make_graph(RECIPE, store=store, model=model) as graph:
            found = await graph.ainvoke({"messages": [("user", QUESTION)]})
    assert model.calls == 1 and found["messages"][-1].content.startswith("I guess")


async def test_an_episode_tries_again_until_the_verdict_is_good(store) -> None:
    model = ScriptedModel(tiny_reply)
    async with make_graph(RECIPE, kind="episode", store=store, model=model) as graph:
        failed = await graph.ainvoke({"messages": [("user", QUESTION)]})
    assert len(failed["messages"][-1].response_metadata["verbal"]["attempts"]) == 2
    async with make_graph(RECIPE, kind="episode", store=store, memory="codes", run="r", model=model) as graph:
        app, calls = parent(known=graph).compile(), model.calls
        found = await app.ainvoke({"messages": [("user", QUESTION)]})
        assert model.calls == calls + 1
        assert (await app.ainvoke({"messages": [("user", QUESTION)]}))["messages"][-1].content == CODE
        assert model.calls == calls + 1
    assert found["messages"][-1].content == CODE


async def test_an_episode_needs_a_verdict_without_gold(store) -> None:
    gold = Recipe(
        app=RECIPE.app, memory=RECIPE.memory,
        critics=CriticsTable(names=(f"{TINY}:TinyCritic",), verdict=f"{TINY}:TinyCritic"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="'tiny' reads gold answers"):
        async with make_graph(gold, kind="episode", store=store, model=ScriptedModel(tiny_reply)):
            pass


async def test_bad_input_is_named(store) -> None:
    with pytest.raises(UnknownName, match="kind of graph"):
        async with make_graph(RECIPE, kind="poet", store=store):
            pass
    with pytest.raises(UnknownName, match="memory 'cods'"):
        async with make_graph(RECIPE, store=store, memory="cods", model=ScriptedModel(tiny_reply)):
            pass
    async with make_graph(RECIPE, store=store, model=ScriptedModel(tiny_reply)) as graph:
        for messages in ([], [("assistant", "hello")], [("user", "  ")]):
            with pytest.raises(DataError, match="no message of a person"):
                await graph.ainvoke({"messages": messages})


def test_langgraph_json_names_graphs_that_are_there() -> None:
    named = json.loads((ROOT / "langgraph.json").read_text())["graphs"]
    assert set(named) == {"agent", "episode"}
    for target in named.values():
        file, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module("verbal.loop.doors"), name)) and (ROOT / file).is_file()


async def test_the_served_graphs_read_the_environment_and_no_request(store, monkeypatch, tmp_path) -> None:
    from verbal.loop import doors

    monkeypatch.setenv("VERBAL_STORE", store)
    monkeypatch.setenv("VERBAL_RECIPE", "social")
    monkeypatch.setenv("VERBAL_MODEL", "rules:social")
    graph = doors.agent({"configurable": {"model": "./evil.py:Evil"}})
    assert graph is doors.agent() and graph.name == "verbal_agent" and doors.episode().name == "verbal_episode"
    asked = {"messages": [("user", json.dumps(A_SCENARIO))]}
    try:
        for _ in range(2):
            found = await graph.ainvoke(asked)
            assert found["messages"][-1].response_metadata["model_name"] == "scripted/rules-social"
        monkeypatch.setenv("VERBAL_RECIPE", "no such recipe")
        with pytest.raises(UnknownName):
            await doors.episode().ainvoke(asked)
        monkeypatch.setenv("VERBAL_RECIPE", "social")
        assert (await doors.episode().ainvoke(asked))["messages"][-1].content.startswith("ME: ")
    finally:
        await doors.close_served()


@pytest.mark.skipif(importlib.util.find_spec("langgraph_api") is None, reason="langgraph-cli[inmem] is not installed")
async def test_langgraph_dev_takes_the_factories() -> None:
    from langgraph_api._factory_utils import _classify_factory  # type: ignore[import-not-found]

    from verbal.loop import doors

    assert _classify_factory(doors.agent)({"a": 1}, None) == {"config": {"a": 1}}
