"""The runs page over HTTP: lists, curves, attempts, live progress, replay, differences; and two policies compared."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio
from recorded_world import World
from web_world import local, served

from verbal.apps.web import runs
from verbal.parts import make_part
from verbal.types import Attempt, Feedback, Group, MemoryOp, Reflection, Task

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = World(folder)
    await made.learn("run", parts=["eval"])
    await made.score("eval")
    await made.learn("again", memory="again")
    await made.judge()
    made.store.close()
    made.close_models()
    async with served(folder, people=[("ann", "", False), ("root", "", True)]) as server:
        server.ann, server.root = await server.browser().log_in("ann"), await server.browser().log_in("root")
        yield server


async def test_runs_are_listed_the_newest_first(world):
    listed = await world.ann.get("/api/runs")
    assert [r["id"] for r in listed][1:] == ["again", "eval", "run"] and listed[0]["command"] == "gate"
    run = listed[-1]
    assert (run["command"], run["status"], run["tasks"], run["done"]) == ("learn", "done", 8, 8)
    assert run["started"] < run["finished"] and run["cost"] == 0.0 and run["model"].endswith(":Model")


async def test_a_run_with_its_arms_curves_and_gates(world):
    found = await world.ann.get("/api/runs/eval")
    assert [a["name"] for a in found["arms"]] == ["base", "retry", "shuffled", "memory"]
    memory = found["arms"][-1]
    assert memory["mean"] == 1.0 and memory["low"] <= memory["mean"] <= memory["high"] and len(memory["per_seed"]) == 2
    assert found["claim"] and found["gates"][0]["verdict"] and str(world.site.store.folder) not in json.dumps(found)
    assert {c["arm"] for c in found["curves"]} >= {"retry"} and set(found["curves"][0]["points"][0]) == {
        "x",
        "y",
        "low",
        "high",
    }
    assert found["cost"][0]["role"] == "solver" and found["cost"][0]["calls"] > 0
    learned = await world.ann.get("/api/runs/run")
    assert learned["lessons"]["added"] == 8 and learned["memory"] == "run" and learned["parts"] == ["eval"]
    assert learned["curves"] and 0 < len(learned["attempts"]) <= 200
    assert {"id", "task", "arm", "round", "answer", "score", "stop"} == set(learned["attempts"][0])
    json.dumps(found, allow_nan=False)


async def test_an_attempt_with_what_was_said_of_it(world):
    failed = next(a for a in (await world.ann.get("/api/runs/run"))["attempts"] if a["score"] == 0.0)
    found = await world.ann.get(f"/api/attempts/{failed['id'].replace('/', '%2F')}")
    assert found["attempt"]["id"] == failed["id"] and found["attempt"]["question"].startswith("What is the code")
    assert found["feedback"][1]["correction"].startswith("the code of") and found["reflection"]
    assert found["attempt"]["steps"][0]["prompt"][0]["role"] == "user"
    assert (await world.ann.get(f"/api/attempts/{failed['id']}"))["attempt"]["id"] == failed["id"]
    assert (await world.ann.ask("GET", "/api/attempts/run/nope"))[0] == 404


async def test_decisions_about_what_somebody_does_not_see_are_not_told(world):
    store, words = world.site.store, "m, memory chat-user-bob at version 2"
    memory = make_part("memory", "exact", store=store, name="chat-user-bob")
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="", text="a secret"))])
    memory.close()
    decision = {"verdict": "reject", "candidate": words, "incumbent": "m, no memory", "reason": "none"}
    store.put_proposal("p1", "reject", {"decision": decision})
    assert "chat-user-bob" not in json.dumps(await world.ann.get("/api/runs/run"))
    assert (await world.root.get("/api/runs/run"))["gates"][-1]["candidate"] == words


async def test_the_gold_of_a_sealed_test_is_not_told(world):
    store = world.site.store
    store.start_run("test-1", {"name": "x", "critics": {}}, {"command": "eval", "tasks": ["sealed"]})
    store.put_tasks([Task(id="sealed", kind="tiny", messages=(), gold="42", split="test")])
    attempt = Attempt(id="test-1/x/sealed/0.0", run="test-1", task="sealed", arm="x", answer="41")
    said = Feedback(attempt=attempt.id, critic="tiny", value=0.0, text="it is 42", correction="42")
    store.put_attempt(attempt, [said])
    found = await world.root.get("/api/attempts/test-1/x/sealed/0.0")
    assert found["feedback"][0]["value"] == 0.0 and "42" not in json.dumps(found)


async def test_a_run_is_replayed_without_a_model(world):
    status, found = await world.ann.ask("POST", "/api/runs/run/replay", {})
    assert status == 403 and found["error"]["code"] == "rights"  # it has parts from files
    first, second = await asyncio.gather(
        world.root.ask("POST", "/api/runs/run/replay", {}), world.root.ask("POST", "/api/runs/again/replay", {})
    )
    done, busy = (first, second) if first[0] == 200 else (second, first)
    assert done[0] == 200 and done[1]["equal"] is True and done[1]["calls"] == 0 and "equal" in done[1]["says"]
    assert busy[0] == 409 and busy[1]["error"]["code"] == "busy"


async def test_a_run_that_did_not_end_is_not_replayed(world):
    world.site.store.start_run("begun", {"name": "x", "critics": {}}, {"command": "learn", "tasks": []})
    status, found = await world.ann.ask("POST", "/api/runs/begun/replay", {})
    assert status == 409 and found["error"]["code"] == "replay" and "not done" in found["error"]["message"]
    world.site.store.finish_run("begun", "stopped")


async def test_where_two_runs_part(world):
    found = await world.ann.get("/api/diff?a=run&b=again")
    assert found["left"] == "run" and "rows" in found
    assert (await world.ann.ask("GET", "/api/diff?a=run&b=nope"))[0] == 404
    assert (await world.ann.ask("GET", "/api/diff?a=run"))[0] == 404


async def test_a_run_under_way_is_watched(world, monkeypatch):
    monkeypatch.setattr(runs, "_POLL", 0.05)
    store = world.site.store
    recipe = {"name": "live", "critics": {"verdict": "tiny"}, "model": {"name": "m"}}
    store.start_run("live", recipe, {"command": "learn", "tasks": ["train-anchor", "train-basket"]})
    seen = []
    async with world.ann.session.get(f"{world.url}/api/runs/live/events") as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
                if len(seen) == 1:
                    name = "live/learn/train-anchor/0.0"
                    attempt = Attempt(id=name, run="live", task="train-anchor", arm="learn")
                    store.put_attempt(attempt, [Feedback(attempt=name, critic="tiny", value=1.0)])
                    store.put_group("live", Group(task="train-anchor", attempts=(name,), chosen=name), key="learn")
                    store.finish_run("live", "done")
    assert [s["type"] for s in seen] == ["progress", "progress", "done"]
    assert (seen[0]["done"], seen[0]["total"], seen[0]["status"]) == (0, 2, "running")
    assert (seen[-1]["done"], seen[-1]["solved"], seen[-1]["status"]) == (1, 1, "done")
    assert (await world.ann.ask("GET", "/api/runs/nope/events"))[0] == 404


# compare --------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory):
    async with served(tmp_path_factory.mktemp("compare")) as server:
        memory = make_part("memory", "exact", store=server.site.store, name="sql-shop")
        await memory.apply([MemoryOp(op="ADD", item=Reflection(id="r1", text="active customers have status A"))])
        memory.close()
        server.me = await local(server)
        yield server


async def test_two_policies_on_the_same_questions(shop):
    offered = await shop.me.get("/api/policies")
    assert [(p["memory"], p["version"]) for p in offered] == [(None, None), ("sql-shop", 2)]
    body = {
        "db": "shop", "questions": ["total amount by month", "how many customers?"],
        "a": {"model": offered[0]["model"]}, "b": {"model": offered[1]["model"], "memory": "sql-shop@2"},
    }  # fmt: skip
    events = await shop.me.stream("/api/compare", body)
    assert [e["type"] for e in events] == ["pair", "pair", "done"]
    assert [e["n"] for e in events[:2]] == [1, 2] and events[0]["a"]["rows"] == events[0]["b"]["rows"]
    assert events[0]["same"] is True and (events[-1]["same"], events[-1]["differ"]) == (1, 1)
    assert (events[1]["a"]["rows"], events[1]["b"]["rows"]) == ([[3]], [[2]])  # the lesson was shown to one of them
    assert await shop.me.get("/api/chats") == []  # comparisons are no chats
    assert shop.site.store.memories() == {"sql-shop": 2}  # and nothing is learned from them
    assert shop.site.comparing == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"questions": []}, 400), ({"questions": ["x"] * 51}, 400), ({"questions": "x"}, 400),
        ({"questions": [""]}, 400),
        ({"questions": ["x"], "a": {"model": "http/m@http://10.0.0.1/v1"}}, 400), ({"questions": ["x"], "a": 5}, 400),
        ({"questions": ["x"], "b": {"memory": "nope"}}, 404),
        ({"questions": ["x"], "b": {"memory": "sql-shop@99"}}, 400),
        ({"questions": ["x"], "db": "nope"}, 404),
    ],
)  # fmt: skip
async def test_what_cannot_be_compared(shop, body, status):
    assert (await shop.me.ask("POST", "/api/compare", body))[0] == status
    assert shop.site.comparing == 0
