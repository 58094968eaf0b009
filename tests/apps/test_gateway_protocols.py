"""The protocols without a network: what is read, what is written, and that both agree; routes from a file."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
from gateway_world import ASK

from verbal.apps.gateway.answers import Head
from verbal.apps.gateway.fields import with_lessons
from verbal.apps.gateway.forms import CHAT, FORMS, MESSAGES, RESPONSES
from verbal.apps.gateway.forward import Events, put_model
from verbal.apps.gateway.messages import write_more
from verbal.apps.gateway.refusal import Refusal
from verbal.apps.gateway.routes import Route, find_route, read_routes
from verbal.contracts import Reply
from verbal.errors import ConfigError, ModelError, UnknownName
from verbal.types import Message, ToolCall, Usage

VALUES = [
    None, True, 0, -1, 1.5, "", "x", [], {}, [1], ["a"], [None], {"type": "text"}, {"type": "tool", "name": "f"},
    {"format": {"type": "json_schema", "name": "a", "schema": {}}}, {"format": 3}, {"effort": "low"}, "auto",
    [{"role": "user", "content": "x"}], [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}],
    [{"type": "function", "name": "f"}], [{"type": "function_call", "name": "f", "arguments": "{}"}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}],
    [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}],
    [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}], [{"name": "f"}],
]  # fmt: skip
NAMES = [
    "model", "messages", "input", "n", "stop", "tools", "stream_options", "top_p", "max_tokens", "max_output_tokens",
    "system", "instructions", "tool_choice", "text", "reasoning", "output_config", "stop_sequences", "other", "store",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_a_random_body_is_read_or_refused_and_can_be_taught(form):
    draw = random.Random(11)
    read = 0
    for _ in range(1500):
        body = {name: draw.choice(VALUES) for name in draw.sample(NAMES, draw.randint(0, 7))} | {"model": "m"}
        for loose in (False, True):
            try:
                found = form.read(body, loose=loose)
            except Refusal as refused:
                assert refused.status == 400 and json.dumps(refused.body) and refused.anthropic["type"] == "error"
            else:
                assert found.messages or loose
                read += 1
        before = json.dumps(body)
        taught = dict(body)
        form.teach(taught, "be kind")
        assert json.dumps(body) == before
    assert read > 50


def random_reply(draw):
    text = "".join(draw.choices(["a ", "é", "\n", '"', "data: ", "\n\n", "\ud83d"], k=draw.randint(0, 8)))
    calls = tuple(
        ToolCall(id=f"c{i}", name="look", arguments=json.dumps({"x": draw.choice(["", 'é"', 3])}, ensure_ascii=False))
        for i in range(draw.randint(0, 2))
    )
    usage = Usage(calls=1, prompt_tokens=draw.randint(0, 9), completion_tokens=draw.randint(0, 9), cost=None)
    finish = "tool_calls" if calls else draw.choice(["stop", "length", "content_filter"])
    return Reply(text=text, finish=finish, usage=usage, model="m", tool_calls=calls)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_what_is_written_is_heard_alike_whole_and_streamed_however_it_is_cut(form):
    draw = random.Random(13)
    asked = {"model": "m", "input": "x"} if form is RESPONSES else {"model": "m", "max_tokens": 9, "messages": ASK}
    more = {"stream_options": {"include_usage": True}} if form is CHAT else {}
    head = Head(id="i1", model="m", asked=form.read(asked | more | {"stream": True}), body=asked)
    for _ in range(300):
        reply = random_reply(draw)
        if form is RESPONSES and reply.tool_calls:
            reply = Reply(
                text=reply.text, finish="tool_calls", usage=reply.usage, model="m", tool_calls=reply.tool_calls
            )
        heard = form.heard("m")
        assert heard.whole(json.loads(json.dumps(form.writer(head).whole([reply])))) == reply and heard.id == "i1"
        writer, heard, events = form.writer(head), form.heard("m"), Events()
        cuts = sorted(draw.randint(0, len(reply.text)) for _ in range(draw.randint(0, 3)))
        pieces = [reply.text[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply.text)], strict=True)]
        raw = writer.begin() + b"".join(writer.piece(0, p) for p in pieces if p) + writer.piece(0, reply) + writer.end()
        told, passed, rest = "", b"", raw
        while rest:
            size = draw.randint(1, 200)
            for event, data in events.feed(rest[:size]):
                passed += event
                told += heard.add(json.loads(data)) if data != b"[DONE]" else ""
            rest = rest[size:]
        assert (passed, told, heard.reply(), heard.id) == (raw, reply.text, reply, "i1")


def test_a_model_is_put_into_any_body_and_nothing_else_changes():
    draw = random.Random(17)
    words = ["model", '"model": "x"', "a", 1.5, 10**30, None, {"model": "y"}, ["model", "z"], "\ud83d"]
    for _ in range(1000):
        body = {draw.choice(["a", "b", "c"]): draw.choice(words) for _ in range(draw.randint(0, 3))}
        body = dict(draw.sample(items := [*body.items(), ("model", draw.choice(["m", 'q"', "é"]))], len(items)))
        raw = json.dumps(body, indent=draw.choice([None, 2]), ensure_ascii=draw.choice([True, False]))
        if "\ud83d" in raw:
            continue
        assert json.loads(put_model(raw.encode(), body["model"], "new\\1")) == body | {"model": "new\\1"}


def test_lessons_stand_at_the_end_of_the_system_message():
    system, user = Message(role="system", content="short"), Message(role="user", content="x")
    assert with_lessons([user], "L") == (Message(role="system", content="L"), user)
    assert with_lessons([system, user], "L") == (system.replace(content="short\n\nL"), user)
    parts = [{"type": "text", "text": "short"}]
    for content, want in (("short", "short\n\nL"), (parts, [*parts, {"type": "text", "text": "L"}])):
        body = {"messages": [{"role": "developer", "content": content}, *ASK]}
        CHAT.teach(body, "L")
        assert body["messages"][0] == {"role": "developer", "content": want} and body["messages"][1:] == ASK
    body = {"instructions": "short"}
    RESPONSES.teach(body, "L")
    assert body == {"instructions": "short\n\nL"}


def test_what_anthropic_has_no_word_for_is_refused():
    for more in ({"logit_bias": {"1": 1}}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(Refusal, match="not supported by this model"):
            write_more(more)
    assert write_more({"parallel_tool_calls": False, "reasoning_effort": "low", "tool_choice": "none"}) == {
        "tool_choice": {"type": "none", "disable_parallel_tool_use": True}, "output_config": {"effort": "low"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "change", "param"),
    [
        (RESPONSES, {"input": []}, "input"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        (RESPONSES, {"text": {"format": {"type": "grammar"}}}, "text.format"),
        (RESPONSES, {"text": {"verbosity": "high"}}, "text.verbosity"),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        (RESPONSES, {"truncation": "auto"}, "truncation"),
        (RESPONSES, {"tool_choice": {"type": "mcp"}}, "tool_choice"),
        (RESPONSES, {"temprature": 1}, "temprature"),
        (RESPONSES, {"instructions": 3}, "instructions"),
        (RESPONSES, {"input": [3]}, "input[0]"),
        (RESPONSES, {"input": [{"role": "tool", "content": "x"}]}, "input[0]"),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        (RESPONSES, {"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        (RESPONSES, {"tool_choice": "some"}, "tool_choice"),
        (RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": 3}]}, "tools[0]"),
        (RESPONSES, {"reasoning": 3}, "reasoning"),
        (RESPONSES, {"text": 3}, "text"),
        (RESPONSES, {"text": {"other": 3}}, "text.other"),
        (MESSAGES, {"max_tokens": None}, "max_tokens"),
        (MESSAGES, {"temperature": 1.5}, "temperature"),
        (MESSAGES, {"top_k": 5}, "top_k"),
        (MESSAGES, {"tool_choice": {"type": "some"}}, "tool_choice"),
        (MESSAGES, {"messages": [{"role": "system", "content": "x"}]}, "messages[0]"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content"),
        (MESSAGES, {"output_config": {"format": {"type": "yaml"}}}, "output_config.format"),
        (MESSAGES, {"system": [{"type": "image"}]}, "system"),
        (MESSAGES, {"messages": []}, "messages"),
        (MESSAGES, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].tool_use_id"),
        (MESSAGES, {"output_config": {"other": 1}}, "output_config"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(form, change, param):
    asked = {"model": "m", "input": "x"} if form is RESPONSES else {"model": "m", "max_tokens": 9, "messages": ASK}
    with pytest.raises(Refusal) as found:
        form.read(asked | change)
    assert (found.value.status, found.value.param) == (400, param)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_what_another_server_writes_may_be_anything(form):
    draw = random.Random(19)
    kinds = ["message_start", "content_block_delta", "response.completed", "response.failed", "error", None]
    names = ["type", "message", "index", "delta", "choices", "response", "output", "content", "usage", "id", "error"]
    values = [
        *VALUES, {"id": 3}, [{"delta": {"content": 3}}], [{"message": {}}], {"text": 3, "type": "text_delta"},
        [{"type": "message", "content": 3}], [{"type": "message", "content": [3]}], [{"type": "function_call"}],
        {"output": [{"type": "message", "content": 3}]}, {"output": [], "usage": 3, "incomplete_details": 3},
        [{"type": "tool_use", "input": 3}], [{"type": "text", "text": 3}], [{"index": "x", "message": {"content": 3}}],
        [{"delta": {"tool_calls": 3}}], [{"delta": 3}], {"usage": {"input_tokens": "x"}},
    ]  # fmt: skip
    for _ in range(1000):
        heard = form.heard("m")
        event = {name: draw.choice(values) for name in draw.sample(names, draw.randint(0, 5))}
        event = draw.choice([event | {"type": draw.choice(kinds)}, event, draw.choice(values)])
        for read, given in ((heard.add, (event,)), (heard.whole, (event,)), (heard.reply, ())):
            with contextlib.suppress(ModelError):
                read(*given)
        assert heard.so_far().finish == "error" and isinstance(heard.id, str)


# routes ---------------------------------------------------------------------------------------------------------------


def written(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return path


def test_routes_are_read_from_a_file(tmp_path):
    text = """
        [routes.fast]
        upstream = "http/m@http://127.0.0.1:1/v1"
        memory = "chat-global"
        share = 1
        key = "MY_KEY"
        [routes."*"]
        upstream = "openai/*"
        capture = false
    """
    routes = read_routes(written(tmp_path, text))
    fast = Route(name="fast", upstream="http/m@http://127.0.0.1:1/v1", memory="chat-global", share=1.0, key="MY_KEY")
    assert routes == (fast, Route(name="*", upstream="openai/*", capture=False))
    assert find_route(routes, "fast") == fast and find_route(routes, "gpt-5").upstream == "openai/*"
    assert find_route(routes[:1], "gpt-5") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no routes"),
        ("routes = 3", "no routes"),
        ("[routes]", "no routes"),
        ("routes.a = 3", "a route is a table"),
        ("[routes.a", "is not TOML"),
        ('[route.a]\nupstream = "embedded"', "did you mean 'routes'"),
        ('[routes.a]\nupsteam = "embedded"', "did you mean 'upstream'"),
        ('[routes.a]\nmemory = "x"', "needs an upstream"),
        ('[routes.a]\nupstream = "embeded"', "not the name of a model"),
        ('[routes.a]\nupstream = "groq/*"', "name the model"),
        ('[routes.a]\nupstream = "embedded"\nshadow = "embeded"', "not the name of a model"),
        ('[routes.a]\nupstream = "embedded"\ntrials = "yes"', "trials is a bool"),
        ('[routes.a]\nupstream = "embedded"\nshare = 1.5', "share is from 0 to 1"),
        ('[routes.a]\nupstream = "embedded"\ntimeout = 0', "more than 0"),
        ('[routes.a]\nupstream = "embedded"\nkey = "K"', "only an http/ upstream"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, said):
    with pytest.raises(ConfigError) as found:
        read_routes(written(tmp_path, text))
    assert said in str(found.value)


def test_a_missing_file_and_two_keys_for_one_server_are_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_routes(tmp_path / "none.toml")
    upstream = 'upstream = "http/m@http://127.0.0.1:1/v1"'
    with pytest.raises(ConfigError, match="two keys"):
        read_routes(written(tmp_path, f'[routes.a]\n{upstream}\nkey = "A"\n[routes.b]\n{upstream}\nkey = "B"'))
    assert issubclass(UnknownName, ConfigError)
