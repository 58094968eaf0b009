"""The chat agent in a real browser: it is corrected, says what it understood, uses it, and forgets it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser_world import EVIL, Served, world

pytestmark = pytest.mark.xdist_group("browser")
__all__ = ["world"]


def say(page: Any, words: str) -> Any:
    """Says something; gives the turn when it is answered."""
    before = page.get_by_role("article").count()
    page.get_by_role("textbox", name="Write a message").fill(words)
    page.keyboard.press("Enter")
    page.get_by_role("article").nth(before).wait_for()
    page.get_by_role("button", name="Send").wait_for()
    return page.get_by_role("article").last


def test_a_correction_is_understood_used_narrowed_and_undone(world: Served) -> None:
    with world.at(user="max") as page:
        turn = say(page, "Write to my boss that the launch moves by a week")
        turn.locator("strong", has_text="moves").wait_for()
        turn.get_by_role("table").wait_for()  # the file that draws Markdown is read when it is needed
        card = say(page, "No emojis when you write to my boss.").get_by_label("What I understood")
        assert card.locator(".understood-lesson").inner_text() == "Use no emojis in mails to my boss"
        assert "mails to my boss" in card.inner_text() and "mails to friends" in card.inner_text()
        assert "only for you" in card.inner_text() and "followed" in card.inner_text()
        for number in range(8):  # a lesson on trial is shown by lot
            used = say(page, f"Write to my boss that the budget is {number} million").locator(".lessons")
            if used.count():
                break
        assert re.match("Used reflection u1", used.locator("summary").inner_text())
        used.locator("summary").click()
        used.get_by_role("link").click()
        item = page.locator(".item-open")
        assert "Use no emojis in mails to my boss" in item.inner_text()
        page.go_back()
        card = page.get_by_label("What I understood")
        card.get_by_role("button", name="Narrow").click()
        page.keyboard.type("birthday wishes")
        page.keyboard.press("Enter")
        card.get_by_text(re.compile("birthday wishes")).wait_for()
        card.get_by_role("button", name="Undo").click()
        card.get_by_role("button", name="Undo").wait_for(state="detached")
        page.reload()
        page.get_by_label("What I understood").get_by_text("Taken back.").wait_for()


def test_a_lesson_is_forgotten_on_request(world: Served) -> None:
    with world.at(user="bob") as page:
        card = say(page, "No emojis when you write to my boss.").get_by_label("What I understood")
        card.get_by_role("button", name="Forget").click()
        card.get_by_text("Forgotten.").wait_for()
        card.get_by_role("button", name="Forget").wait_for(state="detached")


def test_an_answer_is_judged_edited_and_asked_for_again(world: Served) -> None:
    with world.at(user="bob") as page:
        turn = say(page, "Write to my boss about the budget")
        turn.get_by_role("button", name="Bad answer").click()
        turn.locator("[aria-label='Bad answer'][aria-pressed=true]").wait_for()
        turn.get_by_role("button", name="Edit").click()
        page.get_by_label("Your version").fill("Dear Ada, the budget holds.")
        page.get_by_role("button", name="Keep my version").click()
        turn.get_by_text("Dear Ada, the budget holds.").first.wait_for()
        say(page, "Write to my boss about the party")
        page.get_by_role("button", name="Again").click()
        page.keyboard.type("shorter")
        page.keyboard.press("Enter")
        page.get_by_text("An earlier answer").wait_for()
        assert page.get_by_role("button", name="Again").count() == 1  # of the newest answer only


def test_words_of_a_model_and_of_lessons_are_text(world: Served) -> None:
    with world.at(user="root") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        turn = say(page, f"hostile words {EVIL}")
        turn.get_by_text("[picture: p]").wait_for()
        assert EVIL in turn.locator(".reply").inner_text() and "<script>" in turn.locator(".reply").inner_text()
        assert "javascript" not in (turn.get_by_role("link", name="a link").get_attribute("href") or "")
        card = say(page, "Begin with it when you write to my boss.").get_by_label("What I understood")
        assert EVIL in card.locator(".understood-lesson").inner_text()
        page.goto("/#/memory/chat-user-root")
        page.locator(".item").get_by_text(EVIL).first.wait_for()
        assert page.evaluate("window.hacked") is None and page.locator("img, script:not([src])").count() == 0
        assert [url for url in asked if not url.startswith(world.url)] == []


def test_an_answer_under_way_goes_on_while_one_looks_elsewhere(world: Served) -> None:
    with world.at() as page:
        page.get_by_role("textbox", name="Write a message").fill("take your time")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Stop").wait_for()
        place = page.url
        page.get_by_role("link", name="Memory").click()
        page.get_by_role("heading", name="Memory").wait_for()
        page.goto(place)
        page.get_by_role("button", name="Stop").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text(re.compile("^Stopped")).first.wait_for()
        page.get_by_role("article").nth(1).wait_for(state="detached")
        say(page, "Write to my boss that all is well")


def test_a_model_that_breaks_down_says_what_to_do(world: Served) -> None:
    with world.at() as page:
        page.get_by_role("textbox", name="Write a message").fill("break down, please")
        page.keyboard.press("Enter")
        page.get_by_text("Failed. Scripted model error. Ask again, or in other words.").wait_for()
        assert page.get_by_role("button", name="Again").count() == 1
        assert page.get_by_role("button", name="Good answer").count() == 0
        say(page, "Write to my boss that it is back")


def test_a_screen_reader_hears_an_answer_once(world: Served) -> None:
    with world.at() as page:
        say(page, "Write to my boss that the launch moves by a week")
        heard = page.locator("[role=status][aria-live=polite]", has_text="Answered.")
        heard.wait_for(state="attached")
        assert "Dear Ms Okafor" in heard.inner_text()
