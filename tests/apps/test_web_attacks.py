"""What is tried at the door of the web app: guesses at once, addresses used twice, cookies of other servers."""

from __future__ import annotations

import asyncio
import doctest

import pytest
import pytest_asyncio
from aiohttp.test_utils import make_mocked_request
from web_world import PASSWORD, served

from verbal.apps.web import door
from verbal.apps.web.people import COOKIE, Tries, address_of
from verbal.apps.web.site import Site
from verbal.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(tmp_path_factory):
    people = [("ann", "ops", False), ("bob", "", False), ("root", "", True)]
    async with served(tmp_path_factory.mktemp("attacks"), people=people) as server:
        yield server


async def test_guesses_that_are_sent_at_once_are_counted_as_they_are_checked(many, monkeypatch):
    checked = []

    def check(name: str, password: str) -> bool:
        checked.append(password)
        return False

    monkeypatch.setattr(many.site.store, "check_password", check)
    browser = many.browser()
    bodies = [{"user": "bob", "password": f"guess {n}"} for n in range(40)]
    seen = await asyncio.gather(*(browser.ask("POST", "/api/login", b) for b in bodies))
    assert len(checked) <= 6 and {s for s, _ in seen} == {401, 429}
    assert not many.site.people._trying


async def test_a_name_that_was_guessed_for_years_can_still_log_in():
    now = [0.0]
    tries = Tries(5, clock=lambda: now[0])
    for _ in range(5_000):
        tries.failed("ann")
    assert tries.wait("ann") == 900.0
    now[0] = 901.0
    assert tries.wait("ann") == 0.0


async def test_a_token_lets_one_in_even_when_two_come_at_once(tmp_path):
    async with served(tmp_path) as server:
        token = server.site.people.new_token()
        found = await asyncio.gather(*(server.site.people.let_in(token) for _ in range(8)))
        assert sum(f is not None for f in found) == 1


async def test_two_servers_of_one_host_do_not_log_each_other_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with served(tmp_path / "a") as one, served(tmp_path / "b") as other:
        browser = one.browser()
        for server in (one, other):
            await browser.session.get(f"{server.url}/?token={server.site.people.new_token()}")
        for server in (one, other):
            async with browser.session.get(server.url + "/api/me") as answer:
                assert answer.status == 200
        names = {c.key for c in browser.session.cookie_jar}
        assert names == {f"{COOKIE}_{s.url.rpartition(':')[2]}" for s in (one, other)}


async def test_with_tls_the_cookie_is_one_that_no_neighbour_can_plant(many):
    browser = many.browser()
    headers = {**browser.headers, "X-Forwarded-Proto": "https"}
    body = {"user": "root", "password": PASSWORD}
    async with browser.session.post(many.url + "/api/login", json=body, headers=headers) as answer:
        cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}_") and "Secure" in cookie and "Path=/" in cookie
    assert "domain" not in cookie.lower()
    plain = cookie.partition(";")[0].removeprefix("__Host-")
    status, _ = await many.browser().ask("GET", "/api/me", headers={"Cookie": plain, "X-Forwarded-Proto": "https"})
    assert status == 401


async def test_another_password_ends_all_sessions_and_what_is_watched(many, monkeypatch):
    monkeypatch.setattr("verbal.apps.web.runs._STILL_IN", 0.05)
    monkeypatch.setattr("verbal.apps.web.runs._POLL", 0.05)
    store = many.site.store
    store.start_run("learn-00000", {"name": "x", "critics": {}}, {"command": "learn", "tasks": ["a"]})
    ann = await many.browser().log_in("ann")
    watching = asyncio.create_task(ann.session.get(many.url + "/api/runs/learn-00000/events"))
    async with await watching as answer:
        assert answer.status == 200
        store.set_password("ann", "another password")
        assert '"code": "login"' in (await asyncio.wait_for(answer.text(), 10))
    assert (await ann.ask("GET", "/api/me"))[0] == 401
    assert (await many.browser().ask("POST", "/api/login", {"user": "ann", "password": PASSWORD}))[0] == 401
    await many.browser().log_in("ann", "another password")


@pytest.mark.parametrize(
    ("peer", "forwarded", "told"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"), ("127.0.0.1", "evil, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", None, "127.0.0.1"), ("2001:db8:1:2:3::4", None, "2001:db8:1:2::/64"),
        ("127.0.0.1", "x" * 500, "x" * 64), ("::ffff:203.0.113.9", None, "::ffff:203.0.113.9"),
    ],
)  # fmt: skip
async def test_from_where_guesses_come(peer, forwarded, told):
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": forwarded} if forwarded else {})
    assert address_of(request.clone(remote=peer)) == told


async def test_a_name_by_which_browsers_come_is_taken_as_it_was_typed(tmp_path):
    with Store(tmp_path / "v.db") as store:
        site = Site(store, hosts=("Verbal.Example.org:8443", "::1"))
        assert site.known_host("verbal.example.org") and site.known_host("::1") and not site.known_host("x.org")
        await site.aclose()
    assert not doctest.testmod(door).failed
