"""The graphs, drawn.

reflect:    retrieve -> attempt -> judge -> (solved) finish
                          ^          | not solved
                          |          v
                          +--- critique -> reflect -> (no rounds left) finish

            (with `loop.lessons = "all"` a solved attempt is reflected on too, and then the episode ends)

group:      retrieve -> sample -> compare -> contrast -> choose        (nodes in sampling.py)

self_play:  propose -> validate -> answer -> reward        (nodes in self_play.py)
"""

from __future__ import annotations

from functools import cache
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from verbal.errors import UnknownName
from verbal.loop import nodes, sampling, self_play
from verbal.loop.context import Context
from verbal.loop.nodes import State


@cache
def build(name: str, checkpointer: Any = None) -> Any:
    """The compiled graph of that name.

    A run needs no checkpoints: every node first looks into the store for what it would make, so a task that was
    interrupted is begun again and paid for nothing twice. `checkpointer` is for graphs of a user's own.

    Raises:
        UnknownName: there is no such graph.
    """
    makers = {"reflect": _reflect, "group": _group, "self_play": _self_play}
    if name not in makers:
        raise UnknownName.of("graph", name, makers)
    return makers[name]().compile(checkpointer=checkpointer)


def _reflect() -> Any:
    graph = StateGraph(State, context_schema=Context)
    for node in (nodes.retrieve, nodes.attempt, nodes.judge, nodes.critique, nodes.reflect, nodes.finish):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "attempt")
    graph.add_edge("attempt", "judge")
    graph.add_conditional_edges("judge", _after_judge, ["critique", "reflect", "finish"])
    graph.add_edge("critique", "reflect")
    graph.add_conditional_edges("reflect", _after_reflect, ["attempt", "finish"])
    graph.add_edge("finish", END)
    return graph


def _group() -> Any:
    graph = StateGraph(State, context_schema=Context)
    graph.add_sequence([nodes.retrieve, sampling.sample, sampling.compare, nodes.contrast, sampling.choose])
    graph.add_edge(START, "retrieve")
    return graph


def _self_play() -> Any:
    graph = StateGraph(self_play.State, context_schema=Context)
    for node in (self_play.propose, self_play.validate, self_play.answer, self_play.reward):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "validate")
    graph.add_conditional_edges("validate", _after_validate, ["answer", "reward"])
    graph.add_edge("answer", "reward")
    graph.add_edge("reward", END)
    return graph


# LangGraph takes a branch that is no coroutine to a thread and back.


async def _after_judge(state: State, runtime: Runtime[Context]) -> str:
    context = runtime.context
    if state["solved"]:
        return "reflect" if context.learning and context.recipe.loop.lessons == "all" else "finish"
    more = state["round"] < context.recipe.loop.rounds
    # After the last attempt a lesson can no longer be tried, so it is drawn only where untried lessons are kept.
    last_words = context.learning and not context.recipe.loop.verify
    return "critique" if more or last_words else "finish"


async def _after_reflect(state: State, runtime: Runtime[Context]) -> str:
    more = state["round"] < runtime.context.recipe.loop.rounds and not state["solved"]
    return "attempt" if more else "finish"


async def _after_validate(state: self_play.State) -> str:
    return "answer" if state["valid"] else "reward"
