"""Learning, an evaluation and a gate are killed at every commit they make, and resumed: nothing lost or doubled.

A kill between two commits leaves the store as the first of them left it, so this tries every state a kill can leave
behind. The bench kills real processes (bench/crash.py); here no moment is left to chance.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import verbal.ledger
import verbal.testing
from verbal.contracts import Reply, Sampling
from verbal.errors import TransientError
from verbal.gate import Rule
from verbal.ledger import Ledger
from verbal.models import ModelCalls, Retry
from verbal.recipe import CriticsTable, LoopTable, MemoryTable, Recipe
from verbal.run import learn, open_workshop
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import ScriptedModel, TinyApp, tiny_reply
from verbal.types import Message, Usage
from verbal.versions import active, adopt, declare, make_policy

CRITIC = f"{verbal.testing.__file__}:TinyCritic"
CODES = {"anchor": "117", "basket": "211", "candle": "305"}
FEW = dict(list(CODES.items())[:2])
# Words the run before it did not ask for: a recorded reply would answer.
OTHERS = {"feather": "131", "garden": "277", "hammer": "389"}
MANY = {**CODES, "dagger": "410", "engine": "512"}


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is written after it."""


class Asked(ScriptedModel):
    """The tiny model; it keeps what it was asked when it hands its reply over."""

    def __init__(self) -> None:
        super().__init__(tiny_reply)
        self.handed: list[str] = []

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        await asyncio.sleep(0)  # so that calls are under way side by side
        replies = await super().generate(messages, n, sampling)
        self.handed.append(f"{messages[-1].content} {n} {sampling}")
        return replies


def recipe(**loop: Any) -> Recipe:
    return Recipe(
        loop=LoopTable(**{"rounds": 2, "batch": 2, **loop}),
        critics=CriticsTable(names=(CRITIC,), verdict=CRITIC),
        memory=MemoryTable(name="exact", k=2, quarantine=False, withhold=0.0),
    )


def learning(run: str, codes: dict[str, str], **loop: Any) -> Work:
    """`verbal learn`."""

    async def work(store: Store, model: Asked) -> None:
        async with open_workshop(recipe(**loop), store, run=run, model=model, app=TinyApp(codes)) as shop:
            await learn(shop, shop.app.tasks("train"), run=run)

    return work


async def evaluating(store: Store, model: Asked) -> None:
    """`verbal eval` with what was learned before."""
    app = TinyApp(FEW)
    tasks = app.tasks("dev")
    store.put_tasks(tasks)
    study = Study(store=store, recipe=recipe(), run="it", model=model, app=app)
    memories = {"0": ["before", store.memories()["before"]]}
    await perform(study, {"command": "eval", "tasks": [t.id for t in tasks], "seeds": [0], "memories": memories})


async def gating(store: Store, model: Asked) -> None:
    """`verbal promote` of what was learned before, with a rule so loose that it serves in the end."""
    app = TinyApp(MANY)
    if active(store) is not None:
        return
    candidate = make_policy(store, recipe().model.name, "before")
    rule = Rule(alpha=0.9, fdr=0.9, batch=2)
    name, spec = declare(store, recipe(), candidate, app.tasks("dev"), [], rule=rule, seeds=1, budget=None)
    decision = await perform(Study(store=store, recipe=recipe(), run=name, model=model, app=app), spec)
    adopt(store, name, spec, decision)


Work = Callable[[Store, Asked], Awaitable[None]]
WORKS: dict[str, tuple[Work, str]] = {
    "learn": (learning("it", OTHERS), "it"),
    "group": (learning("it", CODES, graph="group", samples=3), "it"),
    "eval": (evaluating, "it"),
    "gate": (gating, "gate-1"),
}


def mortal(store: Store, life: int | None) -> list[int]:
    """Lets a store make `life` more commits; gives the number made so far."""
    opened: Any = store
    database, made = opened._database, [0]
    commit = database._commit

    def counted(depth: int) -> None:
        if depth == 0:
            if life is not None and made[0] >= life:
                raise Killed
            made[0] += 1
        commit(depth)

    database._commit = counted
    return made


async def one_life(path: Path, model: Asked, work: Work, life: int | None) -> int:
    """The work from where it stands, for so many commits; gives how many it made."""
    # A later process has another mark, though here it is the same process.
    verbal.ledger._PROCESS = uuid.uuid4().hex[:12]
    with Store(path) as store:
        made = mortal(store, life)
        try:
            async with asyncio.timeout(60):
                await work(store, model)
        except Killed:
            pass
        return made[0]


def records(path: Path, run: str) -> tuple[dict[str, str], int]:
    """Everything the work left, and the calls in its ledger."""
    with Store(path) as store:
        attempts = store.attempts(run)
        found = {f"attempt {a.id}": a.replace(usage=a.usage.replace(seconds=0.0)).to_json() for a in attempts}
        for i in [a.id for a in attempts]:
            found |= {f"{key} {i}": s.to_json() for key in ("critique", "reflect") if (s := store.step(i, key))}
            found |= {f"feedback {i} {f.critic}": f.to_json() for f in store.feedback([i])[i]}
        found |= {f"group {g.attempts}": g.to_json() for g in store.groups(run)}
        found |= {f"op {name} {v}": op.to_json() for name in store.memories() for v, op in store.ops(name)}
        found |= {f"proposal {p['id']}": told(p) for p in store.proposals()}
        found |= {f"version {v['number']}": told(v) for v in store.versions()}
        found |= {f"run {r['id']}": told(r) for r in store.runs()}
        assert store.open_calls(run) == []
        return found, sum(u.calls for u in store.usage(run).values())


