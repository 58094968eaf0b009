"""Peers of the memory on the same vectors and queries: their searches, timed. Run by bench/memory.py in a process each.

    PYTHON bench/memory_peers.py langgraph|mem0 DATA.npz FOLDER

Gives one line of JSON: p50_ms, p95_ms, ingest_per_s, rss_mb, version. Embedding is a look-up, and no model is asked:
mem0's extraction is off, and its items are put where its own `add` puts them, many at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Runs one peer."""
    kind, data, folder = sys.argv[1], np.load(sys.argv[2]), Path(sys.argv[3])
    texts, asked = json.loads(str(data["texts"])), json.loads(str(data["asked"]))
    vectors = dict(zip([*texts, *asked], [*data["vectors"], *data["queries"]], strict=True))
    search, seconds, name = {"langgraph": langgraph, "mem0": mem0}[kind](texts, vectors, folder)
    for query in asked[:3]:
        assert len(search(query)) == 10, f"{kind} found {len(search(query))}"
    times: list[float] = []
    began = time.perf_counter()
    for query in asked:
        start = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > 30 and len(times) >= 10:
            break
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    found = {"items": len(texts), "queries": len(times), "p50_ms": p50, "p95_ms": p95}
    found |= {"ingest_per_s": len(texts) / seconds, "rss_mb": memory}
    print(json.dumps({k: round(v, 2) for k, v in found.items()} | {"version": f"{name} {version(name)}"}))


def langgraph(texts: list[str], vectors: dict[str, Any], folder: Path) -> tuple[Any, float, str]:
    """LangGraph's InMemoryStore with an index."""
    from langgraph.store.base import PutOp
    from langgraph.store.memory import InMemoryStore

    def embed(given: Any) -> list[list[float]]:
        return [vectors[text].tolist() for text in given]

    store = InMemoryStore(index={"dims": len(vectors[texts[0]]), "embed": embed, "fields": ["text"]})
    began = time.perf_counter()
    for at in range(0, len(texts), 1000):
        puts = [PutOp(("m",), str(at + i), {"text": t}) for i, t in enumerate(texts[at : at + 1000])]
        store.batch(puts)
    return lambda query: store.search(("m",), query=query, limit=10), time.perf_counter() - began, "langgraph"


def mem0(texts: list[str], vectors: dict[str, Any], folder: Path) -> tuple[Any, float, str]:
    """mem0's local store (Chroma in a folder)."""
    os.environ |= {"MEM0_TELEMETRY": "False", "OPENAI_API_KEY": "none", "MEM0_DIR": str(folder / "mem0")}
    from mem0 import Memory

    place = {"collection_name": "bench", "path": str(folder / "mem0-chroma")}
    config = {"vector_store": {"provider": "chroma", "config": place}, "history_db_path": str(folder / "history.db")}
    memory: Any = Memory.from_config(config)

    class Table:
        """Looks vectors up."""

        config = memory.embedding_model.config

        def embed(self, text: str, memory_action: str | None = None) -> list[float]:
            """The vector of a text."""
            found: list[float] = vectors[text].tolist()
            return found

    memory.embedding_model = Table()
    began = time.perf_counter()
    for at in range(0, len(texts), 1000):
        part = texts[at : at + 1000]
        payloads = [
            {
                "data": t,
                "hash": hashlib.md5(t.encode()).hexdigest(),
                "user_id": "u",
                "created_at": "2026-01-01T00:00:00+00:00",
            }
            for t in part
        ]
        ids = [f"00000000-0000-0000-0000-{at + i:012d}" for i in range(len(part))]
        memory.vector_store.insert(vectors=[vectors[t].tolist() for t in part], payloads=payloads, ids=ids)
    seconds = time.perf_counter() - began

    def search(query: str) -> list[Any]:
        found: list[Any] = memory.search(query, filters={"user_id": "u"}, top_k=10, threshold=0.0)["results"]
        return found

    return search, seconds, "mem0ai"


if __name__ == "__main__":
    main()
