"""Servers on the command line: `verbal serve` for models, `verbal shadow`, `verbal mcp` for memories."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from verbal.cli_groups import emit
from verbal.options import DEFAULT_STORE, Json, Store


def serve(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="promoted (what the store has adopted, followed as it changes), checkpoint:NAME, embedded, hf:FOLDER, "
            "http/MODEL@URL, provider/model.",
        ),
    ] = "promoted",
    config: Annotated[str, typer.Option("--config", help="TOML of routes, in place of --model: docs/serving.md.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8600,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    engine: Annotated[
        Literal["auto", "vllm"], typer.Option(help="vllm: a Hugging Face folder under vLLM, out of process.")
    ] = "auto",
    open_: Annotated[bool, typer.Option("--open", help="No key is needed; on loopback only.")] = False,
    capture: Annotated[bool, typer.Option("--capture/--no-capture", help="Keep what passes in the store.")] = True,
    otlp: Annotated[
        str, typer.Option("--otlp", help="Send spans to a collector: http://HOST:4318 (or the environment's).")
    ] = "",
    store: Store = DEFAULT_STORE,
) -> None:
    """Serve models to any client of OpenAI or Anthropic: keys, capture, lessons, feedback; exchanged without a pause.

    Keys come from `verbal keys add`, and VERBAL_SERVE_TOKEN is one; without any, one is made for the run and shown.
    """
    from verbal.serving import run_serve

    run_serve(
        model, store, engine=engine, host=host, port=port, config=config, open_=open_, keep=capture, otlp=otlp
    )  # fmt: skip


def shadow(
    run: Annotated[str, typer.Argument(help="A project, or the run of a gateway: gateway-PROJECT.")],
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Compare what a route's candidate said, unseen, with what clients got: same answers, time, cost, feedback."""
    from verbal.serving import compare_shadow

    emit(compare_shadow(store, run, quiet=json_), json_)


def mcp(
    memory: Annotated[list[str] | None, typer.Option("--memory", help="A memory; repeat for several.")] = None,
    db: Annotated[str, typer.Option("--db", help="Serve the SQL assistant over this database instead.")] = "",
    model: Annotated[str, typer.Option("--model", help="--db: the model that answers, as for `ask`.")] = "",
    http: Annotated[int | None, typer.Option(min=0, max=65535, help="A port; stdio if not given.")] = None,
    host: Annotated[str, typer.Option(help="Address; other than loopback needs VERBAL_MCP_TOKEN.")] = "127.0.0.1",
    allowed_host: Annotated[list[str] | None, typer.Option(help="A name by which clients may call it.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing may be added or said.")] = False,
    embedder: Annotated[str, typer.Option(help="Embedder of the memory.")] = "hashing",
    store: Store = DEFAULT_STORE,
) -> None:
    """Serve memories, or with --db a database that is asked in plain words, to any MCP client, on stdio or HTTP."""
    from verbal.serving import run_mcp
    from verbal.serving_sql import run_mcp_sql

    names, hosts = memory or ["main"], allowed_host or []
    if db:
        own = memory[0] if memory else ""
        if len(names) > 1:
            raise typer.BadParameter("one memory at most with --db", param_hint="--memory")
        return run_mcp_sql(
            store, db, model=model, memory=own, port=http, host=host, allowed_hosts=hosts, read_only=read_only
        )
    run_mcp(store, names, port=http, host=host, allowed_hosts=hosts, read_only=read_only, embedder=embedder)


__all__ = ["mcp", "serve", "shadow"]
