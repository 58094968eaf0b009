"""Fifty people at once on the web app: errors, how long they wait, and the same work without a server.

    python bench/load.py [--users 50] [--questions 5] [--model embedded] [--out bench/results/load.json]

`verbal ui` runs in a process of its own on the demo shop, with an account for each person. All of them come at once:
each logs in, opens a chat, asks questions that nobody else asks (one after the other, as a person does), reads the
streamed answer to its end, fetches the rows of the result again, and gives a thumb to what has a query. An error is any
answer that is not 200 or 201, a stream that does not end with `done`, a turn without its question, or a thumb that was
not kept; `errors` should be 0.

Bound: the same questions asked one by one through `Assistant` in this process, a session for each person, no server, no
person waiting for another. `ratio_busy` is the time per question under load over the time per question of the bound:
what the server, its streams, sessions and stores add while both cores work. Server and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import aiohttp

from verbal.apps.text2sql.assistant import Assistant
from verbal.parts import make_part
from verbal.store import Store

HERE = Path(__file__).resolve().parent
PASSWORD = "a long enough password"


class Person:
    """Somebody with a browser."""

    def __init__(self, url: str, name: str, seconds: dict[str, list[float]], errors: Counter[str]) -> None:
        self.url, self.name, self.seconds, self.errors = url, name, seconds, errors
        self.headers = {"X-Verbal": "1", "Origin": url}
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    async def visit(self, questions: Sequence[str]) -> None:
        """Everything that the person does."""
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=timeout) as self.session:
            if await self.call("login", "POST", "/api/login", {"user": self.name, "password": PASSWORD}) is None:
                return
            chat = await self.call("open chat", "POST", "/api/chats", {"kind": "sql"})
            if chat is None:
                return
            for number, question in enumerate(questions):
                turn = await self.ask(chat["id"], question, number)
                if turn is None:
                    continue
                self.statuses[turn["status"]] += 1
                if turn["status"] not in ("answered", "ambiguous"):
                    self.reasons[str(turn.get("reason"))[:200]] += 1
                if turn["status"] == "answered":
                    await self.call("rows", "GET", f"/api/turns/{turn['id']}/rows?offset=0&limit=100")
                if not turn["sql"]:
                    continue  # an abstention is no answer to judge
                told = await self.call("thumb", "POST", f"/api/turns/{turn['id']}/feedback", {"kind": "up"})
                if told is not None and not told.get("kept"):
                    self.errors["thumb: not kept"] += 1
            found = await self.call("read chat", "GET", f"/api/chats/{chat['id']}")
            if found is not None and [t["text"] for t in found["turns"]] != list(questions):
                self.errors["chat: other turns than were asked"] += 1

    async def call(self, what: str, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer; None where it is none, which is counted."""
        began = time.perf_counter()
        try:
            headers = self.headers if method == "POST" else {}
            async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
                found = await answer.json()
                if answer.status not in (200, 201):
                    self.errors[f"{what}: {answer.status} {found.get('error', {}).get('message')}"[:200]] += 1
                    return None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.errors[f"{what}: {type(error).__name__}"] += 1
            return None
        self.seconds[what].append(time.perf_counter() - began)
        return found

    async def ask(self, chat: str, question: str, number: int) -> Any:
        """The turn that a question became, read from its stream."""
        began, last = time.perf_counter(), None
        headers = {**self.headers, "Accept": "text/event-stream"}
        body = {"text": question, "etag": number}
        try:
            async with self.session.post(f"{self.url}/api/chats/{chat}/turns", json=body, headers=headers) as answer:
                if answer.status != 200:
                    self.errors[f"ask: {answer.status} {(await answer.text())[:80]}"] += 1
                    return None
                async for line in answer.content:
                    if line.startswith(b"data: "):
                        if last is None:
                            self.seconds["first event"].append(time.perf_counter() - began)
                        last = json.loads(line[6:])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.errors[f"ask: {type(error).__name__}"] += 1
            return None
        if last is None or last["type"] != "done":
            self.errors[f"ask: ends with {last and last['type']} {last and last.get('code')}"] += 1
            return None
        self.seconds["ask"].append(time.perf_counter() - began)
        return last["turn"]


