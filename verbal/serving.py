"""Serving what was learned to other programs: the memories of a store over MCP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from verbal.parts import load_part


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


__all__ = ["run_mcp"]
