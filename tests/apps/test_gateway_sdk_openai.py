"""OpenAI's own SDK through the gateway: chat completions and responses, to servers of its kind and to other models."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from gateway_upstream import KEY, TOOL, Kept, Provider, between
from gateway_world import ASK, SCRIPT, sdk
from protocol_servers import says
from pydantic import BaseModel

from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import Gateway

FLAT = {"type": "function", **TOOL["function"]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Colour(BaseModel):
    name: str


@pytest.fixture
async def provider():
    async with Provider() as made:
        yield made


@pytest.fixture
async def forwarded(provider):
    """A route to an OpenAI-compatible server."""
    async with between(provider, "http/tiny-1@{url}/v1") as gateway, sdk(gateway, max_retries=0) as client:
        client.door = gateway.door
        yield client


@pytest.fixture
async def openais(provider, monkeypatch):
    """A route that passes the client's model name to OpenAI."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with (
        Gateway(routes=[Route(name="*", upstream="openai/*")], capture=(door := Kept())) as gateway,
        sdk(gateway) as client,
    ):
        client.door = door
        yield client


@pytest.fixture
async def scripted(tmp_path):
    """A model that is asked by the house's contract."""
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, SCRIPT)))
    async with Gateway(f"scripted:{path}") as gateway, sdk(gateway, max_retries=0) as client:
        yield client


# chat completions, passed on as they are ------------------------------------------------------------------------------


async def test_sdk_openai_chat_forwarded(forwarded, provider):
    made = await forwarded.chat.completions.create(
        model="any", messages=ASK, n=2, extra_body={"min_p": 0.1}, extra_headers={"x-private": "mine"}
    )
    assert [c.message.content for c in sorted(made.choices, key=lambda c: c.index)] == [
        "reply 0 to colours?", "reply 1 to colours?",
    ]  # fmt: skip
    assert provider.seen == [{"messages": ASK, "model": "tiny-1", "n": 2, "min_p": 0.1}]
    assert "x-private" not in provider.headers[0] and "authorization" not in provider.headers[0]
    kept = forwarded.door.last
    assert (kept.id, kept.status, kept.route, kept.answered_by) == ("x", 200, "any", "http/tiny-1")
    assert kept.reply.text == "reply 0 to colours?" and kept.usage.tokens == 15 and kept.usage.cost == 0.0
    assert [m.content for m in kept.messages] == ["colours?"] and forwarded.door.charged == [kept]


async def test_sdk_openai_chat_stream_forwarded(forwarded, provider):
    stream = await forwarded.chat.completions.create(model="any", messages=ASK, stream=True)
    chunks = [c async for c in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "reply 0 to colours? "
    assert {c.model for c in chunks} == {"tiny-1"}
    # Its usage is asked for, for the limits of the key, and kept from a client that did not ask.
    assert provider.seen[0]["stream_options"] == {"include_usage": True}
    kept = forwarded.door.last
    assert kept.usage.tokens == 11 and kept.reply.finish == "stop" and kept.first is not None
    options = {"include_usage": True}
    stream = await forwarded.chat.completions.create(model="any", messages=ASK, stream=True, stream_options=options)
    assert [c async for c in stream][-1].usage.total_tokens == 11


async def test_sdk_openai_tools_forwarded(forwarded, provider):
    made = await forwarded.chat.completions.create(model="any", messages=ASK, tools=[TOOL], tool_choice="required")
    assert made.choices[0].message.tool_calls[0].function.name == "look"
    assert provider.seen[0]["tools"] == [TOOL] and provider.seen[0]["tool_choice"] == "required"
    assert forwarded.door.last.reply.tool_calls[0].name == "look"


async def test_sdk_openai_tools_stream_forwarded(forwarded):
    async with forwarded.chat.completions.stream(model="any", messages=ASK, tools=[TOOL]) as stream:
        async for _ in stream:
            pass
        (call,) = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look", '{"x": 1}')
    assert forwarded.door.last.reply.tool_calls[0].arguments == '{"x": 1}'


async def test_sdk_openai_json_mode_and_images_forwarded(forwarded, provider):
    asked = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}]
    schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": Colour.model_json_schema()}}
    for wanted in ({"type": "json_object"}, schema):
        await forwarded.chat.completions.create(model="any", messages=asked, response_format=wanted)
        assert provider.seen[-1]["response_format"] == wanted and provider.seen[-1]["messages"] == asked
    assert forwarded.door.last.messages[0].content == "what is it?[image_url]"


