"""Two people on one server: every route is walked with what belongs to the other one."""

from __future__ import annotations

import io

import aiohttp
import pytest
import pytest_asyncio
from web_world import served

from verbal.apps.web.pages import ROUTES
from verbal.apps.web.scopes import author_of
from verbal.parts import make_part
from verbal.types import Attempt, MemoryOp, Reflection, Task

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_OTHERS = {
    ("GET", "/api/me"), ("POST", "/api/login"), ("POST", "/api/logout"), ("GET", "/api/chats"), ("POST", "/api/chats"),
    ("GET", "/api/databases"), ("POST", "/api/databases"), ("GET", "/api/memories"), ("GET", "/api/runs"),
    ("GET", "/api/policies"), ("GET", "/{tail:.*}"),
}  # fmt: skip
"""Routes that name nothing: what they list is looked at by itself."""


async def teach(store, name: str, text: str, author: str = "user:bob") -> None:
    memory = make_part("memory", "exact", store=store, name=name)
    await memory.apply([MemoryOp(op="ADD", item=Reflection(id="r1", text=text), reason="by hand", author=author)])
    memory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """Bob has a chat with a correction, a memory, a database, and there is a captured run; Ann looks."""
    people = [("ann", "ops", False), ("bob", "dev", False), ("root", "", True)]
    async with served(tmp_path_factory.mktemp("scopes"), people=people) as server:
        store = server.site.store
        server.ann, server.bob, server.root = [await server.browser().log_in(n) for n in ("ann", "bob", "root")]
        for name in ("chat-user-bob", "chat-team-dev", "chat-user-ann", "chat-global"):
            await teach(store, name, f"a secret of {name}")
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(b"word,number\nbobs,1\n"), filename="payroll.csv")
        async with server.bob.session.post(
            server.url + "/api/databases", data=form, headers=server.bob.headers
        ) as made:
            assert (made.status, (await made.json())["name"]) == (201, "payroll"), await made.text()
        own = await server.bob.post("/api/chats", {"kind": "sql", "db": "payroll"})
        events = await server.bob.stream(f"/api/chats/{own['id']}/turns", {"text": "SELECT * FROM payroll", "etag": 0})
        assert events[-1]["turn"]["rows"] == [["bobs", 1]]
        await teach(store, "sql-of-bob:payroll", "a secret of sql-of-bob:payroll")
        chat = await server.bob.chat("how many active customers?")
        turn = chat["turns"][0]["id"]
        said = await server.bob.post(f"/api/turns/{turn}/feedback", {"kind": "down"})
        task = Task(id="t", kind="chat", messages=())
        store.put_tasks([task])
        store.start_run("gateway-x", {"name": "gateway", "critics": {}}, {"command": "gateway", "project": "x"})
        store.put_attempt(Attempt(id="gateway-x/1", run="gateway-x", task="t", answer="a secret of the gateway"))
        attempt = store.attempts(chat["id"])[0].id
        server.others = [
            {"{id}": chat["id"], "{name}": "chat-user-bob"},
            {"{id}": turn, "{name}": "chat-team-dev"},
            {"{id}": said["correction"], "{name}": "sql-of-bob:payroll"},
            {"{id}": attempt, "{name}": "chat-user-"},
            {"{id}": own["id"], "{name}": "no-such"},
            {"{id}": "gateway-x/1", "{name}": "chat-user-bob"},
            {"{id}": "gateway-x", "{name}": "chat-user-bob"},
        ]  # fmt: skip
        yield server


BODIES = {
    "/api/chats/{id}": {"title": "mine now"},
    "/api/chats/{id}/turns": {"text": "hello", "etag": 0}, "/api/chats/{id}/run": {"sql": "SELECT 1"},
    "/api/turns/{id}/feedback": {"kind": "up"}, "/api/memories/{name}/items/{id}": {"action": "retire"},
    "/api/memories/{name}/undo": {"version": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if (r.method, r.path) not in NOT_OTHERS], ids=lambda r: f"{r.method} {r.path}"
)
async def test_what_is_somebody_elses_is_not_there(world, route):
    for ids in world.others:
        path = route.path.replace("{id:.+}", "{id}")
        if path == "/api/diff":
            path = f"/api/diff?a={ids['{id}']}&b={ids['{id}']}"
        if path == "/api/compare":
            bodies = [
                {"db": "payroll", "questions": ["x"], "a": {}, "b": {}},
                {"questions": ["x"], "a": {"memory": ids["{name}"]}, "b": {}},
            ]
        else:
            bodies = [BODIES.get(path, {})]
        name = ids["{id}"] if "{name}" not in path else "r1"
        path = path.replace("{id}", name.replace("/", "%2F")).replace("{name}", ids["{name}"])
        for body in bodies:
            status, found = await world.ann.ask(route.method, path, None if route.method == "GET" else body)
            assert status == 404, (path, status, found)
            assert "secret" not in str(found) and "bob" not in str(found).replace(ids["{name}"], "")


