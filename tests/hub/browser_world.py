"""What the browser tests share: the real server with scripted models in a thread, one browser, people who are let in.

A test file takes `world` (module-scoped); without a browser on this machine its tests are skipped and say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from recorded_world import World
from web_world import PASSWORD, served

from verbal.apps.web.static import PAGE

EVIL = '<img src=x onerror="window.hacked=1">'
"""What nobody may run."""
_MONTHS = "SELECT substr(ordered, 1, 7) AS month, SUM(amount) AS revenue FROM orders GROUP BY 1 ORDER BY 1"
_QUERIES = [
    ("orders by month", _MONTHS),
    ("evil cells", f"SELECT '{EVIL}' AS cell, 1 AS n UNION ALL SELECT '=1+1', 2"),
    ("best customers", [
        "SELECT name FROM customer ORDER BY points DESC LIMIT 3", "SELECT name FROM customer ORDER BY name LIMIT 3",
    ]),
    ("write something", "DROP TABLE customer"),
    ("", "SELECT COUNT(*) FROM customer"),
]  # fmt: skip
_READS, _TALKS = "KIND is one of", "You talk with one person"
_LESSON = "KIND: teach\nWISH: {wish}\nWHEN: mails to my boss\nNOT FOR: mails to friends\nABOUT:\nASKS: no"
_MAIL = "Dear Ms Okafor,\n\nthe launch **moves** by a week.\n\n| was | is |\n|---|---|\n| 7 May | 14 May |\n\nUSED: u1"
_HOSTILE = f"{EVIL} <script>window.hacked=1</script> [a link](javascript:window.hacked=1) ![p](http://evil.test/p.png)"
_TALK = [
    (rf"{_READS}.*## The message\W+No emojis", _LESSON.format(wish="Use no emojis in mails to my boss")),
    (rf"{_READS}.*## The message\W+Begin with", _LESSON.format(wish=f"Begin with {EVIL}")),
    (
        rf"{_READS}(?!.*## The message\W+(No emojis|Begin with))",
        "KIND: none\nWISH:\nWHEN:\nNOT FOR:\nABOUT:\nASKS: yes",
    ),
    (rf"{_TALKS}.*hostile words", _HOSTILE),
    (rf"{_TALKS}(?!.*(hostile words|take your time|break down))", _MAIL),
]


def _script(folder: Path) -> str:
    """The model, as `--model` takes it; what is slow never ends by itself."""
    slow = rf"(?s)\A(?!.*{_READS}).*take your time"
    rows: list[dict[str, Any]] = [{"match": slow, "reply": "never", "delay": 600.0}]
    rows.append({"match": slow.replace("take your time", "break down"), "error": "model"})
    rows += [{"match": f"(?s){match}", "reply": text} for match, text in _TALK]
    for match, sql in _QUERIES:
        texts = [f"```sql\n{s}\n```" for s in ([sql] if isinstance(sql, str) else sql)]
        rows.append({"reply": texts, **({"match": match} if match else {})})
    path = folder / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"scripted:{path}"


def chromium() -> str | None:
    """A browser of this machine."""
    named = os.environ.get("VERBAL_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def axe() -> str | None:
    """The source of axe-core, where the package that ships it is installed."""
    try:
        import axe_playwright_python
    except ImportError:
        return None
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


class Served:
    """The server in a thread, and one browser."""

    def __init__(self, browser: Any, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.browser, self.server, self.loop = browser, server, loop
        self.url: str = server.url
        self.complaints: list[str] = []
        """What the browser said of the page: errors, refused styles and scripts."""
        self._entered: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}

    def open(self, user: str = "ann", place: str = "", **options: Any) -> Any:
        """A page of somebody who is logged in (or of nobody), in a browser context of its own."""
        options = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **options}
        context = self.browser.new_context(base_url=self.url, storage_state=self._entered.get(user), **options)
        context.set_default_timeout(15_000)
        if user and user not in self._entered:
            headers = {"X-Verbal": "1", "Origin": self.url}
            told = context.request.post("/api/login", headers=headers, data={"user": user, "password": PASSWORD})
            assert told.ok, told.text()
            self._entered[user] = context.storage_state()
        return self.tab(context, place)

    def tab(self, context: Any, place: str = "") -> Any:
        """One more tab of a context."""
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"/#/{place}")
        return page

    def _heard(self, message: Any) -> None:
        told = str(message.text)
        if message.type == "error" and "Failed to load resource" not in told:  # replies that refuse say so as well
            self.complaints.append(told)

    @contextmanager
    def at(self, place: str = "", user: str = "ann", **options: Any) -> Iterator[Any]:
        """`open`, closed afterwards; the browser must not have complained.

        Without options a person's page stays open for the next test that needs it, as people leave a tab open.
        """
        kept = not options and bool(user)
        page = self._kept.pop(user, None) if kept else None
        if page is None:
            page = self.open(user, place, **options)
        else:
            page.goto("/#/runs")  # whatever was being written is put away
            page.get_by_role("heading", name="Runs").wait_for()
            page.goto(f"/#/{place}")
        self.complaints.clear()
        try:
            yield page
        except BaseException:
            page.context.close()
            raise
        if kept:
            for other in page.context.pages:
                if other is not page:
                    other.close()
            self._kept[user] = page
        else:
            page.context.close()
        assert not self.complaints, self.complaints

    def call(self, work: Any) -> Any:
        """What a coroutine gives in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


async def _learn(folder: Path) -> None:
    """Runs for the runs page: one that learned, one that was measured, a decision of the gate."""
    world = World(folder)
    try:
        await world.learn()
        await world.score()
        await world.judge()
    finally:
        world.store.close()


@contextmanager
def served_in_a_thread(folder: Path, alone: bool = False) -> Iterator[tuple[Any, asyncio.AbstractEventLoop]]:
    """The server, in an event loop of its own: with people and runs, or (alone) for the one who started it."""
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def run() -> None:
        people = [
            ("ann", "ops", False),
            ("root", "", True),
            *((name, "", False) for name in ("bob", "eve", "max", "zoe")),
        ]
        if alone:
            people = []
        else:
            await _learn(folder)
        async with served(folder, models=[_script(folder)], places=[], page=PAGE, people=people) as server:
            found.append(server)
            ready.set()
            await over.wait()

    def turn() -> None:
        try:
            loop.run_until_complete(run())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    ready.wait(60)
    assert found, "the server did not start"
    try:
        yield found[0], loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)


_started: list[tuple[Any, asyncio.AbstractEventLoop]] = []


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, which the test files of a process share, and a browser for this one.

    The browser ends with the file: its library keeps an event loop that other tests would trip over.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = chromium()
    if path is None:
        pytest.skip("needs chromium (apt-get install chromium, or VERBAL_CHROMIUM=PATH)")
    if not _started:
        stack = ExitStack()
        request.config.add_cleanup(stack.close)
        _started.append(stack.enter_context(served_in_a_thread(tmp_path_factory.mktemp("browser"))))
    with sync_api.sync_playwright() as made:
        browser = made.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield Served(browser, *_started[0])
        browser.close()


__all__ = ["EVIL", "PASSWORD", "Served", "axe", "chromium", "served_in_a_thread", "world"]
