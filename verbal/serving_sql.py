"""`verbal mcp --db`: the SQL assistant for other programs, over MCP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from verbal.parts import load_part


def run_mcp_sql(
    path: str,
    db: str,
    *,
    model: str,
    memory: str,
    port: int | None,
    host: str,
    allowed_hosts: Sequence[str],
    read_only: bool,
) -> None:
    """Serves a database until the client hangs up or the process is interrupted; prints nothing on standard output.

    Args:
        path: The store; it is made if there is none.
        db: What `verbal ask` takes.
        model: As `--model` takes it; that of the recipe `ask` when empty.
        memory: A memory, `NAME@VERSION`, `none`; the database's own when empty.
        port: Of HTTP, 0 for a free one; None serves one client on standard input and output.
        host: Address to listen at.
        allowed_hosts: Names by which clients may call it, beside that address and loopback.
        read_only: Whether nothing may be said of answers.

    Raises:
        MissingExtra: the package `mcp` is not installed.
        ConfigError, DataError, ModelError, StoreError: store, database, model, memory or address cannot be used.
    """
    from verbal.options import command_options
    from verbal.store import Store
    from verbal.verbs import make_recipe

    maker: Any = load_part("apps", "mcp_sql")
    options = {**command_options("ask", model, None, None, None, {}), "app": {"db": db}}
    with Store(path) as store:
        recipe = make_recipe(options, store)
        server = maker(store, recipe, memory=memory, read_only=read_only)
        if port is None:
            server.stdio()
        else:
            server.http(port, host, allowed_hosts=allowed_hosts, token=os.environ.get("VERBAL_MCP_TOKEN", ""))


__all__ = ["run_mcp_sql"]
