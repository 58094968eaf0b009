"""Serving what was learned to other programs: a model over HTTP, the memories of a store over MCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
from collections.abc import Sequence
from typing import Any

from verbal.parts import load_part

TOKEN = "VERBAL_SERVE_TOKEN"
"""Environment variable of the bearer token of `verbal serve`."""


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


def run_serve(spec: str, path: str, *, engine: str, host: str, port: int) -> None:
    """Serves a model behind OpenAI's chat completions until the process is interrupted; says where, and how to try it.

    Args:
        spec: As `--model` takes it, or `promoted` for what the store has adopted, now and later.
        path: The store; opened for `promoted` and `checkpoint:NAME` only.
        engine: `auto`, or `vllm` for a process of its own.
        host: Address to listen at.
        port: 0 takes a free one.

    Raises:
        MissingExtra: the engine is not installed.
        ConfigError, DataError, ModelError, TrainError: model, store or address cannot be served.
    """
    from verbal.verbs import open_store

    maker: Any = load_part("apps", "gateway")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("verbal.gateway")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    token = os.environ.get(TOKEN, "")
    try:
        if spec == "promoted" or spec.startswith("checkpoint:"):
            with open_store(path) as store:
                asyncio.run(_serve(maker(spec, store, engine=engine, token=token), host, port, bool(token)))
        else:
            asyncio.run(_serve(maker(spec, engine=engine, token=token), host, port, bool(token)))
    finally:
        log.removeHandler(handler)


async def _serve(gateway: Any, host: str, port: int, locked: bool) -> None:
    """Serves until SIGINT or SIGTERM; requests under way may end, a second signal stops at once."""
    from verbal.text import visible

    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop.set()

    # Elsewhere than on Unix Ctrl-C cancels this task, which ends it as well.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
    opening, stopping = asyncio.ensure_future(gateway.open(host, port)), asyncio.ensure_future(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():  # a large model takes minutes to load
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        return
    url = await opening
    try:
        served = gateway.switch.current
        weights = f" ({served.fingerprint})" if served.fingerprint else ""
        version = f", version {served.source.version} of the store" if served.source.version else ""
        print(f"{url}/v1  serves {visible(served.name, line=True)}{weights}{version}. Stop with Ctrl-C. Try it:")
        print(visible(_example(url, served, locked)), flush=True)
        await stopping
        print("stopping: requests under way may end; Ctrl-C again stops at once", flush=True)
    finally:
        await gateway.aclose()


def _example(url: str, served: Any, locked: bool) -> str:
    """A command that asks the model something it can answer."""
    from verbal.prompt import load_prompt

    chats = getattr(served.model, "chats", True)
    question = "Say hello." if chats else load_prompt("gateway/probe").fill().strip()
    body = {"model": served.names[0], "messages": [{"role": "user", "content": question}]}
    key = f'-H "Authorization: Bearer ${TOKEN}" ' if locked else ""
    return f"curl {url}/v1/chat/completions {key}-H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"


__all__ = ["TOKEN", "run_mcp", "run_serve"]
