"""What `verbal keys` does: makes keys of programs, lists them, ends them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from verbal.errors import ConfigError
from verbal.store import Store
from verbal.text import money, visible
from verbal.verbs import open_store


def add_key(
    path: str, project: str, *, routes: Sequence[str], limits: Mapping[str, Any], days: float | None, quiet: bool
) -> dict[str, Any]:
    """Makes a key and prints it, this once; gives what it may do.

    Args:
        path: The store; it is made if there is none.
        project: What is captured under the key is filed there.
        routes: Routes it may use; all when empty.
        limits: `rpm`, `max_cost`, `max_tokens` and `per`; None is no limit.
        days: How long it is good; for ever when None.
        quiet: Whether to print nothing.

    Raises:
        ConfigError: the project is no name.
    """
    from verbal.screen import Screen

    given = {k: v for k, v in limits.items() if v is not None}
    if "max_cost" not in given and "max_tokens" not in given:
        given.pop("per", None)
    record = {**({"routes": list(routes)} if routes else {}), **given}
    with Store(path) as store, Screen("verbal keys add", quiet=quiet) as screen:
        key = store.add_key(project, record, days=days)
        made = next(k for k in reversed(store.api_keys()) if k["project"] == project)
        screen.print(f"{made['id']} of project {project}: {_rules(made)}")
        screen.print("Keep it now, it is shown this once (the store has its hash only):")
        screen.print(key)
    return {**_told(made, {}), "key": key}


def list_keys(path: str, *, quiet: bool) -> list[dict[str, Any]]:
    """Every key of a store with what it may do and has used."""
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal keys", quiet=quiet) as screen:
        rows = [_told(key, store.key_uses()) for key in store.api_keys()]
        for row in rows:
            used = (
                f"; used {row['calls']} calls, {row['tokens']:,} tokens, {money(row['cost'])}" if row["calls"] else ""
            )
            screen.print(visible(f"{row['id']}  {row['project']}  {row['status']}  {row['rules']}{used}", line=True))
        if not rows:
            screen.print("no keys; make one: verbal keys add PROJECT")
        return rows


def revoke_key(path: str, id: str, *, quiet: bool) -> dict[str, Any]:
    """Ends a key: running servers refuse it within two seconds.

    Raises:
        UnknownName: no key of that id.
    """
    from verbal.screen import Screen

    with open_store(path) as store, Screen("verbal keys revoke", quiet=quiet) as screen:
        ended = store.revoke_key(id)
        screen.print(f"{id} is revoked; servers refuse it within two seconds" if ended else f"{id} was revoked before")
        return {"id": id, "revoked": True, "before": not ended}


def checked_days(days: float | None) -> float | None:
    """A number of days.

    Raises:
        ConfigError: it is not above 0.
    """
    if days is not None and not days > 0:
        raise ConfigError(f"a key that is good for {days:g} days", where="--days", todo="give a number above 0")
    return days


def _told(key: Mapping[str, Any], uses: Mapping[tuple[str, str], tuple[int, int, float]]) -> dict[str, Any]:
    """A key as it is shown, without its hash; uses of the present period, or of this month where nothing is limited."""
    now = datetime.now(UTC).date().isoformat()
    calls, tokens, cost = uses.get((key["id"], now if key.get("per") == "day" else now[:7]), (0, 0, 0.0))
    over = key["expires"] is not None and key["expires"] <= time.time()
    status = "revoked" if key["revoked"] is not None else "expired" if over else "good"
    shown = {k: v for k, v in key.items() if k != "hash"}
    return {**shown, "status": status, "rules": _rules(key), "calls": calls, "tokens": tokens, "cost": cost}


def _rules(key: Mapping[str, Any]) -> str:
    rules = [f"routes {', '.join(key['routes'])}"] if key.get("routes") else []
    rules += [f"{key['rpm']} requests a minute"] if key.get("rpm") else []
    rules += [f"{money(key['max_cost'])} a {key.get('per', 'month')}"] if key.get("max_cost") is not None else []
    rules += [f"{key['max_tokens']:,} tokens a {key.get('per', 'month')}"] if key.get("max_tokens") is not None else []
    rules += [f"until {datetime.fromtimestamp(key['expires'], UTC):%Y-%m-%d %H:%M} UTC"] if key["expires"] else []
    return "; ".join(rules) or "no limits"


__all__ = ["add_key", "checked_days", "list_keys", "revoke_key"]
