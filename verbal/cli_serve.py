"""Servers on the command line: `verbal serve` for a model, `verbal mcp` for memories."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from verbal.options import DEFAULT_STORE, Store


def serve(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="promoted (what the store has adopted, followed as it changes), checkpoint:NAME, embedded, hf:FOLDER, "
            "http/MODEL@URL, provider/model.",
        ),
    ] = "promoted",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8600,
    host: Annotated[str, typer.Option(help="Address; other than loopback needs VERBAL_SERVE_TOKEN.")] = "127.0.0.1",
    engine: Annotated[
        Literal["auto", "vllm"], typer.Option(help="vllm: a Hugging Face folder under vLLM, out of process.")
    ] = "auto",
    store: Store = DEFAULT_STORE,
) -> None:
    """Serve a model behind OpenAI's chat completions; `verbal promote` and `rollback` exchange it without a pause."""
    from verbal.serving import run_serve

    run_serve(model, store, engine=engine, host=host, port=port)


def mcp(
    memory: Annotated[list[str] | None, typer.Option("--memory", help="A memory; repeat for several.")] = None,
    http: Annotated[int | None, typer.Option(min=0, max=65535, help="A port; stdio if not given.")] = None,
    host: Annotated[str, typer.Option(help="Address; other than loopback needs VERBAL_MCP_TOKEN.")] = "127.0.0.1",
    allowed_host: Annotated[list[str] | None, typer.Option(help="A name by which clients may call it.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Search and history only.")] = False,
    embedder: Annotated[str, typer.Option(help="Embedder of the memory.")] = "hashing",
    store: Store = DEFAULT_STORE,
) -> None:
    """Serve memories to any MCP client, on stdio or HTTP: search, add (quarantined), feedback, history."""
    from verbal.serving import run_mcp

    names, hosts = memory or ["main"], allowed_host or []
    run_mcp(store, names, port=http, host=host, allowed_hosts=hosts, read_only=read_only, embedder=embedder)


__all__ = ["mcp", "serve"]
