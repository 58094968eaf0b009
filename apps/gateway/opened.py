"""A gateway with all its doors, as `verbal serve` opens it: keys, lessons, capture, feedback, shadows, spans.

Each door that waits for a disk has a connection to the store of its own, so that none holds up another, and a request
never waits for any of them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError
from verbal.models import Price
from verbal.store import Store
from verbal.store_access import KEY_PREFIX
from verbal.telemetry import Telemetry, open_telemetry
from verbal.verbs import open_store

from .capture import StoreCapture
from .exchange import Pages
from .feedback import FeedbackDoor
from .kept import Kept
from .keys import Keys
from .lessons import MemoryLessons
from .memories import ADOPTED, Memories
from .places import is_loopback
from .routes import ANY, Route, only_route
from .server import SHORTEST_TOKEN, TOKEN, Gateway
from .shadow import ShadowAsker

PROJECT = "local"
"""Under which is filed what comes without a key, with the token, or with the key that is made for one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A gateway with its doors; it does not listen yet."""

    gateway: Gateway
    key: str = field(default="", repr=False)
    """The key that was made for this run; empty where there are others, or none is needed."""
    open: bool = False
    """Whether no key is needed."""
    capture: StoreCapture | None = None
    lessons: MemoryLessons | None = None
    shadow: ShadowAsker | None = None
    telemetry: Telemetry | None = None


@asynccontextmanager
async def opened(
    spec: str,
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    routes: Sequence[Route] = (),
    engine: str = "auto",
    token: str = "",
    open: bool = False,
    keep: bool = True,
    otlp: str = "",
    pages: Pages | None = None,
) -> AsyncIterator[Opened]:
    """A gateway with its doors open; what waits is written when the block ends.

    Args:
        spec: As `--model` takes it; not used with routes.
        path: The store, a path or URL. One that is not there is made when something is kept in it.
        host: Where it is going to listen.
        routes: Which names are answered by what.
        engine: `auto` or `vllm`.
        token: A key beside those of the store.
        open: Whether who brings no key may come: from this machine only.
        keep: Whether what passes is kept.
        otlp: Address of a collector of spans.
        pages: A web application on the same server.

    Raises:
        ConfigError: nobody could come, or anybody could. DataError: there is no store and one is needed.
        MissingExtra: spans are wanted and the extra `otel` is not installed.
    """
    if open and not is_loopback(host):
        what = f"a gateway at {host!r} without keys could be used by anybody"
        raise ConfigError(what, where="verbal serve --open", todo="leave out --open, or listen on loopback")
    if token and len(token) < SHORTEST_TOKEN:
        what = f"the token has {len(token)} characters, at least {SHORTEST_TOKEN} are needed"
        raise ConfigError(what, where=TOKEN, todo="put a long random text there")
    routed = tuple(routes) or (only_route(spec),)
    async with AsyncExitStack() as stack:
        store = _open_store(path, routed, keep)
        if store is not None:
            stack.callback(store.close)
        key = "" if open or token or _has_keys(store) else KEY_PREFIX + secrets.token_urlsafe(32)
        also = {k: PROJECT for k in (token, key) if k}
        gate = await stack.enter_async_context(Keys(store, also=also, open=open))
        telemetry = open_telemetry(otlp)
        if telemetry is not None:
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
        doors = await _doors(stack, store, path, routed, keep=keep, gate=gate, telemetry=telemetry)
        gateway = Gateway(spec, store, engine=engine, routes=routes, gate=gate, pages=pages, **doors)
        if (shadow := doors.get("shadow")) is not None:
            shadow.price = lambda upstream: _price(gateway, upstream)
        yield Opened(gateway=gateway, key=key, open=open, telemetry=telemetry, **doors)


async def _doors(
    stack: AsyncExitStack,
    store: Store | None,
    path: str | Path,
    routes: Sequence[Route],
    *,
    keep: bool,
    gate: Keys,
    telemetry: Telemetry | None,
) -> dict[str, Any]:
    """Lessons, capture and shadow, as far as they are wanted."""
    taught = any(r.memory or r.shadow_memory for r in routes)
    if store is None or not (keep or taught):
        return {}
    memories = Memories(Store(path))
    stack.callback(memories.store.close)
    stack.callback(memories.close)
    found: dict[str, Any] = {}
    if taught:
        found["lessons"] = MemoryLessons(memories, routes)
        await found["lessons"].open()
    if not keep:
        return found
    feedback = FeedbackDoor(memories, listeners=[telemetry.feedback] if telemetry is not None else ())
    writer = Store(path)
    stack.callback(writer.close)
    listeners = [_told(telemetry)] if telemetry is not None else ()
    capture = StoreCapture(writer, listeners=listeners, feedback=feedback)
    feedback.capture = capture
    counts = {"lessons": found.get("lessons"), "telemetry": telemetry}
    found["capture"] = await stack.enter_async_context(capture)
    if any(r.share and (r.shadow or r.shadow_memory) for r in routes):
        asker = ShadowAsker(routes, capture, lessons=found.get("lessons"), gate=gate)
        counts["shadow"] = found["shadow"] = await stack.enter_async_context(asker)
    capture.beside.update({name: door.health for name, door in counts.items() if door is not None})
    return found


def _told(telemetry: Telemetry) -> Any:
    def tell(kept: Kept) -> None:
        telemetry.attempt(kept.attempt, kept.meta)

    return tell


def _open_store(path: str | Path, routes: Sequence[Route], keep: bool) -> Store | None:
    """The store; None where none is there and nothing needs one."""
    upstreams = {u for route in routes for u in route.upstreams}
    memories = {m for route in routes for m in (route.memory, route.shadow_memory) if m}
    if ADOPTED in memories or any(u == "promoted" or u.startswith("checkpoint:") for u in upstreams):
        return open_store(path)
    known = "://" in str(path) or Path(path).exists()
    return Store(path) if keep or memories or known else None


def _has_keys(store: Store | None) -> bool:
    now = time.time()
    keys: Sequence[Mapping[str, Any]] = store.api_keys() if store is not None else ()
    return any(k["revoked"] is None and (k["expires"] is None or k["expires"] > now) for k in keys)


def _price(gateway: Gateway, upstream: str) -> Price | None:
    with gateway.lease(upstream) as served:
        return None if upstream.endswith(ANY) else served.price(served.name)


__all__ = ["PROJECT", "Opened", "opened"]
