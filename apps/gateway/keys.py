"""Who may come: API keys with their limits, as the store has them; the gate that `verbal serve` puts before a model.

Rules:

* A key is found by its SHA-256, so how long a look-up takes tells nothing of a key. Keys and uses are read from the
  store once a second, in a thread: a revoked key stops within a second or two, and no request waits for a disk.
* A limit per minute is a bucket of that many requests, filled evenly, in this process. A limit on cost or tokens is
  for a day or a month (UTC) and counts all servers of the store together: what others used is read, what was used here
  is written, both once a second. A killed process loses the uses of its last second.
* Before a model is asked, what the request may cost at worst is set aside (`tokens.py`): requests at once cannot exceed
  a limit together. The worst counts all the replies and tokens that were asked for.
* An answer without a report of its usage (a stream that was cut) counts with an estimate.
* A revoked key begins nothing new; what is under way ends as it would.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from verbal.errors import StoreError
from verbal.models import Price
from verbal.store import Store
from verbal.store_access import digest_of

from .exchange import Caller, Exchange
from .places import refuse_other_places
from .refusal import Refusal
from .tokens import at_worst, estimate

_RUN = "run-"
"""How the ids of keys begin that no store has."""
_log = logging.getLogger("verbal.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as the gate knows it."""

    id: str
    project: str
    expires: float | None = None
    revoked: bool = False
    routes: tuple[str, ...] = ()
    rpm: int | None = None
    """Requests a minute."""
    max_cost: float | None = None
    """US dollars in a period."""
    max_tokens: int | None = None
    """Tokens in a period."""
    per: Literal["day", "month"] = "month"

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Key:
        """The key of a row of the store."""
        return cls(
            id=row["id"], project=row["project"], expires=row["expires"], revoked=row["revoked"] is not None,
            routes=tuple(row.get("routes") or ()), rpm=row.get("rpm"), max_cost=row.get("max_cost"),
            max_tokens=row.get("max_tokens"), per=row.get("per") or "month",
        )  # fmt: skip

    @property
    def limited(self) -> bool:
        """Whether what it uses is counted."""
        return self.max_cost is not None or self.max_tokens is not None