async def test_sdk_openai_parses_what_follows_a_schema(forwarded, provider):
    def colour(_request, body):
        message = {"role": "assistant", "content": '{"name": "red"}'}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return says(200, provider.frame("chat.completion", body["model"], [choice]))(_request, body)

    provider.always = colour
    made = await forwarded.chat.completions.parse(model="any", messages=ASK, response_format=Colour)
    assert made.choices[0].message.parsed == Colour(name="red")
    assert provider.seen[0]["response_format"]["json_schema"]["strict"] is True
    again = await forwarded.responses.parse(model="any", input="hi", text_format=Colour)
    assert again.output_parsed == Colour(name="red")
    assert provider.seen[1]["response_format"]["json_schema"] == provider.seen[0]["response_format"]["json_schema"]


async def test_sdk_openai_without_asyncio(forwarded):
    def ask():
        with openai.OpenAI(base_url=str(forwarded.base_url), api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model="any", messages=ASK, stream=True)
            told = "".join(c.choices[0].delta.content or "" for c in stream)
            return told, client.responses.create(model="any", input="hi").output_text

    assert await asyncio.to_thread(ask) == ("reply 0 to colours? ", "reply 0 to hi")


async def test_sdk_openai_any_name_goes_on(openais, provider):
    made = await openais.chat.completions.create(model="large-1", messages=ASK)
    assert made.model == "large-1" and provider.headers[0]["authorization"] == f"Bearer {KEY}"
    assert openais.door.last.answered_by == "openai/large-1" and openais.door.last.route == "*"
    with pytest.raises(openai.NotFoundError, match="no model gpt-0"):
        await openais.chat.completions.create(model="gpt-0", messages=ASK)
    assert openais.door.last.status == 404 and "gpt-0" in openais.door.last.error


# responses ------------------------------------------------------------------------------------------------------------


async def test_sdk_openai_responses_forwarded(openais, provider):
    made = await openais.responses.create(model="tiny-1", input="hi", previous_response_id="resp_0", store=True)
    assert (made.id, made.output_text, made.usage.total_tokens) == ("resp_1", "reply to hi", 8)
    assert provider.seen[0]["previous_response_id"] == "resp_0"
    assert (openais.door.last.id, openais.door.last.reply.text) == ("resp_1", "reply to hi")


async def test_sdk_openai_responses_stream_forwarded(openais):
    async with openais.responses.stream(model="tiny-1", input="hi") as stream:
        told = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        made = await stream.get_final_response()
    assert ("".join(told).strip(), made.output_text) == ("reply to hi", "reply to hi")
    assert openais.door.last.reply.text == "reply to hi" and openais.door.last.usage.completion_tokens == 3


async def test_sdk_openai_responses(scripted):
    made = await scripted.responses.create(
        model="scripted/m",
        instructions="be short",
        input=[{"role": "user", "content": "colours?"}],
        metadata={"a": "b"},
    )
    assert (made.output_text, made.status, made.model) == ("red green blue", "completed", "scripted/m")
    assert made.id.startswith("resp_") and made.usage.output_tokens == 3 and made.metadata == {"a": "b"}
    assert made.instructions == "be short"
    cut = await scripted.responses.create(model="scripted/m", input="cut")
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_sdk_openai_responses_stream(scripted):
    events = [e async for e in await scripted.responses.create(model="scripted/m", input="colours?", stream=True)]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert list(dict.fromkeys(e.type for e in events)) == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "red green blue"
    assert events[-1].response.output_text == "red green blue" and events[-1].response.usage.output_tokens == 3


