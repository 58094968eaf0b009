"""What the gateway adds to a call: latency at fixed rates, beside LiteLLM's proxy and a direct call, in one run.

    python bench/gateway.py --venv DIR [--install] [--rates 50,100,200,500,1000] [--out bench/results/gateway.json]

`--venv` names an environment of LiteLLM's own (or VERBAL_LITELLM_VENV); `--install` makes it with pip. Behind all three
is the same server on loopback that answers after 20 ms; `gateway_load.py` has it and the open-loop load, each a process
of its own. One process each for the gateway and the proxy, no database behind the proxy, one client key in both. Ours
keeps what passes in its store (`serve` as it comes), the proxy keeps nothing; without keys and capture, and with spans
sent to a collector on loopback, ours is measured apart. Sides take turns in rounds; nothing is pinned to a core.

A side holds a rate when 99.5 % of the requests are answered well and in the time of the load. Ratios are of what is
added to the direct call, at the highest rate that both hold. `capture_lost` counts answers that are not in the store,
up to the highest rate that ours holds; what is lost beyond stands in the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from gateway_load import quantile

HERE = Path(__file__).resolve().parent
PEER = "litellm[proxy]==1.106.12"
"""1.110's proxy needs a package that the index did not have; 1.107.0 was a compromised release."""
WAIT = 0.02
"""Seconds that the server behind takes."""
KEY = "sk-bench-0123456789"
HOLDS = 0.995
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
CONFIG = """
model_list:
  - model_name: bench-model
    litellm_params: {{model: openai/bench-model, api_base: "{url}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{num_retries: 0, telemetry: false}}
"""
PLAIN = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "NO_DOCS": "True",
}
"""What LiteLLM's own guide to production advises, and no network."""


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is asked to end, and ended when it does not."""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def upstream() -> Iterator[str]:
    """The server behind all of them; gives its address."""
    with running(sys.executable, HERE / "gateway_load.py", "upstream", "--seconds", str(WAIT)) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextmanager
def ours(behind: str, folder: Path, *options: str, keyed: bool = True) -> Iterator[dict[str, Any]]:
    """`verbal serve` before it; gives address, key and, at the end, what was kept."""
    folder.mkdir()
    store, key, verbal = folder / "v.db", "", [sys.executable, "-m", "verbal.cli"]
    if keyed:
        made = subprocess.run(
            [*verbal, "keys", "add", "bench", "--store", str(store), "--json"], check=True, capture_output=True
        )
        key = json.loads(made.stdout)["key"]
    command = [*verbal, "serve", "--model", f"http/*@{behind}/v1", "--port", "0", "--store", str(store), *options]
    found: dict[str, Any] = {"key": key, "store": store}
    with running(*command, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        found["url"] = process.stdout.readline().split()[0].removesuffix("/v1")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found


def kept(side: dict[str, Any]) -> int:
    """Exchanges in the store, once all that were answered are there or nothing more comes."""
    found, last = 0, -1
    with closing(sqlite3.connect(side["store"])) as db:
        while found != side["good"] and found != last:
            last = found
            time.sleep(1.5)
            found = int(db.execute("SELECT count(*) FROM attempts").fetchone()[0])
    return found


@contextmanager
def litellm(behind: str, folder: Path, venv: Path) -> Iterator[dict[str, Any]]:
    """LiteLLM's proxy before it."""
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG.format(url=behind, key=KEY))
    port = free_port()
    command = [venv / "bin" / "litellm", "--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    env = {**{k: v for k, v in os.environ.items() if k != "DATABASE_URL"}, **PLAIN}
    command += ["--num_workers", "1", "--telemetry", "False"]
    with (folder / "log").open("w") as log, running(*command, env=env, stderr=log, cwd=folder) as process:
        assert process.stdout is not None
        threading.Thread(target=process.stdout.read, daemon=True).start()
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 120
        while not answers(f"{url}/health/liveliness"):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the proxy did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.3)
        yield {"url": url, "key": KEY}


