"""Other clients through the gateway: Anthropic's own SDK, LangChain, LiteLLM; and protocols that meet another one."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest
from gateway_upstream import KEY, TOOL, Kept, Provider, between
from gateway_world import ASK, SCRIPT, sdk
from protocol_servers import says

from verbal.apps.gateway.exchange import Caller
from verbal.apps.gateway.routes import Route
from verbal.apps.gateway.server import Gateway

TOOLS = [{"name": "look", "description": "Looks", "input_schema": TOOL["function"]["parameters"]}]
THINKING = {"type": "enabled", "budget_tokens": 1024}


def claude(gateway, **options):
    key = options.pop("api_key", "none")
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=0, **options)


@pytest.fixture
async def provider():
    async with Provider() as made:
        yield made


@pytest.fixture
async def anthropics(provider, monkeypatch):
    """A route that passes the client's model name to Anthropic."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    async with Gateway(routes=[Route(name="*", upstream="anthropic/*")], capture=(door := Kept())) as gateway:
        gateway.door = door
        yield gateway


@pytest.fixture
async def chats(provider):
    """A route to an OpenAI-compatible server."""
    async with between(provider, "http/tiny-1@{url}/v1") as gateway:
        yield gateway


@pytest.fixture
async def scripted(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, SCRIPT)))
    async with Gateway(f"scripted:{path}") as gateway:
        yield gateway


# Anthropic's SDK ------------------------------------------------------------------------------------------------------


async def test_sdk_anthropic_forwarded(anthropics, provider):
    async with claude(anthropics) as client:
        system = [{"type": "text", "text": "short", "cache_control": {"type": "ephemeral"}}]
        made = await client.messages.create(
            model="tiny-1", max_tokens=9, messages=ASK, system=system, thinking=THINKING,
            extra_headers={"anthropic-beta": "b1", "x-private": "mine"},
        )  # fmt: skip
        assert (made.id, made.content[0].text, made.usage.output_tokens) == ("m", "reply to colours?", 3)
    sent, headers = provider.seen[0], provider.headers[0]
    assert (sent["model"], sent["system"], sent["thinking"]) == ("tiny-1", system, THINKING)
    assert (headers["x-api-key"], headers["anthropic-beta"]) == (KEY, "b1") and headers["anthropic-version"]
    assert "x-private" not in headers and "none" not in str(headers)
    kept = anthropics.door.last
    assert (kept.protocol, kept.id, kept.reply.text, kept.usage.tokens) == ("messages", "m", "reply to colours?", 10)
    assert [m.role for m in kept.messages] == ["system", "user"] and kept.answered_by == "anthropic/tiny-1"


async def test_sdk_anthropic_stream_forwarded(anthropics):
    asked = {"model": "tiny-1", "max_tokens": 9, "messages": ASK, "tools": TOOLS}
    async with claude(anthropics) as client, client.messages.stream(**asked) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        made = await stream.get_final_message()
    assert text == "reply to colours? " and (made.stop_reason, made.content[1].input) == ("tool_use", {"x": 1})
    kept = anthropics.door.last
    assert (kept.id, kept.reply.tool_calls[0].name, kept.usage.completion_tokens) == ("m", "look", 3)


async def test_sdk_anthropic_without_asyncio(scripted):
    asked = {"model": "scripted/m", "max_tokens": 9, "messages": ASK}

    def ask():
        with anthropic.Anthropic(base_url=scripted.url, api_key="none", max_retries=0) as client:
            with client.messages.stream(**asked) as stream:
                told = "".join(stream.text_stream)
            return told, client.messages.create(**asked).content[0].text

    assert await asyncio.to_thread(ask) == ("red green blue", "red green blue")


async def test_sdk_anthropic_counts_tokens(anthropics, chats, monkeypatch):
    async with claude(anthropics) as client:
        assert (await client.messages.count_tokens(model="tiny-1", messages=ASK)).input_tokens == 14
        assert (await client.models.retrieve("tiny-1")).id == "tiny-1"  # any name is served there
    async with claude(chats) as client:
        with pytest.raises(anthropic.NotFoundError, match="only routes to Anthropic"):
            await client.messages.count_tokens(model="any", messages=ASK)
        monkeypatch.setattr(chats.door, "admit", lambda headers: Caller(routes=("other",)))
        with pytest.raises(anthropic.PermissionDeniedError, match="may not use 'any'"):
            await client.messages.count_tokens(model="any", messages=ASK)


