"""A database asked in a real browser, against the real server: answers, results, feedback, hostile cells."""

from __future__ import annotations

import csv
import re
from typing import Any

import pytest
from browser_world import EVIL, Served, world

pytestmark = pytest.mark.xdist_group("browser")
__all__ = ["world"]


def ask(page: Any, question: str) -> Any:
    """Asks in a new chat; gives the turn when it is answered."""
    page.goto("/#/")
    page.get_by_role("radio", name="Database").check()
    return go_on(page, question)


def go_on(page: Any, question: str) -> Any:
    """Asks in the chat that is open."""
    before = page.get_by_role("button", name="Good answer").count()
    page.get_by_role("textbox", name="Ask the database").fill(question)
    page.keyboard.press("Enter")
    return answered(page, before + 1)


def run(page: Any, sql: str) -> None:
    """Opens a chat in which a query of one's own was run."""
    headers = {"X-Verbal": "1", "Origin": page.url.partition("/#")[0]}
    made = page.request.post("/api/chats", headers=headers, data={"kind": "sql"}).json()
    assert page.request.post(f"/api/chats/{made['id']}/run", headers=headers, data={"sql": sql}).ok
    page.goto(f"/#/chat/{made['id']}")


def answered(page: Any, turns: int) -> Any:
    """The last turn, when so many are answered."""
    page.get_by_role("button", name="Good answer").nth(turns - 1).wait_for()
    return page.get_by_role("article").last


def test_a_question_is_answered_with_its_query_rows_and_chart(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "orders by month?")
        assert "substr(ordered, 1, 7)" in turn.get_by_label("SQL", exact=True).inner_text()
        grid = turn.get_by_role("grid")
        grid.get_by_role("columnheader").first.wait_for()  # the grid's own file is read when the first result comes
        assert grid.get_by_role("columnheader").all_inner_texts() == ["month", "revenue"]
        assert grid.get_attribute("aria-rowcount") == "45"
        assert grid.get_by_role("gridcell").first.inner_text() == "2021-05"
        turn.locator("svg path").first.wait_for()
        assert "month" in turn.get_by_role("img", name=re.compile("Chart")).inner_html()
        assert re.search(r"ms|s · \$0", turn.locator(".spent").inner_text())
        page.get_by_role("navigation").get_by_text("orders by month?").first.wait_for()
        assert page.title() == "orders by month? · verbal"
        assert page.evaluate("document.activeElement.matches('[data-composer]')")
        second = go_on(page, "How many customers?")
        assert second.locator(".figure-value").inner_text() == "2,400"
        page.reload()
        assert answered(page, 2).locator(".figure-value").inner_text() == "2,400"


def test_a_query_is_edited_run_and_given_as_the_right_one(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "How many customers?")
        turn.get_by_role("button", name="Edit").click()
        editor = turn.get_by_role("textbox", name="SQL editor")
        editor.wait_for()
        assert turn.get_by_role("button", name="This is the right query").is_disabled()
        page.keyboard.press("Control+a")
        page.keyboard.type("SELECT COUNT(*) FROM product")
        page.keyboard.press("Control+Enter")
        run = answered(page, 2)
        assert run.get_by_label("SQL", exact=True).inner_text().strip() == "SELECT COUNT(*) FROM product"
        assert run.locator(".figure-value").inner_text() != "2,400"
        first = page.get_by_role("article").first
        first.get_by_role("button", name="Edit").click()
        first.get_by_role("textbox", name="SQL editor").wait_for()
        page.keyboard.press("Control+a")
        page.keyboard.type("SELECT COUNT(*) FROM customer WHERE status = 'K2'")
        first.get_by_role("button", name="This is the right query").click()
        told = answered(page, 3).locator(".learned")
        assert "asked again, this question gets your query" in told.inner_text()
        assert first.get_by_text("You gave the query").count() == 1


