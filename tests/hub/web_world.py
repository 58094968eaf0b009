"""What tests of the web app share: a small shop, a scripted model, a site on loopback, people who are logged in."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from verbal.apps.web import Pages, Site, WebServer
from verbal.store import Store

SHOP = """
CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, name TEXT, city TEXT, status TEXT);
CREATE TABLE sale (sale_id INTEGER PRIMARY KEY, customer_id INTEGER, month TEXT, amount REAL,
  FOREIGN KEY (customer_id) REFERENCES customer (customer_id));
INSERT INTO customer VALUES (1, 'Ann', 'Rome', 'A'), (2, '=1+1', 'Oslo', 'B'), (3, '<img src=x>', 'Rome', 'A');
INSERT INTO sale VALUES (1, 1, '2024-01', 5), (2, 2, '2024-01', 7), (3, 1, '2024-02', 9.5);
"""
SCRIPT = [
    ("by month", "SELECT month, SUM(amount) FROM sale GROUP BY month ORDER BY month"),
    ("active customers", "SELECT COUNT(*) FROM customer WHERE city = 'Rome'"),
    ("the names of", "SELECT name FROM customer ORDER BY customer_id"),
    ("all numbers", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i FROM n"),
    ("customers with sales", ["SELECT COUNT(*) FROM customer", "SELECT COUNT(DISTINCT customer_id) FROM sale"]),
    ("", "SELECT COUNT(*) FROM customer"),
]
PASSWORD = "correct horse"


def make_shop(path: Path) -> Path:
    """The database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
    return path


def make_script(path: Path) -> str:
    """The model, as `--model` takes it."""
    rows: list[dict[str, Any]] = []
    for match, sql in SCRIPT:
        texts = [f"```sql\n{s}\n```" for s in ([sql] if isinstance(sql, str) else sql)]
        rows.append({"reply": texts, **({"match": match} if match else {})})
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"scripted:{path}"


class Browser:
    """A person's browser: one session, its cookies, the headers of the page."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.headers = {"X-Verbal": "1", "Origin": url}

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and body of a request: JSON, else text."""
        headers = {**(self.headers if method not in ("GET", "HEAD") else {}), **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.url + path, headers=headers, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def get(self, path: str, **options: Any) -> Any:
        """The body of a GET that works."""
        status, found = await self.ask("GET", path, **options)
        assert status == 200, found
        return found

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """The body of a POST that works."""
        status, found = await self.ask("POST", path, {} if body is None else body, **options)
        assert status in (200, 201), found
        return found

    async def stream(self, path: str, body: Any) -> list[dict[str, Any]]:
        """The events of a stream."""
        headers = {**self.headers, "Accept": "text/event-stream"}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            text = await answer.text()
        return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]

    async def chat(self, *questions: str, kind: str = "sql") -> dict[str, Any]:
        """A chat in which some questions were asked."""
        chat = await self.post("/api/chats", {"kind": kind})
        for number, question in enumerate(questions):
            events = await self.stream(f"/api/chats/{chat['id']}/turns", {"text": question, "etag": number})
            assert events[-1]["type"] == "done", events
        found: dict[str, Any] = await self.get(f"/api/chats/{chat['id']}")
        return found

    async def log_in(self, name: str, password: str = PASSWORD) -> Browser:
        """The browser, logged in."""
        await self.post("/api/login", {"user": name, "password": password})
        return self


@asynccontextmanager
async def served(folder: Path, **options: Any):
    """A site on loopback: its server, with `site` and `browser()`, which are closed with it."""
    place = folder / "shop.sqlite"
    if not place.exists():
        make_shop(place)
    if "models" not in options:
        options["models"] = [make_script(folder / "m.jsonl")]
    options.setdefault("places", [str(place)])
    page = options.setdefault("page", folder / "page")
    if not page.exists():
        (page / "assets").mkdir(parents=True)
        (page / "index.html").write_text("<!doctype html><title>verbal</title>")
    with Store(folder / "v.db") as store:
        for name, team, admin in options.pop("people", ()):
            if store.user(name) is None:
                store.add_user(name, PASSWORD, team=team, admin=admin)
        server = WebServer(Pages(Site(store, url=str(folder / "v.db"), **options)))
        browsers: list[Browser] = []

        def browser() -> Browser:
            browsers.append(Browser(server.url))
            return browsers[-1]

        server.browser, server.site = browser, server.pages.site
        await server.open()
        try:
            yield server
        finally:
            for each in browsers:
                await each.session.close()
            await server.aclose()


async def local(server: Any) -> Browser:
    """The browser of the one person of a server without accounts."""
    browser = server.browser()
    await browser.get(f"/?token={server.site.people.new_token()}")
    return browser


class Slow:
    """A model's server that answers when it is let go, and notes who hung up."""

    def __init__(self) -> None:
        self.go, self.begun, self.dropped, self.asked = asyncio.Event(), asyncio.Event(), 0, 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "wait" in json.dumps(body["messages"]):
            self.begun.set()
            self.asked += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.dropped += 1
                raise
        message = {"role": "assistant", "content": "```sql\nSELECT 1\n```"}
        made = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [made], "usage": usage}
        return web.json_response(whole)


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})


@asynccontextmanager
async def slow_model():
    """A `Slow` on loopback; `spec` is how `--model` takes it."""
    made = Slow()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", made.answer), web.get("/v1/models", _models)])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.spec = f"http/m@http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield made
    finally:
        made.go.set()
        await runner.cleanup()
