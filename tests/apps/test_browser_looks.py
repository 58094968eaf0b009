"""Every page in both themes and on a phone: no violation that axe finds, nothing wider than the screen."""

from __future__ import annotations

from typing import Any

import pytest
from browser_world import Served, axe, world

pytestmark = pytest.mark.xdist_group("browser")
__all__ = ["world"]

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}
# A theme changes colours only, and a phone the places of things: axe's other rules need to look once.
LOOKS = {"light": (DESK, None), "dark": (DESK, ["color-contrast"]), "phone": (PHONE, [])}
ASKS = """rules => axe.run(rules ? {runOnly: rules} : {}).then(
  found => found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html).join(' ')}`))"""

WIDTHS = "[document.documentElement, document.querySelector('main')].map(e => e.scrollWidth - e.clientWidth)"


@pytest.fixture(scope="module")
def chats(world: Served) -> dict[str, str]:
    """A chat of each kind, with an answer."""
    made = {}
    with world.at() as page:
        headers = {"X-Verbal": "1", "Origin": world.url, "Accept": "text/event-stream"}
        said = {
            "sql": ["orders by month?", "best customers?", "write something"],
            "chat": ["No emojis when you write to my boss.", "Write to my boss"],
        }
        for kind, texts in said.items():
            chat = page.request.post("/api/chats", headers=headers, data={"kind": kind}).json()["id"]
            for number, text in enumerate(texts):
                data = {"text": text, "etag": number}
                assert "done" in page.request.post(f"/api/chats/{chat}/turns", headers=headers, data=data).text()
            made[kind] = chat
    return made


def places(chats: dict[str, str]) -> dict[str, str]:
    """Place -> what shows that it is drawn."""
    return {
        "": "form.composer", f"chat/{chats['sql']}": ".outcome", f"chat/{chats['chat']}": ".understood",
        "memory/chat-user-ann": ".item", "memory/run": ".item", "runs": ".run-link", "runs/eval": ".curves svg",
        "compare": ".compare-form", "runs/none": "[role=alert]",
    }  # fmt: skip


def looked_at(page: Any, place: str, rules: list[str] | None) -> list[str]:
    """What is wrong with the page that is open, by all rules of axe (None) or some."""
    wrong = [f"{place}: {told}" for told in page.evaluate(ASKS, rules)] if rules != [] else []
    wide = page.evaluate(WIDTHS)
    return wrong + [f"{place}: wider than the screen by {more}" for more in wide if more > 0]


@pytest.mark.parametrize("look", list(LOOKS))
def test_every_page_can_be_read_by_everybody(world: Served, chats: dict[str, str], look: str) -> None:
    source, wrong = axe(), []
    size, rules = LOOKS[look]
    if source is None:
        rules = []
    with world.at(color_scheme="dark" if look == "dark" else "light", viewport=size) as page:
        page.evaluate(source or "0")
        for place, drawn in places(chats).items():
            page.evaluate("place => { location.hash = `#/${place}` }", place)
            page.locator(drawn).first.wait_for()
            wrong += looked_at(page, place, rules)
        for keys, name in (("Control+k", "Commands"), ("?", "Keys")):
            page.locator("main").focus()
            page.keyboard.press(keys)
            page.get_by_role("dialog", name=name).wait_for()
            wrong += looked_at(page, name, rules)
            page.keyboard.press("Escape")
    assert wrong == []
    if source is None and look != "phone":
        pytest.skip("widths were looked at; axe needs axe-playwright-python")


def test_the_door_can_be_read_by_everybody(world: Served) -> None:
    source = axe()
    if source is None:
        pytest.skip("axe needs axe-playwright-python")
    with world.at(user="", viewport=PHONE) as page:
        page.get_by_role("button", name="Sign in").wait_for()
        page.evaluate(source)
        assert page.evaluate(ASKS, None) == []
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(ASKS, None) == []


def test_a_phone_has_a_menu_and_holds_an_answer(world: Served, chats: dict[str, str]) -> None:
    with world.at(f"chat/{chats['sql']}", viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.get_by_role("button", name="Good answer").nth(2).wait_for()
        grid = page.get_by_role("grid").first
        grid.wait_for()
        box = grid.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
        page.get_by_role("button", name="Menu").tap()
        page.get_by_role("dialog", name="Menu").get_by_role("link", name="Memory").tap()
        page.get_by_role("heading", name="Memory").wait_for()
        page.get_by_role("dialog").wait_for(state="detached")


def test_nothing_moves_where_a_person_wants_it_still(world: Served) -> None:
    with world.at() as page:  # reduced motion is asked for
        page.locator("[data-composer]").wait_for()
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<i class=dots id=probe></i>')")
        assert page.evaluate("getComputedStyle(document.getElementById('probe')).animationName") == "none"
