"""Memory, runs, compare, the door and the keys in a real browser, against the real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser_world import EVIL, PASSWORD, Served, served_in_a_thread, world

from verbal.parts import make_part
from verbal.types import MemoryOp, Reflection

pytestmark = pytest.mark.xdist_group("browser")
__all__ = ["world"]


def teach(world: Served, memory: str, *texts: str) -> None:
    """Puts lessons into a memory of the server's store, on trial."""

    async def work() -> None:
        made = make_part("memory", "exact", store=world.server.site.store, name=memory, quarantine=True)
        items = [Reflection(id=f"r{i}", text=t, when="mails", boundary="") for i, t in enumerate(texts, 1)]
        await made.apply([MemoryOp(op="ADD", item=item, reason="said in a chat", author="ann") for item in items])
        made.close()

    world.call(work())


def test_people_come_in_with_a_password_and_sessions_end(world: Served) -> None:
    with world.at(user="") as page:
        page.get_by_label("Name").fill("bob")
        page.get_by_label("Password").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("the name or the password is wrong").wait_for()
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="What are we working on?").wait_for()
        page.context.clear_cookies()
        page.get_by_role("link", name="Runs").click()
        page.get_by_text("Your session ended").wait_for()
        page.get_by_label("Name").fill("bob")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Runs").wait_for()  # where one was
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Sign in").wait_for()


def test_one_person_comes_in_by_the_link_that_was_printed(world: Served, tmp_path: Path) -> None:
    with served_in_a_thread(tmp_path, alone=True) as (server, loop):
        one = Served(world.browser, server, loop)
        with one.at(user="") as page:
            page.get_by_text("Open the link that").wait_for()
            assert page.get_by_label("Password").count() == 0
            page.goto(f"/?token={server.site.people.new_token()}")
            page.get_by_role("heading", name="What are we working on?").wait_for()
            assert "token" not in page.url and page.get_by_role("button", name="Sign out").count() == 0


def test_a_person_sees_only_their_own(world: Served) -> None:
    teach(world, "chat-user-zoe", "zoe's own secret")
    with world.at("memory/chat-user-zoe", user="bob") as page:
        page.get_by_text("No such memory").wait_for()
        assert page.get_by_text("zoe's own secret").count() == 0
        page.goto("/#/chat/ask-00000")
        page.get_by_role("alert").wait_for()
        page.get_by_role("button", name="Start a new chat").click()
        page.get_by_role("heading", name="What are we working on?").wait_for()


def test_lessons_are_approved_narrowed_edited_retired_and_taken_back(world: Served) -> None:
    teach(world, "chat-user-eve", "Use no emojis", f"Begin with {EVIL}")
    with world.at("memory/chat-user-eve/r1", user="eve") as page:
        item = page.locator(".item", has_text="Use no emojis")
        assert "followed" in item.inner_text() and "not measured yet" in item.inner_text()
        item.get_by_role("button", name="Narrow").click()
        page.get_by_label("Not when").fill("mails to friends")
        page.get_by_role("dialog").get_by_role("button", name="Narrow", exact=True).click()
        item.get_by_text("mails to friends").wait_for()
        item.get_by_role("button", name="Edit").click()
        page.get_by_role("textbox", name=re.compile("^Lesson")).fill("Use no emojis at all")
        page.get_by_role("button", name="Save").click()
        item.get_by_text("Use no emojis at all").first.wait_for()
        item.get_by_role("button", name="Approve").click()
        item.get_by_text("believed", exact=True).wait_for()
        page.get_by_role("radio", name="Believed 1").wait_for()
        item.get_by_role("button", name="Share").click()
        page.get_by_role("dialog").get_by_text("starts there on trial").wait_for()
        assert page.get_by_role("dialog").get_by_role("button", name="Share").is_disabled()  # eve is in no team
        page.keyboard.press("Escape")
        item.get_by_role("button", name="Retire").click()
        page.get_by_role("radio", name="Retired 1").wait_for()
        page.get_by_role("button", name="Undo the last change").click()
        page.get_by_role("radio", name="Believed 1").wait_for()
        item.get_by_role("button", name="History").click()
        history = page.get_by_role("dialog")
        history.get_by_text("added").first.wait_for()
        assert "mails to friends" in history.inner_text() and "said in a chat" in history.inner_text()
        page.keyboard.press("Escape")
        history.wait_for(state="detached")
        with page.expect_download() as file:
            page.get_by_role("link", name="JSON lines").click()
        rows = [json.loads(line) for line in file.value.path().read_text(encoding="utf-8").splitlines()]
        assert any("Use no emojis at all" in json.dumps(row) for row in rows)
        page.get_by_label("Find in these lessons").fill("nothing has this")
        page.get_by_text("No lesson has these words").wait_for()


