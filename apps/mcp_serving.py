"""What the MCP servers of this room share: who may call them over HTTP, and how their errors are told to a model.

The package `mcp` is imported when a server is made (two seconds), not with this file.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import inspect
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from verbal.errors import ConfigError, MissingExtra, VerbalError

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.auth.provider import AccessToken
    from mcp.server.transport_security import TransportSecuritySettings

TOKEN = "VERBAL_MCP_TOKEN"
"""Environment variable of the bearer token."""
SHORTEST_TOKEN = 16
"""Characters of a token that nobody guesses."""
LARGEST_REQUEST = 256 * 1024
"""Bytes of a request over HTTP."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def require() -> None:
    """Says at once what is missing, before anything is opened.

    Raises:
        MissingExtra: the package `mcp` is not installed.
    """
    try:
        import mcp.server  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("mcp", "mcp_types"):
            raise MissingExtra.of("mcp", "mcp") from error
        raise


def allowed_names(host: str, more: Sequence[str], token: str, what: str = "a memory") -> list[str]:
    """Names under which a server at `host` may be called; `what` is served, in words.

    Raises:
        ConfigError: there is no token or a short one where one is needed, or no name to call it by.
    """
    local = _is_loopback(host)
    if not token and not local:
        told = f"{what} served at {host!r} without a token could be read and written by anybody"
        raise ConfigError(told, where="verbal mcp --host", todo=f"put a long random text into {TOKEN}, or use loopback")
    if token and len(token) < SHORTEST_TOKEN:
        told = f"the token has {len(token)} characters, at least {SHORTEST_TOKEN} are needed"
        raise ConfigError(told, where=TOKEN, todo="put a long random text there")
    every = host in ("0.0.0.0", "::", "")
    if every and not more:
        told = f"{host!r} listens everywhere, and no name is given by which clients may call it"
        raise ConfigError(told, where="verbal mcp --host", todo="add --allowed-host NAME for each")
    own = [] if every else [f"[{host}]" if ":" in host else host]
    return list(dict.fromkeys([*_LOOPBACK, *own, *more]))


def auth_options(token: str) -> dict[str, Any]:
    """Options of the SDK's server that ask for a token, if there is one."""
    if not token:
        return {}
    from mcp.server.auth.settings import AuthSettings

    # The SDK wants the address of an issuer; there is none, and it is not published without a resource server.
    auth = AuthSettings.model_validate({"issuer_url": "http://127.0.0.1", "resource_server_url": None})
    return {"auth": auth, "token_verifier": _OneToken(token)}


async def serve_http(protocol: MCPServer[Any], port: int, host: str, names: Sequence[str], told: str) -> None:
    """Serves any number of clients at http://HOST:PORT/mcp until it is interrupted; says where on stderr.

    Args:
        protocol: The server of the SDK.
        port: 0 takes a free one.
        host: Address to listen at.
        names: By which clients may call it (`allowed_names`); others are refused, for a web page could lead a browser
            here under a name of its own (DNS rebinding).
        told: What is served, for the line that says where.

    Raises:
        ConfigError: the address is taken.
    """
    import uvicorn

    app = protocol.streamable_http_app(
        json_response=True,
        stateless_http=True,  # all that a client needs is in the store: a restart breaks no session
        max_request_body_size=LARGEST_REQUEST,
        transport_security=_security(names),
        host=host,
    )
    # uvicorn ends in order and then raises the signal again, which must not end the process before others are closed.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    with closing(_listening(host, port)) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"{told}: http://{shown}:{listener.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
        await uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve(sockets=[listener])


def told(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, a function or a coroutine function, whose errors say to the model what to do."""
    from mcp.server.mcpserver.exceptions import ToolError

    def words(error: VerbalError) -> ToolError:
        advice = f" To do: {error.todo}." if error.todo else ""
        return ToolError(f"{error.what}.{advice}")

    if inspect.iscoroutinefunction(tool):

        @functools.wraps(tool)
        async def awaited(**arguments: Any) -> Any:
            try:
                return await tool(**arguments)
            except VerbalError as error:
                raise words(error) from None

        return awaited

    @functools.wraps(tool)
    def called(**arguments: Any) -> Any:
        try:
            return tool(**arguments)
        except VerbalError as error:
            raise words(error) from None

    return called


class _OneToken:
    """Takes one token, in a time that does not tell how much of it was right."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who holds a token, or None."""
        from mcp.server.auth.provider import AccessToken

        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return None
        return AccessToken(token="-", client_id="token", scopes=[])


def _security(hosts: Sequence[str]) -> TransportSecuritySettings:
    from mcp.server.transport_security import TransportSecuritySettings

    names = [form for host in hosts for form in (host, f"{host}:*")]
    return TransportSecuritySettings(
        allowed_hosts=names, allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in names]
    )


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        todo = "take another port (--http 0 finds a free one), or another --host"
        raise ConfigError(f"cannot listen at {host}:{port}: {error}", where="verbal mcp --http", todo=todo) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = [
    "LARGEST_REQUEST",
    "SHORTEST_TOKEN",
    "TOKEN",
    "allowed_names",
    "auth_options",
    "require",
    "serve_http",
    "told",
]
