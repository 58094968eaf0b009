"""People of the web app: who is logged in, logging in and out, and how often a password may be tried.

Without accounts there is one person, `local`, who comes in by an address with a token that is good once; `verbal ui`
prints it. With accounts everybody logs in. A session is a random token in a cookie that scripts cannot read; the store
keeps its hash. It ends twelve hours after it was last used, and a week after it began.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from verbal.store import Store
from verbal.store_access import LONGEST_PASSWORD, digest_of

from .faults import Fault

if TYPE_CHECKING:
    from .site import Site

COOKIE = "verbal_session"
"""How the name of the cookie begins; the port follows, for browsers give a cookie to all ports of a host."""
IDLE, LONGEST = 12 * 3600.0, 7 * 86400.0
"""Seconds that a session lasts unused, and at all."""
_TOUCH = 60.0
"""Seconds between two notes that a session is in use."""
_RENEW = 30.0
"""Seconds between two addresses that are printed because nobody is logged in."""
_GUESSING = 2
"""Passwords that are checked at once: each takes 32 MB."""
_MOST_TRYING = 50
"""Passwords of one address that wait to be checked."""
_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    team: str = ""
    admin: bool = False


NOBODY = Person("")
"""Somebody who is not logged in."""
LOCAL = Person("local", admin=True)
"""The one person of a server without accounts."""


class Tries:
    """How often a password was tried in vain; who tries too often waits, longer each time.

    Args:
        free: Failures that cost nothing.
        clock: Seconds, for tests.
    """

    def __init__(self, free: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._free, self._clock = free, clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until the next try is taken."""
        count, last = self._failed.get(key, (0, 0.0))
        if count < self._free:
            return 0.0
        return max(0.0, last + min(2.0 ** min(count - self._free, 10), 900.0) - self._clock())

    def failed(self, key: str) -> None:
        """Notes a failure; those of an hour ago are forgotten."""
        count, last = self._failed.pop(key, (0, 0.0))
        now = self._clock()
        self._failed[key] = (1 if now - last > 3600 else count + 1, now)
        while len(self._failed) > _MOST_KEPT:
            self._failed.popitem(last=False)

    def clear(self, key: str) -> None:
        """Forgets failures, after a success."""
        self._failed.pop(key, None)


class People:
    """Sessions of people.

    Args:
        store: Where accounts and sessions are.
        tell: Told a fresh token, when the last one is used up and somebody without a session came.
    """

    def __init__(self, store: Store, tell: Callable[[str], None] = lambda token: None) -> None:
        self._store, self._tell = store, tell
        self._token, self._told = "", 0.0
        self._touched: OrderedDict[str, float] = OrderedDict()
        self._tries = {"both": Tries(5), "address": Tries(20), "name": Tries(50)}
        self._checking = asyncio.Semaphore(_GUESSING)
        self._trying: Counter[str] = Counter()

    def new_token(self) -> str:
        """A token that lets the one person in, once; the one before is good no more."""
        token = secrets.token_urlsafe(24)
        self._token, self._told = digest_of(token), time.monotonic()
        return token

    async def accounts(self) -> bool:
        """Whether people log in with names and passwords."""
        return bool(await asyncio.to_thread(self._store.users))

    async def person(self, request: web.Request) -> Person:
        """Who sends a request.

        Raises:
            Fault: nobody who is logged in (401).
        """
        token = request.cookies.get(cookie_name(request), "")
        found = await asyncio.to_thread(self._known, token) if token else None
        if found is not None:
            return found
        if await self.accounts():
            raise Fault(401, "login", "log in first", more={"form": True})
        if not self._token and time.monotonic() - self._told > _RENEW:
            self._tell(self.new_token())
        todo = "open the address with ?token= that `verbal ui` printed last; it is good once"
        raise Fault(401, "login", "this browser is not let in yet", todo, more={"form": False})

    def _known(self, token: str) -> Person | None:
        name = self._store.session_user(token)
        if name is None:
            return None
        if self._store.users():
            row = self._store.user(name)
            found = Person(name, row["team"], row["admin"]) if row else None
        else:
            found = LOCAL if name == LOCAL.name else None
        digest, now = digest_of(token), time.monotonic()
        if found is not None and now - self._touched.get(digest, -_TOUCH) >= _TOUCH:
            self._touched[digest] = now
            self._store.touch_session(token, IDLE, LONGEST)
            while len(self._touched) > _MOST_KEPT:
                self._touched.popitem(last=False)
        return found

    async def let_in(self, token: str) -> str | None:
        """A session for the one-time token, or None when it is not the one that is good now."""
        if not (self._token and hmac.compare_digest(digest_of(token), self._token)):
            return None
        self._token = ""  # before anything is waited for: two who come at once are not both let in
        if await self.accounts():
            return None
        return await asyncio.to_thread(self._store.open_session, LOCAL.name, IDLE)

    async def log_in(self, name: str, password: str, address: str) -> str:
        """A session for a person who knows their password; a wrong name takes as long as a wrong password.

        Raises:
            Fault: it is wrong (401), or was tried too often (429).
        """
        keys = {"both": f"{name}\0{address}", "address": address, "name": name}
        self._check_tries(keys)
        if self._trying[address] >= _MOST_TRYING:
            raise _too_often(1.0)
        self._trying[address] += 1
        try:
            async with self._checking:
                self._check_tries(keys)  # those who waited here with this one have failed meanwhile
                right = await asyncio.to_thread(self._store.check_password, name, password)
                if not right:
                    for kind, key in keys.items():
                        self._tries[kind].failed(key)
                    raise Fault(401, "login", "the name or the password is wrong", more={"form": True})
        finally:
            self._trying[address] -= 1
            if not self._trying[address]:
                del self._trying[address]
        self._tries["both"].clear(keys["both"])
        return await asyncio.to_thread(self._store.open_session, name, IDLE)

    def _check_tries(self, keys: Mapping[str, str]) -> None:
        if (wait := max(self._tries[k].wait(v) for k, v in keys.items())) > 0:
            raise _too_often(wait)

    async def log_out(self, request: web.Request) -> None:
        """Ends the session of a request."""
        if token := request.cookies.get(cookie_name(request), ""):
            self._touched.pop(digest_of(token), None)
            await asyncio.to_thread(self._store.close_session, token)