def told(record: dict[str, Any]) -> str:
    """A record without its times and without what it cost."""
    left_out = ("at", "started", "finished", "usage", "cost", "cost_gain")

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in left_out}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return json.dumps(bare(record), sort_keys=True)


def under_way(path: Path, run: str) -> int:
    """Calls the store shows as under way."""
    with Store(path) as store:
        return len(store.open_calls(run))


@pytest.fixture(autouse=True)
def own_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the process's mark back at the end."""
    monkeypatch.setattr(verbal.ledger, "_PROCESS", verbal.ledger._PROCESS)


@pytest.mark.parametrize(("work", "run"), WORKS.values(), ids=WORKS)
async def test_a_kill_at_any_commit_loses_nothing(work: Work, run: str, tmp_path: Path) -> None:
    before, quiet = tmp_path / "before.db", Asked()
    await one_life(before, Asked(), learning("before", MANY), None)
    commits = await one_life(shutil.copy(before, tmp_path / "quiet.db"), quiet, work, None)
    wanted, calls = records(tmp_path / "quiet.db", run)
    assert calls == len(quiet.handed) == len(set(quiet.handed))
    assert commits > 10
    wrong, most = [], 0
    for life in range(commits):
        path, model = shutil.copy(before, tmp_path / f"{life}.db"), Asked()
        assert await one_life(path, model, work, life) == life
        cut_off = under_way(path, run)
        await one_life(path, model, work, None)
        found, ledger = records(path, run)
        repeated = len(model.handed) - len(quiet.handed)
        checks = {
            f"lost {sorted(dict(wanted.items() - found.items()))}": wanted.items() <= found.items(),
            f"too many: {sorted(dict(found.items() - wanted.items()))}": found.items() <= wanted.items(),
            "other calls were made": set(model.handed) == set(quiet.handed),
            f"{repeated} calls made again, {cut_off} were under way": 0 <= repeated <= cut_off,
            f"{ledger} calls in the ledger": ledger == calls + cut_off,
        }
        wrong += [f"killed at commit {life} of {commits}: {what}" for what, holds in checks.items() if not holds]
        most = max(most, repeated)
    assert wrong == []
    assert most > 0, "some kills cut off calls"


async def test_many_kills_in_one_run(tmp_path: Path) -> None:
    model, path, work = Asked(), tmp_path / "v.db", learning("it", CODES)
    await one_life(tmp_path / "quiet.db", Asked(), work, None)
    wanted, _ = records(tmp_path / "quiet.db", "it")
    kills = 0
    # A life of n commits: some barely begin, others get further.
    for life in [1, 2, 3, 5, 1, 8, 4, 7, 6, 9, 2, 12, 5]:
        if await one_life(path, model, work, life) < life:
            break
        kills += 1
    assert kills > 5
    await one_life(path, model, work, None)
    found, ledger = records(path, "it")
    assert found == wanted
    assert ledger >= len(model.handed), "no reply was handed over that the ledger does not know"


def test_a_store_that_fails_while_a_call_is_closed_leaves_it_reserved(tmp_path: Path) -> None:
    """The reply is lost with the disk, the money is not: it stays set aside at its worst case."""
    path, worst = tmp_path / "v.db", Usage(calls=1, prompt_tokens=10, completion_tokens=5)
    verbal.ledger._PROCESS = "an earlier process"
    with Store(path) as store:
        ledger = Ledger(store=store, run="r")
        mortal(store, 1)
        ledger.open_call("c1", "solver", "m", worst)
        with pytest.raises(Killed):
            ledger.close_call("c1", "solver", "m", Usage(calls=1))
    verbal.ledger._PROCESS = "a later process"
    with Store(path) as store:
        ledger = Ledger(store=store, run="r")
        assert (ledger.interrupted, ledger.spent.calls, ledger.spent.tokens) == (1, 1, 15)
        assert store.open_calls("r") == []
        assert store.usage("r")["solver"] == worst


class Watched(ScriptedModel):
    """A model that fails twice, and notes what the store says of the call while it is under way."""

    def __init__(self, store: Store) -> None:
        super().__init__(["fine"])
        self._store = store
        self.seen: list[int] = []

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        self.seen.append(sum(row["worst"].calls for row in self._store.open_calls("r")))
        if len(self.seen) < 3:
            raise TransientError("the server answered 500", where="watched", todo="try again")
        return await super().generate(messages, n, sampling)


async def test_a_kill_during_a_retry_finds_the_tries_before_it(tmp_path: Path) -> None:
    with Store(tmp_path / "v.db") as store:
        model = Watched(store)
        calls = ModelCalls(model, ledger=Ledger(store=store, run="r"), retry=Retry(first=0.001))
        await calls.generate([Message(role="user", content="hello")], 1, Sampling())
        assert model.seen == [1, 2, 3], "requests that a kill at this moment would leave on record"
        assert store.usage("r")["solver"].calls == 3


class Silent(ScriptedModel):
    """A model whose server reports no usage."""

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        replies = await super().generate(messages, n, sampling)
        return [dataclasses.replace(r, usage=Usage(calls=r.usage.calls, cost=None)) for r in replies]


async def test_what_a_server_without_a_usage_report_may_have_cost_outlives_the_process(tmp_path: Path) -> None:
    with Store(tmp_path / "v.db") as store:
        ledger = Ledger(store=store, run="r")
        calls = ModelCalls(Silent(["fine"]), ledger=ledger)
        await calls.generate([Message(role="user", content="hello")], 1, Sampling(max_tokens=100))
        assert ledger.spent.tokens > 100, "a hard limit has to assume the worst"
        assert Ledger(store=store, run="r").spent.tokens == ledger.spent.tokens, "and a resumed run too"
