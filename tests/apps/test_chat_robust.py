"""The chat agent where things go wrong: real streams, clients that hang up, limits of money, kill -9, two processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import protocol_servers
import pytest
from chat_world import BOSS, TAUGHT, agent, follows, turn

from verbal.apps.chat import Busy
from verbal.contracts import Reply
from verbal.errors import BudgetError, ContextLengthError, ModelError, TransientError
from verbal.models.http import HttpModel
from verbal.recipe import load_recipe
from verbal.store import Store
from verbal.types import Usage

CHILD = """
import asyncio, sys
from pathlib import Path
from chat_world import follows
from verbal.apps.chat import ChatAgent
from verbal.models.scripted import ScriptedModel

async def slow(messages, index, seed):
    if "wait" in messages[-1].content:
        Path("waiting").touch()
        await asyncio.sleep(60)
    return follows(messages)

async def main():
    async with ChatAgent(model=ScriptedModel(slow), store="v.db") as agent:
        for text in sys.argv[2:]:
            _ = [e async for e in agent.stream(text, chat=agent.chat or sys.argv[1] or None)]
        print(agent.chat)

asyncio.run(main())
"""


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "v.db") as opened:
        yield opened


def frames(server, *deltas, finish="stop"):
    """A stream of a real server, in the given pieces."""
    return [
        server.frame("chat.completion.chunk", "tiny-1", [{"index": 0, "delta": {"content": d}, "finish_reason": None}])
        for d in deltas
    ] + [
        server.frame("chat.completion.chunk", "tiny-1", [{"index": 0, "delta": {}, "finish_reason": finish}]),
        server.frame("chat.completion.chunk", "tiny-1", [], {"prompt_tokens": 9, "completion_tokens": 4}),
    ]


def stream(server, *deltas, **options):
    events = [f"data: {json.dumps(f)}\n\n" for f in frames(server, *deltas, **options)]
    return protocol_servers.streams([*events, "data: [DONE]\n\n"])


async def test_a_real_server_streams_pieces_tools_and_usage(store):
    def f(x: int) -> int:
        """F."""
        return x + 1

    async with protocol_servers.OpenAIServer() as server:
        model = HttpModel("tiny-1", f"{server.url}/v1")
        async with agent(store, model=model, tools=[f]) as made:
            server.plan += [stream(server, "Dear", " boss", " \U0001f389\n", "\nUS", "ED: no", "ne")]
            events = [e async for e in made.stream("hello")]
            assert [e.data["delta"] for e in events if e.type == "text"] == ["Dear", " boss", " \U0001f389"]
            assert (made.last.usage["tokens"], made.last.usage["calls"]) == (
                13,
                1,
            ) and made.last.reply == "Dear boss 🎉"
            assert server.seen[-1]["tools"][0]["function"]["name"] == "f" and server.seen[-1]["stream"]
            server.plan += [server.answer, stream(server, "It is 2.")]
            await turn(made, "what is f of 1?")
            assert made.last.tools[0]["result"] == "2" and made.last.reply == "It is 2."
            sent = server.seen[-1]["messages"]
            assert sent[-1]["role"] == "tool" and sent[-2]["tool_calls"][0]["id"] == sent[-1]["tool_call_id"] == "c1"
        await model.aclose()


async def test_whoever_hangs_up_stops_the_work(store):
    async with protocol_servers.OpenAIServer() as server:
        model = HttpModel("tiny-1", f"{server.url}/v1")
        async with agent(store, model=model) as made:
            server.plan += [protocol_servers.hangs]
            task = asyncio.create_task(turn(made, "hello"))
            async with asyncio.timeout(20):
                while not server.active:
                    await asyncio.sleep(0.005)
                with pytest.raises(Busy):
                    await turn(made, "me too", chat=made.chat)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            stopped = made.history(made.chat)[0]
            assert (stopped.status, stopped.reply, made.busy(made.chat)) == ("stopped", "", False)
            server.plan += [stream(server, *"abcdefgh")]
            events = made.stream("again", chat=made.chat)
            async for event in events:
                if event.type == "text":
                    break
            await events.aclose()
            assert made.history(made.chat)[1].status == "stopped"
            assert [t.text for t in made.history(made.chat)] == ["hello", "again"]
        await model.aclose()


async def test_a_limit_of_money_stops_before_the_call(store):
    recipe = load_recipe("chat", ["model.price_in=100", "model.price_out=100", "model.max_tokens=50"])
    calls = []

    def model(messages, index, seed):
        calls.append(messages)
        return Reply(text=follows(messages), usage=Usage(calls=1, prompt_tokens=400, completion_tokens=10))

    async with agent(store, model, recipe=recipe, max_cost=0.3) as made:
        await turn(made, "hello")
        spent = made.last.usage["cost"]
        assert 0 < spent < 0.3 and len(calls) == 1
        with pytest.raises(BudgetError, match="over the limit"):
            for _ in range(9):
                await turn(made, "more")
        last = made.history(made.chat)[-1]
        assert last.status == "stopped" and "limit" in last.reason and len(calls) == len(made.history(made.chat)) - 1
        assert made.cost(made.chat).cost <= 0.3


async def test_what_stops_a_run_stops_the_turn_and_a_prompt_that_is_too_long_is_cut(store):
    recipe = load_recipe("chat", ["model.retries=1"])

    def down(messages, index, seed):
        raise TransientError("down")

    async with agent(store, down, recipe=recipe) as made:
        with pytest.raises(TransientError):
            await turn(made, "hello")
        assert made.history(made.chat)[0].reason == "down"
    sizes = []

    def short(messages, index, seed):
        if "# Role: summary" in messages[0].content:
            return "SUMMARY: long talk"
        sizes.append(sum(len(m.content) for m in messages))
        if sizes[-1] > 6000:
            raise ContextLengthError("too long for this model")
        return "fine"

    async with agent(store, short, budget=2400) as made:
        for _ in range(4):
            last = await turn(made, "word " * 400)
            assert last.status == "answered"
        assert max(sizes) > 6000 >= sizes[-1], "it was tried again with half of the budget"
        assert (await turn(made, "x" * 8000)).status == "failed", "what is too long alone is told"


async def test_a_killed_process_loses_the_turn_under_way_and_no_more(tmp_path, root):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "hub")])}
    command = [sys.executable, "-c", CHILD, "", BOSS, TAUGHT, "wait for me"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True) as process:
        async with asyncio.timeout(60):
            while not (tmp_path / "waiting").exists():
                assert process.poll() is None
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    with Store(tmp_path / "v.db") as store:
        async with agent(store) as made:
            chat = made.chats()[0]["id"]
            turns = made.open_chat(chat)
            assert [t.status for t in turns] == ["answered", "noted", "stopped"] and turns[2].text == "wait for me"
            assert [x["text"] for x in made.lessons()] == ["don't use emojis"]
            after = await turn(made, BOSS)
            assert "🎉" not in after.reply and after.id.endswith("-4")
            assert made.cost(chat).calls == 4, "answer, feedback, the lost one at its worst case, answer"


async def test_a_run_is_gone_on_with_under_another_model(store):
    async with agent(store) as made:
        await turn(made, "hello")
        chat = made.chat
    async with agent(store, lambda *a: "other") as made:
        made.open_chat(chat)
        assert (await turn(made, "and you?")).reply == "other" and len(made.history(chat)) == 2


async def test_roles_that_cannot_chat_are_not_asked(store):
    roles = "model.roles={feedback='embedded', summary='embedded'}"
    async with agent(store, recipe=load_recipe("chat", [roles, "model.name=mine"]), budget=400) as made:
        noted = await turn(made, TAUGHT)
        assert noted.understood.lesson == "don't use emojis" and noted.usage["calls"] == 0
        for number in range(8):
            events = [e async for e in made.stream(f"{number} {'word ' * 30}", chat=made.chat)]
        gone = [e.data["dropped"] for e in events if e.type == "summary"]
        assert set(store.usage(made.chat)) == {"solver"} and gone in ([], [True])
        assert (await made.edit(made.last, "x")).kept


async def test_a_role_that_breaks_is_done_without(store):
    def broken(messages, index, seed):
        if "# Role: feedback" in messages[-1].content or "# Role: summary" in messages[-1].content:
            raise ModelError("broken")
        return follows(messages)

    async with agent(store, broken, budget=400) as made:
        assert (await turn(made, TAUGHT)).understood.lesson == "don't use emojis"
        dropped = []
        for number in range(8):
            events = [e async for e in made.stream(f"{number} {'word ' * 30}", chat=made.chat)]
            dropped += [e.data["dropped"] for e in events if e.type == "summary"]
        assert dropped and all(dropped) and made.last.status == "answered"
