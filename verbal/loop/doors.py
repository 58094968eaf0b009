"""Our graphs as nodes of anybody's LangGraph app: plain state `{messages}` in, `{messages}` out.

    async with make_graph("reflect", store="verbal.db", memory="main") as graph:
        builder.add_node("sql", graph)

`agent` retrieves lessons for the last thing a person said and answers it; `episode` works on it as the recipe says
(attempt, judge, critique, reflect, retry) and answers with what was chosen. Both keep their attempts in the store; each
is made once, however often LangGraph runs the node. Lessons of the memory are read, never written: learning is `verbal
learn`. Models are asked within the recipe's limits; an `agent` writes its pieces to the stream (mode `custom`).

`langgraph.json` names `agent` and `episode` for `langgraph dev`; they read VERBAL_RECIPE, VERBAL_MODEL, VERBAL_STORE
and VERBAL_MEMORY from the environment, and nothing from a request: the name of a model can be a file that is run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cache
from typing import Annotated, Any, Literal, TypedDict, cast

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from verbal.citations import cited
from verbal.contracts import Critic, Reply, Sampling
from verbal.errors import ConfigError, DataError, UnknownName
from verbal.loop.context import Context
from verbal.loop.graphs import build
from verbal.recipe import Recipe, load_recipe
from verbal.run import Workshop, make_context, open_workshop
from verbal.store import Store
from verbal.study import open_pinned
from verbal.types import Attempt, Message, Step, Task, ToolCall

KINDS = ("agent", "episode")
"""What a graph does with the last message."""
_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "human": "user", "ai": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip


class Talk(TypedDict):
    """State of the graphs, that of LangGraph's own `MessagesState`."""

    messages: Annotated[list[AnyMessage], add_messages]


@asynccontextmanager
async def make_graph(
    recipe: str | Recipe = "reflect",
    *,
    kind: str = "agent",
    store: str = "verbal.db",
    memory: str = "",
    run: str = "",
    model: Any = None,
    overrides: Sequence[str] = (),
    checkpointer: Any = None,
) -> AsyncIterator[Any]:
    """A compiled graph over `{messages}`, with its models, app and memory open until the context ends.

    Args:
        recipe: A shipped recipe, a file, or one that was read.
        kind: `agent` (lessons, then one answer) or `episode` (the recipe's graph on the question; nobody knows a gold
            answer to it, so the verdict must come from a critic that reads none, as in the recipe `sql_reflect`).
        store: Where attempts are kept and the memory is.
        memory: Name of the memory whose lessons are shown; none when empty.
        run: Id under which attempts are kept; follows from the recipe when not given.
        model: A name, or a Model, in place of the recipe's.
        overrides: As `--set`.
        checkpointer: For a graph that is run by itself; as a node it uses that of the parent.

    Raises:
        UnknownName: no such kind or recipe, or the store has no such memory. ConfigError, ModelError: a part cannot be
            used, or the verdict of an episode needs gold.
    """
    if kind not in KINDS:
        raise UnknownName.of("kind of graph", kind, KINDS)
    async with _opened(recipe, kind, store, memory, run, model, overrides) as context:

        async def known() -> Context:
            return context

        yield _compiled(known, kind, checkpointer)


