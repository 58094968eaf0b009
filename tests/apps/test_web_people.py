"""Who gets into the web app: tokens, passwords, sessions, places; what every reply carries."""

from __future__ import annotations

import asyncio
import io

import pytest
import pytest_asyncio
from web_world import PASSWORD, local, served

from verbal.apps.web.people import COOKIE
from verbal.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")


def cookie_of(server) -> str:
    return f"{COOKIE}_{server.url.rpartition(':')[2]}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(tmp_path_factory):
    told = []
    async with served(tmp_path_factory.mktemp("alone"), tell=told.append, hosts={"127.0.0.1", "localhost"}) as server:
        server.told = told
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(tmp_path_factory):
    people = [("ann", "ops", False), ("bob", "", False), ("root", "", True)]
    async with served(tmp_path_factory.mktemp("many"), people=people) as server:
        yield server


async def test_a_token_lets_the_one_person_in_once(alone):
    browser = alone.browser()
    status, found = await browser.ask("GET", "/api/me")
    assert status == 401 and found["error"]["code"] == "login" and found["error"]["form"] is False
    token = alone.site.people.new_token()
    async with browser.session.get(f"{alone.url}/?token={token}", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{cookie_of(alone)}=") and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert "Path=/" in cookie and "Secure" not in cookie and token not in cookie
    me = await browser.get("/api/me")
    assert (me["user"], me["admin"], me["login"], me["databases"][0]["name"]) == ("local", True, False, "shop")
    other = alone.browser()
    async with other.session.get(f"{alone.url}/?token={token}", allow_redirects=False) as answer:
        assert answer.status == 303 and "set-cookie" not in answer.headers
    assert (await other.ask("GET", "/api/me"))[0] == 401
    async with browser.session.get(f"{alone.url}/?token=x&a", allow_redirects=False) as answer:
        assert answer.headers["location"] == "/"  # it leads nowhere else


async def test_somebody_without_a_session_lets_a_fresh_address_be_printed(alone):
    await local(alone)
    alone.site.people._told = -1e9
    alone.told.clear()
    await alone.browser().ask("GET", "/api/me")
    await alone.browser().ask("GET", "/api/me")
    assert len(alone.told) == 1
    browser = alone.browser()
    await browser.get(f"/?token={alone.told[0]}")
    assert (await browser.get("/api/me"))["user"] == "local"


async def test_people_log_in_with_passwords(many):
    ann = await many.browser().log_in("ann")
    me = await ann.get("/api/me")
    assert (me["user"], me["team"], me["admin"], me["login"]) == ("ann", "ops", False, True)
    status, found = await many.browser().ask("GET", "/api/me")
    assert status == 401 and found["error"]["form"] is True
    token = many.site.people.new_token()  # is of no use where there are accounts
    other = many.browser()
    await other.ask("GET", f"/?token={token}")
    assert (await other.ask("GET", "/api/me"))[0] == 401
    assert (await ann.ask("POST", "/api/logout", {}))[0] == 200
    assert (await ann.ask("GET", "/api/me"))[0] == 401


async def test_a_session_that_is_over_asks_to_log_in(many):
    token = await asyncio.to_thread(many.site.store.open_session, "ann", -1.0)
    status, found = await many.browser().ask("GET", "/api/chats", headers={"Cookie": f"{cookie_of(many)}={token}"})
    assert status == 401 and found["error"]["code"] == "login"
    live = await asyncio.to_thread(many.site.store.open_session, "gone", 100.0)  # of somebody who was removed
    assert (await many.browser().ask("GET", "/api/me", headers={"Cookie": f"{cookie_of(many)}={live}"}))[0] == 401


async def test_a_session_lasts_on_while_it_is_used_but_not_for_ever(tmp_path):
    with Store(tmp_path / "v.db") as store:
        token = store.open_session("ann", 0.3)
        store.touch_session(token, 100.0, 1000.0)
        await asyncio.sleep(0.35)
        assert store.session_user(token) == "ann"
        store.touch_session(token, 100.0, 0.1)
        assert store.session_user(token) is None
        store.touch_session(token, 100.0, 1000.0)  # what is over stays over
        assert store.session_user(token) is None


async def test_passwords_are_not_guessed_at_will(many):
    browser = many.browser()
    body = {"user": "bob", "password": "wrong"}
    seen = [await browser.ask("POST", "/api/login", body) for _ in range(6)]
    assert [s for s, _ in seen] == [401] * 5 + [429]
    assert seen[0][1]["error"]["message"] == "the name or the password is wrong"
    async with browser.session.post(many.url + "/api/login", json=body, headers=browser.headers) as answer:
        assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
    # The right password waits as well, or a guess could be told from the wait.
    assert (await browser.ask("POST", "/api/login", {"user": "bob", "password": PASSWORD}))[0] == 429
    status, found = await browser.ask("POST", "/api/login", {"user": "nobody", "password": "wrong"})
    assert status == 401 and found["error"]["message"] == "the name or the password is wrong"
    assert (await browser.ask("POST", "/api/login", {"user": "a" * 65, "password": "x"}))[0] == 400
    assert (await browser.ask("POST", "/api/login", {"user": ["ann"], "password": "x"}))[0] == 400


# where requests come from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Verbal": ""}, {"X-Verbal": "0"}, {"Origin": ""}, {"Origin": "null"}, {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://["},
    ],
)  # fmt: skip
async def test_a_change_comes_from_the_page_alone(alone, headers):
    browser = await local(alone)
    for path in ("/api/chats", "/api/login", "/api/logout"):
        status, found = await browser.ask("POST", path, {"kind": "sql"}, headers=headers)
        assert status == 403 and found["error"]["code"] == "origin"
    assert (await browser.get("/api/me"))["user"] == "local"  # still logged in


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8600", "", "[::"])
async def test_a_name_of_somebody_else_is_not_served(alone, host):
    browser = await local(alone)
    for path in ("/", "/api/me", "/?token=x"):
        status, found = await browser.ask("GET", path, headers={"Host": host})
        assert status in (400, 403), found
        if status == 403:
            assert found["error"]["code"] == "host"


async def test_every_reply_says_what_a_page_may_do(alone):
    browser = await local(alone)
    for method, path in (
        ("GET", "/"),
        ("GET", "/api/me"),
        ("GET", "/nothing.js"),
        ("POST", "/api/chats"),
        ("GET", "/api/x"),
    ):
        async with browser.session.request(method, alone.url + path) as answer:
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'") and "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy and answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["server"] == "verbal"
            assert "access-control-allow-origin" not in answer.headers
            if path.startswith("/api"):
                assert answer.headers["cache-control"] == "no-store"


async def test_the_cookie_is_for_tls_alone_where_tls_is_spoken(many):
    browser = many.browser()
    headers = {**browser.headers, "X-Forwarded-Proto": "https"}
    body = {"user": "root", "password": PASSWORD}
    async with browser.session.post(many.url + "/api/login", json=body, headers=headers) as answer:
        assert answer.status == 200 and "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("raw", "kind", "status"),
    [(b"{", "application/json", 400), (b"[1]", "application/json", 400), (b"{}", "text/plain", 415),
     (b'{"kind": "' + b"x" * 2**20 + b'"}', "application/json", 413), (b"[" * 100_000, "application/json", 400)],
)  # fmt: skip
async def test_a_body_that_is_none_is_refused(alone, raw, kind, status):
    browser = await local(alone)
    headers = {**browser.headers, "Content-Type": kind}
    async with browser.session.post(alone.url + "/api/chats", data=io.BytesIO(raw), headers=headers) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]
