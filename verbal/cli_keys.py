"""`verbal keys`: the keys by which programs use a gateway."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from verbal.cli_groups import emit
from verbal.options import DEFAULT_STORE, Json, Store

# The group.
keys_app = typer.Typer(help="Keys of programs for `verbal serve`: make, list, end.", no_args_is_help=True)


@keys_app.command(name="add")
def add(
    project: Annotated[str, typer.Argument(help="What is captured under the key is filed there.")],
    routes: Annotated[str, typer.Option(help="Routes it may use: a,b; all if not given.")] = "",
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="US dollars in a period.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens in a period.")] = None,
    per: Annotated[Literal["day", "month"], typer.Option(help="The period (UTC).")] = "month",
    days: Annotated[float | None, typer.Option(help="Days it is good for; for ever if not given.")] = None,
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """Make a key and show it, this once; the store keeps its hash."""
    from verbal.key_verbs import add_key, checked_days

    limits = {"rpm": rpm, "max_cost": max_cost, "max_tokens": max_tokens, "per": per}
    wanted = [r.strip() for r in routes.split(",") if r.strip()]
    emit(add_key(store, project, routes=wanted, limits=limits, days=checked_days(days), quiet=json_), json_)


@keys_app.command(name="list")
def list_(store: Store = DEFAULT_STORE, json_: Json = False) -> None:
    """List the keys with what they may do and have used; never the keys themselves."""
    from verbal.key_verbs import list_keys

    emit(list_keys(store, quiet=json_), json_)


@keys_app.command(name="revoke")
def revoke(
    id: Annotated[str, typer.Argument(help="Id of a key, such as key-1a2b3c4d.")],
    store: Store = DEFAULT_STORE,
    json_: Json = False,
) -> None:
    """End a key; running servers refuse it within two seconds."""
    from verbal.key_verbs import revoke_key

    emit(revoke_key(store, id, quiet=json_), json_)


__all__ = ["keys_app"]
