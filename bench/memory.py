"""Search in a memory of 1,000 to 100,000 reflections: time, recall, ingest, size: bench/results/memory_search.json.

    .venv/bin/python bench/memory.py                       # under 10 minutes; leave the machine alone meanwhile
    .venv/bin/python bench/memory.py --sizes 1000 10000    # under 2 minutes
    .venv/bin/python bench/memory.py --mem0 FOLDER         # mem0 in a virtual environment there, made when it is not

One client searches for k = 10 in the memory over Chroma (op log in SQLite), by words and vectors together (`p95_ms`)
and by vectors alone (policy `nearest`), and, query by query in changing turn, in a bare Chroma collection of the same
vectors with Chroma's own settings. `vs_bare_chroma` compares like with like, vectors alone; `both_vs_bare_chroma` is
the search by words and vectors beside it. Vectors are given (384 numbers in clusters, one a topic), so nothing of it is
embedding. Peers (LangGraph's InMemoryStore with an index, mem0 without extraction) get the same vectors and queries at
the largest size up to `--peers-at`. Times are of the wall clock, in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "memory_search.json"
DIMENSION, K, BATCH = 384, 10, 10_000
GOALS = {
    "p95_ms_100k": ("<=", 5.0),
    "recall10_100k": (">=", 0.95),
    "vs_bare_chroma": ("<=", 1.3),
    "both_vs_bare_chroma": ("<=", 1.3),
}
REBUILT_UNTIL = 420.0
"""Seconds after which the index of the largest memory is not made anew any more."""


def main() -> None:
    """Measures each size in a process of its own, then the peers, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--peers-at", type=int, default=10_000)
    parser.add_argument(
        "--mem0", type=Path, help="folder of a virtual environment with mem0, made when it is not there"
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asyncio.run(measured(options.one, options.until))))
        return
    began, sizes, peers = time.time(), {}, {}
    with tempfile.TemporaryDirectory(prefix="verbal-memory-") as folder:
        for size in sorted(options.sizes):
            data = Path(folder) / f"{size}.npz"
            write_data(data, size, options.queries)
            command = [sys.executable, __file__, "--one", data, "--until", began + REBUILT_UNTIL]
            sizes[str(size)] = run(command)
            print(json.dumps({size: sizes[str(size)]}), flush=True)
        fits = [size for size in options.sizes if size <= options.peers_at]
        if fits:
            data, script = Path(folder) / f"{max(fits)}.npz", Path(__file__).with_name("memory_peers.py")
            peers["langgraph"] = run([sys.executable, script, "langgraph", data, folder])
            peers["mem0"] = run([mem0_python(options.mem0), script, "mem0", data, folder])
    found = report(sizes, peers, time.time() - began)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def report(sizes: dict[str, Any], peers: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The figures by their names, with a reason for each that is missing."""
    largest = sizes.get("100000", {})
    found: dict[str, Any] = {
        "p95_ms_100k": largest.get("p95_ms"),
        "recall10_100k": largest.get("recall10"),
        "vs_bare_chroma": largest.get("vs_bare_chroma"),
        "both_vs_bare_chroma": largest.get("both_vs_bare_chroma"),
    }
    missing = {k: str(largest.get("missing", "the size 100000 was not run")) for k, v in found.items() if v is None}
    for key, name in (("vs_langgraph_store", "langgraph"), ("vs_mem0", "mem0")):
        peer = peers.get(name, {"missing": "no size was run that peers are given"})
        ours = sizes.get(str(peer.get("items")), {}).get("p95_ms")
        found[key] = round(ours / peer["p95_ms"], 3) if ours and "p95_ms" in peer else None
        if found[key] is None:
            missing[key] = str(peer.get("missing"))
    goals = {k: [found[k], *g] for k, g in GOALS.items() if found[k] is not None and not met(found[k], *g)}
    found |= {"sizes": sizes, "peers": peers, "goals_missed": goals, "missing": missing}
    return found | {"k": K, "dimension": DIMENSION, "cores": os.cpu_count(), "seconds": round(seconds, 1)}


def met(value: float, sign: str, goal: float) -> bool:
    """Whether a figure is what it should be."""
    return value <= goal if sign == "<=" else value >= goal


def run(command: Sequence[Any]) -> dict[str, Any]:
    """What a process printed last, as JSON; `missing` says why there is nothing."""
    if not command[0]:
        return {"missing": "needs a virtual environment of its own: --mem0 FOLDER"}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ANONYMIZED_TELEMETRY": "False"}
    made = subprocess.run([str(c) for c in command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in made.stdout.splitlines() if line.startswith("{")]
    if made.returncode or not lines:
        return {"missing": (made.stderr or made.stdout).strip()[-400:] or f"exit code {made.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def mem0_python(folder: Path | None) -> Path | None:
    """The interpreter of an environment with mem0."""
    if folder is None:
        return None
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "mem0ai", "chromadb"], check=True)
    return python


# data -----------------------------------------------------------------------------------------------------------------


def write_data(path: Path, size: int, queries: int) -> None:
    """Items and queries: texts and vectors. A topic (of 50 items or so) has words of its own and a centre.

    A word is `w` and a number; how often words come falls as 1 / (rank + 20), about as with words that are no stop
    words. A query names 6 words of an item, and its vector lies beside the item's.
    """
    rng = np.random.default_rng(size)
    topics, vocabulary = max(2, size // 50), 20_000
    weights = 1 / (np.arange(vocabulary) + 20)
    own = rng.integers(0, vocabulary, (topics, 12))
    centres = rng.standard_normal((topics, DIMENSION)).astype(np.float32)
    topic = rng.integers(0, topics, size)
    general = rng.choice(vocabulary, (size, 14), p=weights / weights.sum())
    special = np.take_along_axis(own[topic], rng.integers(0, 12, (size, 8)), axis=1)
    words = np.concatenate([special[:, :6], general, special[:, 6:]], axis=1)
    vectors = unit(centres[topic] + 0.7 * rng.standard_normal((size, DIMENSION)).astype(np.float32))
    picked = rng.integers(0, size, queries)
    asked = [
        f"query {n}: how many " + " ".join(f"w{w}" for w in rng.choice(words[i], 6, replace=False))
        for n, i in enumerate(picked)
    ]
    texts = [" ".join(f"w{w}" for w in row) for row in words.tolist()]
    near = unit(vectors[picked] + 0.02 * rng.standard_normal((queries, DIMENSION)).astype(np.float32))
    # Texts are told apart by their number, for they are looked up by it.
    texts = [f"{text} item{n}" for n, text in enumerate(texts)]
    np.savez(path, texts=json.dumps(texts), asked=json.dumps(asked), vectors=vectors, queries=near)


def unit(rows: Any) -> Any:
    """Rows of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Table:
    """An embedder that looks vectors up: by the number that ends an item's words, and by a query."""

    name, dimension = "table", DIMENSION

    def __init__(self, vectors: Any, asked: Sequence[str], queries: Any) -> None:
        self._vectors, self._queries = vectors, dict(zip(asked, queries, strict=True))

    def embed(self, texts: Sequence[str]) -> Any:
        """The vectors of texts."""
        return [self._queries[t] if t in self._queries else self._vectors[int(t.rpartition("item")[2])] for t in texts]


# one size -------------------------------------------------------------------------------------------------------------


async def measured(path: Path, until: float) -> dict[str, Any]:
    """The figures of one size."""
    from verbal.memory.chroma import ChromaMemory
    from verbal.store import Store

    data = np.load(path)
    texts, asked = json.loads(str(data["texts"])), json.loads(str(data["asked"]))
    vectors, near = data["vectors"], data["queries"]
    table, found = Table(vectors, asked, near), dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, Store(Path(folder) / "v.db") as store:

        def opened() -> ChromaMemory:
            return ChromaMemory(store, embedder=table, token_cap=None)

        before, memory = rss(), opened()
        seconds = await ingest(memory, texts)
        memory.close()
        found["ingest_per_s"] = round(len(texts) / seconds, 1)
        memory, found["open_s"] = timed(opened)
        found["rss_mb"] = round(rss() - before, 1)
        bare, filled = bare_chroma(Path(folder) / "bare", vectors)
        found["bare_chroma_ingest_per_s"] = round(len(texts) / filled, 1)
        found |= await in_turn(memory, bare, asked, near)
        found |= await recall(memory, vectors, asked, near)
        found["apply_one_ms"] = await one_by_one(memory)
        if time.time() + 1.5 * filled < until:
            found["rebuild_s"] = timed(memory.rebuild)[1]
        else:
            found |= {"rebuild_s": None, "missing_rebuild": "left out to stay under 10 minutes"}
        memory.close()
        found["store_mb"] = round(sum(p.stat().st_size for p in Path(folder).glob("v.db*")) / 1e6, 1)
        found["index_mb"] = round(sum(p.stat().st_size for p in Path(folder).glob("v.memory/**/*")) / 1e6, 1)
    return found


async def ingest(memory: Any, texts: list[str]) -> float:
    """Seconds that ADDs take, in batches."""
    from verbal.types import MemoryOp, Reflection

    items = [Reflection(id="", text=t, task=f"t{n // 3}", kind="rule") for n, t in enumerate(texts)]
    began = time.perf_counter()
    for at in range(0, len(items), BATCH):
        await memory.apply([MemoryOp(op="ADD", item=item, author="bench") for item in items[at : at + BATCH]])
    return time.perf_counter() - began


def bare_chroma(folder: Path, vectors: Any) -> tuple[Any, float]:
    """A collection with the vectors, and the seconds it took to fill."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    made = client.create_collection("bare", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    began = time.perf_counter()
    for at in range(0, len(vectors), 2000):
        part = vectors[at : at + 2000]
        made.add(ids=[f"r{at + i + 1}" for i in range(len(part))], embeddings=part)
    return made, time.perf_counter() - began


async def in_turn(memory: Any, bare: Any, asked: list[str], near: Any) -> dict[str, Any]:
    """Times of our searches (words and vectors; vectors alone) and of bare Chroma, query by query in changing turn."""
    from verbal.memory.policies import make_policy

    both, alone = memory._policy, make_policy("nearest", {}, where="bench")

    async def ours(query: str, policy: Any) -> None:
        memory._policy = policy
        await memory.search(query, K, exclude_tasks=["t1"])

    async def theirs(vector: Any) -> None:
        bare.query(query_embeddings=[vector], n_results=K, include=["distances"])

    times: dict[str, list[float]] = {"both": [], "alone": [], "bare": []}
    for n, (query, vector) in enumerate([*zip(asked[:20], near[:20], strict=True), *zip(asked, near, strict=True)]):
        turn = {"both": ours(query, both), "alone": ours(query, alone), "bare": theirs(vector)}
        for name in sorted(turn, key=lambda name: (list(turn).index(name) + n) % 3):
            began = time.perf_counter()
            await turn[name]
            if n >= 20:  # those before warm up
                times[name].append(time.perf_counter() - began)
    memory._policy = both
    of = {name: np.percentile(row, [50, 95]) * 1e3 for name, row in times.items()}
    return {
        "p50_ms": round(of["both"][0], 3), "p95_ms": round(of["both"][1], 3),
        "nearest_p50_ms": round(of["alone"][0], 3), "nearest_p95_ms": round(of["alone"][1], 3),
        "bare_chroma_p50_ms": round(of["bare"][0], 3), "bare_chroma_p95_ms": round(of["bare"][1], 3),
        "vs_bare_chroma": round(of["alone"][1] / of["bare"][1], 3),
        "both_vs_bare_chroma": round(of["both"][1] / of["bare"][1], 3),
    }  # fmt: skip


async def recall(memory: Any, vectors: Any, asked: list[str], near: Any) -> dict[str, Any]:
    """Share of the true 10 that come: of the index by vector, and of the whole search beside one with exact vectors."""
    from verbal.memory.exact import ExactIndex

    exact = ExactIndex()
    exact.put(list(memory.items()), vectors)
    index, by_index, by_search, some = memory._index, list[float](), list[float](), slice(0, 200)
    for query, vector in zip(asked[some], near[some], strict=True):
        true = {i for i, _ in exact.nearest(vector, K)}
        by_index.append(len(true & {i for i, _ in index.nearest(vector, K)}) / K)
        found = {r.id for r in await memory.search(query, K)}
        memory._index = exact
        best = {r.id for r in await memory.search(query, K)}
        memory._index = index
        by_search.append(len(best & found) / len(best) if best else 1.0)
    return {"recall10": round(float(np.mean(by_index)), 4), "search_recall10": round(float(np.mean(by_search)), 4)}


async def one_by_one(memory: Any) -> float:
    """Milliseconds that one small operation takes: the median of 50."""
    from verbal.types import MemoryOp

    times = list[float]()
    for n in range(50):
        began = time.perf_counter()
        await memory.apply([MemoryOp(op="TAG", reflection=f"r{n + 1}", tag="shown", author="bench")])
        times.append(time.perf_counter() - began)
    return round(float(np.median(times)) * 1e3, 3)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    began = time.perf_counter()
    made = work()
    return made, round(time.perf_counter() - began, 3)


def rss() -> float:
    """Megabytes this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
