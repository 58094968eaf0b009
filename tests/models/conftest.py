import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load() -> ModuleType:
    name = "verbal_test_protocol_servers"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("protocol_servers.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def servers() -> ModuleType:
    """The module protocol_servers.py."""
    return _load()


@pytest.fixture
async def openai_server() -> AsyncIterator[Any]:
    async with _load().OpenAIServer() as server:
        yield server


@pytest.fixture
async def anthropic_server() -> AsyncIterator[Any]:
    async with _load().AnthropicServer() as server:
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