def test_a_hundred_thousand_rows_are_scrolled_by_keys(world: Served) -> None:
    with world.at() as page:
        run(page, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i, i * 2 FROM n")
        grid = answered(page, 1).get_by_role("grid")
        assert grid.get_attribute("aria-rowcount") == "100001"
        grid.focus()
        page.keyboard.press("Control+End")
        grid.get_by_text("200000", exact=True).wait_for()
        assert grid.locator("[role=row]").count() < 80  # only what is seen is drawn
        assert grid.locator("[aria-selected=true]").inner_text() == "200000"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        assert grid.locator("[aria-selected=true]").inner_text() == "99999"
        grid.evaluate("grid => { grid.scrollTop = 50000 * 30 }")
        grid.get_by_text("50001", exact=True).wait_for()
        page.keyboard.press("Control+Home")
        grid.locator("[aria-selected=true]", has_text=re.compile("^1$")).wait_for()


def test_of_two_readings_one_is_chosen(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "best customers?")
        readings = turn.get_by_label("Which one is meant?")
        assert readings.get_by_role("button").count() == 2
        meant = readings.locator("code").nth(1).inner_text()
        readings.get_by_role("button").nth(1).click()
        assert answered(page, 2).get_by_label("SQL", exact=True).inner_text() == meant
        page.get_by_text("You chose a reading").wait_for()


def test_thumbs_words_and_undo(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "How many active customers?")
        good = turn.get_by_role("button", name="Good answer")
        good.click()
        page.locator("[aria-pressed=true]").wait_for()
        turn.get_by_role("button", name="Correct").click()
        page.keyboard.type("no: active customers have status K2")
        page.keyboard.press("Enter")
        card = turn.get_by_label("What I understood")
        card.wait_for()
        assert "on trial" in card.inner_text()
        card.get_by_role("button", name="Narrow").click()
        page.keyboard.type("questions about suppliers")
        page.keyboard.press("Enter")
        card.get_by_text("questions about suppliers").wait_for()
        page.reload()
        said = page.get_by_label("Your corrections").last
        assert "active customers have status K2" in said.inner_text()
        said.get_by_role("button", name="Undo").last.click()
        said.get_by_text("taken back").first.wait_for()


def test_an_answer_is_asked_for_again_with_a_reason(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "How many customers?")
        turn.get_by_role("button", name="Again").click()
        page.keyboard.type("only those of Berlin")
        page.keyboard.press("Enter")
        page.get_by_text("only those of Berlin").first.wait_for()
        answered(page, 1)
        page.get_by_role("button", name="Send").wait_for()


def test_an_answer_is_stopped(world: Served) -> None:
    with world.at() as page:
        page.get_by_role("radio", name="Database").check()
        page.get_by_role("textbox").fill("take your time")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text(re.compile("^Stopped")).first.wait_for()
        assert page.get_by_role("button", name="Send").count() == 1
        go_on(page, "How many customers?")


def test_two_tabs_on_one_chat(world: Served) -> None:
    with world.at() as page:
        ask(page, "How many customers?")
        other = world.tab(page.context, page.url.partition("#/")[2])
        answered(other, 1)
        other.route(re.compile(r"/api/chats/[^/]+$"), lambda route: None)  # it hears of nothing
        go_on(page, "orders by month?")
        other.get_by_role("textbox", name="Ask the database").fill("How many products?")
        other.keyboard.press("Enter")
        other.get_by_text("Another tab said something").wait_for()
        other.unroute_all()
        other.get_by_role("button", name="Show what was said").click()
        answered(other, 2)
        assert other.get_by_role("textbox", name="Ask the database").input_value() == "How many products?"
        other.keyboard.press("Enter")
        answered(other, 3)


def test_cells_questions_and_titles_are_text(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, f"evil cells {EVIL}")
        assert turn.get_by_role("gridcell").first.inner_text() == EVIL
        assert turn.locator(".said").inner_text() == f"evil cells {EVIL}"
        page.get_by_role("navigation").get_by_text(EVIL).wait_for()
        assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
        with page.expect_download() as file:
            turn.get_by_role("link", name="CSV").click()
        with open(file.value.path(), newline="", encoding="utf-8-sig") as text:
            rows = list(csv.reader(text))
        assert rows[1][0] == EVIL and rows[2][0].startswith("'=")  # no spreadsheet runs it


def test_what_would_write_is_refused_and_says_so(world: Served) -> None:
    with world.at() as page:
        turn = ask(page, "write something")
        assert "only SELECT is run" in turn.locator(".outcome").inner_text()
        turn.get_by_role("button", name="Edit").click()
        turn.get_by_role("textbox", name="SQL editor").wait_for()
        page.keyboard.press("Control+a")
        page.keyboard.type("DELETE FROM customer")
        page.keyboard.press("Control+Enter")
        assert "only read here" in answered(page, 2).locator(".outcome").inner_text()


def test_a_file_is_uploaded_and_asked(world: Served, tmp_path: Any) -> None:
    (tmp_path / "visits.csv").write_text("day,visits\n2026-01-01,5\n2026-01-02,7\n")
    (tmp_path / "large.csv").touch()
    with (tmp_path / "large.csv").open("r+b") as large:
        large.truncate(51 * 2**20)
    with world.at(user="bob") as page:
        page.get_by_role("radio", name="Database").check()
        page.set_input_files("input[type=file]", tmp_path / "large.csv")
        page.get_by_text("at most 50 MB").wait_for()
        page.set_input_files("input[type=file]", tmp_path / "visits.csv")
        page.get_by_text("visits.csv can be asked now").wait_for()
        assert "visits" in page.get_by_role("combobox").locator("option:checked").inner_text()
        page.get_by_text("day, visits").wait_for()
        page.get_by_role("button", name="Remove this file").click()
        page.get_by_text("The file is removed").wait_for()
        page.get_by_text("day, visits").wait_for(state="detached")


def test_a_chat_is_renamed_exported_and_deleted(world: Served) -> None:
    with world.at() as page:
        ask(page, "How many customers are there now?")
        page.get_by_role("button", name="Rename").click()
        page.get_by_label("Title").fill("Counting")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Counting").wait_for()
        with page.expect_download() as file:
            page.get_by_role("link", name="Export this chat").click()
        text = file.value.path().read_text(encoding="utf-8")
        assert "How many customers are there now?" in text and "SELECT COUNT(*)" in text
        page.get_by_role("button", name="Delete this chat").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        page.get_by_text("off your list").wait_for()
        page.get_by_role("navigation").get_by_text("Counting").wait_for(state="detached")
