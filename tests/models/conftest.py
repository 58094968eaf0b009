from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from types import ModuleType
from typing import Any

import protocol_servers
import pytest

from verbal.contracts import Reply, Sampling
from verbal.types import Message, Usage


class SlowModel:
    """A model whose calls wait until they are let go; it counts how many are under way."""

    name = "test/slow"

    def __init__(self, tokens: int = 1) -> None:
        self.go = asyncio.Event()
        self.active = self.most = self.calls = 0
        self.tokens = tokens

    async def generate(self, messages: Sequence[Message], n: int, sampling: Sampling) -> list[Reply]:
        self.calls += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.go.wait()
        finally:
            self.active -= 1
        usage = Usage(calls=1, prompt_tokens=self.tokens, completion_tokens=self.tokens, cost=None)
        return [Reply(text="done", usage=usage)] * n

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[str]:
        yield "a"
        await self.go.wait()
        yield "b"

    async def check(self) -> str:
        return "ok"

    async def aclose(self) -> None:
        return None


@pytest.fixture
def slow_model() -> SlowModel:
    return SlowModel()


@pytest.fixture
def servers() -> ModuleType:
    """The module protocol_servers.py."""
    return protocol_servers


@pytest.fixture
async def openai_server() -> AsyncIterator[Any]:
    async with protocol_servers.OpenAIServer() as server:
        yield server


@pytest.fixture
async def anthropic_server() -> AsyncIterator[Any]:
    async with protocol_servers.AnthropicServer() as server:
        yield server


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets a key for every provider; no error and no log may show it."""
    secret = "s3cret-key-that-must-not-leak"
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "VERBAL_HTTP_KEY"):
        monkeypatch.setenv(name, secret)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield secret
