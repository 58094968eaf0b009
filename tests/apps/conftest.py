"""What tests of the memory server share: a store whose memory believes two lessons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from verbal.parts import make_part
from verbal.store import Store
from verbal.types import MemoryOp, Reflection

LESSONS = {
    "like": "compare names of customers with LIKE, their case differs",
    "join": "join orders to customers by customer_id",
}


async def _believed(store: Store, name: str, texts: dict[str, str]) -> None:
    memory = make_part("memory", "exact", store=store, name=name, quarantine=True)
    ops = [MemoryOp(op="ADD", item=Reflection(id=i, text=t), reason="by hand", author="user") for i, t in texts.items()]
    ops += [MemoryOp(op="TAG", reflection=i, tag="active", author="user", reason="seen to be right") for i in texts]
    await memory.apply(ops)
    memory.close()


@pytest.fixture
def believe() -> Callable[[Store, str, dict[str, str]], Awaitable[None]]:
    """Puts lessons into a memory of a store that a person has approved."""
    return _believed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The store."""
    with Store(tmp_path / "v.db") as store:
        asyncio.run(_believed(store, "main", LESSONS))
    return tmp_path / "v.db"
