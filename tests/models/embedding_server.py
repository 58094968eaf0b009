"""A loopback server that speaks OpenAI's `/v1/embeddings`, in threads of its own; its next answers can be planned."""

from __future__ import annotations

import base64
import json
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes, dict[str, str]]


def vector_of(text: str, dimension: int) -> list[float]:
    """Numbers that depend on the text only, not of unit length."""
    seed = zlib.crc32(text.encode())
    return [((seed >> (i % 24)) % 17) - 8.0 + i / 7 for i in range(dimension)]


class EmbeddingServer:
    """Answers properly unless `plan` holds another answer for the next request; every request is kept in `seen`."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.plan: deque[Answer | Callable[[dict[str, Any]], Answer]] = deque()
        self.dimension = 8
        self.longest = 10**9
        self.reversed = self.shortens = self.counts = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.seen.append(body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.paths.append(self.path)
                planned = outer.plan.popleft() if outer.plan else outer.answer
                status, data, headers = planned(body) if callable(planned) else planned
                if status == 0:  # hangs up
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # who stopped waiting is gone
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> EmbeddingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, body: dict[str, Any]) -> Answer:
        """What an honest server says."""
        texts = body["input"]
        if any(len(t) > self.longest for t in texts):
            return says(400, {"error": {"message": f"This model's maximum context length is {self.longest} tokens"}})
        dimension = body.get("dimensions", self.dimension) if self.shortens else self.dimension
        rows = []
        for i, text in enumerate(texts):
            values: Any = vector_of(text, dimension)
            if body.get("encoding_format") == "base64":
                values = base64.b64encode(struct.pack(f"<{dimension}f", *values)).decode()
            rows.append({"object": "embedding", "index": i, "embedding": values})
        usage = {"prompt_tokens": 3 * len(texts), "total_tokens": 3 * len(texts)} if self.counts else None
        return says(200, {"object": "list", "data": rows[::-1] if self.reversed else rows, "usage": usage})


def says(status: int, body: Any, **headers: str) -> Answer:
    """An answer of JSON (text and bytes as they are); header names are written with underscores."""
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return status, data, {k.replace("_", "-"): v for k, v in headers.items()}


def rows(*vectors: Any) -> Answer:
    """An answer of these vectors, without index."""
    return says(200, {"data": [{"embedding": v} for v in vectors]})
