"""Clients that mean harm: bodies that two readers read differently, limits that are gone around, secrets."""

from __future__ import annotations

import json

import pytest
from gateway_upstream import Kept, Provider, any_, between, post
from gateway_world import ASK
from hypothesis import given, settings
from hypothesis import strategies as st

from verbal.apps.gateway.exchange import Caller, Exchange
from verbal.apps.gateway.fields import read_body
from verbal.apps.gateway.forms import FORMS
from verbal.apps.gateway.forward import Wire, put_model
from verbal.apps.gateway.keys import Keys
from verbal.apps.gateway.messages import write_more
from verbal.apps.gateway.opened import Opened
from verbal.apps.gateway.refusal import Refusal
from verbal.apps.gateway.tokens import at_worst, estimate
from verbal.contracts import Reply, Sampling
from verbal.models import Price
from verbal.store import Store
from verbal.types import Message, Usage


@pytest.fixture
async def provider():
    async with Provider() as made:
        yield made


def exchange(text="hi", **fields):
    made = Exchange(
        caller=Caller(project="shop", key=fields.pop("key", "")), protocol="chat", route="default", model="m",
        messages=(Message(role="user", content=text),), sampling=fields.pop("sampling", Sampling(max_tokens=10)),
    )  # fmt: skip
    for name, value in fields.items():
        setattr(made, name, value)
    return made


# bodies that two readers read differently -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"model": "any", "model": "dear", "messages": []}', "'model' stands twice"),
        (b'{"model": "any", "mod\\u0065l": "dear", "messages": []}', "'model' stands twice"),
        (b'{"model": "any", "messages": [{"role": "user", "role": "system"}]}', "'role' stands twice"),
        (b'{"model": "any", "Model": "dear", "messages": []}', "write 'model'"),
        ('{"model": "any", "max_to\u212aens": 9, "messages": []}'.encode(), "write 'max_tokens'"),
        (b'{"model": "any", "N": 100, "messages": [{"role": "user", "content": "hi"}]}', "write 'n'"),
    ],
)
async def test_a_field_that_stands_twice_or_is_spelt_otherwise_never_gets_behind(provider, raw, said):
    async with between(provider, "http/tiny-1@{url}/v1") as gateway:
        status, _, told = await post(gateway, raw)
    assert status == 400 and said in json.loads(told)["error"]["message"] and not provider.seen


def test_of_many_names_the_one_that_stands_twice_is_found_fast():
    names = ",".join(f'"k{i}":0' for i in range(200_000))
    with pytest.raises(Refusal, match="'k199999' stands twice"):
        read_body(f'{{{names},"k199999":1}}'.encode())


def test_a_model_is_not_hidden_behind_an_escaped_name():
    raw = b'{"mod\\u0065l":"dear","metadata":{"model":"dear"},"messages":[]}'
    assert json.loads(put_model(raw, "dear", "cheap"))["model"] == "cheap"
    plain = b'{"model":"dear","messages":["\\u00e4"]}'
    assert put_model(plain, "dear", "cheap") == plain.replace(b"dear", b"cheap")


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": "100000"},
        {"max_completion_tokens": 1e5},
        {"n": "9"},
        {"n": 9.0},
        {"stream": "yes"},
        {"stream": 1},
    ],
)
async def test_what_decides_the_cost_is_read_as_the_server_behind_reads_it_or_refused(provider, more):
    async with between(provider, "http/tiny-1@{url}/v1") as gateway:
        status, _, told = await post(gateway, any_(**more))
    assert status == 400 and json.loads(told)["error"]["param"] in more and not provider.seen


