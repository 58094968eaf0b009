"""One model exchanged for another under load: failed requests, added latency, and what HTTP costs.

    python bench/serve_swap.py [--requests 2400] [--swaps 12] [--clients 8] [--out bench/results/serve_swap.json]

`verbal serve --model promoted` runs in a process of its own; clients here ask it without pause on loopback while two
checkpoints (the shipped weights, each changed a little) are promoted and rolled back in turn through the real store. A
request counts as one of a swap when any part of it lies between the server's lines "loading" and "is closed". The bound
is the same model, prompts and number of askers in this process, without HTTP. Server and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import aiohttp

from verbal.contracts import Sampling
from verbal.models import open_model
from verbal.parts import make_part
from verbal.store import Store
from verbal.types import Message
from verbal.versions import make_policy, rollback

ROOT = Path(__file__).resolve().parent.parent
SCALES = {"one": 1.02, "two": 0.97}
PROMPTS = 40


def world() -> Any:
    """The tests' own way to make and adopt checkpoints."""
    spec = importlib.util.spec_from_file_location("gateway_world", ROOT / "tests" / "hub" / "gateway_world.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def prompts() -> list[list[Message]]:
    """The demo's dev questions as the solver is asked them."""
    app = make_part("apps", "text2sql")
    try:
        return [app.messages("solver", task, hints=(), tried=()) for task in app.tasks("dev")[:PROMPTS]]
    finally:
        await app.aclose()


def quantile(values: list[float], share: float) -> float:
    """A quantile in milliseconds; nan without values."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else float("nan")


class Server:
    """`verbal serve` in a process, with the times of its lines."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "verbal.cli", "serve", "--port", "0", "--store", str(path)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[0]
        self.lines: list[tuple[float, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.perf_counter(), line.rstrip()))

    def windows(self) -> list[tuple[float, float, float]]:
        """Of each swap: when loading began, when the new model answered, when the old one was closed."""
        found, part = [], []
        for at, line in list(self.lines):
            part = [at] if ": loading " in line else [*part, at]
            if line.endswith("is closed"):
                found.append((part[0], part[1], part[-1]))
        return found

    def stop(self) -> int:
        """Ends it as Ctrl-C does; gives its exit status."""
        self.process.send_signal(2)
        return self.process.wait(30)


async def load(server: Server, store: Store, made: Any, asked: list[list[Message]], options: Any) -> dict[str, Any]:
    """Asks without pause while models are exchanged; the latency of each request with when it was."""
    seen: list[tuple[float, float, str, str]] = []
    failed: list[str] = []
    count, swaps_done = 0, asyncio.Event()
    bodies = [
        {"model": "promoted", "temperature": 0, "messages": [{"role": m.role, "content": m.content} for m in p]}
        for p in asked
    ]

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while count < options.requests or not swaps_done.is_set():
            number, count = count, count + 1
            began = time.perf_counter()
            try:
                async with session.post(f"{server.url}/chat/completions", json=bodies[number % len(bodies)]) as answer:
                    body = await answer.json()
                    if answer.status != 200:
                        raise RuntimeError(f"{answer.status}: {body}")
                    seen.append((began, time.perf_counter(), body["model"], body["system_fingerprint"]))
            except Exception as error:
                failed.append(repr(error))

    async def swapper() -> None:
        share = options.requests / (options.swaps + 1)
        for swap in range(options.swaps):
            while len(seen) < share * (swap + 1):
                await asyncio.sleep(0.02)
            if swap % 2 == 0:
                await asyncio.to_thread(made.promote, store, "checkpoint:two")
            else:
                await asyncio.to_thread(rollback, store)
            while len(server.windows()) <= swap:
                await asyncio.sleep(0.02)
        swaps_done.set()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for body in bodies:  # every schema and connection once
            async with session.post(f"{server.url}/chat/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
        wall = time.perf_counter()
        await asyncio.gather(swapper(), *(client(session) for _ in range(options.clients)))
        wall = time.perf_counter() - wall
    return figures(seen, failed, server.windows(), wall)


def figures(
    seen: list[tuple[float, float, str, str]], failed: list[str], windows: list[tuple[float, float, float]], wall: float
) -> dict[str, Any]:
    during, outside = [], []
    for began, ended, _, _ in seen:
        inside = any(began < last and ended > first for first, _, last in windows)
        (during if inside else outside).append(ended - began)
    prints = {(model, fingerprint) for _, _, model, fingerprint in seen}
    return {
        "swap_requests": len(seen) + len(failed),
        "swap_failed": len(failed),
        "failures": failed[:3],
        "swaps": len(windows),
        "swap_seconds_p50": round(statistics.median(middle - first for first, middle, _ in windows), 3),
        "requests_during_swaps": len(during),
        "p50_ms": quantile(outside, 0.5),
        "p95_ms": quantile(outside, 0.95),
        "swap_p50_ms": quantile(during, 0.5),
        "swap_p95_ms": quantile(during, 0.95),
        "swap_max_ms": quantile(during, 1.0),
        "swap_added_p50_ms": round(quantile(during, 0.5) - quantile(outside, 0.5), 1),
        "swap_added_p95_ms": round(quantile(during, 0.95) - quantile(outside, 0.95), 1),
        "answers_of": dict(Counter(model for _, _, model, _ in seen)),
        "fingerprints_per_model": max(Counter(model for model, _ in prints).values()),
        "requests_per_second": round(len(seen) / wall, 1),
    }


async def direct(folder: Path, asked: list[list[Message]], options: Any) -> dict[str, float]:
    """The bound: the model itself, asked by as many tasks, without HTTP."""
    model = open_model(f"embedded:{folder}")
    sampling, latencies, count, total = Sampling(temperature=0.0), list[float](), 0, max(200, options.requests // 4)
    for prompt in asked:
        await model.generate(prompt, 1, sampling)

    async def asker() -> None:
        nonlocal count
        while count < total:
            number, count = count, count + 1
            began = time.perf_counter()
            await model.generate(asked[number % len(asked)], 1, sampling)
            latencies.append(time.perf_counter() - began)

    wall = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(options.clients)))
    wall = time.perf_counter() - wall
    await model.aclose()
    return {
        "direct_requests_per_second": round(len(latencies) / wall, 1),
        "direct_p50_ms": quantile(latencies, 0.5),
        "direct_p95_ms": quantile(latencies, 0.95),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2400)
    parser.add_argument("--swaps", type=int, default=12)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "serve_swap.json")
    options = parser.parse_args()
    made, asked = world(), asyncio.run(prompts())
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "v.db") as store:
        for name, scale in SCALES.items():
            made.make_checkpoint(store, name, Path(folder) / name, scale)
        made.promote(store, "checkpoint:one")
        assert make_policy(store, "checkpoint:two").weights
        bound = asyncio.run(direct(Path(folder) / "one", asked, options))
        server = Server(Path(folder) / "v.db")
        try:
            found = asyncio.run(load(server, store, made, asked, options))
        finally:
            status = server.stop()
    found |= bound
    found |= {
        "ratio_to_direct": round(found["requests_per_second"] / bound["direct_requests_per_second"], 3),
        "clients": options.clients,
        "exit_status": status,
        "load_average": round(os.getloadavg()[0], 2),
    }
    text = json.dumps(found, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
