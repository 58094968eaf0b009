from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import protocol_servers
import pytest

from verbal.cli import main
from verbal.store import Store


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    async with protocol_servers.OpenAIServer() as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "v.db") as opened:
        yield opened


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Runs a command in this process; gives exit code, output (read as JSON when that was asked for), errors."""

    def run(*arguments: object) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["verbal", *map(str, arguments)])
        try:
            main()
            code: Any = 0
        except SystemExit as done:
            code = done.code or 0
        out = capsys.readouterr()
        return code, json.loads(out.out or "null") if "--json" in arguments else out.out, out.err

    return run
