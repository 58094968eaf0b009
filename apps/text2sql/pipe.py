"""One worker process, seen from the parent: requests go in, replies come out in time, or it is ended.

The process gets a bare environment: no key of the parent's is in it. Its memory has a ceiling that holds for every
allocation of whatever library (`engines/process.py`). A process that talks to a server is asked to leave first, so
that it cancels there what it runs.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import verbal

Family = Literal["sqlite", "duckdb", "server"]
"""Kinds of processes: one library in each."""

FAMILIES: dict[str, Family] = {
    "sqlite": "sqlite", "duckdb": "duckdb", "files": "duckdb", "postgresql": "server", "mysql": "server",
}  # fmt: skip
"""Kind of source -> family."""

MEMORY_BYTES: dict[Family, int] = {"sqlite": 768 * 2**20, "duckdb": 1536 * 2**20, "server": 512 * 2**20}
"""Address space a process may take beyond what it has when it is ready (SQLite itself has less: `HEAP_BYTES`)."""

GRACE = 0.2
"""Seconds after the time limit until a process is ended."""

_PIECE = 1 << 16
_LAST = 0.15
"""Seconds more for a reply that has begun."""
_START = 20.0
"""Seconds a new process may take to be ready."""
OPENING: dict[Family, float] = {"sqlite": 5.0, "duckdb": 60.0, "server": 15.0}
"""Seconds to open a database that takes its time (a server far away, files that are read into memory)."""
_LEAVING = 1.5
"""Seconds a process may take to cancel what it runs on a server."""

_HERE = Path(__file__).resolve().parent
_FRAMES = {"verbal": list(verbal.__path__), "verbal.apps": [str(_HERE.parent)], "verbal.apps.text2sql": [str(_HERE)]}
# Bare frames of the packages, so that a process finds the engines and `verbal.rows` and loads nothing else.
_BOOT = """
import json, sys, types
told = json.loads(sys.argv[1])
for name, folders in told["frames"].items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = folders
sys.path += told["packages"]
from verbal.apps.text2sql.engines.process import main
main(told["kind"], told["memory"])
"""
_KINDS = {"sqlite": "sqlite", "duckdb": "duckdb", "server": "postgresql"}
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Process:
    """One worker process and its two pipes; used by one thread at a time."""

    def __init__(self, family: Family) -> None:
        """Starts it, and does not wait until it is ready.

        Raises:
            OSError: no process can be started.
        """
        self.family = family
        packages = [] if family == "sqlite" else _packages()
        told = {"frames": _FRAMES, "packages": packages, "kind": _KINDS[family], "memory": MEMORY_BYTES[family]}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            close_fds=True,
            start_new_session=True,
            env={**{k: os.environ[k] for k in _KEPT if k in os.environ}, "MALLOC_ARENA_MAX": "2"},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._poll = select.poll()  # select() knows no more than 1,024 open files
        self._poll.register(self._out, select.POLLIN)
        self.opened = True
        """False after a database that did not open in time."""
        self._held = bytearray()
        self._ready = False

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The reply, or None when it did not come in time. Starting and opening a database have times of their own.

        Raises:
            EOFError: the process ended.
        """
        if not self._ready:
            if self._receive(time.monotonic() + _START) is None:
                return None
            self._ready = True
        self._send(json.dumps(request).encode())
        reply = self._receive(time.monotonic() + seconds + GRACE)
        if reply is not None and reply.get("state") == "opening":
            opened = self._receive(time.monotonic() + OPENING[self.family])
            self.opened = opened is not None
            reply = None if opened is None else self._receive(time.monotonic() + seconds + GRACE)
        return reply

    def _send(self, body: bytes) -> None:
        frame = memoryview(struct.pack(">I", len(body)) + body)
        try:
            while frame:
                frame = frame[os.write(self._in, frame) :]
        except OSError as error:
            raise EOFError("the worker process ended") from error

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next frame: a 4-byte length and JSON."""
        if not self._filled(4, deadline):
            return None
        size = 4 + struct.unpack(">I", self._held[:4])[0]
        if not self._filled(size, deadline + _LAST):
            return None
        body, self._held = self._held[4:size], self._held[size:]
        reply: dict[str, Any] = json.loads(body)
        return reply

    def _filled(self, size: int, deadline: float) -> bool:
        while len(self._held) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                return False
            piece = os.read(self._out, _PIECE)
            if not piece:
                raise EOFError("the worker process ended")
            self._held += piece
        return True

    def end(self) -> None:
        """Ends the process, from any thread; one that talks to a server may cancel there what it runs."""
        if self.family == "server":
            self.process.terminate()
        else:
            self.process.kill()

    def stop(self) -> threading.Thread | None:
        """Ends it and closes its pipes; where that may take a moment, the thread in which it happens."""
        self.end()
        if self.family != "server":
            self._bury()
            return None
        leaving = threading.Thread(target=self._bury, name="verbal-sql-leaving", daemon=True)
        leaving.start()
        return leaving

    def _bury(self) -> None:
        try:
            self.process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _packages() -> list[str]:
    """Where installed packages lie; not the current folder, which may hold a `duckdb.py` of somebody."""
    return [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
