"""The worker's loop: answers queries on its standard input, one at a time.

Frames both ways are a 4-byte length and JSON. When the parent is gone, standard input ends and so does the worker,
even in the middle of a query. Imports the standard library, `verbal.rows` and the engines beside it, nothing else.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
from typing import Any, BinaryIO

from .sqlite import Connections


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


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        requests.put(frame)
    os._exit(0)


def answer(request: dict[str, Any], engine: Connections) -> dict[str, Any]:
    """The reply to one request: its `op` is `query` (when it names none), `catalog` or `match`."""
    op = request.get("op", "query")
    if op == "match":
        from .match import match

        return match(request, engine)
    return engine.run(request)


def main() -> None:
    """Answers requests until standard input ends."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    connections = Connections()
    while True:
        reply = answer(json.loads(requests.get()), connections)
        write_frame(sys.stdout.buffer, json.dumps(reply, ensure_ascii=True).encode())
