"""Files over HTTP: the page and what is beside it, and databases that people bring."""

from __future__ import annotations

import gzip
import io
import sqlite3
from contextlib import closing

import aiohttp
import pytest
import pytest_asyncio
from web_world import local, make_shop, served

from verbal.apps.web import databases

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    page = folder / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html><title>verbal</title>")
    (page / "assets" / "app-1a2b.js").write_text("let page = 1;" * 20)
    (page / "assets" / "app-1a2b.js.gz").write_bytes(gzip.compress(b"let page = 1;" * 20))
    (page / "assets" / "app-1a2b.js.br").write_bytes(b"not really brotli")
    (page / "odd.exe").write_text("no")
    (page / "leak.js").symlink_to(folder / "shop.sqlite")
    async with served(folder, page=page) as server:
        server.folder = folder
        server.me = await local(server)
        yield server


async def test_the_page_is_asked_for_each_time_its_parts_are_kept(world):
    async with world.me.session.get(world.url + "/") as answer:
        assert answer.status == 200 and answer.headers["cache-control"] == "no-cache"
        mark = answer.headers["etag"]
    async with world.me.session.get(world.url + "/", headers={"If-None-Match": mark}) as answer:
        assert answer.status == 304 and await answer.read() == b""
    for path in ("/memory/main", "/chats/ask-12345", "/runs"):  # addresses within the page
        async with world.me.session.get(world.url + path) as answer:
            assert answer.status == 200 and answer.content_type == "text/html"
    async with world.me.session.get(f"{world.url}/assets/app-1a2b.js", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip" and "immutable" in answer.headers["cache-control"]
        assert await answer.text() == "let page = 1;" * 20 and answer.content_type == "text/javascript"
    async with world.me.session.get(f"{world.url}/assets/app-1a2b.js", headers={"Accept-Encoding": ""}) as answer:
        assert "content-encoding" not in answer.headers and answer.headers["vary"] == "accept-encoding"
    async with world.me.session.head(f"{world.url}/") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../shop.sqlite", "/..%2fshop.sqlite", "/assets/..%2f..%2fv.db", "/%2e%2e/m.jsonl", "/assets/../../m.jsonl.js",
        "//etc/passwd.txt", "/assets/app-1a2b.js%00.css", "/.hidden.js", "/assets/.x.js", "/odd.exe.js", "/leak.js",
        "/a/b/c/d/e/f.js", "/nothing.js", "/assets\\..\\x.js", "/api", "/api/nothing", "/api/chats/x/y", "/v1/models",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_page(world, path):
    import yarl

    async with world.me.session.get(yarl.URL(world.url + path, encoded=True)) as answer:
        text = await answer.text()
        assert answer.status in (400, 404) or (answer.status == 200 and text.startswith("<!doctype html>")), (
            path,
            text,
        )
        assert "SQLite" not in text and str(world.folder) not in text


async def test_a_page_that_is_not_built_says_so(tmp_path):
    (tmp_path / "page").mkdir()
    async with served(tmp_path) as server:
        status, found = await server.browser().ask("GET", "/")
        assert status == 503 and found["error"]["code"] == "page"


# databases ------------------------------------------------------------------------------------------------------------


async def bring(browser, data: bytes, name: str, field: str = "file"):
    form = aiohttp.FormData(quote_fields=False)
    form.add_field(field, io.BytesIO(data), filename=name)
    async with browser.session.post(browser.url + "/api/databases", data=form, headers=browser.headers) as answer:
        return answer.status, await answer.json()


def sqlite_bytes(folder) -> bytes:
    path = folder / "mine.db"
    if not path.exists():
        make_shop(path)
    return path.read_bytes()


async def test_databases_with_their_tables(world):
    (shop,) = [d for d in await world.me.get("/api/databases") if d["name"] == "shop"]
    sizes = {t["name"]: t["rows"] for t in shop["tables"]}
    assert sizes == {"customer": 3, "sale": 3} and shop["own"] is False
    assert {"name": "city", "type": "TEXT"} in shop["tables"][0]["columns"] and str(world.folder) not in str(shop)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("Staff.DB", "staff"), ("..\\..\\a b;rm.sqlite", "a-b-rm"), ("../../../etc/shop.sqlite3", "shop-2")],
)
async def test_a_file_gets_a_name_of_ours_and_is_asked(world, name, kept):
    status, found = await bring(world.me, sqlite_bytes(world.folder), name)
    assert (status, found["name"]) == (201, kept)
    chat = await world.me.post("/api/chats", {"kind": "sql", "db": kept})
    events = await world.me.stream(f"/api/chats/{chat['id']}/turns", {"text": "how many customers?", "etag": 0})
    assert events[-1]["turn"]["rows"] == [[3]]
    inside = world.site.databases.folder(databases.Person("local"))
    assert {p.parent for p in inside.rglob("*")} == {inside}
    assert kept in [d["name"] for d in await world.me.get("/api/databases")]