async def test_sdk_anthropic_messages(scripted):
    async with claude(scripted) as client:
        made = await client.messages.create(model="scripted/m", max_tokens=9, messages=ASK, system="be short")
        assert (made.content[0].text, made.stop_reason, made.model) == ("red green blue", "end_turn", "scripted/m")
        assert made.id.startswith("msg_") and (made.usage.input_tokens, made.usage.output_tokens) == (3, 3)
        asked = [{"role": "user", "content": [{"type": "text", "text": "cut"}]}]
        assert (
            await client.messages.create(model="scripted/m", max_tokens=9, messages=asked)
        ).stop_reason == "max_tokens"
        stopped = await client.messages.create(
            model="scripted/m",
            max_tokens=9,
            messages=[{"role": "user", "content": "colours"}],
            stop_sequences=["en bl"],
        )
        assert stopped.content[0].text == "red gre"
        assert [m.id async for m in client.models.list()] == ["scripted/m"]
        assert (await client.models.retrieve("scripted/m")).display_name == "scripted/m"


async def test_sdk_anthropic_stream(scripted):
    async with claude(scripted) as client:
        stream = await client.messages.create(model="scripted/m", max_tokens=9, messages=ASK, stream=True)
        events = [e async for e in stream]
    assert list(dict.fromkeys(e.type for e in events)) == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert "".join(e.delta.text for e in events if e.type == "content_block_delta") == "red green blue"
    assert events[-2].delta.stop_reason == "end_turn" and events[-2].usage.output_tokens == 3


async def test_sdk_anthropic_tools(scripted):
    asked = {"model": "scripted/m", "max_tokens": 9, "messages": [{"role": "user", "content": "weather"}]}
    async with claude(scripted) as client:
        made = await client.messages.create(**asked, tools=TOOLS)
        assert (made.stop_reason, made.content[0].name, made.content[0].input) == ("tool_use", "look", {"at": "Graz"})
        async with client.messages.stream(**asked, tools=TOOLS) as stream:
            again = await stream.get_final_message()
        assert (again.stop_reason, again.content[0].input) == ("tool_use", {"at": "Graz"})


