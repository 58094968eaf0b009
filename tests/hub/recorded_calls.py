"""Calls that are recorded, for the tests of the replay cache."""

from __future__ import annotations

from typing import Any

from verbal.cache import Cache, fingerprint_of
from verbal.ledger import Ledger
from verbal.models import ModelCalls, Retry
from verbal.store import Store
from verbal.types import Message

ASK = [Message(role="system", content="be brief"), Message(role="user", content="hello")]
FAST = Retry(attempts=2, first=0.001, longest=0.01)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def calls(model: Any, cache: Cache, **options: Any) -> ModelCalls:
    """Calls as a run makes them: cache and ledger are of one store and one run."""
    return ModelCalls(
        model,
        cache=cache,
        ledger=Ledger(options.pop("limits", None), store=cache._store, run=cache._run),
        fingerprint=options.pop("fingerprint", fingerprint_of(model)),
        **{"retry": FAST, "price_in": 1.0, "price_out": 1.0, **options},
    )


def stored(store: Store) -> int:
    return len(store._database.read("SELECT key FROM replies"))