def free_port() -> int:
    """A port nobody listens at."""
    import socket

    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a GET is answered well."""
    try:
        with urllib.request.urlopen(url, timeout=3) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def load(side: dict[str, Any], rps: float, seconds: float, seed: int) -> dict[str, Any]:
    """One load on one side."""
    command = [sys.executable, str(HERE / "gateway_load.py"), "load", "--url", side["url"], "--key", side["key"]]
    command += ["--rps", str(rps), "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    side["good"] = side.get("good", 0) + found["good"]
    return found


def summed(parts: Sequence[dict[str, Any]], rps: float) -> dict[str, Any]:
    """The figures of some loads of one side at one rate, in milliseconds."""
    every = [s for part in parts for s in part["seconds"]]
    asked, good = (sum(p[k] for p in parts) for k in ("asked", "good"))
    per_s = sum(p["answered_per_s"] for p in parts) / len(parts)
    return {
        **{name: round(1000 * quantile(every, share), 2) for name, share in SHARES.items()},
        "asked": asked, "good": good, "answered_per_s": round(per_s, 1),
        "holds": good >= HOLDS * asked and per_s >= 0.9 * asked / (len(parts) * parts[0]["asked_for_s"]),
        "connections": max(p["connections"] for p in parts),
        "load_lag_p99": round(max(p["lag_p99_ms"] for p in parts), 2),
    }  # fmt: skip


def compare(
    sides: dict[str, dict[str, Any]], rates: Sequence[float], seconds: float, rounds: int
) -> list[dict[str, Any]]:
    """Every side at every rate; one that does not hold a rate is not asked for more."""
    rows, left = [], list(sides)
    for side in sides.values():
        load(side, 40, 2.0, 99)  # connections, caches, lazy imports
    for rps in rates:
        parts: dict[str, list[dict[str, Any]]] = {name: [] for name in left}
        for n in range(rounds):
            for name in left if n % 2 == 0 else left[::-1]:
                parts[name].append({**load(sides[name], rps, seconds, n), "asked_for_s": seconds})
                time.sleep(0.5)
        row: dict[str, Any] = {"rps": rps, **{name: summed(found, rps) for name, found in parts.items()}}
        for name in left:
            if name != "direct":
                row[name]["added"] = {q: round(row[name][q] - row["direct"][q], 2) for q in SHARES}
        if "ours" in left:  # of all answers up to here
            row["captured"] = kept(sides["ours"])
            row["capture_lost"] = sides["ours"]["good"] - row["captured"]
        if {"ours", "litellm"} <= set(left):
            row["ratio_added"] = {q: ratio(row["ours"]["added"][q], row["litellm"]["added"][q]) for q in SHARES}
            row["ratio_whole"] = {q: ratio(row["ours"][q], row["litellm"][q]) for q in SHARES}
        left = [name for name in left if row[name]["holds"]]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def ratio(a: float, b: float) -> float | None:
    """A / b, where b is more than nothing."""
    return round(a / b, 4) if b > 0 else None


def variants(behind: str, folder: Path, rps: float, seconds: float) -> dict[str, Any]:
    """Ours with less and with more around it, beside a direct call, in turn."""
    found: dict[str, Any] = {"rps": rps}
    with ExitStack() as stack:
        sides = {
            "direct": {"url": behind, "key": ""},
            "bare": stack.enter_context(ours(behind, folder / "bare", "--open", "--no-capture", keyed=False)),
            "keys": stack.enter_context(ours(behind, folder / "keys", "--no-capture")),
            "keys, capture": stack.enter_context(ours(behind, folder / "capture")),
            "keys, capture, spans": stack.enter_context(ours(behind, folder / "spans", "--otlp", behind)),
        }
        for side in sides.values():
            load(side, 40, 1.0, 99)
        for name, side in sides.items():
            found[name] = summed([{**load(side, rps, seconds, 0), "asked_for_s": seconds}], rps)
    for name in found:
        if name not in ("rps", "direct"):
            found[name]["added"] = {q: round(found[name][q] - found["direct"][q], 2) for q in SHARES}
    return found


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that stand for the rest."""
    held = [row for row in rows if row.get("ours", {}).get("holds")]
    both = [row for row in held if row.get("litellm", {}).get("holds")]
    failed = next((row for row in rows if "litellm" in row and not row["litellm"]["holds"]), None)
    found = {
        "gateway_rps": held[-1]["rps"] if held else None,
        "gateway_p50_added_ms": held[-1]["ours"]["added"]["p50"] if held else None,
        "gateway_p95_added_ms": held[-1]["ours"]["added"]["p95"] if held else None,
        "ratio_rps": both[-1]["rps"] if both else None,
        "gateway_p50_ratio_litellm": both[-1]["ratio_added"]["p50"] if both else None,
        "gateway_p95_ratio_litellm": both[-1]["ratio_added"]["p95"] if both else None,
        "litellm_does_not_hold_rps": failed["rps"] if failed else None,
        "litellm_answered_per_s_then": failed["litellm"]["answered_per_s"] if failed else None,
        "captured": held[-1]["captured"] if held else None,
        "capture_lost": held[-1]["capture_lost"] if held else None,
    }
    why = "no rate that both hold" if any("litellm" in row for row in rows) else "LiteLLM was not there"
    missing = {k: why for k in ("gateway_p50_ratio_litellm", "gateway_p95_ratio_litellm") if found[k] is None}
    return {**found, **({"missing": missing} if missing else {})}


def peer(venv: str, install: bool) -> tuple[Path | None, str]:
    """LiteLLM's environment, and its version or why there is none."""
    if not venv:
        return None, "no environment given: --venv DIR --install"
    path = Path(venv).resolve()
    if install and not (path / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", path], check=True)
        done = subprocess.run([path / "bin" / "python", "-m", "pip", "install", "--quiet", PEER], check=False)
        if done.returncode:
            return None, f"pip could not install {PEER}"
    if not (path / "bin" / "litellm").exists():
        return None, f"no litellm in {venv}: --install"
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    return path, subprocess.run(
        [path / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", default=os.environ.get("VERBAL_LITELLM_VENV", ""))
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--rates", default="50,100,200,500,1000")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gateway.json")
    asked = parser.parse_args()
    venv, version = peer(asked.venv, asked.install)
    rates = [float(r) for r in asked.rates.split(",")]
    with tempfile.TemporaryDirectory() as name, upstream() as behind:
        folder = Path(name)
        with ExitStack() as stack:
            sides: dict[str, dict[str, Any]] = {"direct": {"url": behind, "key": ""}}
            sides["ours"] = stack.enter_context(ours(behind, folder / "ours"))
            if venv is not None:
                sides["litellm"] = stack.enter_context(litellm(behind, folder / "litellm", venv))
            rows = compare(sides, rates, asked.seconds, asked.rounds)
        found = headline(rows)
        around = variants(behind, folder, min(500.0, found["gateway_rps"] or rates[0]), asked.seconds)
    settings = {
        "upstream_ms": 1000 * WAIT, "seconds": asked.seconds, "rounds": asked.rounds, "arrivals": "Poisson, open loop",
        "ours": "verbal serve, one process, a client key, capture on, no spans",
        "litellm": "one worker, master key, no database, no callbacks, no retries, LITELLM_MODE=PRODUCTION",
        "cores": os.cpu_count(), "litellm_version": version if venv else None,
        "litellm_reason": None if venv else version,
    }  # fmt: skip
    result = {**found, "rates": rows, "variants": around, "settings": settings}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