@dataclass(slots=True)
class _Use:
    """What was used in a period."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(slots=True)
class _Bucket:
    """Requests that may come now."""

    left: float
    at: float


class Keys:
    """The gate over the keys of a store.

    Args:
        store: Where keys and uses are; None for the keys given here only.
        also: More keys -> their project; they are kept nowhere.
        open: Whether who brings no key that is known may come, from this machine, as project `local`.
        every: Seconds between two looks at the store.
        clock: The time in seconds since 1970.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        also: Mapping[str, str] | None = None,
        open: bool = False,
        every: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._open, self._every, self._clock = store, open, every, clock
        self._own = {
            digest_of(key): Key(id=f"{_RUN}{i}", project=project)
            for i, (key, project) in enumerate((also or {}).items())
        }
        self._by_digest: dict[str, Key] = dict(self._own)
        self._by_id: dict[str, Key] = {k.id: k for k in self._own.values()}
        self._owner = uuid.uuid4().hex
        self._others: dict[tuple[str, str], _Use] = {}
        self._used: dict[tuple[str, str], _Use] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._reserved: dict[int, tuple[str, int, float, Price | None]] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._watching: asyncio.Task[None] | None = None
        self._failed = False
        if store is not None:
            self._read()

    # the door -----------------------------------------------------------------------------------------------------

    def admit(self, headers: Mapping[str, str]) -> Caller:
        """Who calls, by `Authorization: Bearer` or `x-api-key`.

        Raises:
            Refusal: no key, a wrong, revoked or expired one (401), a page of another place where none is needed (403),
                or more requests than it may send (429).
        """
        given = _given(headers)
        key = self._by_digest.get(digest_of(given)) if given else None
        if key is None and self._open:  # clients send a key of some kind even where none is needed
            refuse_other_places(headers)
            return Caller()
        if not given:
            what = "no key came: send it as Authorization: Bearer KEY or x-api-key: KEY (verbal keys add makes one)"
            raise Refusal(401, what, code="invalid_api_key")
        if key is None:
            raise Refusal(401, "this key is not known here", code="invalid_api_key")
        now = self._clock()
        if key.revoked or (key.expires is not None and key.expires <= now):
            what = f"{key.id} was revoked" if key.revoked else f"{key.id} has expired"
            raise Refusal(401, f"the key {what}: ask for another one", code="invalid_api_key")
        self._count_request(key, now)
        return Caller(project=key.project, key=key.id, routes=key.routes)

    def allow(self, exchange: Exchange, price: Price | None) -> None:
        """Lets a request go on to a model, and sets aside what it may cost at worst.

        Raises:
            Refusal: the route is not among those of the key, or it has a limit on cost and the price is not known
                (403); less is left than this costs at worst (429).
        """
        if exchange.caller.routes and not {exchange.route, exchange.model} & set(exchange.caller.routes):
            what = f"this key may not use {exchange.model[:80]!r}; it may use: {', '.join(exchange.caller.routes)}"
            raise Refusal(403, what, param="model", code="route_not_allowed")
        key = self._by_id.get(exchange.caller.key)
        if key is None or not key.limited:
            return
        if key.max_cost is not None and price is None:
            todo = "ask for a model whose price is known, or take a key with a limit on tokens (--max-tokens)"
            what = f"the price of {exchange.model[:80]!r} is not known and the key {key.id} has a limit on cost"
            raise Refusal(403, f"{what}. To do: {todo}", param="model", code="price_unknown")
        prompt, completion = at_worst(exchange)
        cost = price.cost(prompt, completion) if price is not None else 0.0
        self._refuse_beyond(key, prompt + completion, cost, self._clock())
        self._reserved[id(exchange)] = (key.id, prompt + completion, cost, price)

    def charge(self, exchange: Exchange) -> None:
        """Counts what an exchange used and gives back what was set aside for it."""
        *_, price = self._reserved.pop(id(exchange), (None, 0, 0.0, None))
        key = self._by_id.get(exchange.caller.key)
        if key is None or key.id.startswith(_RUN):
            return
        usage = exchange.usage
        if not usage.tokens and exchange.guess is None:
            usage = estimate(exchange) or usage
        cost = usage.cost
        if not cost and price is not None:
            cost = price.cost(usage.prompt_tokens, usage.completion_tokens)
        name = (key.id, _period(key.per, self._clock()))
        use = self._used.setdefault(name, _Use())
        use.calls, use.tokens, use.cost = use.calls + 1, use.tokens + usage.tokens, use.cost + (cost or 0.0)
        self._dirty.add(name)

    def _count_request(self, key: Key, now: float) -> None:
        if key.rpm is None:
            return
        bucket = self._buckets.setdefault(key.id, _Bucket(float(key.rpm), now))
        bucket.left = min(float(key.rpm), bucket.left + max(0.0, now - bucket.at) * key.rpm / 60.0)
        bucket.at = now
        if bucket.left < 1.0:
            wait = (1.0 - bucket.left) * 60.0 / key.rpm
            what = f"the key {key.id} may send {key.rpm} requests a minute; try again in {wait:.1f} s"
            raise Refusal(429, what, kind="rate_limit_error", code="rate_limit_exceeded", retry_after=round(wait, 3))
        bucket.left -= 1.0

    def _refuse_beyond(self, key: Key, tokens: int, cost: float, now: float) -> None:
        """Refuses what would exceed a limit together with all that is under way."""
        name = (key.id, _period(key.per, now))
        uses = [self._used.get(name, _Use()), self._others.get(name, _Use())]
        held = [r for r in self._reserved.values() if r[0] == key.id]
        rows = (
            ("tokens", key.max_tokens, sum(u.tokens for u in uses), sum(r[1] for r in held), tokens),
            ("US dollars", key.max_cost, sum(u.cost for u in uses), sum(r[2] for r in held), cost),
        )
        for what, most, used, reserved, more in rows:
            # A free model goes on when the money is gone.
            if most is not None and more > 0 and used + reserved + more > most:
                said = f"the key {key.id} may use {most:g} {what} a {key.per}: {used:g} are used"
                said += f", {reserved:g} set aside for requests under way" if reserved else ""
                todo = f"ask for fewer max_tokens, wait for the next {key.per}, or have the limit raised"
                raise Refusal(
                    429, f"{said}, this needs up to {more:g}. To do: {todo}", kind="insufficient_quota",
                    code="limit_reached", retry_after=round(_seconds_left(key.per, now)),
                )  # fmt: skip

    # the store ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begins to follow the store."""
        if self._store is not None:
            self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends that, and writes down what was used."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            await self.look()

    async def look(self) -> None:
        """Writes down what was used here, and reads keys and uses; a store that fails is told once, and changes
        nothing.
        """
        written = {name: self._used[name] for name in tuple(self._dirty)}
        figures = {name: (u.calls, u.tokens, u.cost) for name, u in written.items()}
        self._dirty.clear()
        try:
            self._take(*await asyncio.to_thread(self._exchange, figures))
        except Exception as error:  # whatever it is: a gate that stopped looking would never hear of a revoked key
            self._dirty |= set(figures)
            if not self._failed:
                what = error.what if isinstance(error, StoreError) else type(error).__name__
                _log.error("keys: %s; the known ones go on", what)
            self._failed = True
        else:
            self._failed = False

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    def _exchange(
        self, figures: Mapping[tuple[str, str], tuple[int, int, float]]
    ) -> tuple[list[dict[str, Any]], dict[tuple[str, str], tuple[int, int, float]]]:
        assert self._store is not None, "only a gate over a store looks"
        for (name, period), (calls, tokens, cost) in figures.items():
            self._store.put_key_use(name, period, self._owner, calls, tokens, cost)
        return self._store.api_keys(), self._store.key_uses(but=self._owner)

    def _read(self) -> None:
        self._take(*self._exchange({}))

    def _take(self, keys: list[dict[str, Any]], others: dict[tuple[str, str], tuple[int, int, float]]) -> None:
        found = {row["hash"]: Key.read(row) for row in keys}
        self._by_digest = {**found, **self._own}
        self._by_id = {k.id: k for k in self._by_digest.values()}
        self._others = {name: _Use(*use) for name, use in others.items()}


def _given(headers: Mapping[str, str]) -> str:
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip()


def _period(per: str, now: float) -> str:
    day = datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
    return day if per == "day" else day[:7]


def _seconds_left(per: str, now: float) -> float:
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return (start + datetime.timedelta(days=1) - at).total_seconds()
    return ((start.replace(day=1) + datetime.timedelta(days=32)).replace(day=1) - at).total_seconds()


__all__ = ["Key", "Keys"]
