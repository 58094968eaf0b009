"""A Hugging Face folder under vLLM, in a process of its own on a free loopback port: `--engine vllm`.

vLLM is not imported and not depended on: it pins its own torch, and is best installed in an environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from verbal.contracts import Reply, Sampling
from verbal.errors import ConfigError, MissingExtra, ModelError
from verbal.models.http import HttpModel
from verbal.types import Message

_EVERY = 0.25
"""Seconds between two looks whether it is ready."""
_PATIENCE = 20.0
"""Seconds a process has for its end before it is killed."""


class VllmModel:
    """`vllm serve FOLDER` behind the contract of a model; the process is started by `check` and ended by `aclose`.

    Args:
        path: The folder.
        share: Share of the GPU's memory that it may take; vLLM's own (0.9) when None.
        command: The program.

    Raises:
        MissingExtra: there is no such program on PATH.
        ConfigError: there is no such folder.
    """

    local = True

    def __init__(self, path: str, *, share: float | None = None, command: str = "vllm") -> None:
        if (program := shutil.which(command)) is None:
            raise MissingExtra(
                f"the command {command!r} is not installed",
                where="--engine vllm",
                todo="pip install vllm in an environment of its own and put its bin on PATH, or start it yourself and "
                "give --model http/MODEL@http://HOST:PORT/v1",
            )
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ConfigError(f"no model in {path!r}", where="--model", todo="give a folder that holds config.json")
        self.name = f"vllm/{folder.name}"
        self._arguments = [program, "serve", str(folder), "--served-model-name", folder.name]
        self._arguments += ["--gpu-memory-utilization", str(share)] if share is not None else []
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._behind: HttpModel | None = None
        self._said: IO[bytes] | None = None

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        """`n` replies, as of `HttpModel`."""
        return await self._http().generate(messages, n, sampling)

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        """Pieces of one reply as they come."""
        async for piece in self._http().stream(messages, sampling):
            yield piece

    async def stream_reply(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str | Reply]:
        """Pieces of one reply as they come, then the whole reply."""
        async for piece in self._http().stream_reply(messages, sampling):
            yield piece

    def also(self, fields: Mapping[str, Any]) -> HttpModel:
        """It with more fields in every request."""
        return self._http().also(fields)

    async def check(self) -> str:
        """One line that says it answers; starts the process at the first call and waits until it does.

        Raises:
            ModelError: the process ended; the message has the last line it wrote.
        """
        if self._process is None:
            await self._start()
        behind, process = self._http(), self._process
        while process is not None and process.returncode is None:
            with contextlib.suppress(ModelError):
                return await behind.check()
            await asyncio.sleep(_EVERY)
        todo = "see what it wrote: run the command by hand"
        raise ModelError(f"vLLM ended: {self._last_line()}", where=" ".join(self._arguments), todo=todo)

    async def aclose(self) -> None:
        """Closes the connections and ends the process with all that it started."""
        if self._behind is not None:
            await self._behind.aclose()
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        if self._said is not None:
            self._said.close()

    async def _start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own: Ctrl-C is for this process, which lets requests end before it ends the other.
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments, "--host", "127.0.0.1", "--port", str(port), stdin=asyncio.subprocess.DEVNULL,
            stdout=self._said, stderr=self._said, start_new_session=True,
        )  # fmt: skip
        self._behind = HttpModel(self._folder.name, f"http://127.0.0.1:{port}/v1")

    def _http(self) -> HttpModel:
        if self._behind is None:
            raise ModelError(f"{self.name} is not started", where=self.name, todo="call check() first")
        return self._behind

    def _last_line(self) -> str:
        if self._said is None:
            return "nothing was written"
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing was written")


async def _end(process: asyncio.subprocess.Process) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # its workers are in its group, also when it is gone itself
            os.killpg(process.pid, sign)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
                return


__all__ = ["VllmModel"]
