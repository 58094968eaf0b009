"""The page's own files: read from one folder, never from beside it, sent as they were compressed when it was built.

Files below `assets/` carry a hash in their names, so browsers keep them for a year; the page itself is asked for each
time and answered `304` while it is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from .faults import Fault, missing
from .people import Person, set_cookie

if TYPE_CHECKING:
    from .site import Site

PAGE = Path(__file__).parent / "page"
"""Where the built page is."""
_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/){0,3}[A-Za-z0-9_-][A-Za-z0-9._-]*")
_KINDS = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png",
    ".ico": "image/x-icon", ".woff2": "font/woff2", ".json": "application/json", ".txt": "text/plain",
    ".webmanifest": "application/manifest+json", ".map": "application/json",
}  # fmt: skip
"""What is sent at all, by ending."""
_CODINGS = (("br", ".br"), ("gzip", ".gz"))


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    kind: str
    coding: str
    mark: str


async def show_page(site: Site, person: Person, request: web.Request) -> web.StreamResponse:
    """GET / and everything that is no address of the API: a file of the page, or the page itself.

    With `?token=` the one person of a server without accounts is let in, and sent on to the page.
    """
    if (token := request.query.get("token", "")) and request.method == "GET":
        response: web.StreamResponse = web.Response(status=303, headers={"location": "/"})
        if (session := await site.people.let_in(token[:200])) is not None:
            set_cookie(request, response, session)
        return response
    tail = request.match_info.get("tail", "")
    if tail.startswith(("api/", "v1/")) or tail in ("api", "v1"):
        raise missing("address")
    # Addresses within the page (`/memory/main`) have no ending, and are the page.
    name = tail if Path(tail).suffix in _KINDS else "index.html"
    found = await asyncio.to_thread(_found, site.page, name, request.headers.get("Accept-Encoding", ""))
    if found is None and name == "index.html":
        raise Fault(503, "page", "the page is not built", "make page, or install the wheel")
    if found is None:
        raise missing("file")
    held = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
    headers = {"cache-control": held, "etag": f'"{found.mark}"', "vary": "accept-encoding"}
    if found.mark in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if found.coding:
        headers["content-encoding"] = found.coding
    text = found.kind.startswith(("text/", "application/"))
    return web.Response(
        body=found.data, content_type=found.kind, charset="utf-8" if text else None, headers=headers
    )  # fmt: skip


def _found(page: Path, name: str, accepted: str) -> _File | None:
    """A file of the page in the best form that a browser takes; None for what is none of it."""
    if not _NAME.fullmatch(name):
        return None
    codings = {
        part.partition(";")[0].strip() for part in accepted.lower().split(",") if "q=0" not in part.split(".")[0]
    }
    path = page / name
    for coding, ending in [(c, e) for c, e in _CODINGS if c in codings] + [("", "")]:
        file = path.with_name(path.name + ending)
        try:
            stat = file.stat()
        except OSError:
            continue
        if file.is_file() and file.resolve().is_relative_to(page.resolve()):
            return _read(file, stat.st_mtime_ns, stat.st_size, _KINDS[path.suffix], coding)
    return None


@lru_cache(maxsize=256)
def _read(file: Path, changed: int, size: int, kind: str, coding: str) -> _File:
    data = file.read_bytes()
    return _File(data, kind, coding, hashlib.sha256(data).hexdigest()[:20])


__all__ = ["PAGE", "show_page"]
