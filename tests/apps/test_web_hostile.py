"""Files, forms and bodies that mean harm, and what happens at once."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from contextlib import closing

import aiohttp
import duckdb
import pytest
import pytest_asyncio
from web_world import local, served

from verbal.apps.web import databases
from verbal.apps.web.agent_talk import AgentTalk
from verbal.apps.web.people import Person
from verbal.apps.web.talks import Chat
from verbal.errors import StoreError

FORM = "multipart/form-data; boundary=b"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    people = [("ann", "ops", False), ("bob", "", False)]
    async with served(tmp_path_factory.mktemp("hostile"), people=people) as server:
        server.ann, server.bob = [await server.browser().log_in(n) for n in ("ann", "bob")]
        yield server


async def bring(browser, data: bytes, name: str):
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", io.BytesIO(data), filename=name)
    async with browser.session.post(browser.url + "/api/databases", data=form, headers=browser.headers) as answer:
        return answer.status, await answer.json()


async def asked(browser, name: str, sql: str) -> dict:
    chat = await browser.post("/api/chats", {"kind": "sql", "db": name})
    status, found = await browser.ask("POST", f"/api/chats/{chat['id']}/run", {"sql": sql})
    return found if status == 200 else {"rows": [], "error": found["error"]["message"]}


async def test_a_duckdb_file_reads_no_other_file(world, tmp_path):
    (tmp_path / "secret.csv").write_text("a\nthe secret\n")
    place = tmp_path / "evil.duckdb"
    with closing(duckdb.connect(str(place))) as made:
        made.execute("CREATE TABLE ok (a INT); INSERT INTO ok VALUES (1)")
        made.execute(f"CREATE VIEW other AS SELECT * FROM read_csv('{tmp_path}/secret.csv')")
        made.execute(f"CREATE VIEW words AS SELECT content FROM read_text('{tmp_path}/secret.csv')")
        made.execute("CREATE MACRO mine(f) AS TABLE SELECT content FROM read_text(f)")
    status, found = await bring(world.ann, place.read_bytes(), "evil.duckdb")
    assert status == 201
    for sql in (
        "SELECT * FROM other", "SELECT * FROM words", f"SELECT * FROM mine('{tmp_path}/secret.csv')",
        f"ATTACH '{tmp_path}/v.db'", f"COPY ok TO '{tmp_path}/out.csv'", "INSTALL httpfs", "SELECT getenv('HOME')",
    ):  # fmt: skip
        told = await asked(world.ann, found["name"], sql)
        assert "the secret" not in str(told) and not told["rows"], sql
    assert (await asked(world.ann, found["name"], "SELECT * FROM ok"))["rows"] == [[1]]
    assert not (tmp_path / "out.csv").exists()


async def test_an_sqlite_file_does_nothing_by_being_read(world, tmp_path):
    place = tmp_path / "evil.sqlite"
    with closing(sqlite3.connect(place)) as made:
        made.executescript(
            """CREATE TABLE "a""b; DROP" (x INTEGER, y TEXT GENERATED ALWAYS AS (printf('%.*c', 30000000, 'x')));
            INSERT INTO "a""b; DROP" (x) VALUES (1), (2);
            CREATE VIEW v AS SELECT x FROM "a""b; DROP";
            CREATE TRIGGER t AFTER INSERT ON "a""b; DROP" BEGIN DELETE FROM "a""b; DROP"; END;
            CREATE VIRTUAL TABLE words USING fts5(body);"""
        )
    status, found = await bring(world.ann, place.read_bytes(), "evil.sqlite")
    assert status == 201
    (told,) = [d for d in await world.ann.get("/api/databases") if d["name"] == found["name"]]
    assert {t["name"]: t["rows"] for t in told["tables"]}['a"b; DROP'] == 2
    assert (await asked(world.ann, found["name"], "SELECT x FROM v"))["rows"] == [[1], [2]]
    for sql in ("DELETE FROM v", "SELECT load_extension('x')", "ATTACH 'v.db' AS o", "PRAGMA database_list"):
        assert not (await asked(world.ann, found["name"], sql))["rows"], sql


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "multipart/form-data"), (b"x", FORM), (b"--b\r\n", "multipart/mixed; boundary=b"),
        (b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--b--\r\n", FORM),
        (b"--b\r\n" + b"A: b\r\n" * 9_000, FORM), (b"", "multipart/form-data; boundary=" + "b" * 500),
    ],
)  # fmt: skip
async def test_a_form_that_is_none_is_refused(world, data, kind):
    headers = {**world.ann.headers, "Content-Type": kind}
    url = world.url + "/api/databases"
    async with world.ann.session.post(url, data=data, headers=headers) as answer:
        assert answer.status in (400, 415), await answer.text()
    assert not world.site.databases.coming["ann"]


async def test_two_files_of_one_name_stay_two_and_no_more_than_allowed_come_at_once(world, monkeypatch):
    made = await asyncio.gather(*(bring(world.bob, b"a\n%d\n" % n, "same.csv") for n in range(4)))
    names = sorted(found["name"] for _, found in made)
    assert names == ["same", "same-2", "same-3", "same-4"]
    seen = [(await asked(world.bob, n, f'SELECT a FROM "{n}"'))["rows"][0][0] for n in names]
    assert sorted(seen) == [0, 1, 2, 3]
    monkeypatch.setattr(databases, "MOST_FILES", 6)
    made = await asyncio.gather(*(bring(world.bob, b"a\n1\n", "more.csv") for _ in range(6)))
    assert sorted(status for status, _ in made) == [201, 201, 409, 409, 409, 409]


async def test_a_person_removes_a_file_they_brought_and_no_other(world):
    assert (await bring(world.bob, b"a\n1\n", "gone.csv"))[0] == 201
    chat = await world.bob.post("/api/chats", {"kind": "sql", "db": "gone"})
    await world.bob.post(f"/api/chats/{chat['id']}/run", {"sql": "SELECT a FROM gone"})
    assert (await world.ann.ask("DELETE", "/api/databases/gone", {}))[0] == 404
    assert (await world.bob.ask("DELETE", "/api/databases/shop", {}))[0] == 403
    assert (await world.bob.ask("DELETE", "/api/databases/gone", {}))[0] == 200
    assert "gone" not in [d["name"] for d in await world.bob.get("/api/databases")]
    assert not list(world.site.databases.folder(Person("bob")).glob("gone*"))
    read = await world.bob.get(f"/api/chats/{chat['id']}")
    assert len(read["turns"]) == 1
    status, _ = await world.bob.ask("POST", f"/api/chats/{chat['id']}/run", {"sql": "SELECT 1"})
    assert status == 409


@pytest.mark.parametrize(
    "body",
    [
        {"questions": ["x"], "a": {"memory": "sql-shop", "version": "9" * 5_000}, "b": {}},
        {"questions": ["x"], "a": {"memory": "sql-shop@-1"}, "b": {}}, {"questions": ["x"], "a": {"version": 1e999}},
        {"questions": ["x" * 5_000], "a": {}, "b": {}}, {"questions": ["x"], "a": [], "b": "x"},
    ],
)  # fmt: skip
async def test_a_comparison_that_makes_no_sense_is_refused(world, body):
    status, found = await world.ann.ask("POST", "/api/compare", body)
    assert status in (400, 404), found
    assert world.site.comparing == 0


async def test_a_store_that_fails_in_a_turn_is_told_and_the_chat_goes_on(world, monkeypatch):
    chat = await world.ann.post("/api/chats", {"kind": "sql"})
    path, keep = f"/api/chats/{chat['id']}/turns", world.site.store.put_step

    def fails(*given):
        raise StoreError("the disk is full", where="/home/ann/v.db")

    monkeypatch.setattr(world.site.store, "put_step", fails)
    events = await world.ann.stream(path, {"text": "how many customers?", "etag": 0})
    assert events[-1]["type"] == "error" and events[-1]["code"] == "store" and "/home" not in str(events)
    monkeypatch.setattr(world.site.store, "put_step", keep)
    now = await world.ann.get(f"/api/chats/{chat['id']}")
    assert now["busy"] is False
    events = await world.ann.stream(path, {"text": "how many customers?", "etag": now["etag"]})
    assert events[-1]["type"] == "done" and events[-1]["turn"]["rows"] == [[3]]


async def test_two_tabs_that_open_a_chat_share_one_agent(world, monkeypatch):
    opened = []

    class Agent:
        def __init__(self, **options):
            opened.append(self)

        async def __aenter__(self):
            await asyncio.sleep(0.05)
            return self

        async def __aexit__(self, *error):
            opened.remove(self)

        def new_chat(self, name):
            return name

    monkeypatch.setattr("verbal.apps.web.agent_talk.ChatAgent", Agent)
    talk = AgentTalk(world.site, Person("ann"), "chat-fffff")
    first, second = await asyncio.gather(talk.open(), talk.open())
    assert first is second and len(opened) == 1
    await talk.aclose()
    assert opened == []


async def test_who_changes_teams_speaks_for_the_new_one(world):
    talks, chat = world.site.talks, Chat(id="ask-eeeee", kind="sql", owner="ann", database="shop", fresh=True)
    before = await talks.talk(Person("ann", "ops"), chat)
    assert await talks.talk(Person("ann", "ops"), chat) is before
    assert await talks.talk(Person("ann", "dev"), chat) is not before


async def test_the_list_waits_for_what_another_tab_looks_up(tmp_path):
    async with served(tmp_path) as server:
        me = await local(server)
        await me.chat("how many customers?")
    async with served(tmp_path) as server:
        me = await local(server)
        lists = await asyncio.gather(*(me.get("/api/chats") for _ in range(4)))
        assert [len(found) for found in lists] == [1] * 4
