from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.errors import ConfigError
from verbal.models import (
    FORMS,
    Retry,
    open_model,
    parse_model,
)
from verbal.types import Message

ASK = [Message(role="user", content="hello")]
FAST = Retry(attempts=4, first=0.001, longest=0.01)


def test_names_of_models() -> None:
    assert parse_model("http/org/m@https://h:1/v1").config == {"model": "org/m", "url": "https://h:1/v1"}
    assert parse_model("embedded:/a b/w.safetensors").config == {"path": "/a b/w.safetensors"}
    assert parse_model("ollama/llama3").part == "litellm" and parse_model(" embedded ").part == "embedded"
    for bad in (
        "",
        "gpt-4o",
        "openai/",
        "/x",
        "http/m",
        "litellm/x",
        "embedded/x",
        "http/m@ftp://h",
        "a b/c",
        "x/y@http://h",
    ):
        with pytest.raises(ConfigError) as caught:
            parse_model(bad)
        assert all(form in str(caught.value) for form in FORMS), bad


@given(st.text(max_size=30))
def test_any_name_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_model(text).part


def test_a_users_model_and_bad_options(tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    name = 'mine/x'\n    def __init__(self, *, timeout=1):\n        self.t = timeout\n"
    )
    assert open_model(f"{tmp_path}/mine.py:Mine", timeout=3).t == 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="temprature"):
        open_model("openai/gpt-4o", temprature=1)


def test_importing_is_light() -> None:
    code = """
import sys, verbal.models
verbal.models.parse_model("openai/x")
heavy = {"litellm", "openai", "anthropic", "aiohttp", "numpy", "torch", "tenacity"} & set(sys.modules)
assert not heavy, heavy
for spec in ("openai/x", "anthropic/x", "groq/x", "http/x@http://h"):
    verbal.models.open_model(spec)
from verbal.models import ModelCalls, find_price
assert find_price("openai/gpt-4o")
heavy = {"litellm", "openai", "anthropic", "aiohttp", "numpy", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
