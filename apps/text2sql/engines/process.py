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
from typing import BinaryIO

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


def main() -> None:
    """Answers requests until standard input ends."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    connections = Connections()
    while True:
        reply = connections.run(json.loads(requests.get()))
        write_frame(sys.stdout.buffer, json.dumps(reply, ensure_ascii=True).encode())
