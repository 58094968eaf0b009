"""The two ends of `gateway.py`, each a process of its own: a model server that only waits, and an open-loop load.

    python bench/gateway_load.py upstream --seconds 0.02
    python bench/gateway_load.py load --url URL --rps 500 --seconds 6 [--key KEY] [--seed 0]

Both speak HTTP/1.1 on bare sockets, so that they cost little beside what stands between them. `load` sends at times
that were drawn before (a Poisson process), whether or not earlier answers are there, and counts each answer from the
time at which its request was due, not from when it was sent: a server that falls behind cannot slow its own measurement
down (no coordinated omission). It prints one line of JSON. A request without an answer counts as the time waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

with contextlib.suppress(ImportError):
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

TEXT = "Revenue counts paid orders, less what was sent back; ask for the month. " * 10
REQUEST = {
    "model": "bench-model",
    "messages": [
        {"role": "system", "content": "You answer questions about a shop. " + "Amounts are in cents. " * 20},
        {"role": "user", "content": "What did we sell in March, and what does active customer mean here?"},
    ],
    "temperature": 0.2,
    "max_tokens": 200,
}
"""About 700 bytes of prompt; the answer has about as much text."""
AFTER = 5.0
"""Seconds that answers are waited for after the last request was due."""
MOST_CONNECTIONS = 1000


class Upstream(asyncio.Protocol):
    """A chat completions server that answers each request with the same text after a fixed time."""

    numbers = itertools.count()

    def __init__(self, seconds: float) -> None:
        self.seconds, self.data = seconds, bytearray()

    def connection_made(self, transport: Any) -> None:
        """Keeps the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each whole request, later."""
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.data[:end]).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            if len(self.data) < end + 4 + size:
                return
            del self.data[: end + 4 + size]
            body = self.answer(head)
            wait = self.seconds if head.startswith(b"post /v1/chat") else 0.0
            asyncio.get_running_loop().call_later(wait, self.send, body)

    def answer(self, head: bytes) -> bytes:
        """The body of an answer, under an id of its own."""
        if not head.startswith(b"post /v1/chat"):
            return json.dumps({"object": "list", "data": [{"id": "bench-model", "object": "model"}]}).encode()
        message = {"role": "assistant", "content": TEXT}
        return json.dumps(
            {
                "id": f"chatcmpl-{next(self.numbers)}", "object": "chat.completion", "created": int(time.time()),
                "model": "bench-model", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 150, "completion_tokens": 160, "total_tokens": 310},
            }
        ).encode()  # fmt: skip

    def send(self, body: bytes) -> None:
        """Sends it, if anybody is still there."""
        if not self.transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)


class Line(asyncio.Protocol):
    """A kept connection: one request at a time."""

    def __init__(self, load: Load) -> None:
        self.load, self.data, self.due = load, bytearray(), 0.0

    def connection_made(self, transport: Any) -> None:
        """Keeps the way out."""
        self.transport = transport

    def ask(self, due: float) -> None:
        """Sends the request that was due then."""
        self.due, self.data = due, bytearray()
        self.load.lags.append(time.perf_counter() - due)
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        """Hands the answer over once it is whole."""
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0 or not self.due:
            return
        head = bytes(self.data[:end]).lower()
        if b"transfer-encoding: chunked" in head:
            whole = self.data.endswith(b"0\r\n\r\n")
        else:
            whole = len(self.data) >= end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if whole:
            due, self.due = self.due, 0.0
            self.load.answered(self, time.perf_counter() - due, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """A request that was under way has failed."""
        if self.due:
            self.load.answered(None, time.perf_counter() - self.due, 0)
            self.due = 0.0


class Load:
    """Requests at drawn times over as many connections as it takes."""

    def __init__(self, url: str, key: str) -> None:
        place = urlsplit(url)
        self.host, self.port = place.hostname or "127.0.0.1", place.port or 80
        body = json.dumps(REQUEST).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1", f"host: {self.host}:{self.port}", "content-type: application/json",
            f"content-length: {len(body)}", "accept: application/json", "user-agent: bench",
            *([f"authorization: Bearer {key}"] if key else []),
        ]  # fmt: skip
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.free: list[Line] = []
        self.lines: list[Line] = []
        self.late: list[float] = []
        self.lags: list[float] = []
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def connect(self) -> Line:
        """One more connection."""
        _, line = await asyncio.get_running_loop().create_connection(lambda: Line(self), self.host, self.port)
        self.lines.append(line)
        return line

    def answered(self, line: Line | None, seconds: float, status: int) -> None:
        """Counts an answer; its connection takes what is late, or waits."""
        self.seconds.append(seconds)
        self.statuses[status] += 1
        if line is None:
            return
        if self.late:
            line.ask(self.late.pop(0))
        else:
            self.free.append(line)

    async def run(self, rps: float, seconds: float, seed: int) -> dict[str, Any]:
        """Sends, waits for the answers, gives the figures."""
        drawn, times, at = random.Random(seed), [], 0.0
        while (at := at + drawn.expovariate(rps)) < seconds:
            times.append(at)
        self.free = [await self.connect() for _ in range(min(64, max(8, int(rps / 10))))]
        opening: set[asyncio.Task[None]] = set()
        began = time.perf_counter() + 0.05
        for due in (began + t for t in times):
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)  # to the millisecond: spinning would take a core from what is measured
            if self.free:
                self.free.pop().ask(due)
            elif len(self.lines) + len(opening) < MOST_CONNECTIONS:
                task = asyncio.create_task(self._on_a_new_one(due))
                opening.add(task)
                task.add_done_callback(opening.discard)
            else:
                self.late.append(due)
        until = time.perf_counter() + AFTER
        while len(self.seconds) < len(times) and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        took, answered = time.perf_counter() - began, len(self.seconds)
        open_ = [line.due for line in self.lines if line.due] + self.late
        self.seconds += [time.perf_counter() - due for due in open_]
        for line in self.lines:
            line.due = 0.0
            line.transport.abort()
        good = self.statuses[200]
        return {
            "asked": len(times), "answered": answered, "good": good, "unanswered": len(times) - answered,
            "statuses": {str(k): v for k, v in sorted(self.statuses.items())}, "connections": len(self.lines),
            "answered_per_s": good / max(took, seconds), "lag_p99_ms": 1000 * quantile(self.lags, 0.99),
            "seconds": self.seconds,
        }  # fmt: skip

    async def _on_a_new_one(self, due: float) -> None:
        try:
            line = await self.connect()
        except OSError:
            return self.answered(None, time.perf_counter() - due, 0)
        line.ask(due)


def quantile(values: list[float], share: float) -> float:
    """A quantile; nan without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def serve(seconds: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(seconds), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", choices=["upstream", "load"])
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--url", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--rps", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.role == "upstream":
        asyncio.run(serve(asked.seconds))
    elif asked.role is None:
        print(__doc__)
    else:
        found = asyncio.run(Load(asked.url, asked.key).run(asked.rps, asked.seconds, asked.seed))
        print(json.dumps(found))


if __name__ == "__main__":
    main()