async def test_tables_as_files(world):
    status, found = await bring(world.me, b"city,amount\nRome,3\nOslo,4\n", "cities.csv")
    assert (status, found["name"]) == (201, "cities")
    tables = next(d for d in await world.me.get("/api/databases") if d["name"] == "cities")["tables"]
    assert tables[0]["rows"] == 2 and [c["name"] for c in tables[0]["columns"]] == ["city", "amount"]


@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (b"x,y\n1,2\n", "x.exe", 415), (b"x,y\n1,2\n", "", 415), (b"hello", "x.db", 415),
        (b"PAR1 no PAR2", "x.parquet", 415),
        (b"SQLite format 3\0" + b"\0" * 200, "x.sqlite", 400), (b"\0\1\2", "x.csv", 415), (b"", "x.csv", 400),
        (b"SQLite format 3\0" + b"\0" * 200, "x.duckdb", 415), (b"x,y", "x.csv.sh", 415),
    ],
)  # fmt: skip
async def test_what_is_something_else_is_not_kept(world, data, name, status):
    before = [d["name"] for d in await world.me.get("/api/databases")]
    found, told = await bring(world.me, data, name)
    assert found == status and told["error"]["message"] and str(world.folder) not in str(told)
    assert [d["name"] for d in await world.me.get("/api/databases")] == before
    inside = world.site.databases.folder(databases.Person("local"))
    assert not inside.exists() or not [p for p in inside.iterdir() if p.name.startswith((".", "x."))]


async def test_a_file_that_is_too_large_is_not_read_to_its_end(world, monkeypatch):
    monkeypatch.setattr(databases, "LARGEST_FILE", 300_000)
    found, told = await bring(world.me, b"x" * 2_000_000, "big.csv")
    assert found == 413 and told["error"]["code"] == "large"
    sent = 0

    async def endless():
        nonlocal sent
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.csv"\r\n\r\n'
        yield head
        for _ in range(2_000):
            sent += 65536
            yield b"x" * 65536

    headers = {**world.me.headers, "Content-Type": "multipart/form-data; boundary=b"}
    try:
        async with world.me.session.post(world.url + "/api/databases", data=endless(), headers=headers) as answer:
            assert answer.status == 413
    except aiohttp.ClientConnectionError:
        pass  # it was hung up on while it was still sending
    assert sent < 100 * 2**20
    inside = world.site.databases.folder(databases.Person("local"))
    assert not [p for p in inside.iterdir() if "big" in p.name or p.suffix == ".part"]


async def test_other_fields_and_too_many_files(world, monkeypatch):
    assert (await bring(world.me, b"a\n1\n", "x.csv", field="other"))[0] == 400
    assert (await world.me.ask("POST", "/api/databases", {}))[0] == 415
    monkeypatch.setattr(databases, "MOST_FILES", 0)
    assert (await bring(world.me, b"a\n1\n", "x.csv"))[0] == 409


async def test_a_brought_database_is_there_after_a_restart(tmp_path):
    async with served(tmp_path) as server:
        assert (await bring(await local(server), b"a,b\n1,2\n", "mine.csv"))[0] == 201
    async with served(tmp_path) as server:
        assert [d["name"] for d in await (await local(server)).get("/api/databases")] == ["shop", "mine"]


async def test_a_database_that_is_gone_is_told_without_its_place(tmp_path):
    place = tmp_path / "away.sqlite"
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE a (x)")
    async with served(tmp_path, places=[str(place)]) as server:
        place.unlink()
        me = await local(server)
        (found,) = await me.get("/api/databases")
        assert found["tables"] == [] and found["error"] and str(tmp_path) not in str(found)
