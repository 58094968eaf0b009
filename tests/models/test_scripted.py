from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbal.contracts import Model, Reply, Sampling
from verbal.errors import ConfigError, ContextLengthError, DataError, ModelError, RefusedError, TransientError
from verbal.models import ModelCalls, OverloadedError, Retry, open_model
from verbal.models.scripted import ScriptedModel
from verbal.types import Message, ToolCall


def ask(text: str, turns: int = 0) -> list[Message]:
    earlier = [Message(role="assistant", content="earlier")] * turns
    return [Message(role="user", content=text), *earlier]


async def texts(model: ScriptedModel, messages: Sequence[Message], n: int = 1, seed: int | None = None) -> list[str]:
    return [r.text for r in await model.generate(messages, n, Sampling(seed=seed))]


async def test_turn_sample_and_seed_choose_the_reply() -> None:
    model = ScriptedModel(["a", "b", "c"])
    assert isinstance(model, Model) and model.name == "scripted/list"
    assert await texts(model, ask("x"), 4) == ["a", "b", "c", "a"]
    assert await texts(model, ask("x", turns=1)) == ["b"]
    assert await texts(model, ask("x"), seed=2) == ["c"]
    assert model.calls == 3 and "ready" not in await model.check()


async def test_a_file_with_matches(tmp_path: Path) -> None:
    file = tmp_path / "script.jsonl"
    rows: list[dict[str, Any]] = [
        {"match": "How many", "reply": ["SELECT COUNT(*) FROM t", "SELECT 1"]},
        {"match": "(?i)judge", "reply": "0.5", "finish": "length", "delay": 0.001},
        {"match": "tools", "tool_calls": [{"id": "1", "name": "query", "arguments": "{}"}]},
        {"reply": "I do not know"},
    ]
    file.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n", encoding="utf-8")
    model = open_model(f"scripted:{file}")
    assert isinstance(model, ScriptedModel) and model.name == "scripted/script"
    assert await texts(model, ask("How many?"), 2) == ["SELECT COUNT(*) FROM t", "SELECT 1"]
    assert await texts(model, ask("else")) == ["I do not know"]
    (reply,) = await model.generate(ask("Role: Judge"), 1, Sampling())
    assert (reply.text, reply.finish) == ("0.5", "length")
    (reply,) = await model.generate(ask("tools"), 1, Sampling())
    assert reply.tool_calls == (ToolCall(id="1", name="query", arguments="{}"),) and reply.finish == "tool_calls"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"reply": "a"}\n{"reply"', "2:9"),
        ("3", ":1"),
        ('{"replies": "a"}', ":1"),
        ('{"reply": 3}', ":1"),
        ('{"match": "("}', ":1"),
        ('{"match": "(", "reply": "a"}', ":1"),
        ('{"reply": "a", "error": "odd"}', ":1"),
        ('{"reply": "a", "finish": "odd"}', ":1"),
        ('{"reply": "a", "delay": "soon"}', ":1"),
        ('{"reply": "a", "tool_calls": [{"name": "x"}]}', ":1"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, content: str, place: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=f"bad.jsonl:?{place}"):
        ScriptedModel(file=file)


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"reply": "\xe9"}')
    for name in ("missing.jsonl", "latin.jsonl"):
        with pytest.raises(DataError, match=name):
            ScriptedModel(file=tmp_path / name)
    for options in ({}, {"replies": ["a"], "file": "f"}, {"replies": []}, {"replies": ["a"], "pick": "odd"}):
        with pytest.raises(ConfigError):
            ScriptedModel(**options)  # type: ignore[arg-type]


async def test_errors() -> None:
    kinds = {"transient": TransientError, "overloaded": OverloadedError, "refused": RefusedError}
    kinds |= {"context": ContextLengthError, "model": ModelError}
    for name, kind in kinds.items():
        for _ in range(2):
            model = ScriptedModel([{"error": name}])
            with pytest.raises(ModelError) as caught:
                await texts(model, ask("x"))
            assert type(caught.value) is kind
    with pytest.raises(RefusedError, match="no row"):
        await texts(ScriptedModel([{"match": "a", "reply": "b"}]), ask("x"))


async def test_a_transient_error_is_over_after_its_times() -> None:
    model = ScriptedModel([{"error": "overloaded", "times": 2, "reply": "at last", "retry_after": 0.001}])
    calls = ModelCalls(model, retry=Retry(first=0.001))
    for text in ("x", "y"):
        (reply,) = await calls.generate(ask(text), 1, Sampling())
        assert reply.text == "at last"
    assert model.calls == 6


async def test_functions() -> None:
    def upper(messages: Sequence[Message], index: int, seed: int | None) -> str:
        return f"{messages[-1].content.upper()} {index} {seed}"

    async def later(messages: Sequence[Message], index: int, seed: int | None) -> Any:
        return Reply(text="r", finish="length") if index else {"reply": "m", "finish": "length"}

    assert await texts(ScriptedModel(upper), ask("x"), 2, seed=7) == ["X 0 7", "X 1 7"]
    replies = await ScriptedModel(later).generate(ask("x"), 2, Sampling())
    assert [(r.text, r.finish) for r in replies] == [("m", "length"), ("r", "length")]


async def test_usage_and_streams() -> None:
    model = ScriptedModel(["one two  three\n"])
    replies = await model.generate(ask("a b"), 2, Sampling())
    assert [(r.usage.calls, r.usage.prompt_tokens, r.usage.completion_tokens) for r in replies] == [
        (1, 2, 3),
        (0, 0, 3),
    ]
    assert {r.usage.cost for r in replies} == {0.0}


@given(st.text(max_size=30))
async def test_a_stream_joins_to_the_reply(text: str) -> None:
    model = ScriptedModel([text])
    assert "".join([p async for p in model.stream(ask("x"), Sampling())]) == text


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3)), max_size=10), st.randoms(use_true_random=False))
async def test_the_order_of_calls_does_not_matter(keys: list[tuple[str, int]], rng: random.Random) -> None:
    shuffled = list(keys)
    rng.shuffle(shuffled)
    runs = []
    for order in (keys, shuffled):
        model = ScriptedModel([f"r{i}" for i in range(7)], pick="hash")
        runs.append({key: await texts(model, ask(key[0]), 3, seed=key[1]) for key in order})
    assert runs[0] == runs[1]