def test_what_a_run_learned_is_not_everybodys_to_change(world: Served) -> None:
    with world.at("memory/run") as page:
        page.get_by_role("tab", name="run", exact=False).first.wait_for()
        page.locator(".item").first.wait_for()
        assert page.get_by_role("button", name="Retire").count() == 0
        page.locator(".interval, .interval-none").first.wait_for()
        page.get_by_role("tab", name="Yours").focus()
        page.keyboard.press("ArrowRight")
        page.get_by_role("tab", name="run", exact=False).first.wait_for()


def test_runs_are_looked_into_replayed_and_compared(world: Served) -> None:
    with world.at("runs", user="root") as page:
        page.locator(".run-link").nth(2).wait_for()
        page.goto("/#/runs/eval")
        curves = page.get_by_role("img", name=re.compile("Learning curves. .*memory ends at 100 %"))
        curves.wait_for()
        assert curves.locator("polyline").count() == 3
        arms = page.get_by_role("region", name="Arms").inner_text()
        assert all(name in arms for name in ("base", "retry-only", "shuffled memory", "100.0 % to 100.0 %"))
        assert "solver" in page.get_by_role("region", name="Cost by role").inner_text()
        assert "accepted" in page.locator(".gates").inner_text()
        page.get_by_role("combobox", name=re.compile("^Arm")).select_option("memory:0")
        page.locator(".attempts button").first.click()
        drawer = page.get_by_role("dialog")
        drawer.get_by_role("heading", name="Answer").wait_for()
        page.keyboard.press("Escape")
        page.goto("/#/runs/run")
        page.get_by_role("button", name="Replay").click()
        page.get_by_text("0 model calls").wait_for(timeout=30_000)
        page.get_by_label("Compare with").select_option("eval")
        page.get_by_role("region", name="What differs").get_by_text("recipe critics.names").wait_for()


def test_a_run_under_way_is_watched(world: Served) -> None:
    store = world.server.site.store
    recipe = store.run("run")["recipe"]
    store.start_run("live", recipe, {"command": "learn", "tasks": ["train-anchor", "train-basket"]})
    with world.at("runs/live") as page:
        page.get_by_label("Progress of the run").wait_for()
        page.get_by_text("0 of 2").wait_for()
        store.put_group("live", store.groups("run")[0])
        page.get_by_text("1 of 2").wait_for()
        store.finish_run("live", "done")
        page.get_by_label("Progress of the run").wait_for(state="detached")


def test_two_policies_are_compared_on_the_same_questions(world: Served) -> None:
    with world.at("compare") as page:
        page.get_by_label("Questions, one a line").fill("How many customers?\norders by month?")
        page.get_by_role("combobox", name=re.compile("^B")).select_option(index=1)
        page.get_by_role("button", name="Compare").click()
        page.get_by_text("2 of 2 asked").wait_for()
        page.get_by_text("2 same").wait_for()
        pair = page.locator(".pair").first
        pair.locator("summary").click()
        assert pair.get_by_role("group").count() >= 2 and "2,400" in pair.inner_text().replace("2400", "2,400")
        page.get_by_role("radio", name="What differs").check()
        page.locator(".pair").first.wait_for(state="detached")
        page.get_by_label("Questions, one a line").fill("\n".join(["again"] * 51))
        assert page.get_by_role("button", name="Compare").is_disabled()


def test_everything_is_done_without_a_mouse(world: Served) -> None:
    with world.at() as page:
        page.locator("[data-composer]").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("r")
        page.get_by_role("heading", name="Runs").wait_for()
        page.locator(".run-link").first.wait_for()
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.className") == "run-link"
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Runs").first.wait_for()
        page.keyboard.press("Control+k")
        page.keyboard.type("demo shop")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="What do you want to know?").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("How many customers?")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Please.")
        page.keyboard.press("Enter")
        assert page.locator(".said").first.inner_text() == "How many customers?\nPlease."
        page.get_by_role("button", name="Good answer").wait_for()
        skip = page.locator("a[href], button").first  # what Tab comes to first
        assert skip.inner_text() == "Skip to the content"
        skip.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_a_server_that_is_gone_is_told_and_comes_back(world: Served) -> None:
    with world.at("runs", user="root", color_scheme="light") as page:
        page.locator(".run-link").first.wait_for()
        page.context.set_offline(True)
        page.locator(".run-link").first.click()
        page.get_by_text("The server does not answer. Trying again").wait_for()
        page.context.set_offline(False)
        page.get_by_text("The server does not answer. Trying again").wait_for(state="detached")
        page.get_by_role("heading", name="reflect").wait_for()


def test_the_theme_is_kept(world: Served) -> None:
    with world.at(color_scheme="light") as page:
        page.get_by_role("button", name="Dark theme").click()
        page.reload()
        page.get_by_role("button", name="Light theme").wait_for()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_first_page_asks_for_little(world: Served) -> None:
    asked: list[Any] = []
    with world.at(viewport={"width": 1280, "height": 800}) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        page.get_by_role("heading", name="What are we working on?").wait_for()
        names = [url.removeprefix(world.url) for url in asked]
        assert all(name.startswith("/") for name in names), names
        assert not [n for n in names if re.search(r"chart|editor|grid|dist|markdown", n)], names