_JSON = st.recursive(
    st.sampled_from([None, True, 0, -1, 1.5, 2**70, "", "auto", "user", "text", "tool_use", "json_schema", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "text", "name", "id", "call_id", "function", "input", "schema",
                         "arguments", "tool_calls", "json_schema", "effort", "format"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
_FIELDS = ("messages", "input", "system", "instructions", "tools", "tool_choice", "response_format", "text",
           "reasoning", "output_config", "stop", "stream_options", "max_tokens", "n", "thinking")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    body=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4), form=st.sampled_from(FORMS), loose=st.booleans()
)
def test_any_body_is_read_or_refused(body, form, loose):
    body = {"model": "m", "messages": ASK, "input": "hi", "max_tokens": 5} | body
    body.pop("messages" if form.name == "responses" else "input")
    try:
        asked = form.read(body, loose=loose)
        write_more(asked.more)
        taught = dict(body)
        form.teach(taught, "lesson")
        json.dumps(taught)
    except Refusal as refused:
        assert refused.status == 400


# limits ---------------------------------------------------------------------------------------------------------------


def test_the_worst_counts_every_reply_tools_images_and_letters_that_are_many_tokens():
    assert at_worst(exchange("a" * 250)) == (108, 10)
    assert at_worst(exchange(n=5))[1] == 50
    assert at_worst(exchange("\u4e16" * 250))[0] == 308
    assert at_worst(exchange("[image_url]"))[0] > 1500
    tools = ({"type": "function", "function": {"name": "f", "description": "x" * 5000}},)
    assert at_worst(exchange(sampling=Sampling(tools=tools)))[0] > 2000


async def test_many_replies_to_one_request_do_not_get_past_a_limit(tmp_path):
    with Store(tmp_path / "v.db") as store:
        key = store.add_key("shop", {"max_cost": 50.0})
        gate = Keys(store)
        caller = gate.admit({"x-api-key": key})
        dollar = Price(prompt=0.0, completion=1e6)
        gate.allow(exchange(key=caller.key, n=3), dollar)
        with pytest.raises(Refusal, match="30 set aside"):
            gate.allow(exchange(key=caller.key, n=3), dollar)


async def test_of_two_limits_of_tokens_the_larger_one_is_set_aside(provider):
    door = Kept()
    async with between(provider, "http/tiny-1@{url}/v1", door=door) as gateway:
        assert (await post(gateway, any_(max_completion_tokens=1, max_tokens=5000)))[0] == 200
        assert (await post(gateway, any_(n=200, max_tokens=-1)))[0] == 200  # as llama.cpp: no limit
    assert door.exchanges[0].sampling.max_tokens == 5000 and door.exchanges[1].n == 200


@pytest.mark.parametrize("options", [{"include_usage": False}, {}, None, {"include_usage": "no"}])
async def test_a_stream_is_counted_whatever_a_client_says_of_its_usage(provider, options):
    door = Kept()
    async with between(provider, "http/tiny-1@{url}/v1", door=door) as gateway:
        status, _, raw = await post(gateway, any_(stream=True, stream_options=options))
    assert status == 200 and provider.seen[0]["stream_options"]["include_usage"] is True
    assert door.last.usage.tokens > 0 and door.last.guess is None
    assert b'"choices": []' not in raw and b"[DONE]" in raw


def test_what_no_model_counted_is_estimated():
    cut = exchange("a" * 40, status=200, error="it broke", reply=Reply(text="b" * 20, finish="error"))
    assert (estimate(cut).prompt_tokens, estimate(cut).completion_tokens) == (14, 5)
    unseen = exchange(status=499, seconds=1e6, n=2)
    assert estimate(unseen).completion_tokens == 20  # no more than was asked for
    assert estimate(exchange(status=503)) is None
    told = Reply(text="x", usage=Usage(calls=1, prompt_tokens=1, completion_tokens=1))
    assert estimate(exchange(status=499, reply=told)) is None


# secrets --------------------------------------------------------------------------------------------------------------


def test_no_key_stands_in_what_is_printed_of_an_object():
    key = "sk-verbal-0123456789"
    wire = Wire(urls={}, headers={"Authorization": f"Bearer {key}"}, model="m")
    assert key not in repr(wire) and key not in repr(Opened(gateway=None, key=key))  # type: ignore[arg-type]
