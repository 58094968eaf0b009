"""The door of the web app: who may come in, and from where; bodies and headers. Every route passes it.

What changes something needs a header that no form of another
page can send, and the page's own origin; the name by which a browser came must be this machine's own on loopback, so
that no other name can be bent to it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from .faults import Fault, fault
from .people import NOBODY, Person

if TYPE_CHECKING:
    from .site import Site

LARGEST_JSON = 2**20
"""Bytes of a JSON body."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page of this server may load."""
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "x-frame-options": "DENY", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()", "server": "verbal",
}  # fmt: skip
"""On every reply."""
_STALLED = 30.0
"""Seconds in which a body must have come."""
_SAFE = ("GET", "HEAD")


Handler = Callable[["Site", Person, web.Request], Awaitable[web.StreamResponse]]
"""What answers a request of a person."""


class Route(NamedTuple):
    """One way in."""

    method: str
    path: str
    handler: Handler
    open: bool = False
    """Whether nobody has to be logged in."""


def routed(site: Site, route: Route) -> web.RouteDef:
    """A route behind the door."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            check_place(site, request)
            person = NOBODY if route.open else await site.people.person(request)
            response = await route.handler(site, person, request)
        except (ConnectionError, asyncio.CancelledError):
            raise  # nobody is there any more
        except Exception as error:
            found = fault(error)
            response = web.json_response({"error": found.body}, status=found.status, headers=found.headers)
        if not response.prepared:
            response.headers.update({k: v for k, v in HEADERS.items() if k not in response.headers})
            response.headers.setdefault("cache-control", "no-store")
        return response

    options = {"allow_head": False} if route.method == "GET" and "{tail" not in route.path else {}
    return web.RouteDef(route.method, route.path, handle, options)


def check_place(site: Site, request: web.Request) -> None:
    """Refuses requests from other pages, and under names that are not this server's.

    Raises:
        Fault: 403.
    """
    host = host_of(request.headers.get("Host", ""))
    if not site.known_host(host):
        raise Fault(403, "host", f"this server is not {host[:80]!r}", "use the address that `verbal ui` printed")
    if request.method in _SAFE:
        return
    origin = request.headers.get("Origin", "")
    if request.headers.get("X-Verbal") != "1" or not origin or _netloc(origin) != request.headers.get("Host", ""):
        raise Fault(403, "origin", "the request does not come from this server's page", "load the page again")


def host_of(value: str) -> str:
    """The host's name in a Host header or an origin, without its port; empty where there is none.

    >>> [host_of(x) for x in ("Verbal.Example.org:8443", "https://a.org", "::1", "[::1]:8600", "a@b.org", "")]
    ['verbal.example.org', 'a.org', '::1', '::1', '', '']
    """
    try:
        parts = urlsplit(value if "//" in value else f"//[{value}]" if value.count(":") > 1 and "[" not in value
                         else f"//{value}")  # fmt: skip
        return "" if "@" in parts.netloc else (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


async def read_json(request: web.Request) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        Fault: it is larger than 1 MB (413), came too slowly (408), or is no JSON object (400).
    """
    if request.content_type != "application/json":
        raise Fault(415, "body", "the body must be application/json")
    if (request.content_length or 0) > LARGEST_JSON:
        raise Fault(413, "large", f"the body is larger than {LARGEST_JSON >> 20} MB")
    body = bytearray()
    try:
        async with asyncio.timeout(_STALLED):
            async for part in request.content.iter_chunked(2**16):
                body += part
                if len(body) > LARGEST_JSON:
                    raise Fault(413, "large", f"the body is larger than {LARGEST_JSON >> 20} MB")
    except TimeoutError:
        raise Fault(408, "slow", f"the body did not come within {_STALLED:g} s") from None
    try:
        read = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Fault(400, "body", "the body is no JSON") from None
    if not isinstance(read, dict):
        raise Fault(400, "body", "the body is no JSON object")
    return read


def text_of(body: Mapping[str, Any], name: str, *, most: int = 20_000, need: bool = False) -> str:
    """A text in a body; empty when it is not there.

    Raises:
        Fault: it is no text, longer than `most`, or missing and needed (400).
    """
    value = body.get(name)
    if value is None or value == "":
        if need:
            raise Fault(400, "body", f"{name!r} is missing")
        return ""
    if not isinstance(value, str):
        raise Fault(400, "body", f"{name!r} must be a text")
    if len(value) > most:
        raise Fault(400, "long", f"{name!r} has {len(value):,} characters, at most {most:,} are taken")
    return value.encode("utf-8", "replace").decode("utf-8")  # half a character is nothing that can be kept


def whole_of(value: Any, name: str, low: int, high: int, default: int) -> int:
    """A whole number in a body or a query.

    Raises:
        Fault: it is none, or out of range (400).
    """
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise Fault(400, "body", f"{name!r} must be a whole number") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise Fault(400, "body", f"{name!r} must be between {low:,} and {high:,}")
    return number


def attached(request: web.Request, name: str, text: str | bytes, kind: str) -> web.Response:
    """A file to keep, under a name that any system takes."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "file"
    body = text.encode("utf-8", "replace") if isinstance(text, str) else text
    headers = {"content-disposition": f'attachment; filename="{safe}"'}
    return web.Response(
        body=body, content_type=kind, charset="utf-8" if isinstance(text, str) else None, headers=headers
    )


__all__ = [
    "HEADERS", "LARGEST_JSON", "POLICY", "Handler", "Route", "attached", "check_place", "host_of", "read_json",
    "routed", "text_of", "whole_of",
]  # fmt: skip
