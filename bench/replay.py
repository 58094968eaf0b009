"""A recorded run repeats with no call: network calls counted by the server, records compared by hash, time measured.

`verbal learn` and `verbal eval` on the tiny app through the `http` adapter, against a server of the bench's own that
runs in another process, takes 5 ms for a reply and counts what it is asked. Then both runs are replayed from the store
while every socket refuses to connect; the server is asked for its count before and after. Writes
bench/results/replay.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import verbal.testing
from verbal.recipe import AppTable, CriticsTable, LoopTable, MemoryTable, ModelTable, Recipe
from verbal.replay import replay
from verbal.store import Store
from verbal.study import Study, perform
from verbal.testing import TinyApp, tiny_reply
from verbal.types import Message

LATENCY = 0.005
"""Seconds the server takes for a reply."""


def main() -> None:
    """Runs the bench and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=160, help="each is a task to learn on and one to score")
    parser.add_argument("--serve", action="store_true", help="be the server (started by the bench itself)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "replay.json")
    options = parser.parse_args()
    if options.serve:
        return serve()
    with tempfile.TemporaryDirectory() as folder, server() as url:
        result = bench(Path(folder), url, options.words)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def bench(folder: Path, url: str, words: int) -> dict[str, Any]:
    """Records a learning run and an evaluation, then repeats both."""
    codes = {f"word{i:04}": str(100 + 7 * i % 900) for i in range(words)}
    critic = f"{verbal.testing.__file__}:TinyCritic"
    recipe = Recipe(
        app=AppTable(name=f"{verbal.testing.__file__}:TinyApp", options={"codes": codes}),
        model=ModelTable(name=f"http/tiny@{url}/v1"),
        loop=LoopTable(rounds=2, batch=16),
        critics=CriticsTable(names=(critic,), verdict=critic),
        memory=MemoryTable(name="exact", k=2),
    )
    runs = ("learned", "scored")
    with Store(folder / "v.db") as store:
        began = time.perf_counter()
        asyncio.run(record(store, recipe, TinyApp(codes), runs))
        recorded = time.perf_counter() - began
        calls = count(url)
        with closed() as refused:
            made = [asyncio.run(replay(store, run)) for run in runs]
        again = count(url) - calls
        learned = store.memories()["learned"]
        kept = sum(u.calls for run in runs for u in store.usage(run).values())
    replayed = sum(m["seconds"] for m in made)
    return {
        "calls": calls,
        "calls_in_ledger": kept,
        "replay_network_calls": again + refused[0],
        "replay_model_calls": sum(m["model_calls"] for m in made),
        "replay_equal": all(m["equal"] and m["digest"] == m["recorded_digest"] for m in made),
        "records": sum(s["records"] for m in made for s in m["sections"].values()),
        "replies": sum(m["replies"] for m in made),
        "memory_version": learned,
        "digests": {m["run"]: m["digest"] for m in made},
        "latency_ms": 1000 * LATENCY,
        "seconds_recorded": round(recorded, 2),
        "seconds_replayed": round(replayed, 2),
        "speedup": round(recorded / replayed, 2),
    }


async def record(store: Store, recipe: Recipe, app: TinyApp, runs: tuple[str, str]) -> None:
    """`verbal learn` on the train tasks, `verbal eval` of what was learned on the dev tasks."""
    tasks, dev = app.tasks("train"), app.tasks("dev")
    store.put_tasks([*tasks, *dev])
    learning = {"command": "learn", "arm": "learn", "tasks": [t.id for t in tasks], "memory": {"name": runs[0]}}
    await perform(Study(store=store, recipe=recipe, run=runs[0]), learning)
    memories = {0: [runs[0], store.memories()[runs[0]]]}
    scoring = {"command": "eval", "tasks": [t.id for t in dev], "seeds": [0], "memories": memories}
    await perform(Study(store=store, recipe=recipe, run=runs[1]), scoring)


# the server -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a running server, in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def serve() -> None:
    """An OpenAI-compatible server on loopback that answers as the tiny model does, and counts."""
    from aiohttp import web

    asked = [0]

    async def complete(request: web.Request) -> web.Response:
        asked[0] += 1
        body = await request.json()
        await asyncio.sleep(LATENCY)
        said = [Message(role=m["role"], content=m["content"]) for m in body["messages"]]
        texts = [tiny_reply(said, i, body.get("seed")) for i in range(body.get("n", 1))]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": t}}
            for i, t in enumerate(texts)
        ]
        usage = {"prompt_tokens": sum(len(m.content) for m in said) // 4, "completion_tokens": 6 * len(texts)}
        return web.json_response({"id": "x", "model": body["model"], "choices": choices, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def told(_: web.Request) -> web.Response:
        return web.json_response(asked[0])

    async def run() -> None:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", complete), web.get("/v1/models", models)])
        app.add_routes([web.get("/count", told)])
        runner = web.AppRunner(app)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


def count(url: str) -> int:
    """How many completions the server was asked for."""
    with urllib.request.urlopen(f"{url}/count") as answer:
        return int(json.load(answer))


@contextlib.contextmanager
def closed() -> Iterator[list[int]]:
    """While it is open no socket of this process connects; counts those that tried."""
    tried, connect, connect_ex = [0], socket.socket.connect, socket.socket.connect_ex

    def refuse(*_: Any) -> Any:
        tried[0] += 1
        raise PermissionError("a replay opened a connection")

    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign, assignment]
    try:
        yield tried
    finally:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