async def test_sdk_anthropic_reaches_a_chat_server_with_all_it_says(chats, provider):
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "Graz"}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]}
    turns = [
        *ASK,
        {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
    ]
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    async with claude(chats) as client:
        made = await client.messages.create(
            model="any", max_tokens=9, messages=turns, system="short", tools=TOOLS, output_config={"format": schema},
            tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        )  # fmt: skip
    # What a model wrote that is no JSON object is kept under one name.
    assert made.content[0].input == {"arguments": '{"x": 1'}
    sent = provider.seen[0]
    roles = [m["role"] for m in sent["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    assert sent["messages"][2]["content"] == "I look." and sent["messages"][2]["tool_calls"][0]["id"] == "t1"
    assert sent["messages"][3] == {"role": "tool", "content": "sunny", "tool_call_id": "t1"}
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert sent["parallel_tool_calls"] is False and sent["response_format"]["json_schema"]["schema"] == {
        "type": "object"
    }


async def test_sdk_anthropic_errors(scripted, chats):
    async with claude(scripted) as client:

        async def ask(text, **more):
            asked = [{"role": "user", "content": text}]
            return await client.messages.create(**{"model": "scripted/m", "max_tokens": 9, "messages": asked} | more)

        for stream in (False, True):
            with pytest.raises(anthropic.RateLimitError, match="overloaded") as found:
                await ask("busy", stream=stream)
            assert found.value.response.headers["retry-after"] == "7"
            assert found.value.body["error"]["type"] == "rate_limit_error"
        with pytest.raises(anthropic.NotFoundError, match="served: scripted/m"):
            await ask("x", model="claude-9")
        with pytest.raises(anthropic.BadRequestError, match="thinking other than"):
            await ask("x", thinking=THINKING)
        with pytest.raises(anthropic.BadRequestError, match="list of parts of type text"):
            source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
            await ask([{"type": "image", "source": source}])
        with pytest.raises(anthropic.BadRequestError, match="only tools of the client"):
            await ask("x", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    async with claude(chats, api_key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError, match="no such key"):
            await client.models.list()


async def test_sdk_anthropic_lessons(provider, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    block = {"type": "text", "text": "short"}
    door = Kept("Lesson: be kind.")
    async with between(provider, "anthropic/tiny-2", door=door) as gateway, claude(gateway) as client:
        for system in ([block], "short", None):
            given = {"system": system} if system else {}
            raw = await client.messages.with_raw_response.create(model="any", max_tokens=9, messages=ASK, **given)
            assert raw.headers["x-verbal-lessons"] == "r3,r12"
    assert [s["system"] for s in provider.seen] == [
        [block, {"type": "text", "text": "Lesson: be kind."}], "short\n\nLesson: be kind.", "Lesson: be kind.",
    ]  # fmt: skip
    assert {s["model"] for s in provider.seen} == {"tiny-2"}


async def test_sdk_openai_reaches_anthropic(anthropics, provider):
    async with sdk(anthropics, max_retries=0) as client:
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
        made = await client.chat.completions.create(
            model="tiny-1", messages=ASK, tools=[TOOL], tool_choice="required", response_format=schema
        )
        assert made.model == "anthropic/tiny-1" and made.choices[0].finish_reason == "tool_calls"
        assert made.choices[0].message.tool_calls[0].function.arguments == '{"x": 1}'
        sent = provider.seen[0]
        assert (sent["model"], sent["tool_choice"]) == ("tiny-1", {"type": "any"})
        assert sent["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
        stream = await client.chat.completions.create(model="tiny-2", messages=ASK, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "reply to colours? "
        async with client.responses.stream(model="tiny-1", input="hi") as events:
            assert [e async for e in events][-1].response.output_text == "reply to hi "
        with pytest.raises(openai.BadRequestError, match="frequency_penalty is not supported by this model"):
            await client.chat.completions.create(model="tiny-1", messages=ASK, frequency_penalty=1.0)


# LangChain, LiteLLM ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def chain(chats):
    langchain_openai = pytest.importorskip("langchain_openai")
    made = langchain_openai.ChatOpenAI(model="any", base_url=f"{chats.url}/v1", api_key="none", max_retries=0)
    yield made
    await made.root_async_client.close()


async def test_sdk_langchain_invoke(chain):
    made = await chain.ainvoke("colours?")
    assert made.content == "reply 0 to colours?" and made.usage_metadata["total_tokens"] == 11


async def test_sdk_langchain_stream(chain):
    pieces = [c.content async for c in chain.astream("colours?")]
    assert "".join(pieces) == "reply 0 to colours? " and len([p for p in pieces if p]) == 4


async def test_sdk_langchain_tools(chain, provider):
    model = chain.bind_tools([TOOL])
    chunks = [c async for c in model.astream("weather")]
    whole = sum(chunks[1:], chunks[0])
    assert (whole.tool_calls[0]["name"], whole.tool_calls[0]["args"]) == ("look", {"x": 1})
    assert provider.seen[0]["tools"][0]["function"]["name"] == "look"


async def test_sdk_langchain_structured_output(chain, provider):
    message = {"role": "assistant", "content": '{"name": "red"}'}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    provider.plan.append(says(200, provider.frame("chat.completion", "tiny-1", [choice])))
    schema = {"title": "colour", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    made = await chain.with_structured_output(schema, method="json_schema").ainvoke("colours?")
    assert made == {"name": "red"} and provider.seen[0]["response_format"]["type"] == "json_schema"


READ_ONLY = pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")  # pydantic's, about litellm


async def litellm_asks(gateway, model, **more):
    from verbal.models.litellm import load_litellm

    litellm = load_litellm()
    base = f"{gateway.url}/v1" if model.startswith("openai/") else gateway.url
    return await litellm.acompletion(model=model, messages=ASK, api_base=base, api_key="none", max_retries=0, **more)


@pytest.fixture
async def lite():
    yield litellm_asks
    from verbal.models.litellm import load_litellm

    litellm = load_litellm()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@READ_ONLY
async def test_sdk_litellm_openai(chats, lite):
    made = await lite(chats, "openai/any")
    assert made.choices[0].message.content == "reply 0 to colours?" and made.usage.total_tokens == 11


@READ_ONLY
async def test_sdk_litellm_stream(chats, lite):
    stream = await lite(chats, "openai/any", stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "reply 0 to colours? "


@READ_ONLY
async def test_sdk_litellm_anthropic(anthropics, lite):
    made = await lite(anthropics, "anthropic/tiny-1", max_tokens=9)
    assert made.choices[0].message.content == "reply to colours?"
