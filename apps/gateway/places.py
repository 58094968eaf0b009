"""Whether a request comes from this machine: a web page could lead a browser here, under its own name or blindly."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from .refusal import Refusal


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own and no other's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_other_places(headers: Mapping[str, str]) -> None:
    """Lets a request pass that names this machine as its host, and comes from no page of another place.

    Raises:
        Refusal: it does not (403).
    """
    for name in ("Host", "Origin"):
        value = headers.get(name, "")
        if value and not is_loopback(_host_of(value)):
            raise Refusal(403, f"{name} {value[:80]!r} is not this machine", code="forbidden")


@lru_cache(256)
def _host_of(value: str) -> str:
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""


__all__ = ["is_loopback", "refuse_other_places"]
