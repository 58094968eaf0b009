"""Serving what was learned to other programs: models over HTTP, the memories of a store over MCP."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

from verbal.parts import load_function, load_part

TOKEN = "VERBAL_SERVE_TOKEN"
"""Environment variable of the bearer token of `verbal serve`."""
_GIVING_WAY = 0.0005
"""Seconds until a thread that computes gives way to another one."""


def run_mcp(
    path: str,
    memories: Sequence[str],
    *,
    port: int | None,
    host: str,
    allowed_hosts: Sequence[str],
    read_only: bool,
    embedder: str,
) -> None:
    """Serves memories until the client hangs up or the process is interrupted; prints nothing on standard output.

    Args:
        path: The store; it is made if there is none, unless nothing may be written.
        memories: Names of memories; one that does not exist begins empty, unless nothing may be written.
        port: Of HTTP, 0 for a free one; None serves one client on standard input and output.
        host: Address to listen at.
        allowed_hosts: Names by which clients may call it, beside that address and loopback.
        read_only: Whether search and history only are served.
        embedder: Embedder of the memories.

    Raises:
        MissingExtra: the package `mcp` is not installed.
        ConfigError, DataError, StoreError: store, memories or address cannot be served.
    """
    maker: Any = load_part("apps", "mcp_memory")
    from verbal.store import Store
    from verbal.verbs import open_store

    with open_store(path) if read_only else Store(path) as store:
        server = maker(store, memories, read_only=read_only, options={"embedder": embedder})
        try:
            if port is None:
                server.stdio()
            else:
                token = os.environ.get("VERBAL_MCP_TOKEN", "")
                server.http(port, host, allowed_hosts=allowed_hosts, token=token)
        finally:
            server.close()


def run_serve(
    spec: str,
    path: str,
    *,
    engine: str,
    host: str,
    port: int,
    config: str = "",
    open_: bool = False,
    keep: bool = True,
    otlp: str = "",
) -> None:
    """Serves models behind OpenAI's and Anthropic's protocols until the process is interrupted; says where, how to try
    it, and at the end what was kept.

    Args:
        spec: As `--model` takes it, or `promoted` for what the store has adopted, now and later.
        path: The store.
        engine: `auto`, or `vllm` for a process of its own.
        host: Address to listen at.
        port: 0 takes a free one.
        config: A TOML file of routes, in place of `spec`.
        open_: Whether no key is needed, on this machine.
        keep: Whether what passes is kept in the store.
        otlp: Address of a collector of spans.

    Raises:
        MissingExtra: the engine, or the package that sends spans, is not installed.
        ConfigError, DataError, ModelError, TrainError: routes, model, store or address cannot be served.
    """
    opened: Any = load_function("apps", "gateway.opened", "opened")
    routes = load_function("apps", "gateway", "read_routes")(config) if config else ()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logs = [logging.getLogger(name) for name in ("verbal.gateway", "verbal.telemetry")]
    for log in logs:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    before = sys.getswitchinterval()
    # What is kept is made ready in a thread: it gives way soon, for a request must not wait for it.
    sys.setswitchinterval(_GIVING_WAY)
    token = os.environ.get(TOKEN, "")
    options = {"engine": engine, "host": host, "routes": routes, "open": open_, "keep": keep, "otlp": otlp}
    try:
        asyncio.run(_serve(opened(spec, path, token=token, **options), host, port, path if keep else "", bool(token)))
    finally:
        sys.setswitchinterval(before)
        for log in logs:
            log.removeHandler(handler)


def compare_shadow(path: str, run: str, *, quiet: bool) -> dict[str, Any]:
    """What the candidates of a gateway's run said beside what clients got, summed up.

    Args:
        path: The store.
        run: The run, or the project whose run it is.
        quiet: Whether to print nothing.

    Raises:
        UnknownName: no such run. DataError: there is no store.
    """
    from verbal.screen import Screen
    from verbal.text import money, percent
    from verbal.verbs import open_store

    compare = load_function("apps", "gateway.shadow", "compare")
    with open_store(path) as store, Screen("verbal shadow", quiet=quiet) as screen:
        found: dict[str, Any] = compare(store, f"gateway-{run}" if store.run(f"gateway-{run}") else run)
        if not found["pairs"]:
            screen.print(f"{found['run']}: nothing was shadowed yet (a route needs shadow or shadow_memory, and share)")
            return found
        screen.print(f"{found['run']}: {found['pairs']} pairs, the same answer in {percent(found['same_share'])}")
        for side in ("main", "shadow"):
            row = found[side]
            screen.print(
                f"{side}: {', '.join(row['models'])}; {row['errors']} errors; {row['median_seconds']:.3f} s in the "
                f"middle; {row['tokens']:,} tokens; {money(row['cost'])}"
            )
        said = found["feedback"]
        if said["judged"]:
            same, other = (
                "–" if said[k] is None else f"{said[k]:.2f}" for k in ("mean_where_same", "mean_where_different")
            )
            screen.print(f"feedback on {said['judged']} of the answers that clients got: {said['mean']:.2f} on average")
            screen.print(f"  {same} where both said the same, {other} where they did not")
    return found


async def _serve(opened: Any, host: str, port: int, kept_in: str, locked: bool) -> None:
    """Serves until SIGINT or SIGTERM; requests under way may end, a second signal stops at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    # Elsewhere than on Unix Ctrl-C cancels this task, which ends it as well.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
    async with opened as it:
        gateway = it.gateway
        opening, stopping = asyncio.ensure_future(gateway.open(host, port)), asyncio.ensure_future(stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():  # a large model takes minutes to load
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            return
        url = await opening
        gc.collect()
        gc.freeze()  # what is here stays: a full round of the collector over it would hold up every request
        try:
            _say(url, it, kept_in, locked)
            await stopping
            print("stopping: requests under way may end; Ctrl-C again stops at once", flush=True)
        finally:
            gc.unfreeze()
            await gateway.aclose()
    if it.capture is not None and it.capture.kept + it.capture.lost:
        lost = f", {it.capture.lost} could not be kept" if it.capture.lost else ""
        print(f"kept {it.capture.kept} exchanges in {kept_in}{lost}", flush=True)


def _say(url: str, it: Any, kept_in: str, locked: bool) -> None:
    """Says what is served where, and how to try it."""
    from verbal.text import visible

    served, routes = it.gateway.switch.current, [r.name for r in it.gateway.routes]
    if len(routes) > 1 or routes != ["default"]:
        what = f"serves {', '.join(routes)}"
    else:
        weights = f" ({served.fingerprint})" if served.fingerprint else ""
        version = f", version {served.source.version} of the store" if served.source.version else ""
        what = f"serves {served.name}{weights}{version}"
    print(visible(f"{url}/v1  {what}. Stop with Ctrl-C. Try it:", line=True))
    print(visible(_example(url, it, locked)))
    if it.key:
        print("The key is for this run; for others that last: verbal keys add PROJECT")
    if kept_in:
        print(visible(f"What passes is kept in {kept_in}, secrets cut out (--no-capture keeps nothing)", line=True))
    sys.stdout.flush()


def _example(url: str, it: Any, locked: bool) -> str:
    """A command that asks the model something it can answer."""
    from verbal.prompt import load_prompt

    served, routes = it.gateway.switch.current, it.gateway.routes
    chats = getattr(served.model, "chats", True)
    question = "Say hello." if chats else load_prompt("gateway/probe").fill().strip()
    named = next((r.name for r in routes if r.name != "*"), "MODEL")
    body = {
        "model": served.names[0] if named == "default" and len(routes) == 1 else named,
        "messages": [{"role": "user", "content": question}],
    }
    if chats:
        body["max_tokens"] = 100
    given = it.key or (f"${TOKEN}" if locked else "" if it.open else "$KEY")
    key = f'-H "Authorization: Bearer {given}" ' if given else ""
    return f"curl {url}/v1/chat/completions {key}-H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"


__all__ = ["TOKEN", "compare_shadow", "run_mcp", "run_serve"]
