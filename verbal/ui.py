"""What `verbal ui` and `verbal users` do: the web app served on this machine, and who may log in.

The app is `apps/web`, found by name; here is only how it is started, and what the terminal says.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import logging
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from verbal.errors import ConfigError, UnknownName
from verbal.parts import load_function
from verbal.store import Store

_ALONE = "local"
"""Whoever uses a server without accounts; their sessions must not become somebody's."""
_THREADS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What `verbal ui` was started with; see `run_ui`."""

    path: str
    models: Sequence[str]
    places: Sequence[str]
    host: str
    port: int
    names: Sequence[str]
    serve: str
    browser: bool
    max_cost: float | None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can come."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def run_ui(
    path: str,
    *,
    models: Sequence[str],
    places: Sequence[str],
    host: str,
    port: int,
    names: Sequence[str] = (),
    serve: str = "",
    browser: bool = False,
    max_cost: float | None = None,
) -> None:
    """Serves the web app until the process is interrupted; says where.

    Args:
        path: The store.
        models: The first one answers, the others may be compared with it.
        places: Databases; the demo shop when there is none.
        host: Address to listen at; other than loopback needs accounts.
        port: 0 takes a free one.
        names: Further names by which browsers come, where a server stands in front of this one.
        serve: A model, as `verbal serve --model` takes it, behind the gateway on the same port.
        browser: Whether a browser is opened.
        max_cost: US dollars for one chat.

    Raises:
        ConfigError: nobody could log in, or the address cannot be listened at.
    """
    wanted = _Wanted(
        path=path, models=models, places=places, host=host, port=port, names=names, serve=serve, browser=browser,
        max_cost=max_cost,
    )  # fmt: skip
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logs = [logging.getLogger(name) for name in ("verbal.web", "verbal.gateway")]
    for log in logs:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        with Store(path) as store:
            asyncio.run(_serve(store, wanted))
    finally:
        for log in logs:
            log.removeHandler(handler)


async def _serve(store: Store, wanted: _Wanted) -> None:
    """Serves until SIGINT or SIGTERM."""
    accounts = bool(store.users())
    if not wanted.loopback and not accounts:
        what = f"the web app at {wanted.host!r} without accounts could be used by anybody"
        raise ConfigError(what, where="verbal ui --host", todo="verbal users add NAME --admin first")
    url = ""

    def tell(token: str) -> None:
        if url:
            print(f"{url}/?token={token}  (good once)", flush=True)

    own = {"localhost", "127.0.0.1", "::1", wanted.host}
    site = load_function("apps", "web", "Site")(
        store, url=wanted.path, models=wanted.models, places=wanted.places, tell=tell, max_cost=wanted.max_cost,
        hosts={*own, *wanted.names} if wanted.loopback or wanted.names else (),
    )  # fmt: skip
    stop = _stopped()
    # By default a small machine has so few threads that some who read a large memory hold up all others.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="verbal"))
    async with _server(wanted, load_function("apps", "web", "Pages")(site)) as (server, key):
        opening, waiting = (
            asyncio.ensure_future(server.open(wanted.host, wanted.port)),
            asyncio.ensure_future(stop.wait()),
        )
        try:
            await asyncio.wait({opening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                return
            url = await opening
            address = url if accounts else f"{url}/?token={site.people.new_token()}"
            _say(wanted, url, address, key, accounts=accounts)
            await stop.wait()
            print("stopping", flush=True)
        finally:
            for task in (opening, waiting):
                task.cancel()
            await asyncio.gather(opening, waiting, return_exceptions=True)
            await server.aclose()


@asynccontextmanager
async def _server(wanted: _Wanted, pages: Any) -> AsyncIterator[tuple[Any, str]]:
    """The server that has the pages, and the key of its gateway where one was made for this run."""
    if not wanted.serve:
        yield load_function("apps", "web", "WebServer")(pages), ""
        return
    token = os.environ.get("VERBAL_SERVE_TOKEN", "")
    opened = load_function("apps", "gateway.opened", "opened")
    async with opened(wanted.serve, wanted.path, host=wanted.host, token=token, pages=pages) as it:
        yield it.gateway, it.key


def _say(wanted: _Wanted, url: str, address: str, key: str, *, accounts: bool) -> None:
    """Says where it is, and gets ready for the first question while a person still reads the page."""
    print(f"verbal ui: {address}" + ("" if accounts else "  (good once)"), flush=True)
    if not wanted.loopback:
        print("passwords and sessions are readable on the way unless a server with TLS stands in front", flush=True)
    if wanted.serve:
        print(f"the gateway: {url}/v1" + (f", its key for this run: {key}" if key else ""), flush=True)
    print("Stop with Ctrl-C.", flush=True)
    threading.Thread(target=_warm, name="verbal-warm", daemon=True).start()
    if wanted.browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _warm() -> None:
    with contextlib.suppress(Exception):  # whoever asks is told what is wrong
        load_function("apps", "text2sql.assistant", "Assistant")


def _stopped() -> asyncio.Event:
    """Set by SIGINT or SIGTERM; a second one stops at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    # Elsewhere than on Unix Ctrl-C cancels the task, which ends it as well.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
    return stop