def _too_often(wait: float) -> Fault:
    seconds = int(wait) + 1
    told = f"wait {seconds} s and try again"
    return Fault(429, "tries", "a password was tried too often", told, headers={"retry-after": str(seconds)})


def address_of(request: web.Request) -> str:
    """From where a request comes, for counting: what a server in front of this one, on this machine, says; IPv6 by
    its network, of which one person has all addresses.
    """
    found = request.remote or ""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(found).is_loopback:
            found = request.headers.get("X-Forwarded-For", found).rpartition(",")[2].strip()
        address = ipaddress.ip_address(found)
        if isinstance(address, ipaddress.IPv6Address) and not address.ipv4_mapped:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return found[:64]


def cookie_name(request: web.Request) -> str:
    """The name of this server's cookie; with TLS one that no other host of the domain can set."""
    own = request.transport.get_extra_info("sockname") if request.transport is not None else None
    port = f"_{own[1]}" if isinstance(own, tuple) else ""
    return f"{'__Host-' if _over_tls(request) else ''}{COOKIE}{port}"


def set_cookie(request: web.Request, response: web.StreamResponse, token: str) -> None:
    """Gives a browser its session."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(LONGEST),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=_over_tls(request),
    )


def _over_tls(request: web.Request) -> bool:
    """Whether the browser speaks TLS, with this server or with what stands in front of it."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip() == "https"


async def told(site: Site, person: Person) -> dict[str, Any]:
    """What a page is told of the person who uses it."""
    from verbal import __version__

    return {
        "user": person.name, "team": person.team, "admin": person.admin, "login": await site.people.accounts(),
        "version": __version__, "model": next(iter(site.shown), ""),
        "databases": [{"name": d.name, "title": d.title} for d in site.databases.of(person)],
        "features": {"sql": bool(site.models), "chat": site.chats_too},
    }  # fmt: skip


async def show_me(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET /api/me."""
    return web.json_response(await told(site, person))


async def log_in(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/login."""
    from .door import read_json, text_of

    body = await read_json(request)
    name, password = (
        text_of(body, "user", most=64, need=True),
        text_of(body, "password", most=LONGEST_PASSWORD, need=True),
    )
    token = await site.people.log_in(name, password, address_of(request))
    row = await asyncio.to_thread(site.store.user, name)
    who = Person(name, row["team"], row["admin"]) if row else NOBODY
    await site.people.log_out(request)  # a session that was open in this browser
    response = web.json_response(await told(site, who))
    set_cookie(request, response, token)
    return response


async def log_out(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """POST /api/logout."""
    await site.people.log_out(request)
    response = web.json_response({})
    response.del_cookie(cookie_name(request), path="/", httponly=True, samesite="Strict", secure=_over_tls(request))
    return response


__all__ = [
    "COOKIE", "IDLE", "LOCAL", "LONGEST", "NOBODY", "People", "Person", "Tries", "address_of", "cookie_name", "log_in",
    "log_out", "set_cookie", "show_me", "told",
]  # fmt: skip
