"""What was recorded, given back: errors, replays without a network, streams, round trips."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, get_args

import protocol_servers
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from recorded_calls import ASK, TOOL, calls, stored

from verbal.cache import (
    Cache,
    Recorded,
    RecordedModel,
    Request,
    fingerprint_of,
    recorded,
    requests_of,
)
from verbal.contracts import Reply, Sampling
from verbal.errors import (
    BudgetError,
    ContextLengthError,
    ModelError,
    RefusedError,
    ReplayMiss,
    TransientError,
)
from verbal.ledger import Limits
from verbal.models._wire import Finish
from verbal.models.http import HttpModel
from verbal.models.scripted import ScriptedModel
from verbal.store import Store
from verbal.types import Message, ToolCall, Usage

# errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "kind"),
    [
        (401, {}, RefusedError),
        (400, {"code": "context_length_exceeded"}, ContextLengthError),
        (418, {}, ModelError),
    ],
)
async def test_an_error_that_lasts_is_recorded_and_raised_again_in_a_replay_only(
    server: Any, store: Store, status: int, fields: dict[str, str], kind: type[ModelError]
) -> None:
    server.always = protocol_servers.fails(status, "it is so", **fields)
    model = HttpModel("tiny-1", server.url)
    made = calls(model, Cache(store, "r"))
    for expected in (1, 2):
        with pytest.raises(kind) as first:
            await made.generate(ASK, 2, Sampling())
        assert len(server.seen) == expected, "an error is asked again: it may have been mended"
    assert stored(store) == 2 and made.cache.hits == 0
    replay = calls(RecordedModel(model.name), Cache(store, "again", mode="replay"), fingerprint=fingerprint_of(model))
    with pytest.raises(kind) as again:
        await replay.generate(ASK, 2, Sampling())
    assert type(again.value) is type(first.value) and str(again.value) == str(first.value)
    assert len(server.seen) == 2 and store.used_replies("again") and replay.ledger.spent == Usage()

    server.always = None
    mended = await made.generate(ASK, 2, Sampling())
    assert stored(store) == 2 and await replay.generate(ASK, 2, Sampling()) == mended, "a reply replaces an error"
    server.always = protocol_servers.fails(status, "it is so", **fields)
    assert await made.generate(ASK, 2, Sampling()) == mended
    await made.aclose()


async def test_an_error_that_passes_is_never_recorded(server: Any, store: Store, slow: Any) -> None:
    server.always = protocol_servers.fails(500, "busy")
    made = calls(HttpModel("tiny-1", server.url), Cache(store, "r"))
    with pytest.raises(TransientError):
        await made.generate(ASK, 1, Sampling())
    with pytest.raises(TransientError):
        await calls(slow, Cache(store, "r"), timeout=0.01).generate(ASK, 1, Sampling())
    with pytest.raises(BudgetError):
        await calls(slow, Cache(store, "r"), limits=Limits(max_calls=0)).generate(ASK, 1, Sampling())
    task = asyncio.ensure_future(calls(slow, Cache(store, "r")).generate(ASK, 1, Sampling()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stored(store) == 0
    server.always = None
    await made.generate(ASK, 1, Sampling())
    assert stored(store) == 1
    await made.aclose()


@pytest.fixture
def slow() -> Any:
    class Slow(RecordedModel):
        local = False

        async def generate(self, *_: Any) -> list[Reply]:
            await asyncio.Event().wait()
            raise AssertionError

    return Slow("test/slow")


# replay ---------------------------------------------------------------------------------------------------------------


async def test_a_replay_opens_no_connection(server: Any, store: Store, tmp_path: Path) -> None:
    model = HttpModel("tiny-1", server.url)
    made = calls(model, Cache(store, "r"))
    paid = await made.generate(ASK, 3, Sampling())
    before = (len(server.seen), len(server.headers))
    with Store(tmp_path / "other.db") as other:
        # Even with the real model behind it, which the command line never does.
        replay = calls(model, Cache(other, "again", mode="replay", source=store))
        assert await replay.generate(ASK, 3, Sampling()) == paid
        assert [p async for p in replay.stream(ASK, Sampling())] == [paid[0].text]
        with pytest.raises(ReplayMiss):
            await replay.generate(ASK, 4, Sampling())
        with pytest.raises(ReplayMiss):
            [p async for p in replay.stream(ASK, Sampling(seed=1))]
        assert replay.ledger.spent == Usage() and other.usage() == {} and replay.cache.hits == 3 + 1
        # What the replay used is in its own store, which can be replayed in turn.
        assert other.used_replies("again") == store.used_replies("r")
        twice = calls(model, Cache(other, "twice", mode="replay"))
        assert await twice.generate(ASK, 3, Sampling()) == paid
    assert (len(server.seen), len(server.headers)) == before
    await made.aclose()


async def test_what_stands_for_a_model_in_a_replay_cannot_be_called() -> None:
    model = RecordedModel("a/b", "f")
    assert "from the recording" in await model.check()
    with pytest.raises(ReplayMiss, match="a/b was called in a replay"):
        await model.generate(ASK, 1, Sampling())
    with pytest.raises(ReplayMiss):
        [p async for p in model.stream(ASK, Sampling())]
    await model.aclose()


BASE = Sampling(seed=1, stop=("x",))
OTHER_SAMPLING = [
    ("temperature", 0.5, r"recorded 0\.0, asked 0\.5"),
    ("top_p", 0.5, r"recorded null, asked 0\.5"),
    ("max_tokens", 5, "recorded 1024, asked 5"),
    ("seed", 2, "recorded 1, asked 2"),
    ("stop", (), r"recorded \[\"x\"\], asked \[\]"),
    ("tools", (TOOL,), r"recorded \"\", asked \"\w+\""),
    ("logprobs", True, "recorded false, asked true"),
]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "c/d"}, "no call to c/d was recorded"),
        ({"fingerprint": "g"}, "fingerprint differs: recorded f, asked g\n"),
        ({"messages": ASK[:1]}, "the number of messages differs: recorded 2, asked 1\n"),
        (
            {"messages": [ASK[0].replace(role="user"), ASK[1]]},
            r"messages\[0\]\.role differs: recorded system, asked us",
        ),
        (
            {"messages": [ASK[0], ASK[1].replace(content="hallo")]},
            r"messages\[1\]\.content differs: recorded 'hello'\.\.\. \(5 characters, \w{8}\), asked 'hallo'\.\.\. \(5",
        ),
        *(
            ({"sampling": dataclasses.replace(BASE, **{name: value})}, rf"sampling\.{name} differs: {said}")
            for name, value, said in OTHER_SAMPLING
        ),
        ({"n": 2}, "sample differs: recorded 0, asked 1"),
    ],
)
def test_a_miss_names_the_first_field_that_differs(changed: dict[str, Any], said: str, store: Store) -> None:
    asked: dict[str, Any] = {"model": "a/b", "fingerprint": "f", "messages": ASK, "n": 1, "sampling": BASE}
    far = requests_of("a/b", "other", [Message(role="user", content="far off")], 1, Sampling(seed=9))
    for request in [*requests_of(**asked), *far]:
        store.put_replies([recorded(request, "a/b", Reply(text="x")).row])
    with pytest.raises(ReplayMiss, match=said) as caught:
        Cache(store, "again", mode="replay").find(requests_of(**{**asked, **changed}), "solver")
    error = caught.value
    assert error.what.startswith("this call was never recorded; ")
    assert "run 'again', " in error.where and "sample " in error.where and "--cache record" in error.todo


def test_a_miss_in_a_tool_call_or_its_id_names_the_message(store: Store) -> None:
    (request,) = requests_of("a/b", "", ASK, 1, Sampling())
    store.put_replies([recorded(request, "a/b", Reply(text="x")).row])
    for change in ({"tool_calls": (ToolCall(id="c", name="add"),)}, {"tool_call_id": "c"}):
        asked = requests_of("a/b", "", [ASK[0], ASK[1].replace(**change)], 1, Sampling())
        with pytest.raises(ReplayMiss, match=r"messages\[1\]\.content differs"):
            Cache(store, "again", mode="replay").find(asked, "solver")


def test_a_miss_in_an_empty_recording_says_so(store: Store) -> None:
    with pytest.raises(ReplayMiss, match="no call to a/b was recorded"):
        Cache(store, "r", mode="replay").find(requests_of("a/b", "", ASK, 1, Sampling()), "solver")


# streams --------------------------------------------------------------------------------------------------------------


async def test_streams_are_recorded_and_replayed(server: Any, store: Store) -> None:
    model = HttpModel("tiny-1", server.url)
    made = calls(model, Cache(store, "r"))
    pieces = [p async for p in made.stream(ASK, Sampling())]
    assert len(pieces) > 1 and len(server.seen) == 1 and stored(store) == 1
    assert [p async for p in made.stream(ASK, Sampling())] == ["".join(pieces)]
    (reply,) = await made.generate(ASK, 1, Sampling())
    assert reply.text == "".join(pieces) and reply.usage.tokens == 11, "the same question, streamed or not"
    assert len(server.seen) == 1 and made.ledger.spent.calls == 1
    replay = calls(RecordedModel(model.name), Cache(store, "again", mode="replay"), fingerprint=fingerprint_of(model))
    assert [p async for p in replay.stream(ASK, Sampling())] == ["".join(pieces)]
    await made.aclose()


async def test_a_stream_of_tool_calls_is_replayed_as_no_text(server: Any, store: Store) -> None:
    made = calls(HttpModel("tiny-1", server.url), Cache(store, "r"))
    for _ in range(2):
        assert [p async for p in made.stream(ASK, Sampling(tools=(TOOL,)))] == []
    (reply,) = await made.generate(ASK, 1, Sampling(tools=(TOOL,)))
    assert reply.tool_calls[0].name == "add" and reply.finish == "tool_calls" and len(server.seen) == 1
    await made.aclose()


async def test_a_stream_that_broke_or_was_left_is_not_recorded(server: Any, store: Store) -> None:
    made = calls(HttpModel("tiny-1", server.url), Cache(store, "r"))
    stream: Any = made.stream(ASK, Sampling())
    await anext(stream)
    await stream.aclose()
    server.plan.append(protocol_servers.streams(['data: {"choices": [{"delta": {"content": "half"}}]}\n\n']))
    with pytest.raises(TransientError):
        [p async for p in made.stream(ASK, Sampling())]
    assert stored(store) == 0
    assert "".join([p async for p in made.stream(ASK, Sampling())]) and stored(store) == 1
    await made.aclose()


# round trip -----------------------------------------------------------------------------------------------------------


def _no_split_pair(text: str) -> bool:
    """Two halves of a surrogate pair in a row are one character to JSON, as they are to UTF-16."""
    return text == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


anything = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff"), max_size=40).filter(_no_split_pair)
replies = st.builds(
    Reply,
    text=anything,
    finish=st.sampled_from(get_args(Finish)),
    usage=st.builds(
        Usage,
        calls=st.integers(0, 3),
        prompt_tokens=st.integers(0, 2**40),
        completion_tokens=st.integers(0, 2**40),
        cost=st.none() | st.floats(0, 1e6),
        seconds=st.floats(0, 1e6),
    ),
    model=anything,
    tool_calls=st.lists(st.builds(ToolCall, id=anything, name=anything, arguments=anything), max_size=3).map(tuple),
    token_ids=st.none() | st.lists(st.integers(0, 2**31), max_size=5).map(tuple),
    logprobs=st.none() | st.lists(st.floats(max_value=0.0, allow_nan=False), max_size=5).map(tuple),
)


@given(st.lists(replies, min_size=1, max_size=3), st.integers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_reply_comes_back_as_it_was(store: Store, made: list[Reply], number: int) -> None:
    asked = requests_of("m", "", [Message(role="user", content=f"{number} {made!r}")], len(made), Sampling())
    store.put_replies([recorded(q, "m", r).row for q, r in zip(asked, made, strict=True)])
    for mode in ("record", "replay"):
        found = Cache(store, "r", mode=mode).find(asked, "solver")  # type: ignore[arg-type]
        assert [found[i] for i in range(len(made))] == made
        assert [type(found[i].token_ids) for i in found] == [type(r.token_ids) for r in made]
    assert Cache(store, "r").first(asked, made) == made


@pytest.mark.parametrize(
    "text", ["", "\x00", "a\x00b", "\ud83d", "cut \udc00", "x" * 2_000_000, "\u2028\r\n\ufeff", "é😀" * 9]
)
async def test_odd_texts_pass_through_a_call(text: str, store: Store) -> None:
    model = ScriptedModel(lambda *_: Reply(text=text))
    ask = [Message(role="user", content=text)]
    (paid,) = await calls(model, Cache(store, "r")).generate(ask, 1, Sampling())
    (found,) = await calls(model, Cache(store, "s")).generate(ask, 1, Sampling())
    assert found == paid and found.text == text and model.calls == 1


@given(anything, anything, anything)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_error_comes_back_as_it_was(store: Store, what: str, where: str, todo: str) -> None:
    assume(what)
    for kind in (RefusedError, ContextLengthError, ModelError):
        (request,) = requests_of(
            "m", "", [Message(role="user", content=repr((what, where, todo, kind)))], 1, Sampling()
        )
        store.put_replies([recorded(request, "m", kind(what, where=where, todo=todo)).row])
        with pytest.raises(kind) as caught:
            Cache(store, "r", mode="replay").find([request], "solver")
        assert (caught.value.what, caught.value.where, caught.value.todo) == (what, where, todo)
        assert Cache(store, "r").find([request], "solver") == {}


def test_a_record_is_the_row_of_the_store() -> None:
    row = recorded(Request("k", "{}"), "m", Reply(text="x"))
    assert row.row == {"key": "k", "model": "m", "request": "{}", "reply": row.reply} and Recorded(**row.row) == row
    assert recorded(Request("k", "{}"), "m", RefusedError("no")).reply.startswith('{"error"'), "as the store expects it"


async def test_a_run_in_replay_mode_asks_no_server_whether_it_is_there(store: Store) -> None:
    """`verbal learn --cache replay`: the model is never checked, and the first call that is not recorded says so."""
    from verbal.recipe import parse_recipe
    from verbal.run import open_workshop

    sets = ['model.name="http/gone@http://127.0.0.1:9/v1"', 'model.cache="replay"', 'memory.name=""']
    async with open_workshop(parse_recipe("", sets), store, run="r") as shop:
        with pytest.raises(ReplayMiss, match="no call to http/gone was recorded"):
            await shop.roles("solver").generate(ASK, 1, Sampling())