# verbal users -------------------------------------------------------------------------------------------------------


def add_user(path: str, name: str, *, team: str, admin: bool, quiet: bool) -> dict[str, Any]:
    """Adds a person; the password is asked for, or is the first line of standard input where that is no terminal.

    Raises:
        ConfigError: the name is taken or not allowed, the password is short, or the two do not agree.
    """
    with Store(path) as store:
        if name == _ALONE:
            raise ConfigError(f"{name!r} is the one person of a server without accounts", todo="take another name")
        if store.user(name) is not None:
            raise ConfigError(
                f"there is a user {name!r} already", where=store.where, todo="verbal users password, or remove first"
            )
        first = not store.users()
        store.add_user(name, _password(name), team=team, admin=admin)
        if not quiet:
            print(f"{name} may log in{', as admin' if admin else ''}{f', team {team}' if team else ''}")
            if first and not admin:
                print("nobody is an admin yet: verbal users add NAME --admin")
        return {"name": name, "team": team, "admin": admin}


def change_password(path: str, name: str, *, quiet: bool) -> dict[str, Any]:
    """Gives a person another password, asked for as in `add_user`, and ends their sessions.

    Raises:
        UnknownName: nobody of that name. ConfigError: the password is short, or the two do not agree.
    """
    from verbal.verbs import open_store

    with open_store(path) as store:
        if store.user(name) is None:
            raise UnknownName.of("user", name, [u["name"] for u in store.users()], where=store.where)
        store.set_password(name, _password(name))
    if not quiet:
        print(f"{name} has a new password and is logged out everywhere")
    return {"changed": name}


def _password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise ConfigError("the two passwords are not the same", todo="try again")
    return password


def list_users(path: str, *, quiet: bool) -> list[dict[str, Any]]:
    """Everybody who may log in."""
    from verbal.verbs import open_store

    with open_store(path) as store:
        found = store.users()
    if not quiet:
        for user in found:
            print(
                f"{user['name']}{'  admin' if user['admin'] else ''}{'  team ' + user['team'] if user['team'] else ''}"
            )
        if not found:
            print("nobody: `verbal ui` lets in whoever opens the address it prints")
    return found


def remove_user(path: str, name: str, *, quiet: bool) -> dict[str, Any]:
    """Removes a person and ends their sessions; what they said and taught stays."""
    from verbal.verbs import open_store

    with open_store(path) as store:
        store.remove_user(name)
    if not quiet:
        print(f"{name} may log in no more; their chats and lessons stay in the store")
    return {"removed": name}


__all__ = ["add_user", "change_password", "list_users", "remove_user", "run_ui"]