async def under_load(url: str, asked: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Everybody at once."""
    seconds: dict[str, list[float]] = defaultdict(list)
    errors: Counter[str] = Counter()
    people = [Person(url, f"user{n}", seconds, errors) for n in range(len(asked))]
    began = time.perf_counter()
    await asyncio.gather(*(person.visit(questions) for person, questions in zip(people, asked, strict=True)))
    whole = time.perf_counter() - began
    statuses = sum((person.statuses for person in people), Counter[str]())
    reasons = sum((person.reasons for person in people), Counter[str]())
    return {
        "errors": sum(errors.values()), "kinds": dict(errors), "seconds": round(whole, 2), "statuses": dict(statuses),
        "reasons": dict(reasons),
        "asked": sum(map(len, asked)), "asked_per_s": round(len(seconds["ask"]) / whole, 2),
        "waits": {what: spread(values) for what, values in sorted(seconds.items())},
    }  # fmt: skip


async def alone(model: str, asked: Sequence[Sequence[str]], store: Path) -> dict[str, Any]:
    """The bound: one question after the other, without a server."""
    values, statuses, began = [], Counter[str](), time.perf_counter()
    with Store(store) as opened:
        for questions in asked:
            async with Assistant(None, model=model, store=opened) as assistant:
                answer = None
                for question in questions:
                    at = time.perf_counter()
                    answer = await assistant.ask(question, after=answer)
                    values.append(time.perf_counter() - at)
                    statuses[answer.status] += 1
    whole = time.perf_counter() - began
    return {"seconds": round(whole, 2), "ask": spread(values), "ask_seconds": sum(values), "statuses": dict(statuses)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Quantiles in seconds."""
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "worst": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) for name, q in at.items()}


async def questions(users: int, each: int) -> list[list[str]]:
    """Different ones for everybody, of the demo's train and dev sets."""
    app = make_part("apps", "text2sql")
    try:
        found = [task.info["question"] for split in ("train", "dev") for task in app.tasks(split)]
    finally:
        await app.aclose()
    found = list(dict.fromkeys(found))
    if len(found) < users * each:
        raise SystemExit(f"the demo has {len(found)} questions, {users * each} are needed")
    return [found[n::users][:each] for n in range(users)]


def serve(store: Path, model: str) -> tuple[subprocess.Popen[str], str]:
    """`verbal ui` and its address."""
    command = [sys.executable, "-m", "verbal.cli", "ui", "--port", "0", "--store", str(store), "--model", model]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    assert process.stdout is not None
    while line := process.stdout.readline():
        if at := next((word for word in line.split() if word.startswith("http://")), None):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, at.partition("/?")[0].rstrip("/")
    raise SystemExit("verbal ui did not start")


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "load.json")
    given = parser.parse_args()
    asked = asyncio.run(questions(given.users, given.questions))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bound = asyncio.run(alone(given.model, asked, folder / "alone.db"))
        with Store(folder / "v.db") as store:
            for n in range(given.users):
                store.add_user(f"user{n}", PASSWORD, team="load")
        process, url = serve(folder / "v.db", given.model)
        try:
            loaded = asyncio.run(under_load(url, asked))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
    answered = max(1, loaded["asked"] - sum(n for kind, n in loaded["kinds"].items() if kind.startswith("ask")))
    busy = (loaded["seconds"] / answered) / (bound.pop("ask_seconds") / loaded["asked"])
    found = {
        "load_users": given.users, "load_errors": loaded["errors"], "model": given.model, "cores": os.cpu_count(),
        "ratio_busy": round(busy, 2), "same_statuses": loaded["statuses"] == bound["statuses"],
        "load": loaded, "alone": bound,
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
