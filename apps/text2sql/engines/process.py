"""The worker's loop: answers requests on its standard input, one at a time.

Frames both ways are a 4-byte length and JSON; before its reply a worker may say that it is opening a database. When
the parent is gone (standard input ends) or ends the process (SIGTERM), what runs on a server is cancelled first, even
in the middle of a query. Imports the standard library, `verbal.rows`, the engines beside it and its engine's driver.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import struct
import sys
import threading
import time
from importlib import import_module
from typing import Any, BinaryIO, Protocol

from .cells import failure

CPU_SLACK = 3.0
"""Seconds of CPU beyond a query's wall time after which the kernel ends the process, whoever still watches."""
IDLE = 5.0
"""Seconds without a request after which an engine may give up what keeps others out."""

_ENGINES = {
    "sqlite": ("sqlite", "Connections"), "duckdb": ("duckdb", "Connections"), "files": ("duckdb", "Connections"),
    "postgresql": ("server", "Sessions"), "mysql": ("server", "Sessions"),
}  # fmt: skip


class Engine(Protocol):
    """What answers for one kind of database. Requests and replies are dicts; a failure is a reply as well."""

    def is_open(self, request: dict[str, Any]) -> bool:
        """Whether the request can be answered at once."""

    def open(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Opens the request's database; the reply when that fails."""

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a query."""

    def catalog(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to `catalog`."""

    def cancel(self) -> None:
        """Stops what runs on a server; called by another thread."""

    def idle(self) -> None:
        """Nothing was asked for `IDLE` seconds: gives up what keeps others out."""


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame of `stream`; None at its end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack(">I", head)
    body = stream.read(length)
    return body if len(body) == length else None


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Writes one frame and flushes it."""
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def limit_memory(size: int) -> None:
    """Lets this process take `size` bytes of address space more than it has now, and leave no core file.

    Every allocation counts, of whatever library. Without effect where the system has no such limit (macOS, Windows).
    """
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + size, taken + size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def limit_cpu(seconds: float) -> None:
    """Lets this process take `seconds` of CPU and `CPU_SLACK` more than it has taken; then the kernel ends it."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        most = hard if seconds == math.inf else math.ceil(time.process_time() + seconds + CPU_SLACK)
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
    except (ImportError, OSError, ValueError):
        return


def answer(request: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """The reply to one request: its `op` is `query` (when it names none), `catalog` or `match`."""
    op = request.get("op", "query")
    try:
        if op == "match":
            reply: dict[str, Any] = import_module(".match", __package__).match(request, engine)
            return reply
        return engine.catalog(request) if op == "catalog" else engine.run(request)
    except MemoryError:
        return failure("out of memory: the query needs more than it may use", "too_big")


def _encoded(reply: dict[str, Any]) -> bytes:
    try:
        return json.dumps(reply, ensure_ascii=True).encode()
    except MemoryError:
        return json.dumps(failure("out of memory: the rows need more than they may use", "too_big")).encode()


def _attend(engines: dict[str, Engine]) -> None:
    """Waits for the parent's end of the pipe to close, and reads nothing."""
    closed = select.poll()
    closed.register(sys.stdin.fileno(), 0)
    closed.poll()
    _leave(engines)


def _obey(engines: dict[str, Engine]) -> None:
    signal.sigwait({signal.SIGTERM})
    _leave(engines)


def _leave(engines: dict[str, Engine]) -> None:
    for engine in list(engines.values()):
        engine.cancel()
    os._exit(0)


def _engine(kind: str, engines: dict[str, Engine]) -> Engine:
    module, name = _ENGINES[kind]
    if module not in engines:
        engines[module] = getattr(import_module(f".{module}", __package__), name)()
    return engines[module]


def main(kind: str, memory: int) -> None:
    """Answers requests until standard input ends; `kind` of engine is loaded before `memory` bytes are the limit."""
    engines: dict[str, Engine] = {}
    engine = _engine(kind, engines)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a thread of its own waits for it, whatever runs
    for target in (_obey, _attend):
        threading.Thread(target=target, args=(engines,), daemon=True).start()
    limit_memory(memory)
    out, asked = sys.stdout.buffer, select.poll()
    asked.register(sys.stdin.fileno(), select.POLLIN)
    write_frame(out, b'{"state": "ready"}')
    while True:
        if not asked.poll(IDLE * 1000):
            engine.idle()
            continue
        frame = read_frame(sys.stdin.buffer)
        if frame is None:
            _leave(engines)
        else:
            _serve(json.loads(frame), engine, out)


def _serve(request: dict[str, Any], engine: Engine, out: BinaryIO) -> None:
    limit_cpu(math.inf)
    reply = None
    if not engine.is_open(request):
        write_frame(out, b'{"state": "opening"}')
        reply = engine.open(request)
        write_frame(out, b'{"state": "open"}')
    if request.get("op", "query") == "query":
        limit_cpu(float(request["seconds"]))
    write_frame(out, _encoded(answer(request, engine) if reply is None else reply))