async def test_nothing_of_it_was_changed(world):
    store = world.site.store
    for name in ("chat-user-bob", "chat-team-dev", "sql-of-bob:payroll"):
        assert len(store.ops(name)) == 2
    mine = await world.bob.get("/api/chats")
    assert len(mine) == 2 and all(chat["turns"] == 1 for chat in mine)


async def test_lists_hold_nothing_of_others(world):
    assert await world.ann.get("/api/chats") == []
    assert [d["name"] for d in await world.ann.get("/api/databases")] == ["shop"]
    names = {m["name"] for m in await world.ann.get("/api/memories")}
    assert names == {"chat-user-ann", "chat-global", "sql-shop"} - ({"sql-shop"} - set(world.site.store.memories()))
    assert await world.ann.get("/api/runs") == []
    assert "bob" not in str(await world.ann.get("/api/policies"))
    assert [d["name"] for d in await world.bob.get("/api/databases")] == ["shop", "payroll"]


async def test_whose_a_lesson_is(world):
    store, chat = world.site.store, world.others[0]["{id}"]
    item = Reflection(id="r1", text="x", attempts=tuple(a.id for a in store.attempts(chat)[:1]))
    assert author_of(store, item, None) == "bob"
    bare, said = item.replace(attempts=()), f"said by the user of answer {chat.removeprefix('ask-')}-1"
    assert author_of(store, bare, MemoryOp(op="ADD", item=bare, author="user", reason=said)) == "bob"
    assert author_of(store, bare, MemoryOp(op="ADD", item=bare, author="user:cid", reason=said)) == "cid"
    assert author_of(store, bare, MemoryOp(op="ADD", item=bare, author="curator", reason=said)) == ""
    assert author_of(store, bare, MemoryOp(op="ADD", item=bare, author="user", reason="of answer fffff-1")) == ""


async def test_nobody_gets_anything_without_a_session(world):
    nobody = world.browser()
    for route in ROUTES:
        if not route.open:
            path = route.path.replace("{id:.+}", "x").replace("{id}", "x").replace("{name}", "x")
            status, found = await nobody.ask(route.method, path, None if route.method == "GET" else {})
            assert status == 401 and found["error"]["code"] == "login", path


async def test_an_admin_sees_all_and_says_nothing_in_others_chats(world):
    chat, turn = world.others[0]["{id}"], world.others[1]["{id}"]
    assert (await world.root.get(f"/api/chats/{chat}"))["turns"][0]["text"] == "how many active customers?"
    assert (await world.root.get("/api/memories/chat-user-bob"))["items"][0]["text"] == "a secret of chat-user-bob"
    assert (await world.root.get("/api/attempts/gateway-x%2F1"))["attempt"]["answer"] == "a secret of the gateway"
    assert [r["id"] for r in await world.root.get("/api/runs")] == ["gateway-x"]
    for path, body in (
        (f"/api/chats/{chat}/turns", {"text": "x", "etag": 1}), (f"/api/turns/{turn}/feedback", {"kind": "up"}),
        (f"/api/corrections/{turn}.1/undo", {}),
    ):  # fmt: skip
        assert (await world.root.ask("POST", path, body))[0] == 404
    assert (await world.root.ask("DELETE", f"/api/chats/{chat}"))[0] == 404
    assert await world.root.get("/api/chats") == []


async def test_a_lesson_on_a_brought_database_stays_with_who_brought_it(world):
    own = next(c for c in await world.bob.get("/api/chats") if c["db"] == "payroll")
    assert (await world.bob.get(f"/api/chats/{own['id']}"))["memory"] == "sql-of-bob:payroll"
    found = await world.bob.get("/api/memories/sql-of-bob:payroll")
    assert found["items"][0]["writable"] is True
