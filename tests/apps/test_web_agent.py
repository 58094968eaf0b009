"""Chats with the agent over HTTP, and the web app on the gateway's own server."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
import pytest_asyncio
from web_world import Browser, local, served, slow_model

from verbal.apps.gateway import Gateway
from verbal.apps.web import Pages, Site
from verbal.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")
MAIL = "write a line to my boss that I am late"
RULE = "don't use emojis when you write to my boss"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    rows = [{"match": "no-such", "reply": "x"}, {"reply": ["I am late.", "Sorry, I am late."]}]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    people = [("ann", "ops", False), ("bob", "ops", False)]
    async with served(folder, models=[f"scripted:{folder / 'c.jsonl'}"], people=people) as server:
        server.ann, server.bob = await server.browser().log_in("ann"), await server.browser().log_in("bob")
        yield server


async def test_a_lesson_is_understood_kept_used_and_taken_back(world):
    assert (await world.ann.get("/api/me"))["features"] == {"sql": True, "chat": True}
    chat = await world.ann.post("/api/chats", {"kind": "chat"})
    assert chat["kind"] == "chat" and chat["db"] is None
    path = f"/api/chats/{chat['id']}/turns"
    events = await world.ann.stream(path, {"text": RULE, "etag": 0})
    assert events[0]["type"] == "understood" and events[0]["memory"] == "chat-user-ann"
    done = events[-1]
    assert done["etag"] == 1 and done["turn"]["status"] == "noted" and done["turn"]["understood"]["says"]
    lesson = events[0]["id"]
    for number in range(1, 9):  # a coin decides whether a lesson on trial is shown
        events = await world.ann.stream(path, {"text": f"{MAIL}, mail {number}", "etag": number})
        assert "".join(e["delta"] for e in events if e["type"] == "text") == events[-1]["turn"]["reply"] != ""
        shown = next(e for e in events if e["type"] == "lessons")["lessons"]
        if shown:
            break
    assert shown[0]["id"] == lesson and shown[0]["memory"] == "chat-user-ann" and shown[0]["when"]
    item = (await world.ann.get("/api/memories/chat-user-ann"))["items"][0]
    assert item["id"] == lesson and item["status"] == "quarantined" and item["writable"] is True
    undone = await world.ann.post(f"/api/corrections/{done['turn']['understood']['correction']}/undo")
    assert undone["says"] and undone["etag"] == number + 1
    assert (await world.ann.get("/api/memories/chat-user-ann"))["items"][0]["status"] == "retired"


async def test_an_answer_is_judged_edited_and_asked_again(world):
    chat = await world.ann.chat(MAIL, kind="chat")
    turn = chat["turns"][0]["id"]
    assert chat["title"].startswith("write a line") and chat["memory"] == "chat-user-ann" and chat["etag"] == 1
    made = await world.ann.post(f"/api/turns/{turn}/feedback", {"kind": "up"})
    assert made["kept"] and made["correction"] == f"{turn}.1"
    made = await world.ann.post(f"/api/turns/{turn}/feedback", {"kind": "edit", "text": "Dear boss, I am late."})
    assert made["turn"]["reply"] == "Dear boss, I am late." and made["turn"]["edited"] is True
    events = await world.ann.stream(f"/api/turns/{turn}/feedback", {"kind": "regenerate", "text": "say sorry"})
    done = events[-1]
    assert done["type"] == "done" and done["etag"] == 2 and done["turn"]["replaces"] == turn
    found = await world.ann.get(f"/api/chats/{chat['id']}")
    assert [t["replaced"] for t in found["turns"]] == [done["turn"]["id"], ""] and found["etag"] == 2
    for kind, more in (("sql", {"sql": "SELECT 1"}), ("choose", {"number": 1})):
        assert (await world.ann.ask("POST", f"/api/turns/{turn}/feedback", {"kind": kind, **more}))[0] == 400
    assert (await world.ann.ask("POST", f"/api/chats/{chat['id']}/run", {"sql": "SELECT 1"}))[0] == 400
    assert (await world.ann.ask("GET", f"/api/turns/{turn}/rows"))[0] == 404
    assert "> write a line to my boss" in await world.ann.get(f"/api/chats/{chat['id']}/export")


async def test_a_chat_is_its_owners(world):
    chat = await world.ann.chat(MAIL, kind="chat")
    turn = chat["turns"][0]["id"]
    for method, path, body in (
        ("GET", f"/api/chats/{chat['id']}", None), ("GET", f"/api/chats/{chat['id']}/export", None),
        ("POST", f"/api/chats/{chat['id']}/turns", {"text": "x", "etag": 1}),
        ("DELETE", f"/api/chats/{chat['id']}", {}),
        ("POST", f"/api/turns/{turn}/feedback", {"kind": "up"}), ("POST", f"/api/corrections/{turn}.1/undo", {}),
        ("POST", f"/api/turns/{turn}/feedback", {"kind": "words", "text": "x y"}),
    ):  # fmt: skip
        status, found = await world.bob.ask(method, path, body)
        assert status == 404 and chat["id"] not in str(found), path
    assert await world.bob.get("/api/chats") == []


async def test_two_tabs_and_unknown_turns(world):
    chat = await world.ann.chat(MAIL, kind="chat")
    status, found = await world.ann.ask("POST", f"/api/chats/{chat['id']}/turns", {"text": "x", "etag": 0})
    assert status == 409 and found["error"]["code"] == "stale" and found["error"]["etag"] == 1
    status, found = await world.ann.ask("POST", f"/api/turns/{chat['id']}-9/feedback", {"kind": "up"})
    assert status == 404 and found["error"]["todo"] == ""  # it would name what there is
    fresh = await world.ann.post("/api/chats", {"kind": "chat"})
    assert (await world.ann.ask("POST", f"/api/turns/{fresh['id']}-1/feedback", {"kind": "up"}))[0] == 404
    assert (await world.ann.get(f"/api/chats/{fresh['id']}"))["turns"] == []


async def test_who_hangs_up_stops_the_agent(tmp_path):
    async with slow_model() as slow, served(tmp_path, models=[slow.spec]) as server:
        me = await local(server)
        chat = await me.post("/api/chats", {"kind": "chat"})
        path = f"{server.url}/api/chats/{chat['id']}/turns"
        async with me.session.post(path, json={"text": "wait for it", "etag": 0}, headers=me.headers) as answer:
            await asyncio.wait_for(slow.begun.wait(), 20)
            status, found = await me.ask("POST", f"/api/chats/{chat['id']}/turns", {"text": "x", "etag": 0})
            assert status == 409 and found["error"]["code"] == "busy"
            answer.close()
        async with asyncio.timeout(20):
            while not slow.dropped or (await me.get(f"/api/chats/{chat['id']}"))["busy"]:
                await asyncio.sleep(0.01)
        found = await me.get(f"/api/chats/{chat['id']}")
        assert found["etag"] == 1 and found["turns"][0]["status"] == "stopped" and slow.asked == slow.dropped == 1
        assert (await me.get("/api/chats"))[0]["turns"] == 1


async def test_a_model_that_reads_no_instructions_has_no_chats(tmp_path):
    async with served(tmp_path, models=["embedded"]) as server:
        me = await local(server)
        assert (await me.get("/api/me"))["features"] == {"sql": True, "chat": False}
        assert (await me.ask("POST", "/api/chats", {"kind": "chat"}))[0] == 400


async def test_the_gateways_own_server_has_the_pages_too(tmp_path):
    script, page = tmp_path / "c.jsonl", tmp_path / "page"
    script.write_text(json.dumps({"reply": "hello"}))
    page.mkdir()
    (page / "index.html").write_text("<!doctype html>")
    with Store(tmp_path / "v.db") as store:
        site = Site(store, models=[f"scripted:{script}"], page=page)
        async with Gateway(
            f"scripted:{script}", store, token="a-long-random-text-0123456789", pages=Pages(site)
        ) as gateway:
            async with aiohttp.ClientSession() as program:
                async with program.get(f"{gateway.url}/v1/models") as answer:
                    assert answer.status == 401  # the programs' door is theirs
                async with program.get(f"{gateway.url}/api/me") as answer:
                    assert answer.status == 401 and (await answer.json())["error"]["code"] == "login"
            me = Browser(gateway.url)
            await me.get(f"/?token={site.people.new_token()}")
            assert (await me.get("/api/me"))["user"] == "local" and await me.get("/") == "<!doctype html>"
            chat = await me.chat("hello?", kind="chat")
            assert chat["turns"][0]["reply"] == "hello"
            await me.session.close()
