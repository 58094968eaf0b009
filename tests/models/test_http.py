from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.contracts import Model, Sampling
from verbal.errors import ConfigError, ContextLengthError, ModelError, RefusedError, TransientError, UnknownName
from verbal.models import OverloadedError, open_model
from verbal.models._faults import fault, read_retry_after, redact
from verbal.models._wire import read_events, read_replies, read_stream
from verbal.models.http import HttpModel
from verbal.types import Message, ToolCall

ASK = [Message(role="system", content="be brief"), Message(role="user", content="hello")]
TOOL = {"type": "function", "function": {"name": "query", "parameters": {"type": "object"}}}


@pytest.fixture
async def model(openai_server: Any, keys: str) -> Any:
    model = HttpModel("tiny-1", f"{openai_server.url}/v1", timeout=5)
    yield model
    await model.aclose()


def test_it_is_a_model_and_shows_no_key(keys: str) -> None:
    model = open_model("http/org/tiny-1@http://127.0.0.1:1/v1/")
    assert isinstance(model, Model) and isinstance(model, HttpModel)
    assert (model.model, model.url, model.name) == ("org/tiny-1", "http://127.0.0.1:1/v1", "http/org/tiny-1")
    assert keys not in repr(model) + str(vars(model))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http:///v1", "http://user:pw@host/v1"])
def test_a_bad_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpModel("m", url)
    assert "pw" not in str(caught.value)


async def test_n_replies_come_in_order_with_exact_usage(model: Any, openai_server: Any, keys: str) -> None:
    replies = await model.generate(ASK, 3, Sampling(temperature=0.5, seed=4, stop=("END",), top_p=0.9))
    assert [r.text for r in replies] == ["reply 0 to hello", "reply 1 to hello", "reply 2 to hello"]
    assert [r.usage.calls for r in replies] == [1, 0, 0]
    assert [r.usage.prompt_tokens for r in replies] == [7, 0, 0]
    assert sum(r.usage.completion_tokens for r in replies) == 12
    assert {r.usage.cost for r in replies} == {None}
    (body,) = openai_server.seen
    assert body["n"] == 3 and body["seed"] == 4 and body["temperature"] == 0.5 and body["stop"] == ["END"]
    assert openai_server.headers[0]["authorization"] == f"Bearer {keys}"


async def test_only_what_is_set_is_sent(model: Any, openai_server: Any) -> None:
    await model.generate(ASK, 1, Sampling(temperature=None, max_tokens=9))
    assert set(openai_server.seen[0]) == {"model", "messages", "max_tokens"}


async def test_extra_fields_are_sent(openai_server: Any) -> None:
    model = HttpModel("tiny-1", openai_server.url, extra={"top_k": 5})
    await model.generate(ASK, 1, Sampling())
    await model.aclose()
    assert openai_server.seen[0]["top_k"] == 5


async def test_a_server_without_n_gets_single_calls_with_seeds(model: Any, openai_server: Any) -> None:
    openai_server.ignores_n = True
    assert len(await model.generate(ASK, 3, Sampling(seed=10))) == 3
    assert sorted(b["seed"] for b in openai_server.seen) == [10, 11, 12] and model.one_per_call
    assert [b.get("n") for b in openai_server.seen] == [3, None, None]


async def test_logprobs_and_token_ids_when_given(model: Any, openai_server: Any) -> None:
    (reply,) = await model.generate(ASK, 1, Sampling(logprobs=True))
    assert reply.logprobs == (-0.5,) * 4 and reply.token_ids == (5, 1, 2, 5)
    assert openai_server.seen[0]["return_token_ids"] is True
    (plain,) = await model.generate(ASK, 1, Sampling())
    assert plain.logprobs is None and plain.token_ids is None


