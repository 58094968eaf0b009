"""The replay cache: what a reply depends on, and what is recorded of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import protocol_servers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_calls import ASK, TOOL, calls, stored

from verbal.cache import (
    Cache,
    RecordedModel,
    fingerprint_of,
    folder_digest,
    requests_of,
)
from verbal.contracts import Sampling
from verbal.errors import (
    ConfigError,
)
from verbal.ledger import Ledger, Limits
from verbal.models import ModelCalls, open_model
from verbal.models.embedded.model import SHIPPED
from verbal.models.http import HttpModel
from verbal.models.scripted import ScriptedModel
from verbal.store import Store
from verbal.types import Message, ToolCall, Usage

# keys -----------------------------------------------------------------------------------------------------------------

SAMPLING: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3, "stop": ("\n",), "tools": (TOOL,), "logprobs": True,
}  # fmt: skip
SAID: dict[str, Any] = {
    "role": "assistant", "content": "hello ", "tool_calls": (ToolCall(id="c", name="add"),), "tool_call_id": "c",
}  # fmt: skip


def key(
    model: str = "m", fingerprint: str = "f", messages: Sequence[Message] = ASK, sampling: Sampling | None = None
) -> str:
    return requests_of(model, fingerprint, messages, 1, sampling or Sampling())[0].key


def test_a_key_depends_on_every_field() -> None:
    assert set(SAMPLING) == {f.name for f in dataclasses.fields(Sampling)}, "a new field needs a line here"
    assert set(SAID) == {f.name for f in dataclasses.fields(Message)}
    keys = [key(), key(model="n"), key(fingerprint="g"), key(messages=ASK[1:]), key(messages=ASK[::-1])]
    keys += [key(sampling=Sampling(**{k: v})) for k, v in SAMPLING.items()]
    keys += [key(messages=[ASK[0], ASK[1].replace(**{k: v})]) for k, v in SAID.items()]
    keys += [r.key for r in requests_of("m", "f", ASK, 5, Sampling())[1:]]
    other = {"type": "function", "function": {"name": "add", "parameters": {"type": "array"}}}
    keys += [key(sampling=Sampling(tools=tools)) for tools in ((other,), (TOOL, other), (other, TOOL))]
    keys += [key(sampling=Sampling(stop=stop)) for stop in (("a", "b"), ("b", "a"), ("ab",))]
    keys += [key(sampling=Sampling(seed=0)), key(sampling=Sampling(temperature=None))]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 32 and int(k, 16) >= 0 for k in keys)


def test_equal_requests_have_equal_keys() -> None:
    assert key(messages=[m.replace() for m in ASK]) == key(messages=tuple(ASK))
    back = {"function": dict(reversed(list(TOOL["function"].items()))), "type": "function"}  # type: ignore[attr-defined]
    assert key(sampling=Sampling(tools=(TOOL,))) == key(sampling=Sampling(tools=(back,))), "no order among JSON keys"
    assert requests_of("m", "f", ASK, 2, Sampling())[0] == requests_of("m", "f", ASK, 9, Sampling())[0]


def test_equal_samplings_have_equal_keys() -> None:
    assert Sampling(temperature=0) == Sampling(temperature=0.0)
    assert key(sampling=Sampling(temperature=0)) == key(sampling=Sampling(temperature=0.0))


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from verbal.cache import requests_of\nfrom verbal.contracts import Sampling\n"
        "from verbal.types import Message\n"
        "ask = [Message(role='system', content='be brief'), Message(role='user', content='hello')]\n"
        "print([r.key for r in requests_of('m', 'f', ask, 3, Sampling(seed=1))])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{[r.key for r in requests_of('m', 'f', ASK, 3, Sampling(seed=1))]}\n"}


texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\x00\ud800\udfff\ufffd\n"), max_size=30)
conversations = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts), max_size=3
)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_tokens=st.integers(1, 10**6),
    seed=st.none() | st.integers(0, 2**31),
    stop=st.lists(texts, max_size=2).map(tuple),
    logprobs=st.booleans(),
)


@given(conversations, conversations, samplings, samplings)
def test_keys_differ_exactly_where_requests_differ(a: Any, b: Any, s: Sampling, t: Sampling) -> None:
    assert (key(messages=a) == key(messages=b)) is (a == b)
    assert (key(sampling=s) == key(sampling=t)) is (s == t)


@given(conversations, samplings, st.integers(1, 5))
def test_a_request_is_kept_in_short_form(messages: Any, sampling: Sampling, n: int) -> None:
    made = requests_of("a/b", "f", messages, n, sampling)
    assert len({r.key for r in made}) == n, "samples never collapse into one"
    for sample, request in enumerate(made):
        request.text.encode()
        data = json.loads(request.text)
        assert (data["model"], data["fingerprint"], data["sample"]) == ("a/b", "f", sample)
        assert len(data["messages"]) == len(messages)
        assert [m[:2] for m in data["messages"]] == [[m.role, len(m.content)] for m in messages]
        assert all(len(m[3]) <= 60 for m in data["messages"])


def test_a_very_long_prompt_is_not_kept() -> None:
    (request,) = requests_of("m", "", [Message(role="user", content="secret " * 10**6)], 1, Sampling())
    assert len(request.text) < 600


# models of one name ---------------------------------------------------------------------------------------------------


def test_a_fingerprint_tells_models_of_one_name_apart() -> None:
    assert fingerprint_of(ScriptedModel(lambda *_: "x")) == "", "nothing tells functions apart"
    a, b = ScriptedModel(["a"]), ScriptedModel(["b"])
    assert a.name == b.name and fingerprint_of(a) != fingerprint_of(b) != ""
    assert fingerprint_of(a) == fingerprint_of(ScriptedModel(["a"]))
    here, there = (HttpModel("m", f"http://127.0.0.1:{port}/v1") for port in (1, 2))
    assert fingerprint_of(here) != fingerprint_of(there)
    assert fingerprint_of(here, {"extra": {"effort": "low"}}) != fingerprint_of(here, {"extra": {"effort": "high"}})
    assert fingerprint_of(here, {"extra": {"a": 1, "b": 2}}) == fingerprint_of(here, {"extra": {"b": 2, "a": 1}})


@pytest.mark.parametrize("kind", ["embedded", "hf"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_other_weights_have_another_fingerprint(kind: str, name: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "one" / "mine")
    shutil.copytree(SHIPPED, tmp_path / "two" / "mine")
    same, other = (open_model(f"{kind}:{tmp_path / where / 'mine'}") for where in ("one", "two"))
    assert same.name == other.name and fingerprint_of(same) == fingerprint_of(other) != ""
    changed = bytearray((tmp_path / "two" / "mine" / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "two" / "mine" / name).write_bytes(changed)
    trained = open_model(f"{kind}:{tmp_path / 'two' / 'mine'}")
    assert trained.name == same.name and fingerprint_of(trained) != fingerprint_of(same)
    assert key(fingerprint=fingerprint_of(trained)) != key(fingerprint=fingerprint_of(same))


def test_the_shipped_weights_have_a_fingerprint() -> None:
    assert fingerprint_of(open_model("embedded")) == fingerprint_of(open_model("embedded")) != ""


def test_a_digest_sees_names_sizes_and_both_ends_of_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**26 + 5)
    found = {folder_digest(tmp_path)}

    def change(at: int, data: bytes) -> None:
        with large.open("r+b") as file:
            file.seek(at)
            file.write(data)
        found.add(folder_digest(tmp_path))

    for at in (0, 2**20 - 1, 2**26 - 2**20 + 5, 2**26 + 4, 2**26 + 5):
        change(at, b"x")
    large.rename(tmp_path / "renamed")
    found.add(folder_digest(tmp_path))
    (tmp_path / "more").write_bytes(b"")
    found.add(folder_digest(tmp_path))
    assert len(found) == 8


# record ---------------------------------------------------------------------------------------------------------------


async def test_what_was_asked_once_is_never_paid_again(server: Any, store: Store) -> None:
    model = HttpModel("tiny-1", server.url)
    first = calls(model, Cache(store, "a"))
    paid = await first.generate(ASK, 2, Sampling(seed=1))
    assert len(server.seen) == 1 and first.ledger.spent.calls == 1 and first.cache.hits == 0
    await model.aclose()

    model = HttpModel("tiny-1", server.url)
    again = calls(model, Cache(store, "b"), limits=Limits(max_calls=0, max_cost=0.0))
    assert await again.for_role("judge").generate(ASK, 2, Sampling(seed=1)) == paid
    assert len(server.seen) == 1 and again.cache.hits == 2
    assert again.ledger.spent == Usage() and store.usage("b") == {} and store.open_calls() == []
    keys = [r.key for r in requests_of(model.name, fingerprint_of(model), ASK, 2, Sampling(seed=1))]
    assert store.used_replies("a") == sorted((k, "solver") for k in keys)
    assert store.used_replies("b") == sorted((k, "judge") for k in keys), "whose replay will need them"
    assert [r["key"] for r in store.replies("b")] == sorted(keys)
    await again.aclose()


async def test_a_hit_needs_neither_slot_nor_server(store: Store) -> None:
    async with protocol_servers.OpenAIServer() as server:
        model = HttpModel("tiny-1", server.url)
        made = calls(model, Cache(store, "a"))
        paid = await made.generate(ASK, 1, Sampling())
        await made.aclose()
    made = calls(HttpModel("tiny-1", server.url), Cache(store, "b"), concurrency=1)
    async with made.concurrency.slot():
        assert await made.generate(ASK, 1, Sampling()) == paid
    assert not server.active and made.ledger.spent == Usage()
    await made.aclose()


async def test_samples_are_not_collapsed_and_more_of_them_ask_for_the_missing_only(server: Any, store: Store) -> None:
    made = calls(HttpModel("tiny-1", server.url), Cache(store, "r"))
    two = await made.generate(ASK, 2, Sampling(seed=10))
    assert len({r.text for r in two}) == 2
    four = await made.generate(ASK, 4, Sampling(seed=10))
    assert four[:2] == two and len(four) == 4
    assert [(b["n"], b["seed"]) for b in server.seen] == [(2, 10), (2, 12)], "not from where the first began"
    assert await made.generate(ASK, 4, Sampling(seed=10)) == four
    assert await made.generate(ASK, 1, Sampling(seed=10)) == two[:1]
    assert len(server.seen) == 2 and stored(store) == 4
    await made.generate(ASK, 4, Sampling(seed=11))
    assert server.seen[2]["n"] == 4 and stored(store) == 8
    await made.aclose()


async def test_a_provider_without_n_is_asked_for_the_missing_samples_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verbal.models.anthropic import AnthropicModel

    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    async with protocol_servers.AnthropicServer() as server:
        made = calls(AnthropicModel("tiny-1", url=server.url), Cache(store, "r"))
        for n, asked in ((2, 2), (4, 4), (3, 4)):
            assert len(await made.generate(ASK, n, Sampling())) == n
            assert len(server.seen) == asked
        assert stored(store) == 4
        await made.aclose()


async def test_off_neither_looks_nor_records(server: Any, store: Store) -> None:
    model = HttpModel("tiny-1", server.url)
    await calls(model, Cache(store, "r")).generate(ASK, 1, Sampling())
    made = calls(model, Cache(store, "off", mode="off"))
    for expected in (2, 3):
        await made.generate(ASK, 1, Sampling())
        assert len(server.seen) == expected
    await made.generate(ASK, 1, Sampling(seed=5))
    assert "".join([p async for p in made.stream(ASK, Sampling(seed=6))])
    assert stored(store) == 1 and store.used_replies("off") == [] and made.cache.hits == 0
    assert store.usage("off")["solver"].calls == 4, "what is not recorded is paid for, and counted"
    assert Cache(mode="record").mode == "off", "without a store there is nowhere to record"
    await made.aclose()


def test_an_unknown_mode_is_an_error(store: Store) -> None:
    with pytest.raises(ConfigError, match="no cache mode is named 'reply'") as caught:
        Cache(store, mode="reply")  # type: ignore[arg-type]
    assert "record, replay, off" in caught.value.todo


async def test_the_first_answer_counts_where_equal_calls_are_under_way_at_once(store: Store) -> None:
    """Two episodes ask the same at once; both are answered, differently; a replay knows one answer only."""
    gates = [asyncio.Event() for _ in range(3)]
    number = iter(range(3))

    async def answer(*_: Any) -> str:
        mine = next(number)
        await gates[mine].wait()
        return f"answer {mine}"

    model = ScriptedModel(answer)
    several = [calls(model, Cache(store, "r")) for _ in range(3)]
    tasks = [asyncio.ensure_future(c.generate(ASK, 1, Sampling())) for c in several]
    while model.calls < 3:
        await asyncio.sleep(0)
    said = []
    for at in (1, 0, 2):
        gates[at].set()
        said.append((await tasks[at])[0].text)
    assert said == ["answer 1"] * 3
    assert stored(store) == 1 and store.usage("r")["solver"].calls == 3, "each was paid for"
    again = calls(RecordedModel(model.name), Cache(store, "again", mode="replay"))
    assert (await again.generate(ASK, 1, Sampling()))[0].text == "answer 1"


async def test_the_first_answer_counts_sample_by_sample(store: Store) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    number = iter(range(4))

    async def answer(messages: Any, index: int, seed: int | None) -> str:
        mine = next(number)
        await gates[0 if mine == 0 else 1].wait()
        return f"call {mine} sample {index}"

    model = ScriptedModel(answer)
    # Two caches, as in two processes: within one, equal calls wait for each other.
    two = asyncio.ensure_future(calls(model, Cache(store, "r")).generate(ASK, 2, Sampling()))
    one = asyncio.ensure_future(calls(model, Cache(store, "r")).generate(ASK, 1, Sampling()))
    while model.calls < 2:
        await asyncio.sleep(0)
    gates[1].set()
    (first,) = await one
    gates[0].set()
    assert (await two)[0] == first and (await two)[1].text.endswith("sample 1")


async def test_equal_calls_side_by_side_are_one_call(tmp_path: Path) -> None:
    asked = []

    async def answer(messages: Sequence[Message], index: int, seed: int | None) -> str:
        asked.append(index)
        await asyncio.sleep(0.01)
        return f"answer {len(asked)}"

    with Store(tmp_path / "v.db") as store:
        cache, ledger = Cache(store, "r"), Ledger(store=store, run="r")
        calls = ModelCalls(ScriptedModel(answer), cache=cache, ledger=ledger)
        said = await asyncio.gather(*(calls.generate(ASK, 1, Sampling()) for _ in range(5)))
        assert len(asked) == 1 and {r[0].text for r in said} == {"answer 1"}
        assert sum(u.calls for u in store.usage("r").values()) == 1 and cache.hits == 4
        other = asyncio.create_task(calls.generate(ASK, 1, Sampling(seed=1)))
        waits = asyncio.create_task(calls.generate(ASK, 1, Sampling(seed=1)))
        while len(asked) < 2:
            await asyncio.sleep(0)
        other.cancel()
        assert (await waits)[0].text == "answer 3", "the first one was stopped by its caller, so the second asks"
