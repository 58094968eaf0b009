"""Tools of MCP servers: a command line (stdio) or a URL. The package `mcp` is imported when a server is named.

A server runs in a task of its own from `open` to `aclose`, for its connection must be closed by the task that made it.
A command gets the plain environment of the SDK, without the keys of this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from verbal.errors import ConfigError, MissingExtra

from .tools import Tool

OPENING = 30.0
"""Seconds in which a server must have answered."""
_PAGES = 20


class McpServer:
    """A client of one MCP server.

    Args:
        spec: `python -m some.server --flag` or `http://127.0.0.1:8000/mcp`.

    Raises:
        ConfigError: the command cannot be read. MissingExtra: the package `mcp` is not installed.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec.strip()
        self._place = _place(self.spec)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Any = None

    async def open(self) -> list[Tool]:
        """Connects; gives the server's tools.

        Raises:
            ConfigError: it cannot be started or reached, or does not speak MCP.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(ready))
        try:
            async with asyncio.timeout(OPENING):
                await ready
                return await self._tools()
        except Exception as error:  # the SDK raises many kinds, in groups
            await self.aclose()
            what = f"the MCP server cannot be used: {_why(error)}"
            raise ConfigError(what, where=f"--mcp {self.spec}", todo="try the command, or the URL, by itself") from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Hangs up, which ends a server that was started here; closing twice is harmless."""
        self._stop.set()
        if (task := self._task) is not None:
            self._task = None
            with contextlib.suppress(Exception):
                await task

    async def _serve(self, ready: asyncio.Future[None]) -> None:
        from mcp import Client

        errors = contextlib.ExitStack()
        place = self._place
        if not isinstance(place, str):
            from mcp.client.stdio import stdio_client

            place = stdio_client(place, errlog=errors.enter_context(_errors()))
        try:
            async with Client(place) as client:
                self._client = client
                ready.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else ConnectionError("it was stopped"))
                return
            raise
        finally:
            errors.close()

    async def _tools(self) -> list[Tool]:
        found, cursor = list[Any](), None
        for _ in range(_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools
            cursor = getattr(page, "next_cursor", None)
            if not cursor:
                break
        return [self._tool(t) for t in found]

    def _tool(self, told: Any) -> Tool:
        schema = getattr(told, "input_schema", None) or getattr(told, "inputSchema", None) or {"type": "object"}

        async def run(arguments: Mapping[str, Any]) -> Any:
            result = await self._client.call_tool(told.name, dict(arguments))
            parts = [getattr(part, "text", None) or f"({getattr(part, 'type', 'part')})" for part in result.content]
            text = "\n".join(parts)
            if result.is_error:
                raise RuntimeError(text or "the server reports an error")
            structured = result.structured_content
            return json.dumps(structured, ensure_ascii=False) if structured is not None and not text else text

        # Models take names of letters, digits, _ and - only.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", told.name)[:64]
        return Tool(name=name, description=(told.description or name)[:1000], parameters=dict(schema), run=run)


def _place(spec: str) -> Any:
    """What the SDK's client connects to."""
    if not spec:
        raise ConfigError("an empty MCP server", where="--mcp", todo="give a command or a URL")
    if re.match(r"https?://", spec):
        return spec
    try:
        program, *arguments = shlex.split(spec)
    except ValueError as error:
        raise ConfigError(
            f"the command cannot be read: {error}", where=f"--mcp {spec}", todo="mind the quotes"
        ) from None
    try:
        from mcp import StdioServerParameters
    except ModuleNotFoundError as error:
        raise MissingExtra.of("mcp", "mcp") from error
    return StdioServerParameters(command=program, args=arguments)


def _errors() -> contextlib.AbstractContextManager[TextIO]:
    """Where a server that is started here writes its errors: standard error, where that is a file."""
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream is not None and stream.fileno() >= 0:
                return contextlib.nullcontext(stream)
    return open(os.devnull, "w", encoding="utf-8")


def _why(error: BaseException) -> str:
    """The first plain error in a group of groups."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {OPENING:g} s"
    return f"{type(error).__name__}: {str(error)[:200]}"


__all__ = ["OPENING", "McpServer"]
