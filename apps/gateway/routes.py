"""Routes of a gateway: under which name which upstream answers, and what is done with what passes.

    [routes.support]
    upstream = "openai/gpt-5"
    memory = "chat-team-support"

    [routes."*"]
    upstream = "anthropic/*"

A request's `model` is the name of a route; `*` takes any other name. An upstream `openai/*`, `anthropic/*` or
`http/*@URL` is asked for the model that the client named.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verbal.errors import ConfigError, UnknownName
from verbal.models import parse_model

ANY = "*"
"""Name of the route that takes every name no other route has; as a model, the one that the client named."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What happens to a request for one name."""

    name: str
    upstream: str
    """As `--model` takes it, or `promoted`."""
    memory: str = ""
    """Memory whose lessons are put into prompts."""
    trials: bool = False
    """Whether lots decide which lessons are shown, so that their effect can be told."""
    shadow: str = ""
    """Upstream that is asked the same beside it, unseen by the client."""
    shadow_memory: str = ""
    """Memory whose lessons it is given."""
    share: float = 0.0
    """Share of the traffic that is shadowed. Range: [0, 1]."""
    capture: bool = True
    """Whether what passes is kept."""
    key: str = ""
    """Environment variable that holds the key of an `http/` upstream; VERBAL_HTTP_KEY if not given."""
    timeout: float = 600.0
    """Seconds until an upstream has answered; of a stream, between two pieces."""

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Everything that it may ask."""
        return (self.upstream, *([self.shadow] if self.shadow else []))


def read_routes(path: str | Path) -> tuple[Route, ...]:
    """The routes of a TOML file.

    Raises:
        ConfigError: no such file, not TOML, no routes, or a wrong value; an unknown key names the nearest.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}", where="--config") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both of it
        raise ConfigError(f"{str(path)!r} is not TOML: {error}", where="--config", todo="see docs/serving.md") from None
    return make_routes(found, where=str(path))


def make_routes(found: Mapping[str, Any], *, where: str) -> tuple[Route, ...]:
    """The routes of a parsed file.

    Raises:
        ConfigError: no routes, or a wrong value; an unknown key names the nearest.
    """
    for key in found:
        if key != "routes":
            raise UnknownName.of("key", key, ["routes"], where=where)
    tables = found.get("routes")
    if not isinstance(tables, Mapping) or not tables:
        todo = 'write [routes.NAME] and upstream = "provider/model" below it'
        raise ConfigError("no routes", where=where, todo=todo)
    routes = tuple(_route(name, table, f"{where}, [routes.{name}]") for name, table in tables.items())
    for route in routes:
        if any(r.upstream == route.upstream and r.key != route.key for r in routes):
            raise ConfigError(f"two keys for {route.upstream!r}", where=where, todo="give all its routes one key")
    return routes


def find_route(routes: Sequence[Route], model: str) -> Route | None:
    """The route that a model's name picks, if any."""
    return next((r for r in routes if r.name == model), None) or next((r for r in routes if r.name == ANY), None)


def only_route(spec: str) -> Route:
    """The route of a gateway without a file: the names of one model, or any name."""
    return Route(name=ANY if names_any(spec) else "default", upstream=spec)


def names_any(spec: str) -> bool:
    """Whether an upstream leaves the name of the model to the client.

    Raises:
        ConfigError: it names no model.
    """
    return not _of_a_store(spec) and parse_model(spec).config.get("model", "").endswith(ANY)


def _of_a_store(spec: str) -> bool:
    return spec == "promoted" or spec.startswith("checkpoint:")


def _route(name: str, table: Any, where: str) -> Route:
    if not isinstance(table, Mapping):
        raise ConfigError(f"a route is a table, found {table!r}", where=where)
    known = {f.name: f for f in dataclasses.fields(Route) if f.name != "name"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UnknownName.of("key of a route", key, known, where=where)
        kind = {"str": str, "bool": bool, "float": float}[str(known[key].type)]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{key} is a {kind.__name__}, found {value!r}", where=where)
        values[key] = value
    if not values.get("upstream"):
        near = difflib.get_close_matches("upstream", table, n=1)
        raise ConfigError("a route needs an upstream", where=where, todo=f"found {near}" if near else "add upstream")
    route = Route(name=name, **values)
    for spec in route.upstreams:
        if names_any(spec) and not spec.startswith(("openai/", "anthropic/", "http/")):
            raise ConfigError(
                f"{spec!r} does not name the model", where=where, todo="name the model, or use http/*@URL"
            )
    if route.key and not route.upstream.startswith("http/"):
        raise ConfigError("only an http/ upstream takes a key of its own", where=where, todo="leave out key")
    if not 0.0 <= route.share <= 1.0:
        raise ConfigError(f"share is from 0 to 1, found {route.share:g}", where=where)
    if route.timeout <= 0:
        raise ConfigError(f"timeout is more than 0 seconds, found {route.timeout:g}", where=where)
    return route


__all__ = ["ANY", "Route", "find_route", "make_routes", "names_any", "only_route", "read_routes"]