async def test_tool_calls_both_ways(model: Any, openai_server: Any) -> None:
    call = ToolCall(id="c0", name="query", arguments='{"y": 2}')
    history = [*ASK, Message(role="assistant", content="", tool_calls=(call,))]
    history.append(Message(role="tool", content="3 rows", tool_call_id="c0"))
    (reply,) = await model.generate(history, 1, Sampling(tools=(TOOL,)))
    assert reply.text == "" and reply.finish == "tool_calls"
    assert reply.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1'),)
    sent = openai_server.seen[0]["messages"]
    assert sent[2]["content"] is None and sent[2]["tool_calls"][0]["function"] == {
        "name": "query",
        "arguments": '{"y": 2}',
    }
    assert sent[3] == {"role": "tool", "content": "3 rows", "tool_call_id": "c0"}


async def test_a_stream_gives_pieces_then_the_reply(model: Any, openai_server: Any) -> None:
    pieces = [p async for p in model.stream_reply(ASK, Sampling())]
    assert "".join(pieces[:-1]) == "reply 0 to hello " == pieces[-1].text
    assert (pieces[-1].usage.prompt_tokens, pieces[-1].usage.completion_tokens) == (7, 4)
    assert "".join([p async for p in model.stream(ASK, Sampling())]) == "reply 0 to hello "
    *_, tools = [p async for p in model.stream_reply(ASK, Sampling(tools=(TOOL,)))]
    assert tools.tool_calls == (ToolCall(id="c1", name="query", arguments='{"x": 1}'),)


async def test_a_server_that_does_not_stream_gives_one_piece(model: Any, openai_server: Any, servers: Any) -> None:
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    openai_server.plan.append(servers.says(200, body))
    assert [p async for p in model.stream(ASK, Sampling())] == ["whole"]


CUT = ['data: {"choices": [{"delta": {"content": "half"}}]}\n\n']


@pytest.mark.parametrize(
    ("events", "abort", "kind"),
    [
        (CUT, False, TransientError),
        (CUT, True, TransientError),
        ([*CUT, "data: [DONE]\n\n"], False, TransientError),
        (["data: {broken\n\n"], False, TransientError),
        (["data: [1, 2]\n\n"], False, TransientError),
        (['data: {"error": {"message": "busy", "code": 503}}\n\n'], False, OverloadedError),
        (['data: {"error": {"message": "no", "type": "invalid_request_error"}}\n\n'], False, RefusedError),
    ],
)
async def test_a_broken_stream_is_an_error(
    model: Any, openai_server: Any, servers: Any, events: list[str], abort: bool, kind: type[ModelError]
) -> None:
    openai_server.plan.append(servers.streams(events, abort=abort))
    with pytest.raises(kind):
        _ = [p async for p in model.stream(ASK, Sampling())]