@asynccontextmanager
async def _opened(
    recipe: str | Recipe, kind: str, store: str, memory: str, run: str, model: Any, overrides: Sequence[str]
) -> AsyncIterator[Context]:
    made = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if isinstance(model, str):
        made, model = dataclasses.replace(made, model=dataclasses.replace(made.model, name=model)), None
    async with AsyncExitStack() as stack:
        kept = stack.enter_context(Store(store))
        run = run or f"graph-{hashlib.sha256(json.dumps(made.to_dict(), sort_keys=True).encode()).hexdigest()[:8]}"
        quiet = dataclasses.replace(made, memory=dataclasses.replace(made.memory, name=""))
        shop = await stack.enter_async_context(open_workshop(quiet, kept, run=run, model=model))
        if kind == "episode" and (verdict := _verdict(shop)).oracle:
            what = f"the verdict critic {verdict.name!r} reads gold answers, and nobody knows one to what a person asks"
            todo = "take a recipe whose verdict needs none, such as sql_reflect, or set critics.verdict"
            raise ConfigError(what, where=f"recipe {made.name}", todo=todo)
        lessons = None
        if memory:
            if memory not in kept.memories():
                raise UnknownName.of("memory", memory, sorted(kept.memories()), where=kept.where)
            lessons = open_pinned(shop, memory, kept.memories()[memory])
            stack.callback(lessons.close)
        kept.start_run(run, made.to_dict(), {"command": "graph", **shop.info})
        # No lots are drawn: nobody credits a memory with what happens here.
        table = dataclasses.replace(shop.recipe.memory, credit="", trials=0)
        context = make_context(
            shop, [], run=run, arm=kind, seed=made.seed, memory=lessons, learning=kind == "episode",
            recipe=dataclasses.replace(shop.recipe, memory=table),
        )  # fmt: skip
        yield dataclasses.replace(context, tasks={})


def _verdict(shop: Workshop) -> Critic:
    return next(c for c in shop.critics if c.name == shop.recipe.critics.verdict)


def _compiled(opened: Callable[[], Awaitable[Context]], kind: str, checkpointer: Any = None) -> Any:
    async def retrieve(state: Talk) -> Talk:
        """Finds the lessons, so that a stream shows when that is done."""
        context = await opened()
        await context.hints(_task(context, state))
        return {"messages": []}

    async def answer(state: Talk) -> Talk:
        """One answer of the policy with the lessons in sight."""
        context = await opened()
        task = _task(context, state)
        made = context.store.attempt(context.attempt_id(task.id)) or await _answered(context, task, state)
        return {"messages": [_message(context, made, made.steps[-1].text)]}

    async def work(state: Talk) -> Talk:
        """The recipe's own graph, as a subgraph."""
        context = await opened()
        task = _task(context, state)
        if (group := context.store.group(context.run, task.id, context.arm)) is None:
            await build(context.recipe.loop.graph).ainvoke({"task": task.id}, context=context)
            group = context.store.group(context.run, task.id, context.arm)
        assert group is not None and group.attempts
        made = context.store.attempt(group.chosen or group.attempts[-1])
        assert made is not None
        return {"messages": [_message(context, made, made.answer or made.error or "", attempts=list(group.attempts))]}

    graph = StateGraph(Talk)
    nodes: tuple[Any, ...] = (retrieve, answer) if kind == "agent" else (retrieve, work)
    graph.add_sequence(nodes)
    graph.add_edge(START, nodes[0].__name__)
    graph.add_edge(nodes[-1].__name__, END)
    return graph.compile(checkpointer=checkpointer, name=f"verbal_{kind}")


def _task(context: Context, state: Talk) -> Task:
    """The task that the last thing a person said makes; its id follows from the whole conversation.

    Raises:
        DataError: a person said nothing.
    """
    said = [m for m in state["messages"] if m.type == "human" and text_of(m).strip()]
    if not said:
        todo = "put what the person said into `messages`"
        raise DataError("there is no message of a person to answer", where="state of the graph", todo=todo)
    whole = json.dumps([[m.type, text_of(m)] for m in state["messages"]])
    tasks = cast(dict[str, Task], context.tasks)
    name = f"said-{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()[:16]}"
    if name not in tasks:
        tasks[name] = context.app.task(text_of(said[-1]), id=name)
        context.store.put_tasks([tasks[name]])
    return tasks[name]


async def _answered(context: Context, task: Task, state: Talk) -> Attempt:
    hints = await context.hints(task)
    last = max(i for i, m in enumerate(state["messages"]) if m.type == "human")
    before = [_plain(m) for m in state["messages"][:last]]
    prompt = [*before, *context.app.messages("solver", task, hints=hints)]
    reply = await _streamed(context, prompt, context.solving(task.id, greedy=True))
    shown = tuple(h.id for h in hints)
    step = Step(
        author="policy", text=reply.text, tool_calls=reply.tool_calls, prompt=tuple(prompt), shown=shown,
        token_ids=reply.token_ids, logprobs=reply.logprobs, cited=cited(reply.text, shown),
    )  # fmt: skip
    read = context.app.parse("solver", reply.text)
    made = Attempt(
        id=context.attempt_id(task.id), run=context.run, task=task.id, arm=context.arm, steps=(step,),
        answer=read if isinstance(read, str) else reply.text, model=context.roles("solver").name, usage=reply.usage,
    )  # fmt: skip
    await context.put_attempt(made)
    context.made.pop(made.id, None)
    return made


