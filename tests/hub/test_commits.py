"""Group commit: one commit for the writes of a turn, and each write kept or refused for itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from verbal.contracts import Reply, Sampling
from verbal.errors import StoreError
from verbal.ledger import Ledger
from verbal.models import ModelCalls
from verbal.store import Store
from verbal.types import Attempt, Message, Usage


class Stopped(BaseException):
    """What nothing catches."""


@pytest.fixture
def counted(tmp_path: Path) -> Any:
    """A store, and the commits it made since it was opened."""
    with Store(tmp_path / "v.db") as store:
        opened: Any = store
        commit, commits = opened._database._commit, []

        def count(depth: int) -> None:
            commits.append(depth)
            commit(depth)

        opened._database._commit = count
        yield store, commits


def attempt(i: int) -> Attempt:
    return Attempt(id=f"a{i}", run="r", task=f"t{i}")


async def test_writes_of_one_turn_are_one_commit(counted: Any) -> None:
    store, commits = counted
    kept = await asyncio.gather(*(store.together(lambda i=i: store.put_attempt(attempt(i % 40))) for i in range(50)))
    assert commits == [0] and kept == [True] * 40 + [False] * 10
    assert [a.id for a in store.attempts("r")] == [f"a{i}" for i in range(40)]
    await store.together(lambda: store.put_attempt(attempt(99)))
    assert commits == [0, 0] and store.attempt("a99") is not None


async def test_nobody_goes_on_before_his_write_is_kept(counted: Any) -> None:
    store, _ = counted

    async def one(i: int) -> bool:
        await store.together(lambda: store.put_attempt(attempt(i)))
        with Store(store.path) as other:
            return other.attempt(f"a{i}") is not None

    assert all(await asyncio.gather(*(one(i) for i in range(5))))


async def test_a_write_that_fails_takes_no_other_with_it_and_leaves_no_half(counted: Any) -> None:
    store, commits = counted

    def half() -> None:
        store.put_attempt(attempt(7))
        raise StoreError("refused")

    writes = [lambda: store.put_attempt(attempt(1)), half, lambda: store.put_attempt(attempt(2))]
    found = await asyncio.gather(*(store.together(w) for w in writes), return_exceptions=True)
    assert found[0] is found[2] is True and isinstance(found[1], StoreError)
    assert [a.id for a in store.attempts("r")] == ["a1", "a2"]
    assert commits == [0, 0]


async def test_a_write_is_made_also_when_nobody_waits_for_it_any_more(counted: Any) -> None:
    store, _ = counted
    task = asyncio.ensure_future(store.together(lambda: store.put_attempt(attempt(1))))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert store.attempt("a1") is not None


async def test_what_nothing_catches_reaches_everyone_who_waits(counted: Any) -> None:
    store, _ = counted

    def stop() -> None:
        raise Stopped

    found = await asyncio.gather(
        *(store.together(w) for w in (lambda: store.put_attempt(attempt(1)), stop)), return_exceptions=True
    )
    assert [type(f) for f in found] == [Stopped, Stopped] and store.attempts("r") == []


def test_one_event_loop_after_another(counted: Any) -> None:
    store, commits = counted

    async def abandoned() -> None:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
        await store.together(lambda: store.put_attempt(attempt(1)))

    loop = asyncio.new_event_loop()
    task = loop.create_task(abandoned())
    loop.run_forever()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    asyncio.run(store.together(lambda: store.put_attempt(attempt(2))))
    assert store.attempt("a2") is not None and len(commits) == 2


class Slow:
    """A model that answers when it may."""

    name = "test/slow"

    def __init__(self) -> None:
        self.go, self.asked = asyncio.Event(), 0

    async def generate(self, messages: Any, n: int, sampling: Sampling) -> list[Reply]:
        self.asked += 1
        await self.go.wait()
        return [Reply(text="x", usage=Usage(calls=1, prompt_tokens=1, completion_tokens=1))] * n


@pytest.mark.parametrize("turns", range(6))
async def test_a_call_that_is_cancelled_around_its_reservation_leaves_none(turns: int, tmp_path: Path) -> None:
    """Cancelled before, in, and after the commit that writes it ahead: what was sent is counted, the rest is gone."""
    model = Slow()
    with Store(tmp_path / "v.db") as store:
        ledger = Ledger(store=store, run="r")
        calls = ModelCalls(model, ledger=ledger, price_in=1.0, price_out=1.0)
        task = asyncio.ensure_future(calls.generate([Message(role="user", content="x")], 1, Sampling()))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert store.open_calls("r") == [] and calls.concurrency.active == 0
        assert ledger.spent.calls == model.asked == sum(u.calls for u in store.usage("r").values())
