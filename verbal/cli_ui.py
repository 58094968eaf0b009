"""The web app on the command line: `verbal ui`, and `verbal users` for more than one person."""

from __future__ import annotations

from typing import Annotated

import typer

from verbal.cli_groups import emit
from verbal.options import DEFAULT_STORE, Json, MaxCost, Store

# Verbs about the people who may log in.
users_app = typer.Typer(help="People who may log in to `verbal ui`.", no_args_is_help=True, rich_markup_mode=None)

_Name = Annotated[str, typer.Argument(help="Small letters, digits and ._- inside.")]


def ui(
    db: Annotated[
        list[str] | None,
        typer.Option("--db", help="A database, as `verbal ask` takes it; repeat for several. The demo shop if none."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="The model that answers; repeat for more to compare it with."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8600,
    host: Annotated[
        str, typer.Option(help="Address; other than loopback needs accounts (verbal users).")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A name by which browsers come, behind a server with TLS.")
    ] = None,
    serve: Annotated[
        str, typer.Option("--serve", help="Also serve a model, as `verbal serve --model`, on the same port.")
    ] = "",
    max_cost: MaxCost = None,
    browser: Annotated[bool, typer.Option("--open-browser/--no-open-browser", help="Open a browser.")] = False,
    store: Store = DEFAULT_STORE,
) -> None:
    """Chat, ask databases, look into memories and runs, and compare, in a browser."""
    from verbal.ui import run_ui

    run_ui(
        store, models=model or ["embedded"], places=db or [], host=host, port=port, names=name or [], serve=serve,
        browser=browser, max_cost=max_cost,
    )  # fmt: skip


@users_app.command("add")
def add(
    name: _Name,
    team: Annotated[str, typer.Option(help="Shares the team's memory.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Sees and changes everything.")] = False,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Let somebody log in; asks for their password (or reads it from standard input)."""
    from verbal.ui import add_user

    emit(add_user(store, name, team=team, admin=admin, quiet=json_), json_)


@users_app.command("password")
def password(name: _Name, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Give somebody another password and log them out everywhere."""
    from verbal.ui import change_password

    emit(change_password(store, name, quiet=json_), json_)


@users_app.command("list")
def list_(store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Say who may log in."""
    from verbal.ui import list_users

    emit(list_users(store, quiet=json_), json_)


@users_app.command("remove")
def remove(name: _Name, store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """Let somebody log in no more; what they said and taught stays."""
    from verbal.ui import remove_user

    emit(remove_user(store, name, quiet=json_), json_)


__all__ = ["ui", "users_app"]