async def _streamed(context: Context, prompt: list[Message], sampling: Sampling) -> Reply:
    """The policy's reply; its pieces are written to LangGraph's stream as they come."""
    write, caller = get_stream_writer(), context.roles("solver")
    said: Any = caller
    async with aclosing(said.stream_reply(prompt, sampling)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Reply):
                return piece
            write({"text": piece})
    raise DataError("the stream ended without its reply", where=caller.name)


def _message(context: Context, made: Attempt, text: str, **more: Any) -> AIMessage:
    shown = [i for step in made.steps for i in step.shown]
    told = {"attempt": made.id, "lessons": list(dict.fromkeys(shown)), **more}
    for held, key in ((context.offers, made.task), (context.observations, made.id), (context.tasks, made.task)):
        cast(dict[str, Any], held).pop(key, None)
    return AIMessage(content=text, id=made.id, response_metadata={"model_name": made.model, "verbal": told})


def _plain(message: BaseMessage) -> Message:
    """A message of LangChain as ours; results of tools stay with their calls, for providers refuse one without."""
    role, told = _ROLES.get(message.type, "user"), cast(Any, message)
    calls = tuple(
        ToolCall(id=str(c.get("id") or ""), name=c["name"], arguments=json.dumps(c["args"]))
        for c in (told.tool_calls if role == "assistant" else ())
    )
    answers = told.tool_call_id if role == "tool" else None
    return Message(role=role, content=text_of(message), tool_calls=calls, tool_call_id=answers)


def text_of(message: BaseMessage) -> str:
    """The words of a message of LangChain, whether it is a text or blocks."""
    if isinstance(message.content, str):
        return message.content
    blocks = [b if isinstance(b, str) else str(b.get("text", "")) for b in message.content]
    return "\n".join(b for b in blocks if b)


def agent(config: dict[str, Any] | None = None) -> Any:
    """The graph `agent` for `langgraph dev`, set up by the environment; nothing in `config` is read."""
    return _served("agent")


def episode(config: dict[str, Any] | None = None) -> Any:
    """The graph `episode` for `langgraph dev`, set up by the environment; nothing in `config` is read."""
    return _served("episode")


async def close_served() -> None:
    """Closes what the served graphs opened in this event loop."""
    loop = asyncio.get_running_loop()
    for key in [k for k in _SERVED if k[1] is loop]:
        _, stack = await _SERVED.pop(key)
        await stack.aclose()


_SERVED: dict[tuple[str, asyncio.AbstractEventLoop], asyncio.Task[tuple[Context, AsyncExitStack]]] = {}
"""What the served graphs use, opened by the first run in an event loop: a server asks for its graphs all the time."""


@cache
def _served(kind: str) -> Any:
    async def opened() -> Context:
        key = (kind, asyncio.get_running_loop())
        if key not in _SERVED or (_SERVED[key].done() and _SERVED[key].exception() is not None):
            _SERVED[key] = asyncio.ensure_future(_open_served(kind))
        return (await asyncio.shield(_SERVED[key]))[0]

    return _compiled(opened, kind)


async def _open_served(kind: str) -> tuple[Context, AsyncExitStack]:
    given, stack = os.environ.get, AsyncExitStack()
    opening = _opened(
        given("VERBAL_RECIPE", "sql_reflect"), kind, given("VERBAL_STORE", "verbal.db"), given("VERBAL_MEMORY", ""),
        "", given("VERBAL_MODEL") or None, (),
    )  # fmt: skip
    return await stack.enter_async_context(opening), stack


__all__ = ["KINDS", "Talk", "agent", "close_served", "episode", "make_graph", "text_of"]