@pytest.mark.parametrize(
    ("status", "message", "code", "kind"),
    [
        (400, "content refused", "content_policy_violation", RefusedError),
        (400, "This model's maximum context length is 4096 tokens", "", ContextLengthError),
        (400, "too long", "context_length_exceeded", ContextLengthError),
        (400, "the request exceeds the available context size", "", ContextLengthError),
        (401, "bad key", "", RefusedError),
        (402, "pay", "", RefusedError),
        (403, "no", "", RefusedError),
        (404, "no such model", "", RefusedError),
        (408, "slow", "", TransientError),
        (409, "conflict", "", TransientError),
        (413, "body too large", "", RefusedError),
        (422, "bad", "", RefusedError),
        (429, "too many tokens per minute", "", OverloadedError),
        (429, "You exceeded your current quota", "insufficient_quota", RefusedError),
        (500, "oops", "", TransientError),
        (501, "not made", "", RefusedError),
        (502, "bad gateway", "", TransientError),
        (503, "loading", "", OverloadedError),
        (529, "overloaded", "", OverloadedError),
    ],
)
async def test_statuses(
    model: Any,
    openai_server: Any,
    servers: Any,
    keys: str,
    status: int,
    message: str,
    code: str,
    kind: type[ModelError],
) -> None:
    openai_server.plan.append(servers.fails(status, f"{message} {keys}", code=code))
    with pytest.raises(ModelError) as caught:
        await model.generate(ASK, 1, Sampling())
    assert type(caught.value) is kind
    assert str(status) in str(caught.value) and message in str(caught.value) and openai_server.url in str(caught.value)
    assert keys not in str(caught.value) and caught.value.__cause__ is None
    assert len(openai_server.seen) == 1, "one attempt each"


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        ("", "", TransientError),
        ("{", "", TransientError),
        ("[" * 100_000, "", TransientError),
        ("[]", "", TransientError),
        ("null", "", TransientError),
        ("{}", "", TransientError),
        ('{"choices": []}', "", TransientError),
        ('{"choices": null}', "", TransientError),
        ('{"choices": [null]}', "", TransientError),
        ('{"choices": [{}]}', "", TransientError),
        ('{"choices": [{"message": {"content": 3}}]}', "", TransientError),
        ('{"choices": [{"message": {"content": null, "tool_calls": [{}]}}]}', "", TransientError),
        ('{"error": {"message": "inside"}}', "", ModelError),
        ("<!DOCTYPE html><html>sign in</html>", "text/html", ModelError),
        ("<html>", "", ModelError),
    ],
)
async def test_malformed_answers(
    model: Any, openai_server: Any, servers: Any, body: str, content_type: str, kind: type[ModelError]
) -> None:
    openai_server.plan.append(servers.says(200, body, content_type=content_type))
    with pytest.raises(ModelError) as caught:
        await model.generate(ASK, 1, Sampling())
    assert type(caught.value) is kind


