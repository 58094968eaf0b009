"""Calls per second and CPU per call of each adapter, 64 calls at once, against a loopback server that takes 50 ms.

Run: `python bench/models.py` (under a minute; writes bench/results/models.json). Server and clients share the machine,
so read the ratios, not the seconds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
LATENCY = 0.05
AT_ONCE = 64


async def serve() -> None:
    spec = importlib.util.spec_from_file_location("servers", ROOT / "tests" / "models" / "protocol_servers.py")
    assert spec is not None and spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    async with servers.OpenAIServer(latency=LATENCY) as server:
        print(server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def measure(model: Any, calls: int) -> dict[str, float]:
    from verbal.contracts import Sampling
    from verbal.types import Message

    slots = asyncio.Semaphore(AT_ONCE)
    latencies: list[float] = []

    async def call(number: int) -> None:
        async with slots:
            started = time.perf_counter()
            (reply,) = await model.generate([Message(role="user", content=f"task {number}")], 1, Sampling())
            latencies.append(time.perf_counter() - started)
            assert reply.text == f"reply 0 to task {number}"

    await asyncio.gather(*(call(i) for i in range(AT_ONCE)))  # connections and imports
    latencies.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call(i) for i in range(calls)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await model.aclose()
    return {
        "calls": calls,
        "calls_per_second": round(calls / wall, 1),
        "cpu_ms_per_call": round(1000 * cpu / calls, 3),
        "p50_ms": round(1000 * sorted(latencies)[calls // 2], 1),
    }


async def bench(url: str) -> dict[str, Any]:
    from verbal.ledger import Ledger, Limits
    from verbal.models import ModelCalls
    from verbal.models.http import HttpModel
    from verbal.models.litellm import LiteLLMModel
    from verbal.models.openai import OpenAIModel

    def owned() -> ModelCalls:
        ledger = Ledger(Limits(max_calls=100_000, max_tokens=10**9, max_seconds=3600))
        return ModelCalls(HttpModel("tiny-1", url), ledger=ledger, concurrency=AT_ONCE, on_call=lambda _: None)

    makers: dict[str, tuple[Any, int]] = {
        "http": (lambda: HttpModel("tiny-1", url), 1500),
        "http_with_retry_limits_record": (owned, 1500),
        "openai": (lambda: OpenAIModel("tiny-1", url=url), 300),
        "litellm": (lambda: LiteLLMModel("openai/tiny-1", url=url), 300),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for _ in range(3):  # Interleaved, so that other work on the machine hits all alike.
        for name, (make, calls) in makers.items():
            found[name].append(await measure(make(), calls))
    best = {name: max(runs, key=lambda r: r["calls_per_second"]) for name, runs in found.items()}
    return {
        "at_once": AT_ONCE,
        "server_ms": 1000 * LATENCY,
        "ceiling_calls_per_second": AT_ONCE / LATENCY,
        "load_average": os.getloadavg()[0],
        "best_of_3": best,
        "all_calls_per_second": {name: [r["calls_per_second"] for r in runs] for name, runs in found.items()},
        "http_over_openai": round(best["http"]["calls_per_second"] / best["openai"]["calls_per_second"], 2),
        "http_over_litellm": round(best["http"]["calls_per_second"] / best["litellm"]["calls_per_second"], 2),
        "owner_over_litellm": round(
            best["http_with_retry_limits_record"]["calls_per_second"] / best["litellm"]["calls_per_second"], 2
        ),
        "owner_cpu_ms_per_call": round(
            best["http_with_retry_limits_record"]["cpu_ms_per_call"] - best["http"]["cpu_ms_per_call"], 3
        ),
    }


def main() -> None:
    os.environ["OPENAI_API_KEY"] = "none"
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        started = time.perf_counter()
        try:
            found = asyncio.run(bench(f"{server.stdout.readline().strip()}/v1"))
        finally:
            server.stdin.close()
    found["seconds"] = round(time.perf_counter() - started, 1)
    text = json.dumps(found, indent=2)
    print(text)
    target = ROOT / "bench" / "results" / "models.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(serve())
    else:
        main()
