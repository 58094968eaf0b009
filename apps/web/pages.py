"""The web app as pages of the gateway's server: its routes, opened and closed with it; or a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from verbal.errors import ConfigError

from . import chats, databases, people, results
from .door import Handler, Route, routed
from .people import Person
from .site import Site
from .static import show_page


def _later(file: str, name: str) -> Handler:
    """A handler of a file that is read when it is first needed: the page is there before what it may ask for."""

    async def handle(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
        module = await asyncio.to_thread(importlib.import_module, f".{file}", __package__)
        found: web.StreamResponse = await getattr(module, name)(site, person, request)
        return found

    return handle


ROUTES = (
    Route("GET", "/api/me", people.show_me),
    Route("POST", "/api/login", people.log_in, open=True),
    Route("POST", "/api/logout", people.log_out, open=True),
    Route("GET", "/api/chats", chats.list_chats),
    Route("POST", "/api/chats", chats.create_chat),
    Route("GET", "/api/chats/{id}", chats.show_chat),
    Route("PATCH", "/api/chats/{id}", chats.rename_chat),
    Route("DELETE", "/api/chats/{id}", chats.hide_chat),
    Route("GET", "/api/chats/{id}/export", chats.export_chat),
    Route("POST", "/api/chats/{id}/turns", chats.say),
    Route("POST", "/api/chats/{id}/run", chats.run_query),
    Route("POST", "/api/turns/{id}/feedback", chats.give_feedback),
    Route("POST", "/api/corrections/{id}/undo", chats.undo),
    Route("GET", "/api/turns/{id}/rows", results.show_rows),
    Route("GET", "/api/turns/{id}/rows.csv", results.save_rows),
    Route("GET", "/api/databases", databases.list_databases),
    Route("POST", "/api/databases", databases.bring_database),
    Route("DELETE", "/api/databases/{name}", databases.remove_database),
    Route("GET", "/api/memories", _later("memories", "list_memories")),
    Route("GET", "/api/memories/{name}", _later("memories", "show_memory")),
    Route("GET", "/api/memories/{name}/items/{id}", _later("memories", "show_item")),
    Route("POST", "/api/memories/{name}/items/{id}", _later("memory_acts", "act_on_item")),
    Route("POST", "/api/memories/{name}/undo", _later("memory_acts", "undo_since")),
    Route("GET", "/api/memories/{name}/export", _later("memories", "export_memory")),
    Route("GET", "/api/runs", _later("runs", "list_runs")),
    Route("GET", "/api/runs/{id}", _later("runs", "show_run")),
    Route("GET", "/api/runs/{id}/events", _later("runs", "watch_run")),
    Route("POST", "/api/runs/{id}/replay", _later("runs", "replay_run")),
    Route("GET", "/api/attempts/{id:.+}", _later("runs", "show_attempt")),
    Route("GET", "/api/diff", _later("runs", "compare_runs")),
    Route("GET", "/api/policies", _later("compare", "list_policies")),
    Route("POST", "/api/compare", _later("compare", "compare")),
    Route("GET", "/{tail:.*}", show_page, open=True),
)
"""Every way in, in the order in which they are tried."""
_ENDING = 5.0


class Pages:
    """The routes of a site; the server lets them pass its own gate, since they have a door of theirs.

    Args:
        site: What they show.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._watching: asyncio.Task[None] | None = None

    def routes(self) -> list[web.RouteDef]:
        """What the server adds to its own."""
        return [routed(self.site, route) for route in ROUTES]

    async def open(self, gateway: Any = None) -> None:
        """Begins to look after chats that nobody speaks to."""
        self._watching = asyncio.create_task(self.site.talks.watch())

    async def aclose(self) -> None:
        """Closes everything but the store."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self.site.aclose()


class WebServer:
    """A server of the pages alone.

    Args:
        pages: The web app.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages, self.url = pages, ""
        self._runner: web.AppRunner | None = None

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listens; gives the address.

        Raises:
            ConfigError: the address is taken.
        """
        app = web.Application(client_max_size=2**20)
        app.add_routes(self.pages.routes())
        # A client that hangs up cancels its handler, and with it the call behind.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_ENDING)
        await runner.setup()
        self._runner = runner
        try:
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
        except (OSError, OverflowError) as error:
            await self.aclose()
            todo = "take another port (--port 0 finds a free one), or another --host"
            raise ConfigError(
                f"cannot listen at {host}:{port}: {error}", where="verbal ui --port", todo=todo
            ) from error
        await self.pages.open()
        found = runner.addresses[0][1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{found}"
        return self.url

    async def aclose(self) -> None:
        """Stops listening; streams under way may end for five seconds."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.pages.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


__all__ = ["ROUTES", "Pages", "WebServer"]