async def test_sdk_openai_responses_stream_context(scripted):
    async with scripted.responses.stream(model="scripted/m", input="weather", tools=[FLAT]) as stream:
        kinds = [e.type async for e in stream]
        made = await stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    (call,) = made.output
    assert (call.name, json.loads(call.arguments), call.call_id) == ("look", {"at": "Graz"}, "c1")


async def test_sdk_openai_responses_tools_both_ways(forwarded, provider):
    asked = [{"role": "user", "content": "weather"}]
    made = await forwarded.responses.create(model="any", input=asked, tools=[FLAT])
    (call,) = made.output
    back = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    again = await forwarded.responses.create(model="any", input=[*asked, call.model_dump(), back])
    assert again.output_text == "reply 0 to sunny"
    function = {"name": "look", "arguments": call.arguments}
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    assert provider.seen[1]["messages"] == [*asked, called, {"role": "tool", "content": "sunny", "tool_call_id": "c1"}]


async def test_sdk_openai_responses_reach_a_chat_server_with_all_they_say(forwarded, provider):
    made = await forwarded.responses.create(
        model="any", input="hi", tools=[FLAT], reasoning={"effort": "low"}, parallel_tool_calls=False,
        tool_choice={"type": "function", "name": "look"}, max_output_tokens=7,
        text={"format": {"type": "json_schema", "name": "c", "schema": {"type": "object"}, "strict": True}},
    )  # fmt: skip
    assert made.output[0].name == "look"
    sent = provider.seen[0]
    assert sent["response_format"]["json_schema"] == {"name": "c", "schema": {"type": "object"}, "strict": True}
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "look"}} and sent["max_tokens"] == 7
    assert (sent["reasoning_effort"], sent["parallel_tool_calls"], sent["tools"]) == ("low", False, [TOOL])


async def test_sdk_openai_responses_refused(scripted):
    for more in ({"previous_response_id": "resp_0"}, {"store": True}, {"background": True}):
        with pytest.raises(openai.BadRequestError, match="send the whole conversation"):
            await scripted.responses.create(model="scripted/m", input="x", **more)
    with pytest.raises(openai.BadRequestError, match="only functions"):
        await scripted.responses.create(model="scripted/m", input="x", tools=[{"type": "web_search"}])
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError):
            await scripted.responses.create(model="scripted/m", input="busy", stream=stream)


# both -----------------------------------------------------------------------------------------------------------------


async def test_sdk_openai_lessons_and_keys(provider):
    async with between(provider, "http/tiny-1@{url}/v1", door=Kept("Lesson: be kind.")) as gateway:
        async with sdk(gateway, max_retries=0) as client:
            asked = [{"role": "system", "content": "You help."}, *ASK]
            raw = await client.chat.completions.with_raw_response.create(model="any", messages=asked)
            assert raw.headers["x-verbal-lessons"] == "r3,r12"
            assert provider.seen[0]["messages"][0]["content"] == "You help.\n\nLesson: be kind."
            assert [m.content for m in gateway.door.last.messages] == ["You help.", "colours?"]
            await client.responses.create(model="any", input="hi")
            assert provider.seen[1]["messages"][0] == {"role": "system", "content": "Lesson: be kind."}
        async with sdk(gateway, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="no such key"):
                await client.models.list()


async def test_sdk_openai_models(forwarded):
    assert [m.id async for m in forwarded.models.list()] == ["any"]
    assert (await forwarded.models.retrieve("any")).id == "any"
    with pytest.raises(openai.NotFoundError, match="served: any"):
        await forwarded.chat.completions.create(model="gpt-9", messages=ASK)