async def test_odd_but_readable_answers(model: Any, openai_server: Any, servers: Any) -> None:
    def body(message: dict[str, Any], finish: Any = "stop") -> dict[str, Any]:
        return {"choices": [{"message": message, "finish_reason": finish}]}

    cases = [
        (body({"content": None}, "length"), "", "length"),
        (body({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "ab", "stop"),
        (body({"content": None, "refusal": "I will not"}, "content_filter"), "I will not", "content_filter"),
        (body({"content": "x"}, None), "x", "stop"),
        (body({"content": "x"}, "melted"), "x", "error"),
        (body({"content": "ünïcödé 😀 \u0000"}), "ünïcödé 😀 \u0000", "stop"),
    ]
    for data, text, finish in cases:
        openai_server.plan.append(servers.says(200, data))
        (reply,) = await model.generate(ASK, 1, Sampling())
        assert (reply.text, reply.finish, reply.usage.tokens) == (text, finish, 0)


@pytest.mark.parametrize("name", ["drops", "cuts"])
async def test_a_lost_connection_is_transient(model: Any, openai_server: Any, servers: Any, name: str) -> None:
    openai_server.always = getattr(servers, name)
    with pytest.raises(TransientError):
        await model.generate(ASK, 1, Sampling())


async def test_a_hanging_server_is_transient(openai_server: Any, servers: Any) -> None:
    openai_server.always = servers.hangs
    model = HttpModel("tiny-1", openai_server.url, timeout=0.1)
    with pytest.raises(TransientError, match=r"0\.1 s"):
        await model.generate(ASK, 1, Sampling())
    with pytest.raises(TransientError, match=r"0\.1 s"):
        _ = [p async for p in model.stream(ASK, Sampling())]
    await model.aclose()


async def test_a_refused_parameter_is_left_out_from_then_on(
    model: Any, openai_server: Any, servers: Any, caplog: Any
) -> None:
    message = "Unsupported value: 'temperature' does not support 0.0 with this model."
    openai_server.plan.append(servers.fails(400, message, code="unsupported_value", param="temperature"))
    openai_server.plan.append(servers.fails(400, "Use 'max_completion_tokens', 'max_tokens' is not supported"))
    for _ in range(2):
        with pytest.raises(TransientError):
            await model.generate(ASK, 1, Sampling())
    await model.generate(ASK, 1, Sampling())
    assert set(openai_server.seen[-1]) == {"model", "messages", "max_completion_tokens"}
    assert "'temperature'" in caplog.text
    # A parameter that changes the meaning is never dropped.
    openai_server.plan.append(servers.fails(400, "Unsupported parameter: 'stop'", param="stop"))
    with pytest.raises(RefusedError):
        await model.generate(ASK, 1, Sampling(stop=("x",)))


async def test_check_names_the_nearest_models(openai_server: Any, servers: Any, keys: str) -> None:
    url = f"{openai_server.url}/v1"
    good, bad = HttpModel("tiny-2", url), HttpModel("tiny-3", url)
    assert "ready" in await good.check()
    with pytest.raises(UnknownName, match=r"tiny-3(.|\n)*" + url + r"(.|\n)*tiny-"):
        await bad.check()
    openai_server.models_answer = servers.fails(401, f"key {keys} is wrong")
    with pytest.raises(ConfigError, match="VERBAL_HTTP_KEY") as caught:
        await good.check()
    assert keys not in str(caught.value)
    openai_server.models_answer = servers.fails(500, "offline")
    assert "not verified" in await good.check()
    openai_server.models_answer = servers.says(200, "<html>", content_type="text/html")
    with pytest.raises(ModelError, match="URL"):
        await good.check()
    for model in (good, bad):
        await model.aclose()


async def test_check_of_an_unreachable_server_and_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HttpModel("m", "http://127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="no server answers"):
        await model.check()
    await model.aclose()
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY"):
        await HttpModel("m", "http://127.0.0.1:9/v1", key_variable="MY_KEY").check()


def test_retry_after() -> None:
    assert read_retry_after({"Retry-After": "3"}) == 3
    assert read_retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    date = read_retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert date is not None and 90 < date <= 100
    assert read_retry_after({"retry-after": formatdate(time.time() - 100, usegmt=True)}) == 0
    for odd in ("", "soon", "-1", "nan", "inf"):
        assert read_retry_after({"retry-after": odd}) is None


@given(st.text(max_size=40))
def test_any_retry_after_header_is_read_without_a_crash(text: str) -> None:
    found = read_retry_after({"Retry-After": text})
    assert found is None or found >= 0


def test_redact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdef123456")
    text = redact("abcdef123456 sk-aaaabbbbcccc Authorization: Bearer xyz https://h/?key=qqq&a=1")
    assert text == "[SOME_API_KEY] [secret] Authorization: Bearer [secret] https://h/?key=[secret]&a=1"


def test_a_fault_is_clipped() -> None:
    assert len(str(fault(500, "x" * 100_000, where="w"))) < 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "usage", "prompt_tokens", "tool_calls", "function", "name", "index",
             "logprobs", "token_ids", "error", "arguments", "finish_reason", "id", "delta"]
        ),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        replies = read_replies(value, name="m", where="w")
    except ModelError:
        return
    assert all(isinstance(r.text, str) for r in replies)


@given(st.lists(json_values.filter(bool), max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
async def test_any_stream_is_read_or_refused(values: list[Any], done: bool) -> None:
    async def chunks() -> Any:
        for value in [*values, {"choices": [{"delta": {}, "finish_reason": "stop"}]}][: len(values) + done]:
            yield f"data: {json.dumps(value)}\n\n".encode()

    try:
        *pieces, reply = [p async for p in read_stream(chunks(), name="m", where="w")]
    except ModelError:
        return
    assert "".join(pieces) == reply.text


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"))), st.integers(1, 7))
async def test_events_survive_any_chunking(texts: list[str], size: int) -> None:
    raw = "".join(f"event: x\r\ndata: {json.dumps(t)}\r\n\r\n" for t in texts).encode()

    async def chunks() -> Any:
        for i in range(0, len(raw), size):
            yield raw[i : i + size]

    assert [json.loads(d) async for d in read_events(chunks())] == texts
